"""What the API foresees from what the Dispatcher has published."""

import pytest

from cluster.eta import FACT, Snapshot
from serve.services.foresight import Foresight
from storage.facts import SqlFacts
from storage.job_store import SqlJobStore
from tests.sample_jobs import Clock
from tests.unit.test_eta import COST, OWN_S, STAGE_S, a_job, a_tier


def test_an_eta_comes_with_how_wrong_the_last_ones_were(store: SqlJobStore, clock: Clock) -> None:
    facts = SqlFacts(store.database, clock)
    facts.put(FACT, Snapshot({"fast": a_tier()}, STAGE_S, median_error=0.125).to_json())
    eta = Foresight(facts, COST).eta(a_job(), None)
    assert eta is not None
    assert eta.seconds == OWN_S + sum(STAGE_S.values())
    assert eta.error == 0.125


def test_nothing_is_foreseen_from_what_nobody_published_lately(
    store: SqlJobStore, clock: Clock
) -> None:
    facts = SqlFacts(store.database, clock)
    assert Foresight(facts, COST).eta(a_job(), None) is None
    facts.put(FACT, Snapshot({"fast": a_tier()}, STAGE_S).to_json())
    clock.now += 31
    assert Foresight(facts, COST).eta(a_job(), None) is None


def test_a_snapshot_of_another_version_is_none(store: SqlJobStore, clock: Clock) -> None:
    facts = SqlFacts(store.database, clock)
    facts.put(FACT, '{"tiers": 3}')
    assert Foresight(facts, COST).eta(a_job(), None) is None


@pytest.mark.parametrize("step_s", [-3600, 3600])
def test_a_clock_that_is_set_makes_nothing_stale_and_nothing_fresh(
    store: SqlJobStore, clock: Clock, step_s: float
) -> None:
    facts, monotonic = SqlFacts(store.database, clock), Clock()
    foresight = Foresight(facts, COST, monotonic)
    snapshot = Snapshot({"fast": a_tier()}, STAGE_S).to_json()

    def is_foreseen() -> bool:
        return foresight.eta(a_job(), None) is not None

    facts.put(FACT, snapshot)
    assert is_foreseen()
    for time in (clock, monotonic):
        time.now += 2
    facts.put(FACT, snapshot)
    clock.now += step_s  # the reader's; the writer's has not been set yet
    assert is_foreseen()
    monotonic.now += 27
    assert is_foreseen()
    monotonic.now += 4  # the Dispatcher is silent for longer than it may
    assert not is_foreseen()
