"""Whose turn it is: classes, patience, and rows that fit."""

from hypothesis import given
from hypothesis import strategies as st

from diffusion.params import Priority
from diffusion.turns import Turn, choose


def turn(name: str, **changes: object) -> Turn:
    values: dict[str, object] = {
        "bucket": "small",
        "rows": 2,
        "priority": Priority.BATCH,
        "arrived": 0.0,
        "waits_since": 0.0,
    }
    return Turn(name, **(values | changes))  # type: ignore[arg-type]


def chosen(
    *turns: Turn,
    max_rows: int = 4,
    now: float = 1.0,
    patience_s: float = 10,
    mixed: bool = False,
) -> list[str]:
    return [t.request_id for t in choose(turns, lambda _: max_rows, now, patience_s, mixed)]


def test_an_interactive_request_is_in_the_next_call() -> None:
    batch = [turn(f"batch{n}", arrived=n) for n in range(3)]
    person = turn("person", priority=Priority.INTERACTIVE, arrived=9)
    assert chosen(*batch, person) == ["person"]
    assert chosen(*batch, person, mixed=True) == ["person", "batch0"]
    assert chosen(*batch, person, max_rows=2) == ["person"]


def test_an_interactive_request_of_another_shape_comes_first_too() -> None:
    person = turn("person", priority=Priority.INTERACTIVE, arrived=9, bucket="large")
    assert chosen(turn("batch"), person) == ["person"]


def test_who_waited_too_long_gets_this_step_and_only_this() -> None:
    person = turn("person", priority=Priority.INTERACTIVE, waits_since=10.5)
    assert chosen(turn("batch"), person, max_rows=2, now=11, patience_s=10) == ["batch"]
    served = turn("batch", waits_since=11)
    assert chosen(served, person, max_rows=2, now=11.1, patience_s=10) == ["person"]


def test_among_equals_the_nearer_deadline_then_the_earlier_arrival() -> None:
    turns = [turn("late", arrived=2), turn("early", arrived=1), turn("due", arrived=3, deadline=9)]
    assert chosen(*turns, max_rows=6) == ["due", "early", "late"]


def test_a_request_larger_than_a_call_runs_alone() -> None:
    assert chosen(turn("large", rows=2), turn("other", rows=1), max_rows=1) == ["large"]


def test_smaller_requests_fill_the_room_that_is_left() -> None:
    turns = [turn("a", rows=2), turn("b", rows=2, arrived=1), turn("c", rows=1, arrived=2)]
    assert chosen(*turns, max_rows=3) == ["a", "c"]


turns = st.lists(
    st.builds(
        turn,
        st.uuids().map(str),
        bucket=st.sampled_from(["small", "large"]),
        rows=st.sampled_from([1, 2]),
        priority=st.sampled_from(Priority),
        arrived=st.floats(0, 50),
        waits_since=st.floats(0, 50),
        deadline=st.one_of(st.none(), st.floats(0, 90)),
    ),
    max_size=12,
)


@given(turns, st.integers(1, 8))
def test_someone_steps_and_what_steps_fits(waiting: list[Turn], max_rows: int) -> None:
    picked = choose(waiting, lambda _: max_rows, 50, 10)
    assert bool(picked) == bool(waiting)
    assert len({t.bucket for t in picked}) <= 1
    assert len(picked) == 1 or sum(t.rows for t in picked) <= max_rows


@given(turns, st.floats(0.5, 5))
def test_nobody_starves_whatever_arrives(waiting: list[Turn], patience_s: float) -> None:
    """A person joins before every tick; still each waits at most for the others' overdue steps."""
    left = {t.request_id: t for t in waiting}
    now = 60.0
    for tick in range(len(waiting) + 1):
        newcomer = turn(f"new{tick}", priority=Priority.INTERACTIVE, waits_since=now)
        for t in choose([*left.values(), newcomer], lambda _: 1, now, patience_s):
            left.pop(t.request_id, None)
        now += 0.01
    assert not left
