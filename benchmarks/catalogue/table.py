"""Whether a run's final table is right: every row once, as it must be, and nothing made twice."""

import hashlib
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow.parquet as pq

from benchmarks.catalogue.kills import Kill
from benchmarks.catalogue.products import Products
from catalog.results.commit import finished_shards, read_markers
from catalog.results.output import RunOutput
from storage.jobs import Job, JobStatus

Row = dict[str, Any]


def read_table(output: RunOutput) -> list[Row]:
    """All of `results/`, as whoever reads the folder finds it."""
    parts = output.objects.iter_objects(output.key("results/"))
    tables = [pq.read_table(io.BytesIO(output.objects.get(part.key))) for part in parts]
    return [row for table in tables for row in table.to_pylist()]


def wrong_rows(table: Sequence[Row], products: Products, output: RunOutput) -> list[str]:
    """In words; empty for a table that is right."""
    counts = Counter(row["row"] for row in table)
    rows = range(products.rows)
    wrong = [f"row {row} comes {counts[row]} times" for row in rows if counts[row] != 1]
    wrong += [f"row {row} is of no manifest" for row in counts if row >= products.rows]
    for row in table:
        expected, found = products.problems.get(row["row"]), row["error_code"]
        if found != expected:
            wrong.append(f"row {row['row']}: {found} instead of {expected}: {row['error_message']}")
        elif expected is None:
            wrong += _wrong_video(row, output)
        elif row["error_type"] != "invalid_request_error" or not row["error_message"]:
            wrong.append(f"row {row['row']}: {expected} without message, or of another's fault")
    return wrong


def done_twice(jobs: Sequence[Job], products: Products, kills: Sequence[Kill]) -> list[str]:
    """Work that was finished and made again, in words."""
    skus = Counter(job.request.sku for job in jobs)
    again = [f"{sku} is {count} jobs" for sku, count in skus.items() if count > 1]
    if len(jobs) != products.jobs:
        again.append(f"{len(jobs)} jobs for {products.jobs} rows")
    results = {job.request.result_id for job in jobs}
    if len(results) != products.videos:
        again.append(f"{len(results)} results for {products.videos} videos")
    now = {job.id: job for job in jobs}
    for kill in kills:
        for job_id, attempt in kill.completed.items():
            job = now[job_id]
            if job.status is not JobStatus.COMPLETED or job.attempt != attempt:
                again.append(f"{job_id}, completed at the {kill.victim}'s kill, is {job.status}")
    return again


def changed_shards(output: RunOutput, kills: Sequence[Kill]) -> list[str]:
    """Of those that were committed when something was killed."""
    markers = read_markers(output, finished_shards(output).values())
    now = {marker.shard: marker.sha256 for marker in markers}
    return [
        f"shard {shard}, committed before the {kill.victim}'s kill, is another one"
        for kill in kills
        for shard, digest in kill.shards.items()
        if now.get(shard) != digest
    ]


def attempts(jobs: Sequence[Job]) -> Mapping[int, int]:
    """Attempts -> jobs. 0: another job's result; 2: it was under way when its stage was lost."""
    return dict(sorted(Counter(job.attempt for job in jobs).items()))


def _wrong_video(row: Row, output: RunOutput) -> list[str]:
    key = output.key_of(row["video_uri"]) if row["status"] == "ok" else None
    if key is None:
        return [f"row {row['row']} is {row['status']}, its video {row['video_uri']}"]
    content = output.objects.get(key)
    if hashlib.sha256(content).hexdigest() != row["sha256"]:
        return [f"row {row['row']}: {row['video_uri']} is not what the table says"]
    return []
