"""Which tier takes the next job. Pure: no Ray, no clock."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TierLoad:
    """A tier as it stands now."""

    name: str
    ready_replicas: int
    jobs_per_replica: int
    denoising: int  # jobs that hold one of its slots
    scales_from_zero: bool

    @property
    def room(self) -> int:
        return self.ready_replicas * self.jobs_per_replica - self.denoising


def choose_tier(tiers: Iterable[TierLoad]) -> TierLoad | None:
    """The tier with the most room among those that have a replica; None where all are full.

    Only when none has room does an empty tier that scales from zero get a job, which wakes it up. A
    tier that should have replicas and has none gets nothing: its node is away.
    """
    tiers = list(tiers)
    if with_room := [tier for tier in tiers if tier.room > 0]:
        return max(with_room, key=lambda tier: tier.room)
    asleep = (
        tier
        for tier in tiers
        if tier.scales_from_zero
        and tier.ready_replicas == 0
        and tier.denoising < tier.jobs_per_replica
    )
    return next(asleep, None)
