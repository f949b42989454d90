"""What the fault tests found out: faults put in, jobs accepted, jobs lost, duplicate results, time
to recover. A table at the end of the run, and with --fault-table a file beside the benchmarks."""

from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

_WIDTH = 110


@dataclass(frozen=True, slots=True)
class Finding:
    row: int  # of the fault table
    fault: str  # in words
    injected: int  # how often
    accepted: int  # jobs that the service had said yes to
    lost: int  # of these, without an end or without their video
    duplicates: int  # results visible beside the one
    recovery_s: float | None  # from the end of the fault to normal service; None: never away


class FaultLog:
    """The findings of one run."""

    def __init__(self) -> None:
        self._findings: list[Finding] = []

    def __len__(self) -> int:
        return len(self._findings)

    def record(
        self,
        row: int,
        fault: str,
        *,
        injected: int,
        accepted: int,
        lost: int,
        duplicates: int,
        recovery_s: float | None = None,
    ) -> None:
        """Call it before you assert: what went wrong belongs into the table too."""
        self._findings.append(Finding(row, fault, injected, accepted, lost, duplicates, recovery_s))

    def figures(self) -> dict[str, Any]:
        findings = sorted(self._findings, key=lambda finding: finding.row)
        recoveries = [f.recovery_s for f in findings if f.recovery_s is not None]
        totals: dict[str, Any] = {
            name: sum(getattr(finding, name) for finding in findings)
            for name in ("injected", "accepted", "lost", "duplicates")
        }
        totals["longest_recovery_s"] = max(recoveries, default=None)
        return {"faults": [asdict(finding) for finding in findings], "totals": totals}

    def table(self) -> str:
        figures = self.figures()
        totals = figures["totals"]
        table = Table(title="Faults", show_footer=True)
        table.add_column("row", justify="right")
        table.add_column("fault", "in all; longest recovery")
        for heading, name in (
            ("injected", "injected"),
            ("jobs accepted", "accepted"),
            ("jobs lost", "lost"),
            ("duplicate results", "duplicates"),
        ):
            table.add_column(heading, str(totals[name]), justify="right")
        table.add_column("recovery s", _seconds(totals["longest_recovery_s"]), justify="right")
        for finding in figures["faults"]:
            *cells, recovery_s = finding.values()
            table.add_row(*map(str, cells), _seconds(recovery_s))
        console = Console(width=_WIDTH, no_color=True)
        with console.capture() as captured:
            console.print(table)
        return captured.get()


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
