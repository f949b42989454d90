"""Slots of the denoisers: which tier has room, which attempt holds it, which tier is away."""

from collections.abc import Iterable, Mapping, Sequence

from ray.serve.handle import DeploymentHandle

from cluster.placement import TierLoad, choose_tier
from cluster.tiers import TierConfig
from storage.jobs import Attempt


class Tier:
    """One GPU tier as the Dispatcher sees it."""

    def __init__(self, config: TierConfig, denoiser: DeploymentHandle):
        self.config = config
        self.denoiser = denoiser.options(stream=True)
        self.ready_replicas = config.min_replicas
        self.denoising: set[Attempt] = set()  # each holds a slot

    @property
    def name(self) -> str:
        return self.config.deployment_name

    @property
    def slots(self) -> int:
        return self.ready_replicas * self.config.max_ongoing_requests

    @property
    def load(self) -> TierLoad:
        return TierLoad(
            self.name,
            self.ready_replicas,
            self.config.max_ongoing_requests,
            len(self.denoising),
            self.config.min_replicas == 0,
        )


class Slots:
    """All tiers together."""

    def __init__(self, tiers: Sequence[TierConfig], denoisers: Sequence[DeploymentHandle]):
        self._tiers = {
            config.deployment_name: Tier(config, denoiser)
            for config, denoiser in zip(tiers, denoisers, strict=True)
        }
        self.missing: list[str] = []  # deployments that should have a replica and have none

    def free(self, running: int) -> Tier | None:
        """The tier for the next job. None when all are full, or when so many jobs are `running`
        that they pile up in the stages behind the denoisers."""
        if running > 2 * sum(tier.slots for tier in self._tiers.values()):
            return None
        chosen = choose_tier(tier.load for tier in self._tiers.values())
        return None if chosen is None else self._tiers[chosen.name]

    def note_replicas(self, counts: Mapping[str, int]) -> None:
        """Take in the running replicas of every deployment, by its name."""
        for name, tier in self._tiers.items():
            tier.ready_replicas = counts.get(name, 0)
        may_be_empty = {
            name
            for name, tier in self._tiers.items()
            if self._some_tier_runs or tier.config.min_replicas == 0
        }
        self.missing = [n for n, count in counts.items() if count == 0 and n not in may_be_empty]

    def stranded(self) -> Iterable[Attempt]:
        """Attempts that wait for a tier whose last replica is gone, while another tier runs."""
        if not self._some_tier_runs:
            return ()
        return [
            attempt
            for tier in self._tiers.values()
            if tier.ready_replicas == 0 and tier.config.min_replicas > 0
            for attempt in tier.denoising
        ]

    @property
    def _some_tier_runs(self) -> bool:
        return any(tier.ready_replicas for tier in self._tiers.values())
