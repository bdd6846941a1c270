"""The verdict of `outrider verify`: all findings, as data and on a terminal."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from outrider.core.version import VERSION
from outrider.invariance.check import Finding
from outrider.verify.engine_check import EngineFinding

_MOST_SHOWN = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """All findings on one device for one model."""

    model: str
    platform: Mapping[str, str]
    """See `BasePlatform.key`; the attention backend and the kernels of the model, too."""
    device: str
    is_quick: bool
    kernels: Sequence[Finding]
    engine: Sequence[EngineFinding]
    seconds: float

    @property
    def passes(self) -> bool:
        """True if nothing differed."""
        return not self.differences

    @property
    def differences(self) -> list[str]:
        """One line for each difference."""
        return [f"{finding.kernel}: {said}" for finding in self.kernels for said in finding.differences] + [
            f"{finding.name}: {said}" for finding in self.engine for said in finding.differences
        ]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "outrider": VERSION,
            "model": self.model,
            "platform": dict(self.platform),
            "device": self.device,
            "quick": self.is_quick,
            "exact": self.passes,
            "seconds": round(self.seconds, 2),
            "kernels": [asdict(finding) for finding in self.kernels],
            "engine": [asdict(finding) for finding in self.engine],
        }

    def shown(self) -> RenderableType:
        """Tables and the verdict, for a terminal."""
        table = Table(title=f"Kernels on {self.device}", title_justify="left")
        for column in ("kernel", "stack", "shapes", "forms", ""):
            table.add_column(column, overflow="fold", justify="right" if column in ("shapes", "forms") else "left")
        for finding in self.kernels:
            forms = f"{finding.num_forms}" + (f" (of {_all_forms(finding)})" if finding.num_left_out else "")
            table.add_row(finding.kernel, finding.stack, str(finding.num_cases), forms, _mark(finding.differences))
        parts: list[RenderableType] = [table]
        if self.engine:
            runs = Table(title="Engine", title_justify="left")
            for column in ("requests", "number", ""):
                runs.add_column(column, justify="right" if column == "number" else "left")
            for run in self.engine:
                number = f"{run.num_requests}" + (
                    f" (of {run.num_requests + run.num_left_out})" if run.num_left_out else ""
                )
                runs.add_row(run.name, number, _mark(run.differences))
            parts.append(runs)
        return Group(*parts, self._conclusion())

    def _conclusion(self) -> Text:
        seconds = f"in {self.seconds:.0f} s"
        if self.passes:
            quick = "short form; " if self.is_quick else ""
            return Text(f"exact: every form gave the same bits ({quick}{seconds})", style="bold green")
        lines = self.differences
        shown = [f"  {line}" for line in lines[:_MOST_SHOWN]]
        if len(lines) > _MOST_SHOWN:
            shown.append(f"  and {len(lines) - _MOST_SHOWN} more; --output-json has all of them")
        return Text(
            "\n".join([f"NOT EXACT: {len(lines)} difference{'' if len(lines) == 1 else 's'} ({seconds})", *shown]),
            style="bold red",
        )


def _all_forms(finding: Finding) -> int:
    return finding.num_forms + finding.num_left_out


def _mark(differences: Sequence[str]) -> Text:
    if not differences:
        return Text("equal", style="green")
    return Text(f"{len(differences)} differ", style="bold red")
