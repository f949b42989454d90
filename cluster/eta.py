"""How long a job will still take, foreseen from a snapshot of the tiers. Pure: no clock, no table.

Clips on one replica share it step by step, so a clip takes its own seconds plus what its mates take
meanwhile, which is at most as much for each of them. Batch clips stand still while a person waits.
A waiting job begins when the work before it has drained so far that a slot is free.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from cluster.cost import CostModel
from diffusion.params import Priority
from storage.jobs import Job, JobStatus, Stage

FACT = "eta"
"""The name of the snapshot in storage.facts."""

STALE_S = 30.0
"""Who published an older snapshot is gone, and nothing is known."""

_BESIDE = (Stage.ENCODING, Stage.DECODING, Stage.ENCODING_VIDEO, Stage.STORING)
_BEHIND = _BESIDE[1:]
_LEFT: Mapping[Stage | None, Sequence[Stage]] = {
    None: _BESIDE,
    Stage.ENCODING: _BESIDE,
    Stage.WAITING_DENOISER: _BEHIND,
    Stage.DENOISING: _BEHIND,
    Stage.RENDERING: _BEHIND[1:],
    Stage.DECODING: _BEHIND,
    Stage.ENCODING_VIDEO: _BEHIND[1:],
    Stage.STORING: _BEHIND[2:],
}
"""Stages beside the denoising that a job has before it; while the store is away, nobody knows."""


@dataclass(frozen=True, slots=True)
class Work:
    clips: float = 0.0
    seconds: float = 0.0  # of one replica, for what is left of them together

    def __add__(self, other: "Work") -> "Work":
        return Work(self.clips + other.clips, self.seconds + other.seconds)

    def part(self, share: float) -> "Work":
        return Work(self.clips * share, self.seconds * share)

    def without(self, seconds: float) -> "Work":
        """One clip less, of which so much is left."""
        return Work(max(0.0, self.clips - 1), max(0.0, self.seconds - seconds))

    @property
    def mean_s(self) -> float:
        return self.seconds / self.clips if self.clips else 0.0


@dataclass(frozen=True, slots=True)
class TierState:
    replicas: int  # that run
    slots: int  # clips that share a replica, at most
    cold_start_s: float  # until a first replica runs
    starts_from_zero: bool  # without a replica it is at rest, not lost
    tflops: float  # what a replica sustains, as learned so far
    running: Mapping[Priority, Work]
    queued: Mapping[Priority, Work]  # that will come here, as planned now
    starting: int | None = None  # replicas that do not run yet; None: none were counted so far
    is_measured: bool = False  # tflops, by clips or a calibration; else they are as configured
    peak_vram_bytes: int | None = None  # the most that a clip's denoising held; None: no GPU so far

    @property
    def works(self) -> tuple[Work, ...]:
        return *self.running.values(), *self.queued.values()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the Dispatcher tells those who foresee, and those who look on."""

    tiers: Mapping[str, TierState]
    stage_s: Mapping[Stage, float] = field(default_factory=dict)  # mean wall seconds, as measured
    median_error: float | None = None  # |real - foreseen| / real, of the last 100

    @property
    def shape(self) -> object:
        """Alike for snapshots of which only the seconds have run on."""
        tiers = {
            name: (tier.replicas, tier.starting, *(round(work.clips) for work in tier.works))
            for name, tier in self.tiers.items()
        }
        return tiers, self.stage_s.keys()

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Snapshot":
        """Raises ValueError where `text` is none, of another version, say."""
        try:
            given = json.loads(text)
            tiers = {name: _tier(**tier) for name, tier in given.pop("tiers").items()}
            stage_s = {Stage(stage): s for stage, s in given.pop("stage_s").items()}
            return cls(tiers, stage_s, **given)
        except (KeyError, TypeError, AttributeError) as e:
            raise ValueError(f"not a snapshot: {e}") from e


@dataclass(frozen=True, slots=True)
class Eta:
    seconds: float  # from now until the end
    error: float | None  # median of |real - foreseen| / real, of the last 100 videos


def eta_s(
    job: Job, snapshot: Snapshot, cost: CostModel, queue_position: int | None, now: float
) -> float | None:
    """Seconds from `now` (Unix) until the job's end. None: it has ended, it stands in no queue, no
    tier can take it now, or a stage on its way was not measured yet."""
    if job.status is JobStatus.QUEUED and queue_position is not None:
        denoising_s = _queued_s(job, snapshot, cost, queue_position)
    elif job.status is JobStatus.IN_PROGRESS:
        denoising_s = _running_s(job, snapshot, cost, now)
    else:
        return None
    left = _LEFT.get(job.stage)
    if left and job.request.sampling.is_rendered:  # no other stage lies on its way
        left = [stage for stage in left if stage in _LEFT[Stage.RENDERING]]
    if denoising_s is None or left is None or any(stage not in snapshot.stage_s for stage in left):
        return None
    frames_s = 0.0  # of a camera move, encoded where other clips are decoded
    if Stage.ENCODING in left:
        frames_s = cost.encode_share(job.request.sampling) * snapshot.stage_s[Stage.DECODING]
    return denoising_s + frames_s + sum(snapshot.stage_s[stage] for stage in left)


def _queued_s(job: Job, snapshot: Snapshot, cost: CostModel, queue_position: int) -> float | None:
    """Until the end of its denoising, on the tier where that comes first."""
    priority, sampling = job.request.priority, job.request.sampling
    waits = {kind: sum(t.queued[kind].clips for t in snapshot.tiers.values()) for kind in Priority}
    before = float(queue_position)
    if priority is Priority.BATCH:
        before = max(0.0, before - waits[Priority.INTERACTIVE])
    ahead = min(1.0, before / waits[priority]) if waits[priority] else 0.0
    behind = max(0.0, 1 - (before + 1) / waits[priority]) if waits[priority] else 0.0
    finishes = [
        _finish_s(_own_s(job, tier, name, cost), tier, priority, ahead, behind)
        for name in cost.tiers_for(sampling)
        if (tier := snapshot.tiers.get(name)) and (tier.replicas or tier.starts_from_zero)
    ]
    return min(finishes, default=None)


def _finish_s(
    own_s: float, tier: TierState, priority: Priority, ahead: float, behind: float
) -> float:
    """`ahead`, `behind`: shares of the tier's queue of this priority."""
    replicas = max(1, tier.replicas)
    wait_s = _paused_s(tier, priority) + (0.0 if tier.replicas else tier.cold_start_s)
    before = tier.running[priority] + tier.queued[priority].part(ahead)
    after = tier.queued[priority].part(behind)
    others_hold = sum(tier.running[kind].clips for kind in Priority if kind is not priority)
    if others_hold + before.clips < replicas * tier.slots:
        return wait_s + _shared_s(own_s, tier, before, after)
    # When its slot is free, the clips in the other slots are half done on average.
    typical_s = tier.queued[priority].mean_s or own_s
    others = Work(replicas * tier.slots - 1, (replicas * tier.slots - 1) * typical_s / 2)
    begins_s = max(0.0, before.seconds - others.seconds) / replicas
    return wait_s + begins_s + _shared_s(own_s, tier, others, after)


def _running_s(job: Job, snapshot: Snapshot, cost: CostModel, now: float) -> float | None:
    """What is left of its denoising."""
    if job.stage in _BEHIND:
        return 0.0
    tier = snapshot.tiers.get(job.tier or "")
    if tier is None:
        return None
    priority = job.request.priority
    whole_s = _own_s(job, tier, job.tier or "", cost)
    left_s = _own_s(job, tier, job.tier or "", cost, job.step)
    mates = tier.running[priority].without(left_s)
    modelled_s = _shared_s(left_s, tier, mates, tier.queued[priority])
    modelled_s += _paused_s(tier, priority) + (0.0 if tier.replicas else tier.cold_start_s)
    # An earlier attempt's time is in `started_at` too, so only a first one can be observed.
    if job.attempt > 1 or job.step == 0 or job.started_at is None:
        return modelled_s
    spent_s = now - job.started_at - snapshot.stage_s.get(Stage.ENCODING, 0.0)
    if spent_s <= 0:  # a clock was set meanwhile, or it was quicker than any before
        return modelled_s
    observed_s = spent_s * left_s / (whole_s - left_s)
    done = job.step / job.request.sampling.unet_steps
    return done * observed_s + (1 - done) * modelled_s


def _shared_s(own_s: float, tier: TierState, mates: Work, after: Work) -> float:
    """Wall seconds of a clip beside `mates`, whose slots those `after` it fill one by one."""
    replicas = max(1, tier.replicas)
    beside = mates.clips // replicas * min(own_s, mates.mean_s) + after.seconds / replicas
    return own_s + min((tier.slots - 1) * own_s, beside)


def _paused_s(tier: TierState, priority: Priority) -> float:
    """For how long people go first."""
    if priority is Priority.INTERACTIVE:
        return 0.0
    first = tier.running[Priority.INTERACTIVE] + tier.queued[Priority.INTERACTIVE]
    return first.seconds / max(1, tier.replicas)


def _own_s(job: Job, tier: TierState, name: str, cost: CostModel, steps_done: int = 0) -> float:
    """Of a replica, by what the Dispatcher has learned of the tier since `cost` was made."""
    seconds = cost.seconds(job.request.sampling, name, steps_done)
    return seconds * cost.tflops(name) / tier.tflops


def _tier(
    running: Mapping[str, Mapping[str, float]],
    queued: Mapping[str, Mapping[str, float]],
    **rest: float,
) -> TierState:
    def works(given: Mapping[str, Mapping[str, float]]) -> dict[Priority, Work]:
        return {priority: Work(**given[priority]) for priority in Priority}

    return TierState(running=works(running), queued=works(queued), **rest)  # type: ignore[arg-type]
