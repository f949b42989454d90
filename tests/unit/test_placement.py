"""Which tier takes the next job."""

import pytest

from cluster.placement import TierLoad, choose_tier


def tier(name: str, ready: int, denoising: int, from_zero: bool = False) -> TierLoad:
    return TierLoad(name, ready, 2, denoising, from_zero)


@pytest.mark.parametrize(
    ("tiers", "chosen"),
    [
        ([tier("a", 1, 0), tier("b", 2, 0)], "b"),
        ([tier("a", 1, 1), tier("b", 1, 2)], "a"),
        ([tier("a", 1, 2), tier("b", 1, 2)], None),
        ([tier("dead", 0, 0), tier("a", 1, 1)], "a"),
        ([tier("dead", 0, 0), tier("a", 1, 2)], None),
        ([tier("asleep", 0, 0, True), tier("a", 1, 1)], "a"),
        ([tier("asleep", 0, 0, True), tier("a", 1, 2)], "asleep"),
        ([tier("asleep", 0, 2, True), tier("a", 1, 2)], None),
        ([], None),
    ],
)
def test_the_next_job_goes_where_there_is_room(tiers: list[TierLoad], chosen: str | None) -> None:
    found = choose_tier(tiers)
    assert (None if found is None else found.name) == chosen
