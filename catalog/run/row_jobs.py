"""The jobs of a row, by their idempotency keys: whoever makes the same key means the same job.

A row has one job for each of its tries. A job that is lost to the row is followed by one under the
next key, and so is one whose key stands for another photo since (409 `idempotency_conflict`). So
the job of a try is the last one that is there: numbers are given without gaps.
"""

import re

NEW_JOBS = 10
"""That a try may ask for, one after the other was lost to it."""


def job_key(run_id: str, row: int, try_number: int, again: int, round_: int) -> str:
    """The idempotency key of a row's job. `again`: how many jobs of this try came before, up to
    NEW_JOBS; `round_`: how often the row's failure was tried again."""
    return f"{run_id}:{row}:{try_number}:{again}:{round_}"


def is_job_key(run_id: str, key: str) -> bool:
    """Whether `job_key` makes such keys; a tenant may give any to videos of his own."""
    return re.fullmatch(rf"{re.escape(run_id)}(:\d+){{4}}", key) is not None


def row_of_key(key: str) -> int:
    return int(key.split(":")[1])


def is_lost(status: str, kept: bool) -> bool:
    """Of a job: somebody cancelled it, or it was completed and its files are `kept` no more."""
    return status == "cancelled" or (status == "completed" and not kept)
