"""Who starts, and where: predicted finish, classes, ageing, fairness, room."""

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cluster.placement import Candidate, Plan, TierLoad, place
from diffusion.params import Priority

A100, RTX = "a100", "rtx4090"


def job(job_id: str, **changes: Any) -> Candidate:
    values: dict[str, Any] = {
        "tenant": "shop",
        "priority": Priority.INTERACTIVE,
        "created_at": 0.0,
        "deadline_at": None,
        "seconds": {A100: 20.0, RTX: 40.0},
    }
    return Candidate(job_id, **(values | changes))


def batch(job_id: str, **changes: Any) -> Candidate:
    return job(job_id, priority=Priority.BATCH, **changes)


def tier(name: str = A100, **changes: Any) -> TierLoad:
    values: dict[str, Any] = {
        "replicas": 1,
        "slots": 3,
        "batch_slots": 2,
        "cold_start_s": 60.0,
        "starts_from_zero": False,
    }
    return TierLoad(name, **(values | changes))


def plan(jobs: list[Candidate], *tiers: TierLoad, now: float = 10.0, **share: float) -> Plan:
    able = [
        replace(j, seconds={t.name: j.seconds[t.name] for t in tiers if t.name in j.seconds})
        for j in jobs
    ]
    return place(able, {t.name: t for t in tiers}, share, now, ageing_s=600)


def test_the_tier_that_finishes_first_gets_the_job() -> None:
    assert plan([job("a")], tier(), tier(RTX)).starts == {"a": A100}
    busy: dict[str, Any] = {"interactive_s": 30, "in_flight": 2}
    assert plan([job("a")], tier(**busy), tier(RTX)).starts == {"a": RTX}
    assert plan([job("a")], tier(replicas=2, **busy), tier(RTX)).starts == {"a": A100}


def test_an_idle_replica_is_not_waited_for() -> None:
    """However long the clip is that another replica of the tier is at."""
    asleep = tier(RTX, replicas=0, starts_from_zero=True, cold_start_s=5)
    found = plan([job("a"), job("b")], tier(replicas=2, interactive_s=500, in_flight=1), asleep)
    assert found == Plan(starts={"a": A100}, held={"b": RTX})
    beside = tier(replicas=2, batch_s=500, in_flight=2, batch_in_flight=2, batch_slots=3)
    assert plan([job("a")], beside, asleep).starts == {"a": A100}
    beside = tier(replicas=2, batch_s=500, in_flight=2, batch_in_flight=2, batch_slots=3)
    assert plan([batch("a")], beside, asleep).held == {"a": RTX}


def test_a_full_tier_is_waited_for_while_that_is_sooner() -> None:
    found = plan([job(name) for name in "abcd"], tier(in_flight=3, interactive_s=5), tier(RTX))
    # 25 s at the full A100 beat 40 s at the idle card; then 45 s do not; then again 45 s beat 80.
    assert found == Plan(starts={"b": RTX}, held={"a": A100, "c": A100, "d": A100})


def test_a_job_goes_only_where_it_fits() -> None:
    large = job("large", seconds={A100: 300.0})
    found = plan([large, job("small")], tier(in_flight=3), tier(RTX))
    assert found.held == {"large": A100}
    assert found.starts == {"small": RTX}


def test_people_come_before_batch_work_and_find_room_beside_it() -> None:
    jobs = [batch(f"batch{n}") for n in range(3)] + [job("person", created_at=9)]
    found = plan(jobs, tier())
    assert list(found.starts) == ["person", "batch0", "batch1"]
    assert list(found.held) == ["batch2"]
    assert plan([job("next")], tier(in_flight=2, batch_in_flight=2)).starts


def test_people_do_not_wait_for_batch_work() -> None:
    busy = tier(batch_s=1000.0, in_flight=2, batch_in_flight=2)
    assert plan([job("person")], busy, tier(RTX)).starts == {"person": A100}
    assert plan([batch("batch")], busy, tier(RTX)).starts == {"batch": RTX}


def test_batch_work_that_waited_long_is_ordered_like_people() -> None:
    jobs = [job("person", created_at=650), batch("old", created_at=0)]
    assert list(plan(jobs, tier(), now=700).starts) == ["old", "person"]
    assert list(plan(jobs, tier(), now=500).starts) == ["person", "old"]


def test_tenants_share_by_work_in_flight() -> None:
    jobs = [job(f"big{n}", tenant="big", created_at=n) for n in range(6)]
    jobs += [job("small", tenant="small", created_at=9)]
    found = plan(jobs, tier(slots=3), now=10)
    assert list(found.starts)[:2] == ["big0", "small"]
    assert next(iter(plan(jobs, tier(), big=50.0).starts)) == "small"


def test_the_nearest_deadline_first_within_a_tenant() -> None:
    jobs = [job("first"), job("due", created_at=5, deadline_at=100), job("later", deadline_at=200)]
    assert list(plan(jobs, tier()).starts) == ["due", "later", "first"]


def test_a_tier_at_rest_is_woken_where_that_is_sooner() -> None:
    asleep = tier(replicas=0, starts_from_zero=True)
    assert plan([job("a")], asleep) == Plan(held={"a": A100})
    assert plan([job("a")], asleep, tier(RTX)).starts == {"a": RTX}
    assert plan([job("a")], asleep, tier(RTX, interactive_s=90, in_flight=1)).held == {"a": A100}


def test_a_tier_whose_node_is_away_gets_nothing() -> None:
    away = tier(replicas=0)
    assert plan([job("a")], away) == Plan()
    assert plan([job("a")], away, tier(RTX)).starts == {"a": RTX}


candidates = st.lists(
    st.builds(
        job,
        st.uuids().map(str),
        tenant=st.sampled_from("abc"),
        priority=st.sampled_from(Priority),
        created_at=st.floats(0, 1000),
        seconds=st.dictionaries(st.sampled_from([A100, RTX]), st.floats(0.1, 500), min_size=1),
    ),
    max_size=20,
)
tiers = st.tuples(
    *(
        st.builds(
            tier,
            st.just(name),
            replicas=st.integers(0, 3),
            starts_from_zero=st.booleans(),
            in_flight=st.integers(0, 9),
        )
        for name in (A100, RTX)
    )
)


@given(candidates, tiers)
def test_no_tier_gets_more_than_it_holds(
    jobs: list[Candidate], loads: tuple[TierLoad, ...]
) -> None:
    before = {t.name: t.in_flight for t in loads}
    found = plan(jobs, *loads, now=1000)
    assert not found.starts.keys() & found.held.keys()
    for load in loads:
        started = [j for j in jobs if found.starts.get(j.job_id) == load.name]
        room = max(0, load.replicas * load.slots - before[load.name])
        assert len(started) <= room
        batch_room = load.replicas * load.batch_slots
        assert sum(j.priority is Priority.BATCH for j in started) <= batch_room
        assert all(load.name in j.seconds for j in started)


@given(candidates)
def test_with_room_for_all_nobody_waits(jobs: list[Candidate]) -> None:
    wide: dict[str, Any] = {"slots": 99, "batch_slots": 99}
    found = plan(jobs, tier(**wide), tier(RTX, **wide))
    assert found.starts.keys() == {j.job_id for j in jobs}
