"""Writes the files that are kept with the models from the records of their training: figures, sources, curves.

`python -m outrider_recipe.report --leg WORK [--leg WORK ...] --zoo zoo`, one work folder per leg of training of `tiny`,
in order; figures and sources are those of the last. With `--hybrid WORK` instead, the figures of `tiny-hybrid` are
added to the file. Trains and measures nothing.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

SEPARATE = ("samples", "errors")  # parts of the figures that are read once and not kept

NOTES_HEAD = """# What the models in this folder were trained on

Python source found on the training machine: the standard library, and those installed packages whose own metadata
states a licence on the list in `recipe/outrider_recipe/licences.py` (MIT, BSD, Apache-2.0, PSF, ISC). Packages that
state anything else, or nothing, were refused, also where the other licence concerned bundled binaries only. Left out as
well: vendored folders, generated files, files whose own head names another licence, and two of three test files.
The texts themselves are not in this repository. `recipe/outrider_recipe/arithmetic`, which is ours, generated the word
problems. The model weights are under this repository's licence; a model of this size can nevertheless repeat short
stretches of what it saw, so treat code that it writes as you would treat code found elsewhere.

"""


def without_texts(figures: dict[str, Any]) -> dict[str, Any]:
    """Figures without samples and without the texts of errors."""
    kept = {}
    for name, value in figures.items():
        if not any(word in name for word in SEPARATE):
            kept[name] = without_texts(value) if isinstance(value, dict) else value
    return kept


def licence_notes(sources: dict[str, Any]) -> str:
    packages = sources["packages"]
    lines = [NOTES_HEAD.rstrip(), ""]
    total = sum(package["bytes"] for package in packages.values())
    lines.append(
        f"{len(packages)} packages, {total / 1e6:.0f} million bytes after cleaning: {sources['training_files']} "
        f"training files, {sources['held_out_files']} held out (one file in fifty, by a hash of its path; held-out "
        "files whose lines also occur in training files were dropped)."
    )
    lines += ["", "| package | version | licence as its metadata states it | files | bytes |", "|---|---|---|---|---|"]
    for name in sorted(packages, key=str.lower):
        package = packages[name]
        licence = " ".join(package["licence"].replace("|", "/").split())
        lines.append(f"| {name} | {package['version']} | {licence} | {package['files']} | {package['bytes']} |")
    lines += ["", f"Refused: {', '.join(sorted(sources['refused_packages'], key=str.lower))}."]
    return "\n".join(lines) + "\n"


def draw_curves(legs: Sequence[dict[str, Any]], head: dict[str, Any], path: Path) -> None:
    """Two small panels: loss of the target over its legs, loss of the head per draft step."""
    figure = Figure(figsize=(9, 3.2), dpi=90)
    left, right = figure.subplots(1, 2)
    begin = 0
    for number, leg in enumerate(legs, start=1):
        steps = [begin + step for step in leg["steps"]]
        left.plot(steps, [sum(parts) for parts in leg["losses"]], linewidth=1, label=f"leg {number}")
        begin = steps[-1]
    left.set(title="target", xlabel="step", ylabel="nats per token of the mixture", ylim=(0.6, 2.5))
    left.legend()
    for index in range(len(head["losses"][0])):
        losses = [parts[index] for parts in head["losses"]]
        right.plot(head["steps"], losses, linewidth=1, label=f"draft step {index + 1}")
    right.set(title="EAGLE-3 head", xlabel="step", ylabel="weighted cross-entropy", ylim=(0.5, 3))
    right.legend()
    figure.tight_layout()
    figure.savefig(path, metadata={"Software": None})


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m outrider_recipe.report", description=__doc__)
    records = parser.add_mutually_exclusive_group(required=True)
    records.add_argument("--leg", type=Path, action="append")
    records.add_argument("--hybrid", type=Path)
    parser.add_argument("--zoo", type=Path, required=True)
    options = parser.parse_args()
    if options.hybrid is not None:
        kept = json.loads((options.zoo / "figures.json").read_text())
        _write_figures(options.zoo, kept | {"hybrid": hybrid_figures(options.hybrid)})
    else:
        report_tiny(options.leg, options.zoo)


def report_tiny(work: Sequence[Path], zoo: Path) -> None:
    last = work[-1]
    legs = [_read(folder, "target-curve") for folder in work]
    head = _read(last, "eagle3-curve")
    figures = {
        "target": without_texts(_read(last, "target-figures")),
        "eagle3": _read(last, "eagle3-figures"),
        "training": {"target": [_settings(leg) for leg in legs], "eagle3": _settings(head)},
    }
    _write_figures(zoo, figures)
    (zoo / "LICENSE-NOTES.md").write_text(licence_notes(_read(last, "sources")))
    draw_curves(legs, head, zoo / "curves.png")


def hybrid_figures(work: Path) -> dict[str, Any]:
    curves = {"target": _read(work, "target-curve"), "mtp": _read(work, "mtp-curve")}
    return {
        "target": without_texts(_read(work, "target-figures")),
        "mtp": _read(work, "mtp-figures"),
        "training": {name: _settings(curve) for name, curve in curves.items()},
    }


def _read(folder: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
    return content


def _write_figures(zoo: Path, figures: dict[str, Any]) -> None:
    (zoo / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")


def _settings(curve: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in curve.items() if name not in ("steps", "losses", "seconds")}
    return kept | {"steps_made": curve["steps"][-1], "seconds": curve["seconds"][-1], "last_loss": curve["losses"][-1]}


if __name__ == "__main__":
    main()
