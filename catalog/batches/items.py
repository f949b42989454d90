"""What became of each row of a batch so far, a page at a time.

Finished shards are read from their parts, and from the job table where a row is tried again; rows
of the others from the pinned manifest and the job table. A page looks into so many shards and no
more, however few of their rows it wants.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Any

from catalog.manifest.pinned import PinnedManifest
from catalog.manifest.rows import BadRow, Row
from catalog.report.summary import RunPlan
from catalog.results.commit import finished_shards, read_markers, read_standing
from catalog.results.output import RunOutput
from catalog.results.part import Shard, read_part
from catalog.results.row import RowStatus
from catalog.run.options import RunOptions
from catalog.run.plan import read_plan, shards_of
from catalog.run.row_jobs import NEW_JOBS, is_job_key, is_lost, job_key, row_of_key
from storage.batches import SqlBatches
from storage.jobs import Job, JobStatus

_SHARDS_A_PAGE = 32
_ROWS_AT_ONCE = 100
"""Whose jobs are looked up together."""


class ItemStatus(StrEnum):
    PENDING = "pending"  # not begun
    QUEUED = "queued"
    IN_PROGRESS = "in_progress"
    OK = "ok"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        return self.value in set(RowStatus)


@dataclass(frozen=True, slots=True)
class Item:
    row: int  # of the manifest, from 0
    status: ItemStatus
    sku: str | None
    video_id: str | None = None
    error_code: str | None = None
    error_message: str | None = None
    video_uri: str | None = None  # this and the next: once its shard is finished
    poster_uri: str | None = None
    score: float | None = None
    seconds: float | None = None
    gpu_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Page:
    items: Sequence[Item]
    seen: int  # the last row that was looked at; -1: none
    more: bool  # rows behind that


class BatchItems:
    """Of one run. Every method raises StorageError, ResultsError and CatalogError."""

    def __init__(
        self, output: RunOutput, options: RunOptions, tenant: str, batches: SqlBatches
    ) -> None:
        self._output, self._options, self._tenant = output, options, tenant
        self._batches = batches

    def page(self, status: ItemStatus | None, after: int, limit: int) -> Page:
        """Rows behind row `after` (-1: from the first) of this status, in order. Nothing before the
        manifest has been read."""
        plan, manifest = self._plan()
        if plan is None or manifest is None:
            return Page((), after, False)
        if status in (ItemStatus.QUEUED, ItemStatus.IN_PROGRESS):
            return self._live(status, plan, after, limit)
        shards = [s for s in shards_of(manifest, plan.rows) if s.first_row + s.rows > after + 1]
        finished = finished_shards(self._output)
        if status is ItemStatus.PENDING:
            shards = [shard for shard in shards if shard.id not in finished]
        live = cache(self._live_jobs)  # by one query, where a page needs it at all
        items: list[Item] = []
        for shard in shards[:_SHARDS_A_PAGE]:
            marker_key = finished.get(shard.id)
            rows = self._finished(marker_key, live) if marker_key else self._unfinished(manifest)
            for item in rows(shard, status, after):
                if status in (None, item.status):
                    items.append(item)
                    if len(items) == limit:
                        return Page(items, item.row, item.row + 1 < plan.rows)
            after = max(after, shard.first_row + shard.rows - 1)
        more = len(shards) > _SHARDS_A_PAGE
        return Page(items, after, more)

    def _plan(self) -> tuple[RunPlan | None, PinnedManifest | None]:
        plan = read_plan(self._output)
        if plan is None:
            return None, None
        return plan, PinnedManifest.open(self._output.objects, self._output.prefix)

    def _live(self, status: ItemStatus, plan: RunPlan, after: int, limit: int) -> Page:
        """Few at any time, so straight from the job table."""
        by_row = self._live_jobs()
        wanted = JobStatus.QUEUED if status is ItemStatus.QUEUED else JobStatus.IN_PROGRESS
        found = [
            _under_way(row, job)
            for row, job in sorted(by_row.items(), key=lambda pair: pair[0])
            if row > after and job.status is wanted
        ]
        items = found[:limit]
        return Page(items, items[-1].row if items else plan.rows - 1, len(found) > limit)

    def _live_jobs(self) -> Mapping[int, Job]:
        run_id = self._output.run_id
        jobs = self._batches.live_jobs(self._tenant, run_id)
        return {row_of_key(key): job for key, job in jobs.items() if is_job_key(run_id, key)}

    def _finished(
        self, marker_key: str, live: Callable[[], Mapping[int, Job]]
    ) -> Callable[[Shard, ItemStatus | None, int], Iterator[Item]]:
        def rows(shard: Shard, status: ItemStatus | None, after: int) -> Iterator[Item]:
            (marker,) = read_markers(self._output, [marker_key])
            if status is not None and not marker.tally.count(RowStatus(status.value)):
                return
            marker, data = read_standing(self._output, marker)
            table = read_part(marker.part_key, data)
            columns = [name for name in _COLUMNS if name in table.column_names]
            first = max(0, after + 1 - shard.first_row)
            for cells in table.select(columns).slice(first).to_pylist():
                item = Item(**cells | {"status": ItemStatus(cells["status"])})
                again = None if item.status is ItemStatus.OK else live().get(item.row)
                yield _under_way(item.row, again) if again else item

        return rows

    def _unfinished(
        self, manifest: PinnedManifest
    ) -> Callable[[Shard, ItemStatus | None, int], Iterator[Item]]:
        def rows(shard: Shard, _: ItemStatus | None, after: int) -> Iterator[Item]:
            whole = manifest.shards[shard.id]
            wanted = [
                row
                for row in manifest.read(whole)
                if after < row.index < shard.first_row + shard.rows
            ]
            for start in range(0, len(wanted), _ROWS_AT_ONCE):
                some = wanted[start : start + _ROWS_AT_ONCE]
                jobs = self._jobs_of([row.index for row in some if isinstance(row, Row)])
                yield from (self._item(row, jobs) for row in some)

        return rows

    def _jobs_of(self, rows: Sequence[int]) -> Mapping[int, Job]:
        """The last job of each row that has one: of its last try, the one that no other follows."""
        tries = 1 + (self._options.quality_retries if self._options.min_score else 0)
        last: dict[tuple[int, int], Job] = {}  # row and try -> job
        asked = [(row, number) for row in rows for number in range(tries)]
        for again in range(NEW_JOBS):
            run_id = self._output.run_id
            keys = {job_key(run_id, row, number, again, 0): (row, number) for row, number in asked}
            jobs = self._batches.jobs_by_key(self._tenant, keys) if keys else {}
            last |= {keys[key]: job for key, job in jobs.items()}
            asked = [keys[key] for key in jobs]
        return {row: last[row, number] for row, number in sorted(last)}

    def _item(self, row: Row | BadRow, jobs: Mapping[int, Job]) -> Item:
        if isinstance(row, BadRow):
            code = row.problem.code.value
            return Item(row.index, ItemStatus.FAILED, row.sku, None, code, str(row))
        job = jobs.get(row.index)
        if job is None or is_lost(job.status, not job.expired):  # its driver will ask again
            return Item(row.index, ItemStatus.PENDING, row.sku)
        return Item(
            row.index, self._status_of(job), row.sku, job.id, job.error_code, job.error_message
        )

    def _status_of(self, job: Job) -> ItemStatus:
        if job.status is not JobStatus.COMPLETED:
            return ItemStatus(job.status.value)
        quality = job.result.quality if job.result else None
        score = quality.score or 0.0 if quality else 0.0
        good = score >= self._options.min_score
        return ItemStatus.OK if good else ItemStatus.IN_PROGRESS  # another seed is on its way


def _under_way(row: int, job: Job) -> Item:
    return Item(row, ItemStatus(job.status.value), job.request.sku, job.id)


_COLUMNS: tuple[Any, ...] = Item.__slots__
