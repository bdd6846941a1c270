"""Writes the requirements of a release with the hash of every file, from pip's own report of what it would install.

    python -m pip install --dry-run --ignore-installed --report report.json -c constraints.txt '.[server]'
    python .ci/release_requirements.py report.json > requirements.txt
    python -m pip install --require-hashes -r requirements.txt

Hashes are those of the files for the platform and the Python that made the report. Runs before anything is installed,
so it needs the standard library only.
"""

import json
import sys
from pathlib import Path
from typing import Any


def requirements(report: dict[str, Any]) -> str:
    """Lines for pip: name==version and the sha256 of its file. The package itself, which no index has, is left out.

    Raises ValueError if a file has no hash or does not come from an index.
    """
    lines = []
    for entry in report["install"]:
        name, version = entry["metadata"]["name"], entry["metadata"]["version"]
        source = entry["download_info"]
        if "dir_info" in source:
            continue
        sha256 = source.get("archive_info", {}).get("hashes", {}).get("sha256")
        if sha256 is None or not source["url"].startswith("https://"):
            raise ValueError(f"{name}=={version} has no sha256 of a file from an index. Make the report again.")
        lines.append(f"{name.lower()}=={version} --hash=sha256:{sha256}\n")
    if not lines:
        raise ValueError("the report installs nothing. Make it with --ignore-installed.")
    return "".join(sorted(lines))


if __name__ == "__main__":
    sys.stdout.write(requirements(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
