"""Which waiting jobs start now, and on which tier. Pure: no Ray, no clock, no table.

Order: interactive jobs, and batch jobs that have waited for long, before other batch jobs; within
a class the tenant with the least work in flight first; within a tenant the nearest deadline, then
the oldest. Each goes to the tier where it would finish first, waiting there included; where that
tier is full it stays queued and counts as that tier's work, so that later jobs see a longer wait.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from diffusion.params import Priority


@dataclass(frozen=True, slots=True)
class Candidate:
    """A waiting job. Times in Unix seconds."""

    job_id: str
    tenant: str
    priority: Priority
    created_at: float
    deadline_at: float | None
    seconds: Mapping[str, float]  # GPU-seconds it needs, by the tiers that can take it


@dataclass(slots=True)
class TierLoad:
    """A tier as it stands now. Seconds are GPU-seconds of one replica."""

    name: str
    replicas: int  # that run
    slots: int  # jobs in flight per replica
    batch_slots: int  # of these, open to batch jobs: the rest waits for people
    cold_start_s: float  # until a first replica runs
    starts_from_zero: bool  # without a replica it is at rest, not lost: work for it starts one
    in_flight: int = 0
    batch_in_flight: int = 0
    interactive_s: float = 0.0  # work in flight, and planned for it here
    batch_s: float = 0.0

    @property
    def work_s(self) -> float:
        return self.interactive_s + self.batch_s

    def takes(self, priority: Priority) -> bool:
        """Whether there is room now. A tier at rest has none: jobs held for it are its backlog,
        which makes the autoscaler start it. (A call that waits there would overrule that one.)"""
        if self.in_flight >= self.replicas * self.slots:
            return False
        most_batch = self.replicas * self.batch_slots
        return priority is Priority.INTERACTIVE or self.batch_in_flight < most_batch

    def finish_s(self, candidate: Candidate) -> float:
        """Predicted seconds until the job would be done here. Nobody waits while a replica is idle;
        people do not wait for batch work: the engine pauses it for them."""
        ahead, clips = self.interactive_s, self.in_flight - self.batch_in_flight
        if candidate.priority is Priority.BATCH:
            ahead, clips = self.work_s, self.in_flight
        own = candidate.seconds[self.name]
        if self.replicas == 0:
            return self.cold_start_s + ahead + own
        if clips < self.replicas:
            return own
        return ahead / self.replicas + own

    def add(self, candidate: Candidate, starts: bool) -> None:
        seconds = candidate.seconds[self.name]
        if candidate.priority is Priority.BATCH:
            self.batch_s += seconds
            self.batch_in_flight += starts
        else:
            self.interactive_s += seconds
        self.in_flight += starts


@dataclass(frozen=True, slots=True)
class Plan:
    starts: dict[str, str] = field(default_factory=dict)  # job -> tier, in order
    held: dict[str, str] = field(default_factory=dict)  # job -> the full tier it waits for


def place(
    candidates: Sequence[Candidate],
    tiers: Mapping[str, TierLoad],
    in_flight_s: Mapping[str, float],
    now: float,
    ageing_s: float,
) -> Plan:
    """Choose for all `candidates`; `tiers` take up what was chosen.

    `in_flight_s`: seconds of work in flight by tenant. Batch jobs that have waited `ageing_s` are
    ordered like interactive ones (but take no slot that is kept for those).
    """
    plan = Plan()
    share = defaultdict(float, in_flight_s)
    queues = _queues(candidates, now, ageing_s)
    while queues:
        # The class first, then the tenant with the least work, then its own order.
        key = min(queues, key=lambda k: (k[0], share[k[1]], *_urgency(queues[k][-1])))
        candidate = queues[key].pop()
        if not queues[key]:
            del queues[key]
        able = [
            tiers[name]
            for name in candidate.seconds
            if tiers[name].replicas or tiers[name].starts_from_zero
        ]
        if not able:
            continue
        tier = min(able, key=lambda tier: tier.finish_s(candidate))
        starts = tier.takes(candidate.priority)
        tier.add(candidate, starts)
        # Held jobs count too: a tenant whose jobs wait for one tier gives way on the others.
        share[candidate.tenant] += candidate.seconds[tier.name]
        (plan.starts if starts else plan.held)[candidate.job_id] = tier.name
    return plan


def _queues(
    candidates: Sequence[Candidate], now: float, ageing_s: float
) -> dict[tuple[bool, str], list[Candidate]]:
    """By (comes last, tenant): each tenant's jobs of a class, the most urgent at the end."""
    queues: dict[tuple[bool, str], list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        aged = now - candidate.created_at >= ageing_s
        last = candidate.priority is Priority.BATCH and not aged
        queues[last, candidate.tenant].append(candidate)
    for queue in queues.values():
        queue.sort(key=_urgency)
        queue.reverse()
    return dict(queues)


def _urgency(candidate: Candidate) -> tuple[float, float]:
    deadline = float("inf") if candidate.deadline_at is None else candidate.deadline_at
    return deadline, candidate.created_at
