"""How many replicas every deployment gets: the policy that a Serve config file names.

    autoscaling_policy: {policy_function: "cluster.autoscaling:policy"}

Serve pickles this module by value into its controller, whose loop calls the policy ten times a
second: import nothing but the standard library and Ray, do not block, and do not raise, which would
halt the reconciliation of the whole application. The policy tells what is needed. Serve holds that
to each deployment's own autoscaling_config: upscale_delay_s, downscale_delay_s, then the bounds.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from ray.serve.autoscaling_policy import replica_queue_length_autoscaling_policy

if TYPE_CHECKING:
    from ray.serve._private.common import DeploymentID
    from ray.serve.config import AutoscalingContext

PUBLISHER = "Dispatcher"
"""The deployment whose `record_autoscaling_stats` returns the stats of all tiers. Serve collects
them only where there is an autoscaling_config: 1 to 1 replicas."""

TIERS = ("Denoiser-", "CameraRenderer")
"""How TierConfig.deployment_name begins."""

STALE_S = 30.0
"""Older stats are as good as none. Three of Serve's default metrics_interval_s."""

_HIGHEST = "highest_need"


@dataclass(frozen=True, slots=True)
class TierWork:
    """The work of one tier, as the Dispatcher plans it."""

    backlog_gpu_s: float  # one replica's seconds for what is left of all in flight and planned
    slo_s: float  # wanted: the tier is through with its backlog in so many seconds
    in_flight: float  # requests that hold a slot of a replica
    slots_per_replica: float

    def __post_init__(self) -> None:
        # Here, so that the Dispatcher raises and not the controller; `not <` catches NaN as well.
        if not (0 <= self.backlog_gpu_s < math.inf and 0 <= self.in_flight < math.inf):
            raise ValueError(f"work must be zero or more and finite: {self}")
        if not (0 < self.slo_s < math.inf and 0 < self.slots_per_replica < math.inf):
            raise ValueError(f"slo_s and slots_per_replica must be above zero and finite: {self}")

    def stats(self, deployment: str) -> dict[str, float]:
        """These figures as `record_autoscaling_stats` returns them: floats by name."""
        return {f"{name}/{deployment}": float(value) for name, value in asdict(self).items()}

    @classmethod
    def read(cls, stats: Mapping[str, float], deployment: str) -> "TierWork | None":
        """The figures of one deployment; None where one of them is missing."""
        try:
            return cls(*(stats[f"{field.name}/{deployment}"] for field in fields(cls)))
        except KeyError:
            return None


def desired_replicas(work: TierWork) -> int:
    """As many as work the backlog off in time, and as many as the requests in flight occupy.

    Any work at all gets an empty tier its first replica.
    """
    in_time = math.ceil(work.backlog_gpu_s / work.slo_s)
    occupied = math.ceil(work.in_flight / work.slots_per_replica)
    return max(in_time, occupied)


def bridge_dips(need: int, target: int, highest: int) -> int:
    """The highest need since it fell below `target`; `highest` is what this returned last.

    When downscale_delay_s is over, Serve takes the need of that moment, which may be a dip: a
    replica that is given up then costs a cold start later.
    """
    return max(need, highest) if highest < target else need


def policy(
    contexts: "Mapping[DeploymentID, AutoscalingContext]",
) -> "tuple[dict[DeploymentID, float], dict[DeploymentID, dict[str, Any]]]":
    """Needed replicas and policy state by deployment: tiers by the Dispatcher's stats, the others
    by their own load as Serve does by default. The Dispatcher is left as it is."""
    stats = _fresh_stats(contexts)
    needs: dict[DeploymentID, float] = {}
    states: dict[DeploymentID, dict[str, Any]] = {}
    for deployment, context in contexts.items():
        if deployment.name.startswith(TIERS):
            work = TierWork.read(stats, deployment.name)
            needs[deployment], states[deployment] = _size_tier(context, work)
        elif deployment.name != PUBLISHER:
            needs[deployment], _ = replica_queue_length_autoscaling_policy(context)
    return needs, states


def _size_tier(context: "AutoscalingContext", work: TierWork | None) -> tuple[int, dict[str, Any]]:
    """The need of a tier and its policy state. Holds the present target without `work`."""
    target: int = context.target_num_replicas
    if work is None:
        return target, {}
    need = desired_replicas(work)
    if 0 < need < target and context.current_num_replicas == 0:
        # Serve applies no delay while none runs: it would end replicas that are loading a model.
        return target, {}
    need = bridge_dips(need, target, context.policy_state.get(_HIGHEST, target))
    return need, {_HIGHEST: need}


def _fresh_stats(contexts: "Mapping[DeploymentID, AutoscalingContext]") -> dict[str, float]:
    """The latest stats of the Dispatcher's running replica, by name, less what is stale.

    Raw: Serve's aggregate is a mean over look_back_period_s and does not tell its age.
    """
    fresh: dict[str, float] = {}
    for deployment, context in contexts.items():
        if deployment.name != PUBLISHER:
            continue
        for name, by_replica in context.raw_metrics.items():
            latest = max((series[-1] for series in by_replica.values() if series), default=None)
            if latest is not None and context.current_time - latest.timestamp <= STALE_S:
                fresh[name] = latest.value
    return fresh
