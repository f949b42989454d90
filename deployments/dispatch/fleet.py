"""The denoisers as the Dispatcher sees them: who runs where, who fits where, who comes next."""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ray.serve.handle import DeploymentHandle

from cluster.autoscaling import TierWork
from cluster.cost import CostModel
from cluster.eta import TierState, Work
from cluster.ladder import Floor, Ladder
from cluster.placement import Candidate, Plan, TierLoad, place
from cluster.tiers import TierConfig
from diffusion.params import Priority, SamplingParams
from storage.jobs import Attempt, Job

log = logging.getLogger(__name__)

_TOLD_S = 5.0


@dataclass(frozen=True, slots=True)
class Replicas:
    """Of one deployment, as Serve's controller counts them."""

    running: int
    leaving: int = 0  # they take no more, and still serve what they have
    starting: int = 0  # or wait for a node that has room

    @classmethod
    def of(cls, states: Mapping[str, int]) -> "Replicas":
        """`states`: replicas by Serve's ReplicaState. One that stops is not cut off: Serve (2.60,
        `Replica._perform_graceful_shutdown`) waits for its requests, for `drain_s` at most, and a
        denoiser hands its clips out as soon as it is told. One that has died leaves that state
        within a round of the controller."""
        leaving = ("PENDING_MIGRATION", "RECOVERING", "UPDATING", "STOPPING")
        return cls(
            states.get("RUNNING", 0),
            sum(states.get(state, 0) for state in leaving),
            states.get("STARTING", 0),
        )

    @property
    def are_gone(self) -> bool:
        return self.running + self.leaving == 0


@dataclass(slots=True)
class Clip:
    """A job that holds a slot of a tier."""

    tenant: str
    priority: Priority
    sampling: SamplingParams
    step: int = 0


class Tier:
    """One deployment of the Denoiser, or the CameraRenderer."""

    def __init__(self, config: TierConfig, denoiser: DeploymentHandle):
        self.config = config
        self.worker = denoiser.options(stream=True) if config.denoises else denoiser
        self.replica_handle = denoiser
        self.replicas = config.min_replicas  # that run, and take clips
        self.is_gone = False  # not even one that leaves is left
        self.peak_vram_bytes: int | None = None  # of all clips so far; None: no GPU
        self.clips: dict[Attempt, Clip] = {}

    @property
    def slots(self) -> int:
        return self.replicas * self.config.max_ongoing_requests


class Fleet:
    """All tiers together. Tiers go by their configured names."""

    def __init__(
        self,
        tiers: Sequence[TierConfig],
        denoisers: Sequence[DeploymentHandle],
        cost: CostModel,
        floor: Floor,
    ):
        self.tiers = {
            config.name: Tier(config, denoiser)
            for config, denoiser in zip(tiers, denoisers, strict=True)
        }
        self.cost = cost
        self.missing: list[str] = []  # deployments that should have a replica and have none
        self.starting: Mapping[str, int] = {}  # replicas that do not run yet, by deployment
        self._floor = floor
        self._ladders: dict[str, Ladder] = {}  # of jobs that ran out of memory, by id
        self._queued: Mapping[tuple[str, Priority], Work] | None = None  # since the first plan

    # Who runs where.

    def enter(self, job: Job, tier: str) -> SamplingParams:
        """The job takes a slot. Returns what is to be made there, which may be a smaller clip."""
        sampling = self._ladder(job).sampling
        clip = Clip(job.request.tenant, job.request.priority, sampling)
        self.tiers[tier].clips[job.current_attempt] = clip
        return sampling

    def note_step(self, attempt: Attempt, step: int) -> None:
        for tier in self.tiers.values():
            if clip := tier.clips.get(attempt):
                clip.step = step

    def note_peak(self, tier: str, vram_bytes: int | None) -> None:
        """So much of the card was held while a clip was denoised; None: there is no card."""
        known = self.tiers[tier].peak_vram_bytes
        self.tiers[tier].peak_vram_bytes = max(vram_bytes or 0, known or 0) or None

    def leave(self, attempt: Attempt) -> None:
        """Its slot is free; no matter if it was already."""
        for tier in self.tiers.values():
            tier.clips.pop(attempt, None)

    def note_replicas(self, counts: Mapping[str, Replicas]) -> None:
        """Take in the replicas of every deployment, by its name."""
        for tier in self.tiers.values():
            found = counts.get(tier.config.deployment_name, Replicas(0))
            tier.replicas, tier.is_gone = found.running, found.are_gone
        self.starting = {name: found.starting for name, found in counts.items()}
        may_be_empty = {
            tier.config.deployment_name
            for tier in self.tiers.values()
            if tier.config.min_replicas == 0 or (tier.config.denoises and self._some_tier_runs)
        }
        self.missing = [
            name for name, found in counts.items() if not found.running and name not in may_be_empty
        ]

    def stranded(self) -> Iterable[Attempt]:
        """Attempts that wait for a tier whose last replica is gone, while another tier runs."""
        if not self._some_tier_runs:
            return ()
        return [
            attempt
            for tier in self.tiers.values()
            if tier.is_gone and tier.config.denoises  # another cannot render instead
            for attempt in tier.clips
        ]

    def unserved(self) -> Iterable[Attempt]:
        """Attempts whose tier has no replica that runs, though one may start."""
        return [a for tier in self.tiers.values() if not tier.replicas for a in tier.clips]

    async def hand_out(self) -> None:
        """Have the denoisers save every clip and give it back: their calls end as Preempted."""
        await asyncio.gather(*(self._hand_out(tier) for tier in self.tiers.values() if tier.clips))

    async def _hand_out(self, tier: Tier) -> None:
        try:
            told = tier.replica_handle.broadcast("hand_out", frozenset(tier.clips))
            await asyncio.to_thread(told.results, timeout_s=_TOLD_S)
        except Exception:  # whatever Ray raises when replicas go: their clips lose a few steps
            log.warning("%s did not hand out its clips", tier.config.name, exc_info=True)

    # Who fits where.

    def step_down(self, job: Job, tier: str | None) -> tuple[str, str] | None:
        """The job ran out of memory, on `tier` or in a stage behind it: what to try next, as
        (rung, words), None when nothing is left."""
        request = job.request
        floor = self._floor if request.may_downgrade else None
        fits = self.cost.tiers_for
        step = self._ladder(job).step_down(tier, fits, floor, request.last_clip)
        if step is None:
            return None
        self._ladders[job.id], kind, detail = step
        return kind, detail

    def forget(self, job_id: str) -> None:
        """The job has ended."""
        self._ladders.pop(job_id, None)

    def _ladder(self, job: Job) -> Ladder:
        return self._ladders.get(job.id) or Ladder(job.request.sampling)

    # Who comes next.

    def plan(self, waiting: Sequence[Job], queued: int, ageing_s: float) -> tuple[Plan, list[Job]]:
        """Which of the `waiting` jobs, the first of `queued`, start now and where; and those that
        fit no tier."""
        candidates, misfits = [], []
        for job in waiting:
            ladder = self._ladder(job)
            if tiers := ladder.tiers(self.cost.tiers_for):
                seconds = {tier: self.cost.seconds(ladder.sampling, tier) for tier in tiers}
                candidates.append(_candidate(job, seconds))
            else:
                misfits.append(job)
        plan = place(candidates, self._loads(), self._in_flight_s(), time.time(), ageing_s)
        self._note_queued(candidates, plan, queued)
        return plan, misfits

    def autoscaling_stats(self) -> dict[str, float]:
        """What cluster.autoscaling:policy sizes the tiers by."""
        stats: dict[str, float] = {}
        if self._queued is None:
            return stats
        for name, state in self.tier_states().items():
            tier = self.tiers[name]
            work = TierWork(
                backlog_gpu_s=sum(work.seconds for work in state.works),
                slo_s=tier.config.slo_s,
                in_flight=len(tier.clips),
                slots_per_replica=tier.config.max_ongoing_requests,
            )
            stats |= work.stats(tier.config.deployment_name)
        return stats

    def tier_states(self) -> dict[str, TierState]:
        """What an ETA is foreseen by, and an operator sees."""
        queued = self._queued or {}
        return {
            name: TierState(
                replicas=tier.replicas,
                slots=tier.config.max_ongoing_requests,
                cold_start_s=tier.config.cold_start_s,
                starts_from_zero=tier.config.min_replicas == 0,
                tflops=self.cost.tflops(name),
                running={priority: self._running(tier, priority) for priority in Priority},
                queued={priority: queued.get((name, priority), Work()) for priority in Priority},
                starting=self.starting.get(tier.config.deployment_name),
                is_measured=self.cost.is_measured(name),
                peak_vram_bytes=tier.peak_vram_bytes,
            )
            for name, tier in self.tiers.items()
        }

    def _running(self, tier: Tier, priority: Priority) -> Work:
        left = [
            self._left_s(tier.config.name, clip)
            for clip in tier.clips.values()
            if clip.priority is priority
        ]
        return Work(len(left), sum(left))

    def _note_queued(self, candidates: Sequence[Candidate], plan: Plan, queued: int) -> None:
        """What stays queued is work of the tier it waits for; what was not looked at is taken to be
        like what was."""
        held: dict[tuple[str, Priority], Work] = defaultdict(Work)
        by_id = {candidate.job_id: candidate for candidate in candidates}
        for job_id, tier in plan.held.items():
            candidate = by_id[job_id]
            held[tier, candidate.priority] += Work(1, candidate.seconds[tier])
        unseen = max(0, queued - len(candidates))
        scale = 1 + unseen / max(1, len(plan.held))
        self._queued = {waits: work.part(scale) for waits, work in held.items()}

    def _loads(self) -> dict[str, TierLoad]:
        return {name: self._load(tier) for name, tier in self.tiers.items()}

    def _load(self, tier: Tier) -> TierLoad:
        config = tier.config
        load = TierLoad(
            name=config.name,
            replicas=tier.replicas,
            slots=config.max_ongoing_requests,
            batch_slots=config.batch_slots,
            cold_start_s=config.cold_start_s,
            starts_from_zero=config.min_replicas == 0,
            in_flight=len(tier.clips),
        )
        for clip in tier.clips.values():
            if clip.priority is Priority.BATCH:
                load.batch_in_flight += 1
                load.batch_s += self._left_s(config.name, clip)
            else:
                load.interactive_s += self._left_s(config.name, clip)
        return load

    def _left_s(self, tier: str, clip: Clip) -> float:
        return self.cost.seconds(clip.sampling, tier, clip.step)

    def _in_flight_s(self) -> dict[str, float]:
        seconds: dict[str, float] = defaultdict(float)
        for name, tier in self.tiers.items():
            for clip in tier.clips.values():
                seconds[clip.tenant] += self._left_s(name, clip)
        return seconds

    @property
    def slots(self) -> int:
        return sum(tier.slots for tier in self.tiers.values())

    @property
    def has_room(self) -> bool:
        return any(self._load(tier).takes(Priority.INTERACTIVE) for tier in self.tiers.values())

    @property
    def _some_tier_runs(self) -> bool:
        """Of those that denoise."""
        return any(tier.replicas for tier in self.tiers.values() if tier.config.denoises)


def _candidate(job: Job, seconds: Mapping[str, float]) -> Candidate:
    request = job.request
    return Candidate(
        job_id=job.id,
        tenant=request.tenant,
        priority=request.priority,
        created_at=job.created_at,
        deadline_at=request.deadline_at,
        seconds=seconds,
    )
