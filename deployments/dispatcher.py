"""Dispatcher: takes jobs from the table and walks each through the stages. The one who writes them.

Exactly one runs at a time, but nothing depends on that: every start takes a new epoch, and the job
table refuses writes of attempts that another epoch has taken over.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from ray import serve
from ray.serve.handle import DeploymentHandle

from cluster.tiers import TierConfig
from deployments.decoder import Decoded
from deployments.denoiser import Denoised, StepDone
from deployments.slots import Slots, Tier
from deployments.verdict import WORKER_LOST, Retry, judge
from monitoring import metrics
from storage.errors import (
    IllegalTransition,
    StaleAttempt,
    StaleDispatcher,
    StorageError,
    StoreUnavailable,
)
from storage.job_store import JobStoreConfig, Progress, SqlJobStore
from storage.jobs import Attempt, Job, Stage, VideoFile

log = logging.getLogger(__name__)

_STAGE_TRIES = 3
_STORAGE_WAITS_S = (1, 2, 4, 8, 16)
_LONGEST_PAUSE_S = 60.0


class DispatcherConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    poll_s: float = Field(1.0, gt=0, description="fall-back when a wake-up was lost")
    beat_s: float = Field(1.0, gt=0, description="progress and lease renewals, one transaction")
    stall_s: float = Field(30.0, gt=0, description="without a beat for so long: replace me")
    drain_s: float = Field(30.0, ge=0, description="for jobs in flight when it is replaced")
    num_cpus: float = Field(1.0, ge=0)
    labels: dict[str, str] = Field(default_factory=dict, description="node labels to run on")

    def options(self) -> dict[str, Any]:
        """Keyword arguments of `ray.serve.deployment`: always one replica."""
        actor: dict[str, Any] = {"num_cpus": self.num_cpus}
        if self.labels:
            actor["label_selector"] = dict(self.labels)
        return {
            "name": "Dispatcher",
            "num_replicas": 1,
            "ray_actor_options": actor,
            "max_ongoing_requests": 1000,
            "graceful_shutdown_timeout_s": self.drain_s + 10,
        }


class Dispatcher:
    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self,
        config: DispatcherConfig,
        jobs: JobStoreConfig,
        tiers: Sequence[TierConfig],
        text_encoder: DeploymentHandle,
        image_encoder: DeploymentHandle,
        denoisers: Sequence[DeploymentHandle],
        decoder: DeploymentHandle,
        video_encoder: DeploymentHandle,
    ):
        self._config = config
        self._jobs = SqlJobStore(jobs)
        self._slots = Slots(tiers, denoisers)
        self._text_encoder = text_encoder
        self._image_encoder = image_encoder
        self._decoder = decoder
        self._video_encoder = video_encoder
        self._epoch = await asyncio.to_thread(self._jobs.next_epoch)
        self._running: dict[Attempt, asyncio.Task[None]] = {}
        self._progress: dict[Attempt, Progress] = {}
        self._wake = asyncio.Event()
        self._leasing = asyncio.Lock()
        self._closed = ""  # why no more jobs are taken, ever
        self._pause = (0.0, 0.0, "")  # until when (monotonic), how long, why
        self._last_beat = time.monotonic()
        self._loops = [
            asyncio.create_task(loop())
            for loop in (self._take_jobs, self._beat, self._watch_replicas)
        ]

    async def run(self, job: Job, tier: Tier) -> VideoFile:
        """The way of one video."""
        request, sampling = job.request, job.request.sampling
        self._report(job, Stage.ENCODING)
        text = self._text_encoder.encode.remote(sampling.prompt, sampling.negative_prompt)
        image = self._image_encoder.encode.remote(
            request.photo_key, sampling.width, sampling.height, request.output.fit
        )
        denoised = await self._denoise(job, tier, text, image)

        self._report(job, Stage.DECODING, sampling.num_inference_steps)
        decoded: Decoded = await _finished(lambda: self._decoder.decode.remote(denoised))

        timings = {**denoised.timings, "decoding": decoded.seconds}
        dropped = denoised.dropped_prompt
        warnings = [f"the prompt was too long; left out: {dropped!r}"] if dropped else []
        return await self._publish(
            job,
            lambda: self._video_encoder.encode.remote(
                request, job.current_attempt, decoded, timings, warnings
            ),
        )

    async def _denoise(self, job: Job, tier: Tier, text: Any, image: Any) -> Denoised:
        """`text` and `image` are responses, not values: they go to the Denoiser without us."""
        events = tier.denoiser.denoise.remote(job.request.sampling, text, image)
        try:
            async for event in events:
                if isinstance(event, StepDone):
                    self._report(job, Stage.DENOISING, event.step)
                else:
                    result: Denoised = event
        except BaseException:
            for response in (events, text, image):
                response.cancel()
            raise
        tier.denoising.discard(job.current_attempt)
        self._wake.set()
        return result

    async def _publish(self, job: Job, call: Callable[[], Any]) -> VideoFile:
        """Encode and store; a store that is away must not cost the denoising that was paid for."""
        steps = job.request.sampling.num_inference_steps
        for wait_s in (*_STORAGE_WAITS_S, None):
            self._report(job, Stage.ENCODING_VIDEO, steps)
            try:
                video: VideoFile = await _finished(call)
            except StoreUnavailable:
                if wait_s is None:
                    raise
                self._report(job, Stage.WAITING_STORAGE, steps)
                await asyncio.sleep(wait_s)
            else:
                break
        return video

    async def wake(self) -> None:
        """A job was created."""
        self._wake.set()

    async def not_ready(self) -> list[str]:
        """What keeps a job from being run now, in words; empty when nothing does."""
        broken = [f"{name}: no replica is running" for name in self._slots.missing]
        if self._closed:
            broken.append(f"Dispatcher: {self._closed}")
        until, _, reason = self._pause
        if (left := until - time.monotonic()) > 0:
            broken.append(f"Dispatcher: tries again in {left:.0f} s; {reason}")
        return broken

    async def drain(self, grace_s: float) -> int:
        """Take no more jobs, give those in flight `grace_s`, put the rest back into the queue.

        Returns how many were put back.
        """
        self._closed = "draining"
        async with self._leasing:
            tasks = list(self._running.values())
        if tasks:
            await asyncio.wait(tasks, timeout=grace_s)
        rest = [task for task in tasks if not task.done()]
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        return len(rest)

    async def __del__(self) -> None:
        """Serve awaits this when it replaces the replica."""
        await self.drain(self._config.drain_s)

    async def check_health(self) -> None:
        """Fail when a loop has ended or stalls, so that Serve replaces this replica."""
        for loop in self._loops:
            if loop.done():
                raise RuntimeError("a dispatcher loop has ended") from loop.exception()
        silent = time.monotonic() - self._last_beat
        if silent > self._config.stall_s:
            raise RuntimeError(f"no dispatcher beat for {silent:.0f} s")

    # The loops.

    async def _take_jobs(self) -> None:
        """Lease and start jobs one by one while some tier has room."""
        while True:
            self._wake.clear()
            async with self._leasing:
                while (tier := self._free_tier()) is not None:
                    leased = await self._patiently(self._jobs.lease, self._epoch, 1)
                    for job in leased:
                        self._start(job, tier)
                    if not leased:
                        break
            with suppress(TimeoutError):
                async with asyncio.timeout(self._config.poll_s):
                    await self._wake.wait()

    async def _beat(self) -> None:
        """Once per beat: progress and lease renewals in one write, lost attempts dropped."""
        while True:
            await asyncio.sleep(self._config.beat_s)
            updates = list(self._progress.values())
            for attempt in await self._patiently(self._jobs.record_progress, updates, self._epoch):
                if task := self._running.get(attempt):
                    task.cancel()
            self._last_beat = time.monotonic()

    async def _watch_replicas(self) -> None:
        """Keep count of what runs. Apart from the beat: it waits for Serve's controller."""
        while True:
            try:
                counts = await self._replica_counts()
            except Exception:
                log.warning("the Serve controller does not answer", exc_info=True)
            else:
                self._slots.note_replicas(counts)
                for attempt in self._slots.stranded():
                    self._running[attempt].cancel()
            await asyncio.sleep(self._config.beat_s)

    # One attempt and its end.

    def _free_tier(self) -> Tier | None:
        paused = time.monotonic() < self._pause[0]
        return None if self._closed or paused else self._slots.free(len(self._running))

    def _start(self, job: Job, tier: Tier) -> None:
        attempt = job.current_attempt
        for other, task in self._running.items():
            if other.job_id == attempt.job_id:  # its lease ran out under us: it owns nothing now
                task.cancel()

        def ended(_: asyncio.Task[None]) -> None:
            del self._running[attempt]
            self._progress.pop(attempt, None)
            tier.denoising.discard(attempt)
            self._wake.set()

        tier.denoising.add(attempt)
        self._running[attempt] = asyncio.create_task(self._attempt(job, tier))
        self._running[attempt].add_done_callback(ended)

    async def _attempt(self, job: Job, tier: Tier) -> None:
        outcome, write = await self._outcome(job, tier)
        try:
            await asyncio.to_thread(write)
        except (StaleAttempt, IllegalTransition):
            outcome = "stale"
        except StorageError:
            log.exception("the end of %s is not written; its lease will run out", job.id)
            outcome = "unrecorded"
        metrics.ATTEMPTS.inc(tags={"outcome": outcome})
        log.info("job %s attempt %d: %s", job.id, job.attempt, outcome)

    async def _outcome(self, job: Job, tier: Tier) -> tuple[str, Callable[[], object]]:
        """Run the job; how it ended, and the write that records it."""
        attempt = job.current_attempt
        try:
            video = await self.run(job, tier)
        except asyncio.CancelledError:
            return "released", partial(self._jobs.release, attempt, "worker_lost", charge=False)
        except Exception as error:
            verdict = judge(error)
            log.warning("job %s attempt %d: %s", job.id, attempt.number, verdict, exc_info=error)
            if verdict.retry is Retry.NO:
                return "failed", partial(self._jobs.fail, attempt, verdict.code, verdict.message)
            if verdict.retry is Retry.FREE:
                self._take_a_break(verdict.message)
            charge = verdict.retry is Retry.CHARGED
            return "released", partial(self._jobs.release, attempt, verdict.code, charge=charge)
        self._pause = (0.0, 0.0, "")
        return "completed", partial(self._jobs.complete, attempt, video)

    def _take_a_break(self, reason: str) -> None:
        """Lease nothing for a while, twice as long each time until a job succeeds."""
        until, length, _ = self._pause
        if time.monotonic() >= until:
            length = min(_LONGEST_PAUSE_S, max(1.0, 2 * length))
            self._pause = (time.monotonic() + length, length, reason)

    def _report(self, job: Job, stage: Stage, step: int = 0) -> None:
        self._progress[job.current_attempt] = Progress(job.current_attempt, stage, step)

    async def _patiently(self, call: Any, *args: Any) -> list[Any]:
        """A store that is away must not end a loop, nor a newer Dispatcher make us unwell."""
        try:
            found: list[Any] = await asyncio.to_thread(call, *args)
        except StoreUnavailable:
            log.exception("the job table does not answer")
            return []
        except StaleDispatcher as e:
            self._closed = str(e)  # what runs may end: its fence still holds until re-leased
            return []
        return found

    async def _replica_counts(self) -> dict[str, int]:
        """Running replicas of every deployment of this application."""
        app = serve.get_replica_context().app_name
        status = await asyncio.to_thread(serve.status)
        return {
            name: deployment.replica_states.get("RUNNING", 0)
            for name, deployment in status.applications[app].deployments.items()
        }


async def _finished(call: Callable[[], Any]) -> Any:
    """Await a stage: again where its replica died, and stop it where we are stopped ourselves."""
    for tries_left in reversed(range(_STAGE_TRIES)):
        response = call()
        try:
            return await response
        except WORKER_LOST:
            if tries_left == 0:
                raise
        except BaseException:
            response.cancel()
            raise
    raise AssertionError("unreachable")
