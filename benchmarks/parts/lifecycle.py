"""Retention on a table of a million ended jobs: how long the one writer is held from creations."""

import statistics
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
from sqlalchemy import Connection, text

from diffusion.params import SamplingParams
from storage.job_store import JobStoreConfig, SqlJobStore
from storage.jobs import JobRequest, OutputParams, VideoFile
from storage.lifecycle import forgetting
from storage.sql.tables import jobs

ROWS, BATCH = 1_000_000, 500
_PAUSE_S = 0.01
_VIDEO = VideoFile("r", "v", "p", "s", "m", "0" * 64, 1, 64, 64, 8, 8.0, 1.0)


def measure() -> dict[str, Any]:
    """All of them are deleted while jobs are created, a hundred a second where that is possible."""
    with TemporaryDirectory() as folder:
        store = SqlJobStore(JobStoreConfig(url=f"sqlite:///{Path(folder) / 'jobs.sqlite'}"))
        store.create(_request("template"), results=[_VIDEO])
        with store.database.writing() as db:
            insert_copies(db, "template", ROWS)
        before_bytes = psutil.Process().memory_info().rss
        waits: list[float] = []
        ended = threading.Event()
        creator = threading.Thread(target=_create, args=(store, ended, waits))
        creator.start()
        begun = time.perf_counter()
        held_s, forgotten = _forget_all(store)
        seconds = time.perf_counter() - begun
        ended.set()
        creator.join()
        grown_bytes = psutil.Process().memory_info().rss - before_bytes
        store.close()
    assert forgotten == ROWS
    return {
        "rows": ROWS,
        "rows_per_transaction": BATCH,
        "seconds": round(seconds, 1),
        "rows_per_second": round(ROWS / seconds),
        "writer_held_ms": _spread_ms(held_s),
        "creation_ms": _spread_ms(waits),
        "creations": len(waits),
        "memory_grown_mb": round(grown_bytes / 1e6, 1),
    }


def _create(store: SqlJobStore, ended: threading.Event, waits: list[float]) -> None:
    while not ended.wait(_PAUSE_S):
        begun = time.perf_counter()
        store.create(_request(f"new-{len(waits)}"))
        waits.append(time.perf_counter() - begun)


def _forget_all(store: SqlJobStore) -> tuple[list[float], int]:
    held_s, forgotten, done = [], 0, 1
    while done:
        with store.database.writing() as db:
            begun = time.perf_counter()
            done = forgetting.forget_ended(db, 1e6, BATCH, time.time())
        held_s.append(time.perf_counter() - begun)
        forgotten += done
    return held_s, forgotten


def _spread_ms(seconds: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(seconds, n=100)
    named = {"p50": cuts[49], "p95": cuts[94], "p99": cuts[98], "longest": max(seconds)}
    return {name: round(1000 * value, 2) for name, value in named.items()}


def insert_copies(db: Connection, job_id: str, count: int) -> None:
    """Rows like that of an ended job, by plain SQL: completed at 0.001 s, 0.002 s, ... after 1970,
    each two with one result."""
    own = ("seq", "id", "result_id", "completed_at")
    names = ", ".join(column.name for column in jobs.c if column.name not in own)
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :count)"
    rows = f"SELECT 'copy-' || i, 'r' || (i / 2), i / 1000.0, {names} FROM n, jobs WHERE id = :id"
    db.execute(
        text(f"{numbers} INSERT INTO jobs (id, result_id, completed_at, {names}) {rows}"),
        {"count": count, "id": job_id},
    )


def _request(job_id: str) -> JobRequest:
    return JobRequest(
        id=job_id,
        tenant="shop",
        model="i2vgen-xl",
        model_revision="0" * 64,
        photo_key="inputs/shop/0",
        photo_sha256="0" * 64,
        sampling=SamplingParams("a bag turns", "", 64, 64, 8, 4, 9.0, 16, seed=1),
        output=OutputParams(fit="crop", fps=8.0, inbetweens=0),
        preset="preview",
    )
