"""How many replicas: the needs themselves, and what Serve's own delays make of them over time."""

import sys
from collections.abc import Mapping
from typing import Any

import pytest
from ray.serve import autoscaling_policy as serve_autoscaling
from ray.serve._private.common import DeploymentID, TimeStampedValue
from ray.serve.config import AutoscalingConfig, AutoscalingContext, AutoscalingPolicy

from cluster.autoscaling import (
    PUBLISHER,
    STALE_S,
    TIERS,
    TierWork,
    bridge_dips,
    desired_replicas,
    policy,
)
from cluster.stage import StageConfig
from cluster.tiers import CameraTierConfig, TierConfig

TIER = "Denoiser-a100"
UP_S, DOWN_S = 3.0, 120.0


def work(backlog_gpu_s: float, in_flight: int = 0) -> TierWork:
    return TierWork(backlog_gpu_s, slo_s=60, in_flight=in_flight, slots_per_replica=2)


@pytest.mark.parametrize(
    ("now", "needed"),
    [
        (work(0), 0),
        (work(0.1), 1),
        (work(60), 1),
        (work(61), 2),
        (work(600), 10),
        (work(0, in_flight=1), 1),
        (work(1, in_flight=5), 3),
        (work(600, in_flight=5), 10),
    ],
)
def test_a_tier_needs_to_be_in_time_and_to_hold_what_is_in_flight(
    now: TierWork, needed: int
) -> None:
    assert desired_replicas(now) == needed


def test_a_dip_does_not_count_until_the_target_is_reached_again() -> None:
    assert bridge_dips(need=2, target=5, highest=5) == 2
    assert bridge_dips(need=4, target=5, highest=2) == 4
    assert bridge_dips(need=1, target=5, highest=4) == 4
    assert bridge_dips(need=7, target=5, highest=4) == 7
    assert bridge_dips(need=3, target=4, highest=4) == 3


def test_figures_go_through_serve_as_floats_and_come_back() -> None:
    stats = work(90.5, in_flight=3).stats(TIER)
    assert stats[f"backlog_gpu_s/{TIER}"] == 90.5
    assert all(type(value) is float for value in stats.values())
    assert TierWork.read(stats, TIER) == work(90.5, in_flight=3)
    assert TierWork.read(stats, "Denoiser-rtx4090") is None
    assert TierWork.read(dict(list(stats.items())[:-1]), TIER) is None


@pytest.mark.parametrize(
    "figures",
    [
        (-1, 60, 0, 2),
        (float("nan"), 60, 0, 2),
        (float("inf"), 60, 0, 2),
        (1, 60, -1, 2),
        (1, 0, 0, 2),
        (1, float("inf"), 0, 2),
        (1, 60, 0, 0),
    ],
)
def test_figures_that_cannot_be_are_refused_where_they_are_published(
    figures: tuple[float, float, float, float],
) -> None:
    with pytest.raises(ValueError, match="zero"):
        TierWork(*figures)


def test_names_are_those_of_the_deployments() -> None:
    assert TierConfig(name="a100").deployment_name == f"{TIERS[0]}a100" == TIER
    assert CameraTierConfig().deployment_name == TIERS[1]


class Serve:
    """Serve's application of the policy to the Dispatcher, a tier and a stage: its real wrapper
    with the delays, its bounds, and a clock of ours."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **targets: int):
        self.now = 1_000_000.0
        monkeypatch.setattr(serve_autoscaling.time, "time", lambda: self.now)
        self._decide = serve_autoscaling._apply_app_level_autoscaling_config(policy)
        self.targets = {PUBLISHER: 1, TIER: 0, "Decoder": 1, **targets}
        self.running = dict(self.targets)
        self.requests: dict[str, float] = {}
        self.published: Mapping[str, float] = {}
        self.published_at = self.now
        self._state: dict[DeploymentID, dict[str, Any]] = {}

    def publish(self, now: TierWork) -> None:
        self.published, self.published_at = now.stats(TIER), self.now

    def tick(self, seconds: float = 0.0) -> int:
        """The target of the tier after the next decision, `seconds` later."""
        self.now += seconds
        ids = {name: DeploymentID(name, "app") for name in self.targets}
        contexts = {ids[name]: self._context(ids[name]) for name in self.targets}
        decisions, self._state = self._decide(contexts)
        for deployment, decision in decisions.items():
            stage = self._config(deployment.name)
            bounded = max(stage.min_replicas, min(stage.max_replicas, decision))
            self.targets[deployment.name] = bounded
        return self.targets[TIER]

    def start_replicas(self) -> None:
        self.running = dict(self.targets)

    def _config(self, name: str) -> StageConfig:
        low, high = (0, 8) if name == TIER else (1, 4)
        return StageConfig(
            min_replicas=low, max_replicas=high, upscale_delay_s=UP_S, downscale_delay_s=DOWN_S
        )

    def _context(self, deployment: DeploymentID) -> AutoscalingContext:
        name = deployment.name
        config = self._config(name)
        point = {
            stat: {"replica": [TimeStampedValue(self.published_at, value)]}
            for stat, value in self.published.items()
        }
        return AutoscalingContext(
            deployment_id=deployment,
            deployment_name=name,
            app_name="app",
            current_num_replicas=self.running[name],
            target_num_replicas=self.targets[name],
            running_replicas=[],
            total_num_requests=self.requests.get(name, 0.0),
            total_queued_requests=0.0,
            aggregated_metrics={},
            raw_metrics=point if name == PUBLISHER else {},
            capacity_adjusted_min_replicas=config.min_replicas,
            capacity_adjusted_max_replicas=config.max_replicas,
            policy_state=self._state.get(deployment, {}),
            last_scale_up_time=None,
            last_scale_down_time=None,
            current_time=self.now,
            config=AutoscalingConfig(**config.options(name)["autoscaling_config"]),
        )


def test_an_empty_tier_gets_its_replicas_at_once_and_a_full_one_after_the_delay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    serve = Serve(monkeypatch)
    serve.publish(work(100))
    assert serve.tick() == 2
    serve.start_replicas()
    serve.publish(work(200))
    assert serve.tick() == 2
    assert serve.tick(UP_S) == 4
    serve.start_replicas()
    serve.publish(work(6000))
    serve.tick()
    assert serve.tick(UP_S) == 8


def test_what_loads_a_model_is_not_ended_because_the_need_sinks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    serve = Serve(monkeypatch)
    serve.publish(work(300))
    assert serve.tick() == 5
    serve.publish(work(60))
    assert serve.tick(1) == 5
    serve.start_replicas()
    assert serve.tick(1) == 5


def test_a_tier_shrinks_after_the_delay_to_what_was_needed_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    serve = Serve(monkeypatch, **{TIER: 6})
    for backlog, seconds in ((60, 0), (240, 50), (60, 50)):
        serve.now += seconds
        serve.publish(work(backlog))
        assert serve.tick() == 6
    serve.now += 20
    serve.publish(work(0))
    assert serve.tick() == 4


def test_a_tier_empties_in_two_steps_and_never_under_work_in_flight(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    serve = Serve(monkeypatch, **{TIER: 3})

    def after(delay_s: float, now: TierWork) -> int:
        for seconds in (0, delay_s):
            serve.now += seconds
            serve.publish(now)
            serve.tick()
        serve.start_replicas()
        return serve.targets[TIER]

    assert after(DOWN_S, work(1, in_flight=3)) == 2
    assert after(10 * DOWN_S, work(1, in_flight=3)) == 2
    assert after(DOWN_S, work(0)) == 1
    assert after(DOWN_S, work(0)) == 0


def test_stale_or_missing_stats_hold_a_tier_and_start_the_delay_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    serve = Serve(monkeypatch, **{TIER: 3})
    for _ in range(5):
        assert serve.tick(DOWN_S) == 3
    serve.publish(work(0))
    assert serve.tick() == 3
    assert serve.tick(STALE_S) == 3
    assert serve.tick(DOWN_S - STALE_S) == 3
    serve.publish(work(0))
    assert serve.tick() == 3
    serve.now += DOWN_S
    serve.publish(work(0))
    assert serve.tick() == 1


def test_a_stage_follows_its_own_load_and_the_dispatcher_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    serve = Serve(monkeypatch)
    serve.requests = {"Decoder": 2.5, PUBLISHER: 50}
    serve.tick()
    serve.tick(UP_S)
    assert serve.targets == {PUBLISHER: 1, TIER: 0, "Decoder": 3}


def test_the_pickled_policy_needs_nothing_else_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    pickled = AutoscalingPolicy(policy_function="cluster.autoscaling:policy")
    for name in [name for name in sys.modules if name.split(".")[0] == "cluster"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cluster", None)
    assert pickled.get_policy()({}) == ({}, {})
