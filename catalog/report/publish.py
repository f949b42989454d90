"""Writing a run's report beside its results; at any time, as often as wanted."""

import tempfile
from pathlib import Path

from catalog.report.errors_csv import write_errors
from catalog.report.page import report_html
from catalog.report.posters import posters
from catalog.report.run_json import run_json
from catalog.report.summary import RunPlan, RunSummary, summarise
from catalog.results.output import RunOutput


def publish_report(
    output: RunOutput, plan: RunPlan, now: float, stopped: str | None = None
) -> RunSummary:
    """Writes errors.csv, report.html and, last, run.json.

    `now` is Unix seconds; `stopped` says why the run ends before its end. Raises ResultsError,
    StorageError, and OSError where errors.csv finds no room on the local disk.
    """
    summary = summarise(output, plan, stopped)
    with tempfile.TemporaryDirectory(prefix="shopreel-") as folder:
        errors = Path(folder) / "errors.csv"
        write_errors(output, summary, errors)
        output.objects.put_file(output.key("errors.csv"), errors, "text/csv; charset=utf-8")
    shown = (*summary.tally.samples, *summary.tally.worst)
    page = report_html(output, summary, posters(output, shown), now)
    output.objects.put(output.key("report.html"), page, "text/html; charset=utf-8")
    output.objects.put(output.key("run.json"), run_json(summary, now), "application/json")
    return summary
