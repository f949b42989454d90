"""Dispatcher: takes jobs from the table and walks each through the stages. The one who writes them.

Exactly one runs at a time, but nothing depends on that: every start takes a new epoch, and the job
table refuses writes of attempts that another epoch has taken over.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import ray.exceptions
from pydantic import BaseModel, ConfigDict, Field
from ray import serve
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from cluster.tiers import TierConfig
from deployments.decoder import Decoded
from deployments.denoiser import Denoised, StepDone
from diffusion.errors import DiffusionError
from monitoring import metrics
from storage.errors import IllegalTransition, StaleAttempt, StorageError, StoreUnavailable
from storage.job_store import JobStoreConfig, Progress, SqlJobStore
from storage.jobs import Job, Stage, VideoFile
from video.errors import VideoError

log = logging.getLogger(__name__)


class DispatcherConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    poll_s: float = Field(1.0, gt=0, description="fall-back when a wake-up was lost")
    beat_s: float = Field(1.0, gt=0, description="progress and lease renewals, one transaction")
    stall_s: float = Field(30.0, gt=0, description="without a beat for so long: replace me")
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
        }


class _Tier:
    """One GPU tier as the Dispatcher sees it."""

    def __init__(self, config: TierConfig, denoiser: DeploymentHandle):
        self.config = config
        self.denoiser = denoiser.options(stream=True)
        self.ready_replicas = config.min_replicas
        self.denoising: set[str] = set()  # job ids that hold a slot

    @property
    def slots(self) -> int:
        """An empty tier counts as one replica: a job sent there wakes it up."""
        return max(1, self.ready_replicas) * self.config.max_ongoing_requests

    @property
    def room(self) -> int:
        return self.slots - len(self.denoising)


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
        self._tiers = [_Tier(t, d) for t, d in zip(tiers, denoisers, strict=True)]
        self._text_encoder = text_encoder
        self._image_encoder = image_encoder
        self._decoder = decoder
        self._video_encoder = video_encoder
        self._epoch = await asyncio.to_thread(self._jobs.next_epoch)
        self._wake = asyncio.Event()
        self._draining = False
        self._replicas: dict[str, int] = {}  # running ones, by deployment
        self._running: dict[str, asyncio.Task[None]] = {}
        self._progress: dict[str, Progress] = {}
        self._last_beat = time.monotonic()
        self._loops = [asyncio.create_task(self._take_jobs()), asyncio.create_task(self._beat())]

    async def run(self, job: Job, tier: _Tier) -> VideoFile:
        """The way of one video."""
        request, sampling = job.request, job.request.sampling
        self._report(job, Stage.ENCODING)
        text = self._text_encoder.encode.remote(sampling.prompt, sampling.negative_prompt)
        image = self._image_encoder.encode.remote(
            request.photo_key, sampling.width, sampling.height, request.output.fit
        )
        denoised = await self._denoise(job, tier, text, image)

        self._report(job, Stage.DECODING, sampling.num_inference_steps)
        decoded: Decoded = await self._decoder.decode.remote(denoised)

        self._report(job, Stage.ENCODING_VIDEO, sampling.num_inference_steps)
        timings = {**denoised.timings, "decoding": decoded.seconds}
        dropped = denoised.dropped_prompt
        warnings = [f"the prompt was too long; left out: {dropped!r}"] if dropped else []
        video: VideoFile = await self._video_encoder.encode.remote(
            request, job.current_attempt, decoded, timings, warnings
        )
        return video

    async def _denoise(self, job: Job, tier: _Tier, text: Any, image: Any) -> Denoised:
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
        tier.denoising.discard(job.id)
        self._wake.set()
        return result

    async def wake(self) -> None:
        """A job was created."""
        self._wake.set()

    async def not_ready(self) -> list[str]:
        """What keeps a job from being run now, in words; empty when nothing does."""
        broken = ["Dispatcher: draining"] if self._draining else []
        empty = [name for name, running in self._replicas.items() if running == 0]
        tiers = {tier.config.deployment_name for tier in self._tiers}
        if not tiers <= set(empty) or any(t.config.min_replicas == 0 for t in self._tiers):
            empty = [name for name in empty if name not in tiers]
        return broken + [f"{name}: no replica is running" for name in empty]

    async def drain(self, grace_s: float) -> int:
        """Take no more jobs, give those in flight `grace_s`, put the rest back into the queue.

        Returns how many were put back.
        """
        self._draining = True
        tasks = dict(self._running)
        if tasks:
            await asyncio.wait(tasks.values(), timeout=grace_s)
        rest = [task for task in tasks.values() if not task.done()]
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        return len(rest)

    async def check_health(self) -> None:
        """Fail when a loop has ended or stalls, so that Serve replaces this replica."""
        for loop in self._loops:
            if loop.done():
                raise RuntimeError("a dispatcher loop has ended") from loop.exception()
        silent = time.monotonic() - self._last_beat
        if silent > self._config.stall_s:
            raise RuntimeError(f"no dispatcher beat for {silent:.0f} s")

    # The two loops.

    async def _take_jobs(self) -> None:
        """Lease jobs while some tier has room; the tier with the most room takes the next."""
        while True:
            self._wake.clear()
            room = 0 if self._draining else self._room()
            if room > 0:
                for job in await self._patiently(self._jobs.lease, self._epoch, room):
                    self._start(job, max(self._tiers, key=lambda tier: tier.room))
            try:
                await asyncio.wait_for(self._wake.wait(), self._config.poll_s)
            except TimeoutError:
                continue

    def _room(self) -> int:
        """Free denoiser slots, less what piles up behind them when later stages are slow."""
        slots = sum(tier.slots for tier in self._tiers)
        free = sum(max(0, tier.room) for tier in self._tiers)
        return min(free, 2 * slots - len(self._running))

    def _start(self, job: Job, tier: _Tier) -> None:
        def ended(_: asyncio.Task[None]) -> None:
            del self._running[job.id]
            self._progress.pop(job.id, None)
            tier.denoising.discard(job.id)
            self._wake.set()

        tier.denoising.add(job.id)
        task = asyncio.create_task(self._attempt(job, tier))
        task.add_done_callback(ended)
        self._running[job.id] = task

    async def _beat(self) -> None:
        """Once per beat: progress and lease renewals in one write, lost jobs dropped."""
        while True:
            await asyncio.sleep(self._config.beat_s)
            updates = list(self._progress.values())
            for job_id in await self._patiently(self._jobs.record_progress, updates, self._epoch):
                if task := self._running.get(job_id):
                    task.cancel()
            await self._count_replicas()
            self._last_beat = time.monotonic()

    # One attempt and its end.

    async def _attempt(self, job: Job, tier: _Tier) -> None:
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

    async def _outcome(self, job: Job, tier: _Tier) -> tuple[str, Callable[[], object]]:
        """Run the job; how it ended, and the write that records it."""
        attempt = job.current_attempt
        try:
            video = await self.run(job, tier)
        except asyncio.CancelledError:
            return "released", partial(self._jobs.release, attempt, "worker_lost")
        except Exception as error:
            code, retry = _verdict(error)
            log.warning("job %s attempt %d failed: %s", job.id, attempt.number, code, exc_info=True)
            if retry:
                return "released", partial(self._jobs.release, attempt, code)
            return "failed", partial(self._jobs.fail, attempt, code, _first_line(error))
        return "completed", partial(self._jobs.complete, attempt, video)

    def _report(self, job: Job, stage: Stage, step: int = 0) -> None:
        self._progress[job.id] = Progress(job.current_attempt, stage, step)

    async def _patiently(self, call: Any, *args: Any) -> list[Any]:
        """A store that is away must not end a loop: nothing now, the next beat tries again."""
        try:
            found: list[Any] = await asyncio.to_thread(call, *args)
        except StoreUnavailable:
            log.exception("the job table does not answer")
            return []
        return found

    async def _count_replicas(self) -> None:
        app = serve.get_replica_context().app_name
        status = await asyncio.to_thread(serve.status)
        self._replicas = {
            name: deployment.replica_states.get("RUNNING", 0)
            for name, deployment in status.applications[app].deployments.items()
        }
        for tier in self._tiers:
            tier.ready_replicas = self._replicas[tier.config.deployment_name]


def _verdict(error: Exception) -> tuple[str, bool]:
    """The contract's error code, and whether another attempt may do better."""
    if isinstance(error, VideoError):
        return getattr(error, "code", "encode_failed"), error.retryable
    if isinstance(error, StorageError):
        return "store_unavailable", error.retryable
    if isinstance(error, DiffusionError):
        return "internal", error.retryable
    lost = (ray.exceptions.RayActorError, ray.exceptions.ObjectLostError, RayServeException)
    if isinstance(error, lost):
        return "worker_lost", True
    return "internal", False


def _first_line(error: Exception) -> str:
    cause = getattr(error, "cause", error)  # Ray wraps what a replica raised
    return str(cause).splitlines()[0] if str(cause) else type(cause).__name__
