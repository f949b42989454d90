"""The attempts under way: each runs its journey, and what came of it becomes its end."""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from deployments.denoiser import Denoised
from deployments.dispatch.ends import End, Ends
from deployments.dispatch.fleet import Fleet
from deployments.dispatch.foresight import Foresight
from deployments.dispatch.journey import Journey, Stages
from deployments.dispatch.results import Results
from deployments.dispatch.suspects import Suspects
from deployments.dispatch.tally import count_start, count_video
from deployments.dispatch.trail import followed
from deployments.dispatch.verdict import Retry, Verdict, judge
from diffusion.errors import OutOfMemory
from diffusion.params import SamplingParams
from monitoring import metrics
from monitoring.stages import StageCall
from monitoring.tracing import span
from storage.errors import ResultPurged
from storage.job_contract import JobStore, Progress
from storage.jobs import Attempt, Job, JobEvent, Stage

log = logging.getLogger(__name__)

_LONGEST_PAUSE_S = 60.0
_MOST_LINGERING = 1000
"""Each beat renews the lease of each. Who deletes and orders again any faster than that waits for
the Housekeeper, and others behind them."""
_PURGED = "result_purged"


class Attempts:
    """`changed` hears of every slot that becomes free."""

    def __init__(
        self,
        jobs: JobStore,
        results: Results,
        fleet: Fleet,
        foresight: Foresight,
        stages: Stages,
        changed: Callable[[], object],
    ):
        self._results = results
        self._fleet = fleet
        self._foresight = foresight
        self._stages = stages
        self._changed = changed
        self._tasks: dict[Attempt, asyncio.Task[None]] = {}
        self._under_way: dict[Attempt, Job] = {}  # of each task
        self._at: dict[Attempt, tuple[Stage, int]] = {}
        self._events: dict[Attempt, list[JobEvent]] = defaultdict(list)  # not yet in the table
        self._lingering: set[Attempt] = set()  # done, but their result is just being purged
        self._pause = (0.0, 0.0, "")  # until when (monotonic), how long, why
        self._completed = 0  # jobs
        self._waited: dict[str, int] = {}  # jobs completed when a job last failed for the cluster
        self.suspects = Suspects()
        self._ends = Ends(jobs, results, self._untold, self._linger, self.forget)

    def __len__(self) -> int:
        """Those that have work ahead of them, and those that linger beyond the most that may."""
        return len(self._tasks) - min(len(self._lingering), _MOST_LINGERING)

    @property
    def tasks(self) -> Sequence["asyncio.Task[None]"]:
        return list(self._tasks.values())

    @property
    def jobs(self) -> Sequence[Job]:
        """Those under way, as they were leased."""
        return list(self._under_way.values())

    @property
    def pause(self) -> tuple[float, str]:
        """Seconds for which nothing should be started, and why: the cluster is unwell."""
        until, _, reason = self._pause
        return max(0.0, until - time.monotonic()), reason

    def start(self, job: Job) -> None:
        """Begin the attempt for which `job` was leased, on its tier."""
        attempt = job.current_attempt
        self.stop(job.id)  # an earlier one, whose lease ran out under us, owns nothing now
        if job.tier:
            work = self._run(job, self._fleet.enter(job, job.tier))
            self._foresight.begin(job)
            count_start(job, job.tier)
        else:
            work = self._turn_away(job)
        self._under_way[attempt] = job
        self._tasks[attempt] = asyncio.create_task(work)
        self._tasks[attempt].add_done_callback(lambda _: self._ended(attempt))

    def stop(self, job_id: str) -> None:
        """Cancel what is under way for a job."""
        self.cancel([attempt for attempt in self._tasks if attempt.job_id == job_id])

    def forget(self, job_id: str) -> None:
        """The job has ended: it will not be tried again."""
        self._fleet.forget(job_id)
        self.suspects.forget(job_id)
        self._waited.pop(job_id, None)

    def cancel(self, attempts: Iterable[Attempt]) -> None:
        """Each goes back to the queue, once it has begun: a task that has not would just vanish,
        and its job wait for the lease to run out."""
        for attempt in attempts:
            if task := self._tasks.get(attempt):
                asyncio.get_running_loop().call_soon(task.cancel)

    def strand(self, attempts: Iterable[Attempt]) -> None:
        """Cancel these: no replica of their tier is left, and nothing would say so."""
        for attempt in attempts:
            if job := self._under_way.get(attempt):
                self._note(job, JobEvent(time.time(), "worker_lost", f"no {job.tier} is left"))
                self._fleet.leave(attempt)
                self.cancel([attempt])

    def hold_up(self, attempts: Iterable[Attempt]) -> None:
        """Until a replica of their tier runs, that is what these wait for, encoded or not."""
        for attempt in attempts:
            if self._at.get(attempt) == (Stage.ENCODING, 0):
                self._at[attempt] = Stage.WAITING_DENOISER, 0
                self._foresight.hold_up(attempt)

    def reporting(self, jobs: Iterable[Job]) -> bool:
        """Whether the attempt of one of these goes on here, and its lease is renewed by a beat."""
        return any(job.current_attempt in self._at for job in jobs)

    def progress(self) -> list[Progress]:
        """Where each stands, with its events that are not in the table yet."""
        return [
            Progress(
                attempt,
                stage,
                step,
                tuple(self._events[attempt]),
                self._foresight.predicted_at(attempt),
            )
            for attempt, (stage, step) in self._at.items()
        ]

    def written(self, reports: Iterable[Progress]) -> None:
        """These are in the table now."""
        for report in reports:
            if report.attempt in self._events:
                del self._events[report.attempt][: len(report.events)]

    def _ended(self, attempt: Attempt) -> None:
        del self._tasks[attempt], self._under_way[attempt]
        self._at.pop(attempt, None)
        self._events.pop(attempt, None)
        self._lingering.discard(attempt)
        self._foresight.forget(attempt)
        self._fleet.leave(attempt)
        self._changed()

    async def _run(self, job: Job, sampling: SamplingParams) -> None:
        with followed(job) as call:
            end = await self._end_of(job, sampling, call)
            with span("recording", call.traceparent):
                try:
                    outcome = await self._ends.write(job, end)
                except asyncio.CancelledError:
                    if job.current_attempt not in self._lingering:
                        raise
                    outcome = await self._ends.write(job, self._ends.released("purged", False))
        if outcome == "completed":
            self._foresight.completed(job.current_attempt)

    async def _turn_away(self, job: Job) -> None:
        """It fits no tier as it was asked for: it was accepted for a smaller clip, or the tiers
        have changed since."""
        if rung := self._fleet.step_down(job, None):
            self._note(job, JobEvent(time.time(), *rung))
            await self._ends.write(job, self._ends.released("does_not_fit", charge=False))
            return
        message = "no tier of this cluster has the memory for it any more"
        await self._ends.write(job, self._ends.failed("does_not_fit", message))

    async def _end_of(self, job: Job, sampling: SamplingParams, call: StageCall) -> End:
        """Run the job, and say how that ended."""
        try:
            if video := await self._results.find(job.request):
                return self._ends.completed(video, "reused")
            journey = self._journey(job, sampling, call)
            video = await journey.run(self._fleet.tiers[job.tier or ""].worker)
        except asyncio.CancelledError:
            return self._ends.released("worker_lost", charge=False)
        except OutOfMemory as error:
            if rung := self._fleet.step_down(job, self._denoising_tier(job)):
                self._note(job, JobEvent(time.time(), *rung))
                return self._ends.released("out_of_memory", charge=False)
            return self._failed(error)
        except Exception as error:
            verdict = judge(error)
            log.warning("job %s attempt %d: %s", job.id, job.attempt, verdict, exc_info=error)
            if verdict.retry is Retry.NO:
                return self._failed(error)
            self._note(job, JobEvent(time.time(), verdict.code, verdict.message))
            return self._ends.released(verdict.code, self._is_charged(job, verdict))
        count_video(job, job.tier or "", video)
        self._pause = (0.0, 0.0, "")
        self._completed += 1
        return self._ends.completed(video)

    def _is_charged(self, job: Job, verdict: Verdict) -> bool:
        """Whether the failure counts against the job, and a pause where the cluster is unwell."""
        if verdict.retry is Retry.LATER:
            since = self._waited.get(job.id)
            self._waited[job.id] = self._completed
            if since is not None and self._completed > since:
                return True  # the cluster is well: others got through since it failed like this
            self._take_a_break(verdict.message)
            return False
        if verdict.code == "worker_lost":
            step = self._at.get(job.current_attempt, (Stage.ENCODING, 0))[1]
            return self.suspects.lost(job.id, step)
        return verdict.retry is Retry.CHARGED

    def _journey(self, job: Job, sampling: SamplingParams, call: StageCall) -> Journey:
        attempt, tier = job.current_attempt, job.tier or ""

        def report(stage: Stage, step: int) -> None:
            self._at[attempt] = stage, step
            self._foresight.enter(attempt, stage)
            self._fleet.note_step(attempt, step)

        def freed(result: Denoised | None) -> None:
            self._fleet.leave(attempt)
            if result:
                self._fleet.note_peak(tier, result.peak_vram_bytes)
            if result and (seconds := result.timings["denoising"]):
                self._fleet.cost.observe(tier, sampling, result.resumed_at, seconds)
            self._changed()

        note = partial(self._note, job)
        silence_s = self._fleet.tiers[tier].config.stall_s
        return Journey(self._stages, job, call, sampling, report, note, freed, silence_s)

    def _denoising_tier(self, job: Job) -> str | None:
        """The tier whose denoiser has the job; None in a stage before the denoisers or behind."""
        tier, attempt = self._fleet.tiers[job.tier or ""], job.current_attempt
        stage, _ = self._at.get(attempt, (Stage.ENCODING, 0))
        is_there = attempt in tier.clips and stage is not Stage.ENCODING
        return tier.config.name if is_there else None

    def _linger(self, job: Job, purged: ResultPurged) -> None:
        """It holds no slot and keeps its lease, until the purge is over."""
        attempt = job.current_attempt
        if attempt in self._lingering:
            return
        if all(event.kind != _PURGED for event in job.events):  # an earlier attempt met it too
            self._note(job, JobEvent(time.time(), _PURGED, str(purged)))
        self._lingering.add(attempt)
        _, step = self._at.get(attempt, (None, 0))
        self._at[attempt] = Stage.WAITING_STORAGE, step
        self._fleet.leave(attempt)
        self._changed()

    def _untold(self, attempt: Attempt) -> Sequence[JobEvent]:
        return tuple(self._events[attempt])

    def _note(self, job: Job, event: JobEvent) -> None:
        metrics.JOB_EVENTS.inc(tags={"kind": event.kind})
        self._events[job.current_attempt].append(event)

    def _failed(self, error: Exception) -> End:
        verdict = judge(error)
        return self._ends.failed(verdict.code, verdict.message)

    def _take_a_break(self, reason: str) -> None:
        """Start nothing for a while, twice as long each time until a job succeeds."""
        until, length, _ = self._pause
        if time.monotonic() >= until:
            length = min(_LONGEST_PAUSE_S, max(1.0, 2 * length))
            self._pause = (time.monotonic() + length, length, reason)
