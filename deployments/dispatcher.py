"""Dispatcher: takes jobs from the table and walks each through the stages. The one who writes them.

Exactly one runs at a time, but nothing depends on that: every start takes a new epoch, and the job
table refuses writes of attempts that another epoch has taken over.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from ray import serve
from ray.serve.handle import DeploymentHandle

from cluster.cost import CostModel
from cluster.eta import FACT
from cluster.ladder import Floor
from cluster.stage import HEALTH_PERIOD_S, LEAVE_POLL_S
from cluster.tiers import TierConfig
from deployments.dispatch.adoption import adopt
from deployments.dispatch.attempts import Attempts
from deployments.dispatch.fleet import Fleet, Replicas
from deployments.dispatch.foresight import Foresight
from deployments.dispatch.journey import Stages
from deployments.dispatch.results import Results, Twins
from deployments.dispatch.tally import Tally, count_taken_over
from deployments.sigterm import told_to_end
from monitoring.instruments import TELL_EVERY_S
from storage.errors import StaleDispatcher, StoreUnavailable
from storage.facts import SqlFacts
from storage.job_store import JobStoreConfig, SqlJobStore
from storage.jobs import Attempt, Job
from storage.object_store import ObjectStore
from storage.sql import overview

log = logging.getLogger(__name__)

_HAND_OUT_S = 5.0
"""For denoisers to end a step and store a checkpoint."""
_MOST_CANDIDATES = 1024
_PUBLISH_S = 5.0
"""At the latest, when nothing but time has gone on."""


class DispatcherConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    poll_s: float = Field(1.0, gt=0, description="fall-back when a wake-up was lost")
    beat_s: float = Field(1.0, gt=0, description="progress and lease renewals, one transaction")
    stall_s: float = Field(30.0, gt=0, description="without a beat for so long: replace me")
    drain_s: float = Field(
        15.0, ge=0, description="for jobs in flight when it is replaced; well below a lease"
    )
    ageing_s: float = Field(600.0, gt=0, description="batch jobs that waited so long go first too")
    candidates: int = Field(16, ge=1, description="of each tenant and class, looked at for a lease")
    num_cpus: float = Field(1.0, ge=0)
    labels: dict[str, str] = Field(default_factory=dict, description="node labels to run on")

    def options(self) -> dict[str, Any]:
        """Keyword arguments of `ray.serve.deployment`: always one replica."""
        actor: dict[str, Any] = {"num_cpus": self.num_cpus}
        if self.labels:
            actor["label_selector"] = dict(self.labels)
        return {
            "name": "Dispatcher",
            "ray_actor_options": actor,
            "max_ongoing_requests": 1000,
            "graceful_shutdown_timeout_s": self.drain_s + _HAND_OUT_S + 10,
            "graceful_shutdown_wait_loop_s": LEAVE_POLL_S,
            "health_check_period_s": HEALTH_PERIOD_S,
            # Serve collects `record_autoscaling_stats` from deployments that autoscale.
            "autoscaling_config": {"min_replicas": 1, "max_replicas": 1, "metrics_interval_s": 1},
        }


class Dispatcher:
    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self,
        config: DispatcherConfig,
        jobs: JobStoreConfig,
        tiers: Sequence[TierConfig],
        cost: CostModel,
        floor: Floor,
        objects: ObjectStore,
        denoisers: Sequence[DeploymentHandle],
        stages: Sequence[DeploymentHandle],
    ):
        self._config = config
        self._jobs = SqlJobStore(jobs)
        self._fleet = Fleet(tiers, denoisers, cost, floor)
        self._epoch = await asyncio.to_thread(self._jobs.next_epoch)
        self._wake = asyncio.Event()
        self._facts = SqlFacts(self._jobs.database)
        self._foresight = Foresight(self._fleet)
        if fact := await asyncio.to_thread(self._facts.get, FACT):
            self._foresight.resume(fact.value)
        self._results = Results(objects)
        self._tally = Tally(self._fleet)
        text_encoder, image_encoder, decoder, video_encoder = stages
        self._attempts = Attempts(
            self._jobs,
            self._results,
            self._fleet,
            self._foresight,
            Stages(text_encoder, image_encoder, decoder, video_encoder.options(stream=True)),
            self._wake.set,
        )
        self._twins = Twins()
        self._published: tuple[float, object] = (-_PUBLISH_S, None)  # when (monotonic), its shape
        self._leasing = asyncio.Lock()
        self._look_further_at = 0.0  # monotonic
        self._renewed = True
        self._closed = ""  # why no more jobs are taken, ever
        self._last_beat = time.monotonic()
        self._loops = [
            asyncio.create_task(loop())
            for loop in (self._take_jobs, self._beat, self._watch_replicas, self._tell)
        ]

    # What others ask.

    async def wake(self) -> None:
        """A job was created."""
        self._wake.set()

    async def stop(self, job_id: str) -> None:
        """The job was cancelled or deleted in the table: its UNet stops within one step."""
        self._attempts.stop(job_id)
        self._attempts.forget(job_id)

    async def unwanted(self, attempts: frozenset[Attempt]) -> frozenset[Attempt]:
        """Those of a denoiser's clips that own their job no more: a newer attempt does, or it was
        cancelled. The table decides, whichever Dispatcher runs them."""
        try:
            return attempts - await asyncio.to_thread(self._jobs.owned, list(attempts))
        except StoreUnavailable:  # it is the table that is away, not we: go on
            return frozenset()

    async def not_ready(self) -> list[str]:
        """What keeps a job from being run now, in words; empty when nothing does."""
        broken = [f"{name}: no replica is running" for name in self._fleet.missing]
        if self._closed:
            broken.append(f"Dispatcher: {self._closed}")
        pause_s, reason = self._attempts.pause
        if pause_s:
            broken.append(f"Dispatcher: tries again in {pause_s:.0f} s; {reason}")
        return broken

    async def drain(self, grace_s: float) -> int:
        """Take no more jobs, give those in flight `grace_s`, then have their clips saved and put
        them back into the queue. Returns how many were put back."""
        self._closed = "draining"
        async with self._leasing:
            tasks = self._attempts.tasks
        if tasks:
            await asyncio.wait(tasks, timeout=grace_s)
        left = [task for task in tasks if not task.done()]
        if left:
            await self._fleet.hand_out()
            await asyncio.wait(left, timeout=_HAND_OUT_S)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        return len(left)

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Serve hands these to cluster.autoscaling:policy. Nothing until the queue was looked at:
        an empty answer holds every tier as it is, a backlog of zero would scale it down."""
        return self._fleet.autoscaling_stats()

    async def check_health(self) -> None:
        """Fail when a loop has ended or stalls, so that Serve replaces this replica."""
        for loop in self._loops:
            if loop.done():
                raise RuntimeError("a dispatcher loop has ended") from loop.exception()
        silent = time.monotonic() - self._last_beat
        if silent > self._config.stall_s:
            raise RuntimeError(f"no dispatcher beat for {silent:.0f} s")

    async def __del__(self) -> None:
        """Serve awaits this when it replaces the replica. On SIGTERM nothing is waited for: the
        next Dispatcher takes the jobs over, and it starts when this one has ended."""
        await self.drain(0.0 if told_to_end() else self._config.drain_s)

    # The loops.

    async def _take_jobs(self) -> None:
        """Lease and start jobs while some tier has room."""
        while True:
            self._wake.clear()
            async with self._leasing:
                while not self._closed and await self._lease():
                    pass
            with suppress(TimeoutError):
                async with asyncio.timeout(self._config.poll_s):
                    await self._wake.wait()

    async def _beat(self) -> None:
        """Once per beat: progress and lease renewals in one write, lost attempts dropped."""
        while True:
            await asyncio.sleep(self._config.beat_s)
            reports = self._attempts.progress()
            disowned = await self._patiently(self._jobs.record_progress, reports, self._epoch)
            self._renewed = disowned is not None
            if disowned is not None:
                self._attempts.written(reports)
                self._attempts.cancel(disowned)
                for job_id in await self._patiently(self._jobs.expire, self._epoch) or ():
                    self._attempts.forget(job_id)
                await self._publish()
            self._last_beat = time.monotonic()

    async def _publish(self) -> None:
        """Tell the API what it foresees by: soon when something has changed, now and then else."""
        snapshot, now = self._foresight.snapshot(), time.monotonic()
        published_at, shape = self._published
        if snapshot.shape != shape or now - published_at >= _PUBLISH_S:
            self._published = now, snapshot.shape
            await self._patiently(self._facts.put, FACT, snapshot.to_json())

    async def _watch_replicas(self) -> None:
        """Keep count of what runs. Apart from the beat: it waits for Serve's controller."""
        while True:
            try:
                counts = await self._replica_counts()
            except Exception:
                log.warning("the Serve controller does not answer", exc_info=True)
            else:
                self._fleet.note_replicas(counts)
                self._attempts.strand(self._fleet.stranded())
                self._attempts.hold_up(self._fleet.unserved())
                self._wake.set()
            await asyncio.sleep(self._config.beat_s)

    async def _tell(self) -> None:
        """Show what is seen from here."""
        while True:
            lines = await self._patiently(overview.lines, self._jobs.database)
            self._tally.tell(self._attempts.jobs, lines)
            await asyncio.sleep(TELL_EVERY_S)

    # One round of leases.

    @property
    def _is_open(self) -> bool:
        # Jobs past the denoisers hold no slot; more than this would pile up there.
        full = len(self._attempts) > 2 * self._fleet.slots
        # After an outage of the table our own leases may have run out: they are renewed first.
        return self._renewed and not (self._closed or full or self._attempts.pause[0])

    async def _lease(self) -> bool:
        """Start what should run now; whether anything did."""
        plan, waiting = await self._plan()
        if not plan or not self._is_open:
            return False
        # Before they fail for a lost worker, or are run again: it may have got to its end.
        worn_out = await adopt(self._jobs, self._results, waiting)
        leased = await self._patiently(self._jobs.lease, self._epoch, plan, worn_out)
        count_taken_over(waiting, leased or ())
        for job in leased or ():
            self._attempts.start(job)
        return bool(leased)

    async def _plan(self) -> tuple[dict[str, str], Sequence[Job]]:
        """The tier of every job that should start, "" for those that no tier can take any more; and
        all jobs that were looked at.

        Looks further down the queue while what it finds waits for one tier and another has room.
        """
        look = self._config.candidates
        while True:
            waiting = await self._patiently(self._jobs.waiting, look)
            queued = await self._patiently(self._jobs.queued)
            if waiting is None or queued is None:
                return {}, ()
            if self._attempts.reporting(waiting):
                return {}, ()  # the clock was set: the next beat renews what has not run out
            under_way = self._attempts.jobs
            alone = self._twins.without(waiting, under_way)
            # Twins are no work. Of those not looked at, as many are taken to be twins.
            queued = round(queued * len(alone) / max(1, len(waiting)))
            free = self._attempts.suspects.without(alone, under_way)
            plan, misfits = self._fleet.plan(free, queued, self._config.ageing_s)
            starts = plan.starts | {job.id: "" for job in misfits}
            seen_all = len(waiting) < look or look >= _MOST_CANDIDATES
            if not starts and seen_all and look > self._config.candidates:
                self._look_further_at = time.monotonic() + self._config.poll_s
            if starts or seen_all or not self._fleet.has_room:
                return starts, waiting
            if time.monotonic() < self._look_further_at:
                return starts, waiting  # the tier with room finds nothing in so long a queue
            look *= 4

    async def _patiently(self, call: Any, *args: Any) -> Any:
        """A store that is away must not end a loop, nor a newer Dispatcher make us unwell: None."""
        try:
            return await asyncio.to_thread(call, *args)
        except StoreUnavailable:
            self._renewed = False
            log.exception("the job table does not answer")
        except StaleDispatcher as e:
            self._closed = str(e)  # what runs may end: its fence still holds until re-leased
        return None

    async def _replica_counts(self) -> dict[str, Replicas]:
        """Those of every deployment of this application."""
        app = serve.get_replica_context().app_name
        status = await asyncio.to_thread(serve.status)
        return {
            name: Replicas.of(deployment.replica_states)
            for name, deployment in status.applications[app].deployments.items()
        }
