"""What the API foresees from what the Dispatcher has published."""

from cluster.eta import FACT, Snapshot
from serve.foresight import Foresight
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
