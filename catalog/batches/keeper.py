"""BatchKeeper: looks after batches until they have ended. A batch is its row, a run is its folder,
a driver is a Ray job; each look brings the first in line with the other two."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from catalog.batches.lines import LinesRefused
from catalog.batches.preparing import Preparing, found_by
from catalog.batches.request import BatchRequest, output_of, run_options
from catalog.errors import CatalogError, ManifestRefused
from catalog.manifest.pinning import adopted
from catalog.report.publish import Published, published
from catalog.report.summary import summarise
from catalog.results.errors import ResultsError
from catalog.results.output import RunOutput
from catalog.results.row import RowStatus
from catalog.run.cancel import ask_to_cancel, forget_cancelling, is_cancelled
from catalog.run.config import CatalogConfig
from catalog.run.errors import RunError
from catalog.run.options import RunOptions
from catalog.run.plan import read_plan
from catalog.run.progress import read_progress
from catalog.run.submission import STOPPED, DriverJob, DriverJobs
from monitoring import metrics
from storage.batches import Batch, BatchError, BatchStatus, Counts, SqlBatches
from storage.errors import ObjectNotFound, StoreMisconfigured, StoreUnavailable
from storage.job_store import JobStore
from storage.object_store import ObjectStore

log = logging.getLogger(__name__)

Command = Callable[[RunOptions, str, str], Sequence[str]]
"""Of a driver, from the run's options, its tenant and the dashboard's address."""

_LEASE_S = 60.0
_LONGEST_WAIT_S = 60.0
_RAY_AGAIN_S = 5.0
_FAULTS = (CatalogError, RunError, ResultsError, ObjectNotFound, StoreMisconfigured)


class BatchKeeper:
    """Any number of them may be at work, in threads and processes: each batch is claimed."""

    def __init__(
        self,
        config: CatalogConfig,
        batches: SqlBatches,
        jobs: JobStore,
        preparing: Preparing,
        bucket: Callable[[str], ObjectStore],
        service_bucket: str,
        drivers: Callable[[], DriverJobs],
        command: Command,
    ):
        self._config, self._batches, self._jobs = config, batches, jobs
        self._preparing, self._bucket, self._own = preparing, bucket, service_bucket
        self._connect, self._command = drivers, command
        self._drivers: DriverJobs | None = None
        metrics.begin(metrics.BATCH_ROWS)
        metrics.BATCH_PROGRESS_AT.keep(time.time())

    def round(self) -> None:
        """All that are due. Raises StoreUnavailable where none can be claimed."""
        while batch := self._batches.claim(_LEASE_S):
            try:
                self.look(batch)
            except StoreUnavailable as e:
                log.warning("batch %s is left for %g s: %s", batch.id, _LEASE_S, e)
            except (ConnectionError, RuntimeError) as e:
                self._drivers = None  # a head that has restarted has another dashboard
                log.warning("batch %s: Ray takes no jobs for now: %s", batch.id, e)
                self._batches.look_again(batch, _RAY_AGAIN_S)
            except Exception:  # one batch must stop neither the others nor the webhooks
                log.exception("batch %s is left for %g s", batch.id, _LEASE_S)
        metrics.BATCH_REMAINING.keep(self._batches.rows_remaining())

    def look(self, batch: Batch) -> None:
        """`batch` is claimed. Raises StorageError, and what DriverJobs raise."""
        request = BatchRequest.model_validate_json(batch.request)
        options = run_options(batch, request, self._own, self._config)
        try:
            if not batch.prepared:
                self._prepare(batch, request, options)
            else:
                self._follow(batch, options)
        except LinesRefused as e:
            self._end(replace(batch, errors=e.errors), BatchStatus.FAILED)
        except ManifestRefused as e:
            errors = tuple(BatchError("manifest_refused", problem) for problem in e.problems)
            self._end(replace(batch, errors=errors), BatchStatus.FAILED)
        except _FAULTS as e:
            code = "input_not_found" if isinstance(e, ObjectNotFound) else _code(e)
            self._fail(batch, code, str(e))

    def _prepare(self, batch: Batch, request: BatchRequest, options: RunOptions) -> None:
        if batch.status is BatchStatus.CANCELLING:
            self._end(batch, BatchStatus.CANCELLED)
            return
        if request.file is not None:
            self._preparing.adopt(batch, request, request.file)
        if request.dry_run:
            self._check(batch, options)
            return
        objects, uri = self._bucket(options.bucket), options.manifest_uri
        if adopted(objects, options.prefix, uri, shard_rows=options.shard_rows) is None:
            self._preparing.require(uri)
        # Now and never again: a driver may be at work from the next look on.
        forget_cancelling(self._output(options))
        self._batches.look_again(replace(batch, prepared=True), 0.0)

    def _check(self, batch: Batch, options: RunOptions) -> None:
        renew = self._renewing(batch)
        found = self._preparing.check(options.manifest_uri, lambda _: renew())
        counts = Counts(found.rows, 0, sum(found.problems.values()))
        self._end(replace(batch, counts=counts, errors=found_by(found)), BatchStatus.COMPLETED)

    def _follow(self, batch: Batch, options: RunOptions) -> None:
        drivers = self._drivers = self._drivers or self._connect()
        output = self._output(options)
        stopping = self._is_to_stop(batch)
        if stopping and not is_cancelled(output):
            ask_to_cancel(output)
        job = drivers.find(options.run_id)
        if job is not None and not job.is_at_work and not batch.starts:
            job = None  # another batch's, of the same output
        batch = self._seen(batch, job, output)
        if job is not None and job.is_at_work:
            started = replace(batch, starts=max(1, batch.starts))
            self._batches.look_again(started, self._config.follow_every_s)
            return
        if (said := _last_word(job, output)) is not None and said.completed:
            # Whatever its exit code: it may have failed to clean up, or been killed just then.
            batch = _with(batch, Counts(said.rows, said.ok, said.failed))
            self._end(batch, BatchStatus.COMPLETED)
        elif stopping:
            batch = self._counted(batch, output)
            self._cancel_jobs(batch, options.run_id)
            cancelled = batch.status is BatchStatus.CANCELLING
            self._end(batch, BatchStatus.CANCELLED if cancelled else BatchStatus.EXPIRED)
        elif job is not None and job.exit_code == STOPPED:
            batch = self._counted(batch, output)
            self._fail(batch, "stopped", _last_line(drivers, job))
        elif batch.starts >= self._config.max_starts:
            batch = self._counted(batch, output)
            self._cancel_jobs(batch, options.run_id)
            why = "" if job is None else f": {_last_line(drivers, job)}"
            message = f"its driver was lost {batch.starts} times in a row{why}"
            self._fail(batch, "driver_lost", message)
        else:
            self._start(batch, options, drivers)

    def _start(self, batch: Batch, options: RunOptions, drivers: DriverJobs) -> None:
        """The next look comes the later the more often this was in vain."""
        command = self._command(options, batch.tenant, drivers.dashboard_url)
        drivers.start(options, batch.tenant, command)
        metrics.BATCH_PROGRESS_AT.keep(time.time())
        wait_s = min(self._config.follow_every_s * 2**batch.starts, _LONGEST_WAIT_S)
        self._batches.look_again(replace(batch, starts=batch.starts + 1), wait_s)

    def _seen(self, batch: Batch, job: DriverJob | None, output: RunOutput) -> Batch:
        """With what the run's folder tells, as the batch's own driver wrote it last."""
        progress = read_progress(output)
        if progress is None or not _is_by(job, progress["written_at"]):
            return batch
        counts = Counts(progress["rows"], progress["ok"], progress["failed"])
        status = BatchStatus.IN_PROGRESS
        if progress["done"] >= progress["rows"]:
            status = BatchStatus.FINALIZING
        if batch.status is BatchStatus.CANCELLING:
            status = batch.status
        more = counts.completed + counts.failed > batch.counts.completed + batch.counts.failed
        starts = min(batch.starts, 1) if more else batch.starts
        return replace(_with(batch, counts), status=status, starts=starts)

    def _is_to_stop(self, batch: Batch) -> bool:
        expired = batch.expires_at is not None and time.time() > batch.expires_at
        return expired or batch.status is BatchStatus.CANCELLING

    def _counted(self, batch: Batch, output: RunOutput) -> Batch:
        """With what stands in the finished shards: of rows under way nothing comes any more."""
        plan = read_plan(output)
        if plan is None:  # no driver has read the manifest
            return batch
        tally = summarise(output, plan, progress=self._renewing(batch)).tally
        ok, failed = tally.count(RowStatus.OK), tally.count(RowStatus.FAILED)
        return _with(batch, Counts(plan.rows, ok, failed))

    def _renewing(self, batch: Batch) -> Callable[[], None]:
        """To be called often while something takes long."""
        renewed = time.monotonic()

        def renew() -> None:
            nonlocal renewed
            if time.monotonic() - renewed > _LEASE_S / 4:
                renewed = time.monotonic()
                self._batches.renew(batch, _LEASE_S)

        return renew

    def _cancel_jobs(self, batch: Batch, run_id: str) -> None:
        """What a driver that was killed has left under way."""
        for job in self._batches.live_jobs(batch.tenant, run_id).values():
            self._jobs.cancel(batch.tenant, job.id)

    def _fail(self, batch: Batch, code: str, message: str) -> None:
        self._end(replace(batch, errors=(BatchError(code, message),)), BatchStatus.FAILED)

    def _end(self, batch: Batch, status: BatchStatus) -> None:
        self._batches.end(replace(batch, status=status))
        log.info("batch %s: %s", batch.id, status)

    def _output(self, options: RunOptions) -> RunOutput:
        return output_of(options, self._bucket(options.bucket))


def _with(batch: Batch, counts: Counts) -> Batch:
    """Of its rows so far; those that ended since the last look are metered."""
    before = batch.counts
    for outcome, rows in (
        ("ok", counts.completed - before.completed),
        ("failed", counts.failed - before.failed),
    ):
        if rows > 0:  # the last word may be less than a driver's
            metrics.BATCH_ROWS.inc(rows, tags={"outcome": outcome})
            metrics.BATCH_PROGRESS_AT.keep(time.time())
    return replace(batch, counts=counts)


def _last_word(job: DriverJob | None, output: RunOutput) -> Published | None:
    """What the last driver, which has ended, said of the run when it left; None: nothing."""
    said = published(output)
    return said if said is not None and _is_by(job, said.written_at) else None


def _is_by(job: DriverJob | None, written_at: float) -> bool:
    """Whether this driver wrote it, not one before it. `written_at` is in Unix seconds."""
    return job is not None and job.started_at is not None and written_at >= job.started_at


def _code(error: Exception) -> str:
    """manifest_not_found and the like: the name of its class."""
    name = type(error).__name__
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).removeprefix("_")


def _last_line(drivers: DriverJobs, job: DriverJob) -> str:
    lines = [line for line in drivers.logs(job.run_id).splitlines() if line.strip()]
    return lines[-1].removeprefix("stopped: ") if lines else job.message
