"""Measured quality of clips whose likeness, motion and faults are known."""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.unit.test_interpolate import camera, product_before
from video.measure import measure
from video.quality import combined_score

Pixels = NDArray[np.uint8]


def zoom(frames: int = 16, height: int = 128, width: int = 160) -> Pixels:
    scene = camera(height, width, zoom=-0.08)
    return np.stack([scene(index / (frames - 1)) for index in range(frames)])


def grainy(frames: Pixels, sigma: float) -> Pixels:
    noise = np.random.default_rng(1).normal(0, sigma, frames.shape)
    return np.asarray(np.clip(frames + noise, 0, 255), dtype=np.uint8)


def noise(shape: tuple[int, ...]) -> Pixels:
    return np.random.default_rng(2).integers(0, 256, shape, dtype=np.uint8)


def brightened(frames: Pixels, factors: NDArray[np.floating[Any]]) -> Pixels:
    levels = frames * factors[:, None, None, None]
    return np.asarray(np.clip(np.rint(levels), 0, 255), dtype=np.uint8)


def score(frames: Pixels, photo: Pixels) -> float:
    found = measure(frames, photo).score
    assert found is not None
    return found


def known(value: float | None) -> float:
    assert value is not None
    return value


CLIP = zoom()
PHOTO = CLIP[0]
STILL = np.repeat(CLIP[:1], 16, axis=0)


def test_a_steady_camera_move_over_the_photo_scores_high() -> None:
    quality = measure(CLIP, PHOTO)
    assert quality.subject_first == pytest.approx(1)
    assert 0.8 < known(quality.subject_mean) < 1
    assert quality.tracked > 0.99
    assert known(quality.warp_error) < 0.01
    assert known(quality.flicker) < 0.001
    assert known(quality.score) > 0.8


@pytest.mark.parametrize(
    ("frames", "most"),
    [
        pytest.param(STILL, 0.0, id="still"),
        pytest.param(grainy(STILL, 3), 0.12, id="still with grain"),
        pytest.param(grainy(STILL, 25), 0.3, id="still with much grain"),
        pytest.param(noise(CLIP.shape), 0.02, id="noise"),
        pytest.param(
            np.stack([camera(128, 160, seed=seed)(0) for seed in range(16)]), 0.05, id="cuts"
        ),
        pytest.param(brightened(CLIP, 1 + 0.08 * (-1.0) ** np.arange(16)), 0.1, id="flicker"),
    ],
)
def test_what_is_no_video_of_the_product_scores_low(frames: Pixels, most: float) -> None:
    assert score(frames, PHOTO) <= most


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda clip: grainy(clip, 10), id="grain"),
        pytest.param(
            lambda clip: np.stack([cv2.GaussianBlur(frame, (0, 0), 3) for frame in clip]), id="blur"
        ),
        pytest.param(lambda clip: clip[..., ::-1].copy(), id="other colours"),
        pytest.param(lambda clip: clip[:, :, ::-1].copy(), id="mirrored"),
        pytest.param(lambda clip: brightened(clip, np.linspace(1, 0.7, 16)), id="darkens"),
    ],
)
def test_every_fault_costs_score(spoil: Callable[[Pixels], Pixels]) -> None:
    assert score(spoil(CLIP), PHOTO) < score(CLIP, PHOTO)


def test_a_product_in_other_colours_shows_as_a_shift_and_not_as_a_change_of_structure() -> None:
    shifted = brightened(CLIP, np.full(16, 0.8))
    quality, original = measure(shifted, PHOTO), measure(CLIP, PHOTO)
    assert known(quality.subject_first) > 0.9
    assert known(quality.color_shift) > known(original.color_shift) + 5


def test_the_backdrop_does_not_make_up_for_the_product() -> None:
    """Nine tenths of the picture are white in both; the product is another one."""
    photo = np.full((160, 160, 3), 255, dtype=np.uint8)
    other = photo.copy()
    photo[56:104, 56:104] = noise((48, 48, 3))
    other[56:104, 56:104] = 255 - photo[56:104, 56:104]
    quality = measure(np.stack([other] * 8), photo)
    assert known(quality.subject_first) < 0.1


def test_motion_is_a_share_of_the_short_side_per_frame() -> None:
    """Known from the camera: 6 px of 128 over 15 steps, before a wall that fills the picture."""
    scene = camera(128, 160, pan=(6, 0))
    frames = np.stack([scene(index / 15) for index in range(16)])
    assert measure(frames, frames[0]).motion == pytest.approx(6 / 15 / 128, rel=0.15)


def test_a_wobble_is_less_motion_than_a_move_of_the_same_steps() -> None:
    there_and_back = CLIP[[0, 1] * 8]
    assert measure(there_and_back, PHOTO).motion < 0.5 * measure(CLIP, PHOTO).motion


def test_a_fade_is_no_flicker() -> None:
    steps = np.arange(16)
    fading = measure(brightened(CLIP, 1 - 0.01 * steps), PHOTO)
    flickering = measure(brightened(CLIP, 1 - 0.01 * (steps % 2)), PHOTO)
    assert known(flickering.flicker) > 10 * known(fading.flicker)
    assert known(flickering.flicker) == pytest.approx(2 * 0.01 * 128 / 255, rel=0.3)


def test_flicker_of_every_other_frame_is_seen_in_long_clips_too() -> None:
    frames = zoom(frames=32)
    assert (
        known(measure(brightened(frames, 1 + 0.04 * (-1.0) ** np.arange(32)), frames[0]).flicker)
        > 0.05
    )


def test_a_long_clip_scores_as_its_shorter_self() -> None:
    """Twice the frames of the same move: half the motion a frame, all else alike."""
    short, long = measure(zoom(16), PHOTO), measure(zoom(32), PHOTO)
    assert long.motion == pytest.approx(short.motion / 2, rel=0.1)
    assert long.subject_mean == pytest.approx(short.subject_mean, abs=0.02)
    assert long.score == pytest.approx(short.score, abs=0.05)


def test_the_size_of_the_clip_does_not_decide_the_score() -> None:
    large = zoom(8, height=384, width=480)
    small = np.stack([cv2.resize(f, (320, 256), interpolation=cv2.INTER_AREA) for f in large])
    assert score(large, large[0]) == pytest.approx(score(small, small[0]), abs=0.02)


@pytest.mark.parametrize("size", [(64, 64), (64, 96), (128, 72), (96, 128), (16, 16)])
def test_small_clips_can_be_measured(size: tuple[int, int]) -> None:
    frames = zoom(8, *size)
    assert score(frames, frames[0]) > 0.5


def test_a_product_that_moves_before_a_wall_is_followed() -> None:
    scene = product_before(camera(128, 160), 48, (40, 40), 20)
    frames = np.stack([scene(index / 15) for index in range(16)])
    quality = measure(frames, frames[0])
    assert quality.tracked > 0.95
    assert quality.motion > 0.0005


def test_equal_input_gives_equal_measures_on_any_number_of_threads() -> None:
    threads = cv2.getNumThreads()
    try:
        cv2.setNumThreads(1)
        one = measure(CLIP, PHOTO)
        cv2.setNumThreads(4)
        assert measure(CLIP, PHOTO) == one
    finally:
        cv2.setNumThreads(threads)


def test_without_the_photo_only_the_likeness_is_missing() -> None:
    with_photo, without = measure(CLIP, PHOTO), measure(CLIP, None)
    assert (without.score, without.subject_first, without.subject_mean) == (None, None, None)
    assert without.color_shift is None
    for name in ("flicker", "warp_error", "tracked", "motion"):
        assert getattr(without, name) == getattr(with_photo, name)


def test_a_perceptual_distance_is_asked_for_every_frame_looked_at() -> None:
    seen: list[tuple[int, ...]] = []

    def distance(frames: Pixels, photo: Pixels) -> list[float]:
        seen.append((len(frames), *photo.shape))
        return [float(np.abs(frame.astype(int) - photo).mean()) for frame in frames]

    quality = measure(zoom(32), PHOTO, distance)
    assert seen == [(16, 128, 160, 3)]
    assert quality.lpips_first == 0
    assert known(quality.lpips_mean) > 1
    assert measure(CLIP, PHOTO).lpips_mean is None


def test_where_nothing_can_be_followed_errors_are_unknown_and_the_score_is_nothing() -> None:
    cuts = np.stack([camera(256, 256, seed=seed)(0) for seed in (0, 5) * 2])
    quality = measure(cuts, cuts[0])
    assert quality.tracked < 0.05
    assert (quality.warp_error, quality.flicker, quality.score) == (None, None, 0.0)


def test_the_best_of_all_parts_is_a_score_of_one() -> None:
    assert combined_score(1, 1, 0, 0, 0, 1, 0.02) == 1


@pytest.mark.parametrize(
    ("frames", "photo"),
    [(CLIP[:1], PHOTO), (CLIP, PHOTO[:64]), (CLIP, PHOTO.transpose(1, 0, 2))],
)
def test_what_cannot_be_compared_is_refused(frames: Pixels, photo: Pixels) -> None:
    with pytest.raises(ValueError, match="fewer than two|differ in size"):
        measure(frames, photo)
