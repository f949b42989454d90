"""Writing a run's report: beside its results, or into any folder of this machine."""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

from catalog.report.errors_csv import write_errors
from catalog.report.page import report_html
from catalog.report.posters import posters
from catalog.report.run_json import run_json
from catalog.report.summary import RunPlan, RunSummary, summarise
from catalog.results.output import RunOutput
from storage.errors import ObjectNotFound

ERRORS, REPORT, RUN_JSON = "errors.csv", "report.html", "run.json"
FILES = {
    ERRORS: "text/csv; charset=utf-8",
    REPORT: "text/html; charset=utf-8",
    RUN_JSON: "application/json",  # the last one: whoever finds it finds the others
}


def publish_report(
    output: RunOutput, plan: RunPlan, now: float, stopped: str | None = None
) -> RunSummary:
    """Writes errors.csv, report.html and, last, run.json.

    `now` is Unix seconds; `stopped` says why the run ends before its end. Raises ResultsError,
    StorageError, and OSError where errors.csv finds no room on the local disk.
    """
    with tempfile.TemporaryDirectory(prefix="shopreel-") as temp:
        summary = write_report(output, plan, Path(temp), now, stopped)
        for name, media_type in FILES.items():
            output.objects.put_file(output.key(name), Path(temp) / name, media_type)
    return summary


def write_report(
    output: RunOutput, plan: RunPlan, folder: Path, now: float, stopped: str | None = None
) -> RunSummary:
    """FILES into a folder of this machine; the run's own stay as they are. Raises as
    `publish_report` does."""
    summary = summarise(output, plan, stopped)
    write_errors(output, summary, folder / ERRORS)
    shown = (*summary.tally.samples, *summary.tally.worst)
    page = report_html(output, summary, posters(output, shown), now)
    (folder / REPORT).write_bytes(page)
    (folder / RUN_JSON).write_bytes(run_json(summary, now))
    return summary


@dataclass(frozen=True, slots=True)
class Published:
    """What run.json says of a run."""

    completed: bool
    stopped: str | None  # why, where the run ended before its end
    rows: int
    ok: int
    failed: int
    written_at: float  # Unix seconds


def published(output: RunOutput) -> Published | None:
    """None: no driver of this run has left yet. Raises StorageError."""
    try:
        found = json.loads(output.objects.get(output.key(RUN_JSON)))
    except ObjectNotFound:
        return None
    rows = found["rows"]
    return Published(
        found["status"] == "completed",
        found["stopped_because"],
        rows["total"],
        rows["ok"],
        rows["failed"],
        found["written_at"],
    )
