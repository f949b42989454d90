"""The driver of a run: shard after shard, rows into a window of jobs, until all have their results.

It keeps nothing that it could lose. What is finished stands in the output folder, one marker a
shard; what was under way is under way in the service, whose idempotency keys give the next driver
the same jobs.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Container, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import ParamSpec, TypeVar

from catalog.errors import CatalogError
from catalog.manifest.pinned import PinnedManifest, Shard
from catalog.manifest.rows import BadRow, Row
from catalog.report.publish import publish_report
from catalog.report.summary import RunPlan, RunSummary, summarise
from catalog.results.commit import (
    commit_shard,
    finished_shards,
    read_standing,
    replace_shard,
    sweep_parts,
)
from catalog.results.errors import ResultsError
from catalog.results.marker import ShardMarker
from catalog.results.part import read_part
from catalog.results.row import ResultRow, ResultSchema, RowStatus
from catalog.run.cancel import cancel_jobs, is_cancelled
from catalog.run.errors import RunCancelled, RunError, ServiceAway, TooManyFailures
from catalog.run.plan import shards_of
from catalog.run.progress import Counts, Progress
from catalog.run.row import RowRunner, bad_row
from storage.errors import StorageError

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

_OPEN_SHARDS = 4
"""A slow row holds its shard open; so many of them stand in memory."""
_LOOK_EVERY_S = 2.0
_ENDS = (RunError, CatalogError, ResultsError, StorageError)


class Driver:
    """Of one run, once."""

    def __init__(self, plan: RunPlan, manifest: PinnedManifest, rows: RowRunner):
        self._plan, self._manifest, self._rows = plan, manifest, rows
        self._schema = ResultSchema(manifest.extra_fields)
        self._room = asyncio.Semaphore(_OPEN_SHARDS)
        self._progress = Progress(Counts(plan.rows))

    async def run(self) -> RunSummary:
        """Raises RunError, CatalogError, ResultsError and StorageError. Shards that have their
        marker by then are finished for good; the next driver goes on with the others."""
        output, options = self._rows.output, self._rows.options
        try:
            await self._insist(sweep_parts, output, self._plan.fingerprint)
            before = await self._insist(summarise, output, self._plan)
            self._progress = Progress(Counts.of(self._plan.rows, before.tally))
            finished = await self._insist(finished_shards, output)
            again = {m.shard: m for m in before.faulty if m.submission != options.submission}
            await self._make(finished, again if options.retry_failed else {})
        except ServiceAway as e:  # who has waited for so long waits no longer to say so
            await self._try_to_leave(str(e))
            raise
        except (RunCancelled, TooManyFailures) as e:
            try:
                await cancel_jobs(self._rows.service, self._rows.window, output.run_id)
            finally:
                await self._leave(str(e))
            raise
        except _ENDS as e:
            await self._try_to_leave(str(e))
            raise
        return await self._leave(None)

    async def _leave(self, stopped: str | None) -> RunSummary:
        """`stopped`: why before its end."""
        await self._tell()
        output = self._rows.output
        return await self._insist(publish_report, output, self._plan, time.time(), stopped)

    async def _try_to_leave(self, stopped: str) -> None:
        try:
            await asyncio.to_thread(
                publish_report, self._rows.output, self._plan, time.time(), stopped
            )
        except _ENDS:
            log.exception("the report does not say why the run stopped")

    async def _make(self, finished: Container[int], again: Mapping[int, ShardMarker]) -> None:
        """The way of a run. `again`: shards whose failed rows are to be tried once more."""
        try:
            async with asyncio.TaskGroup() as watch:
                looking = watch.create_task(self._look_after())
                async with asyncio.TaskGroup() as tasks:
                    for shard in shards_of(self._manifest, self._plan.rows):
                        standing = again.get(shard.id)
                        if shard.id in finished and standing is None:
                            continue
                        await self._room.acquire()
                        todo = await self._insist(self._todo, shard, standing)
                        if todo is None:
                            self._room.release()
                            continue
                        results = [await self._begin(*row, shard, standing, tasks) for row in todo]
                        tasks.create_task(self._finish(shard, standing, results))
                looking.cancel()
        except* _ENDS as several:
            raise _first(several) from None

    def _todo(
        self, shard: Shard, standing: ShardMarker | None
    ) -> list[tuple[Row | BadRow, ResultRow | None]] | None:
        """The shard's rows, with what became of them where it was made before; None where another
        driver has tried them again since `standing` was read."""
        rows = islice(self._manifest.read(shard), shard.rows)
        if standing is None:
            return [(row, None) for row in rows]
        now, data = read_standing(self._rows.output, standing)
        if now.round > standing.round:
            return None
        found = map(self._schema.restored, read_part(now.part_key, data).to_pylist())
        made = {result.row: result for result in found}
        return [(row, made[row.index]) for row in rows]

    async def _begin(
        self,
        row: Row | BadRow,
        made: ResultRow | None,
        shard: Shard,
        standing: ShardMarker | None,
        tasks: asyncio.TaskGroup,
    ) -> Awaitable[ResultRow]:
        """Returns once there is room for the row."""
        if made is not None:
            if made.status is RowStatus.OK:
                return _known(made)
            self._progress.counts.take_back(made)
        if isinstance(row, BadRow):
            return tasks.create_task(self._noted(bad_row(row)))
        await self._rows.window.enter()
        round_ = standing.round + 1 if standing else 0
        return tasks.create_task(self._through(row, made, shard, round_))

    async def _through(
        self, row: Row, made: ResultRow | None, shard: Shard, round_: int
    ) -> ResultRow:
        try:
            result = await self._rows.run(row, f"{shard.id:05d}", round_)
            return await self._noted(result if made is None else _on_top_of(made, result))
        finally:
            self._rows.window.leave()

    async def _noted(self, result: ResultRow) -> ResultRow:
        """Raises TooManyFailures."""
        self._progress.add(result)
        counts = self._progress.counts
        self._rows.options.check_failures(counts.failed, counts.rows)
        return result

    async def _finish(
        self,
        shard: Shard,
        standing: ShardMarker | None,
        results: Sequence[Awaitable[ResultRow]],
    ) -> None:
        rows = [await result for result in results]
        output, fingerprint, schema = self._rows.output, self._plan.fingerprint, self._schema
        asked = self._rows.options.submission
        if standing is None:
            await self._insist(commit_shard, output, fingerprint, shard, rows, schema, asked)
        else:
            about = fingerprint, shard, standing, rows, schema, asked
            await self._insist(replace_shard, output, *about)
        self._room.release()

    async def _look_after(self) -> None:
        """Raises RunCancelled."""
        while True:
            await self._tell()
            if await self._insist(is_cancelled, self._rows.output):
                raise RunCancelled
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _tell(self) -> None:
        window = self._rows.window
        under_way, closed_by = window.under_way, window.closed_by
        await self._insist(self._progress.write, self._rows.output, under_way, closed_by)

    async def _insist(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """In a thread, and again where a store is away. Raises ServiceAway."""
        return await self._rows.window.insist(lambda: asyncio.to_thread(call, *args, **kwargs))


def _on_top_of(made: ResultRow, result: ResultRow) -> ResultRow:
    """With what the row's earlier rounds took of GPUs, and where."""
    rounds = [row for row in (made, result) if row.gpu_seconds is not None]
    if not rounds:
        return result
    costs = [row.cost for row in rounds]
    return replace(
        result,
        tier=result.tier or made.tier,
        gpu_seconds=sum(row.gpu_seconds or 0.0 for row in rounds),
        cost=None if None in costs else sum(cost or 0.0 for cost in costs),
    )


def _known(result: ResultRow) -> Awaitable[ResultRow]:
    future = asyncio.get_running_loop().create_future()
    future.set_result(result)
    return future


def _first(group: BaseExceptionGroup[Exception]) -> BaseException:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
