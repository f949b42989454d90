"""errors.csv: every row that has no video, with the reason, to open in a spreadsheet."""

import csv
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from catalog.report.advice import advice_on
from catalog.report.summary import RunSummary
from catalog.results.commit import read_standing_parts
from catalog.results.output import RunOutput
from catalog.results.part import read_part
from catalog.results.row import ResultSchema, RowStatus

_COLUMNS = ("row", "sku", "title", "status", "error_code", "error_message", "attempts", "video_id")


def write_errors(output: RunOutput, summary: RunSummary, path: Path) -> int:
    """Reads the faulty parts only, a few at a time. Says how many rows were written.

    Raises OSError, PartDamaged and StorageError.
    """
    written = 0
    # With a byte order mark: without it Excel takes UTF-8 for the local code page.
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        out = csv.writer(file)
        for rows in _faulty_rows(output, summary):
            echoed = [name for name in rows.column_names if name not in _OWN]
            if not written:
                out.writerow([*_COLUMNS, "what_to_do", *map(harmless, echoed)])
            for row in rows.to_pylist():
                remedy = advice_on(row["error_code"]).remedy if row["error_code"] else ""
                values = (
                    *(row[name] for name in _COLUMNS),
                    remedy,
                    *(row[name] for name in echoed),
                )
                out.writerow([harmless(value) for value in values])
            written += rows.num_rows
        if not written:
            out.writerow([*_COLUMNS, "what_to_do"])
    return written


def _faulty_rows(output: RunOutput, summary: RunSummary) -> Iterator[pa.Table]:
    """Tables of one row or more."""
    for marker, data in read_standing_parts(output, summary.faulty):
        table = read_part(marker.part_key, data)
        rows = table.filter(pc.not_equal(table["status"], RowStatus.OK.value))
        if rows.num_rows:  # else another driver has made them since the summary
            yield rows


_FORMULA_SIGNS = tuple("=+-@\uff1d\uff0b\uff0d\uff20")
_OWN = frozenset(ResultSchema().arrow.names)


def harmless(value: object) -> object:
    """Text that a spreadsheet would run as a formula gets an apostrophe in front, which it hides.

    Source: OWASP, CSV Injection; the full-width signs count too.
    """
    if isinstance(value, str) and value.lstrip().startswith(_FORMULA_SIGNS):
        return f"'{value}"
    return value
