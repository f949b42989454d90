"""Out of memory: other tiers first, then a smaller clip where that is allowed, then the end."""

from dataclasses import replace

import pytest

from cluster.ladder import Floor, Ladder
from diffusion.params import SamplingParams

LARGE = SamplingParams("a", "", 768, 768, 24, 80, 9.0, 16, seed=1)
FLOOR = Floor(area_px=512**2, num_frames=16, size_multiple=64)


def both(_: SamplingParams) -> list[str]:
    return ["a100", "rtx4090"]


def test_the_whole_way_down() -> None:
    ladder, rungs = Ladder(LARGE), []
    tier = "rtx4090"
    while step := ladder.step_down(tier, both, FLOOR):
        ladder, kind, detail = step
        rungs.append((kind, detail))
        tier = ladder.tiers(both)[0]
    assert rungs == [
        ("other_tier", "rtx4090 ran out of memory; a100 may do"),
        ("smaller_size", "768x768 -> 512x512"),
        ("other_tier", "a100 ran out of memory; rtx4090 may do"),
        ("fewer_frames", "24 -> 16 frames"),
        ("other_tier", "a100 ran out of memory; rtx4090 may do"),
    ]
    assert ladder.sampling == replace(LARGE, width=512, height=512, num_frames=16)


def test_who_wants_this_clip_or_none_gets_no_smaller_one() -> None:
    ladder, kind, _ = Ladder(LARGE).step_down("a100", both, None) or pytest.fail("no step")
    assert kind == "other_tier"
    assert ladder.step_down("rtx4090", both, None) is None


def test_the_last_step_generates_nothing_and_needs_no_card() -> None:
    def fits(sampling: SamplingParams) -> list[str]:
        return ["camera"] if sampling.is_rendered else ["a100"]

    last = replace(LARGE, motion_strength=0.4).rendered()
    for floor, before in ((FLOOR, ["smaller_size", "fewer_frames"]), (None, [])):
        ladder, rungs = Ladder(LARGE), []
        while step := ladder.step_down("a100", fits, floor, last):
            ladder, kind, detail = step
            rungs.append(kind)
        assert rungs == [*before, "camera_move"]
        assert detail == "camera move, nothing generated"
        assert (ladder.sampling, ladder.tiers(fits)) == (last, ["camera"])
        # As large and long as was asked for.
        assert (last.width, last.num_frames, last.unet_steps) == (768, 24, 0)
    assert Ladder(LARGE).step_down("a100", lambda _: [], None, last) is None


def test_a_decoder_out_of_memory_is_no_tier_s_fault() -> None:
    ladder, kind, _ = Ladder(LARGE).step_down(None, both, FLOOR) or pytest.fail("no step")
    assert kind == "smaller_size"
    assert ladder.tiers(both) == ["a100", "rtx4090"]
    assert Ladder(LARGE).step_down(None, both, None) is None


def test_steps_that_fit_no_tier_are_passed_over() -> None:
    def short_ones(sampling: SamplingParams) -> list[str]:
        return ["rtx4090"] if sampling.num_frames <= 16 else []

    ladder, kind, _ = Ladder(LARGE).step_down(None, short_ones, FLOOR) or pytest.fail("no step")
    assert kind == "fewer_frames"
    assert (ladder.sampling.width, ladder.sampling.num_frames) == (512, 16)


@pytest.mark.parametrize("size", [(1280, 704), (704, 1280), (1024, 576), (576, 512)])
def test_the_smaller_size_keeps_the_shape_and_is_no_larger_than_the_floor(
    size: tuple[int, int],
) -> None:
    wide = replace(LARGE, width=size[0], height=size[1])
    small, kind, _ = FLOOR.below(wide) or pytest.fail("no step")
    assert kind == "smaller_size"
    assert small.width * small.height <= FLOOR.area_px
    assert small.width % 64 == small.height % 64 == 0
    assert abs(small.width / small.height - size[0] / size[1]) < 0.35
