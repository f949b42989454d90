"""In-between frames against the true ones of scenes whose motion is known."""

import math
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from video.flow import find_flows
from video.interpolate import _AGREED, InterpolationConfig, _motion, interpolate

CONFIG = InterpolationConfig()
Pixels = NDArray[np.uint8]
Scene = Callable[[float], Pixels]  # time, 0..1 -> frame [H, W, 3]


def texture(height: int, width: int, seed: int, coarseness: float) -> Pixels:
    noise = np.random.default_rng(seed).normal(size=(height, width, 3))
    smooth = cv2.GaussianBlur(noise, (0, 0), coarseness)
    fine = cv2.GaussianBlur(noise[::-1], (0, 0), coarseness / 3)
    levels = 128 + 45 * (smooth / smooth.std() + 0.5 * fine / fine.std())
    return np.asarray(np.clip(levels, 0, 255), dtype=np.uint8)


def camera(
    height: int,
    width: int,
    pan: tuple[float, float] = (0, 0),
    zoom: float = 0.0,
    turn: float = 0.0,
    seed: int = 0,
) -> Scene:
    """A textured wall before which the camera moves by `pan` px, `zoom` and `turn` rad."""
    wall = texture(height * 2, width * 2, seed, max(2.0, min(height, width) / 24))

    def frame(time: float) -> Pixels:
        scale, angle = 1 + zoom * time, turn * time
        linear = scale * np.array(
            [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
        )
        middle = np.array([width / 2, height / 2])
        shift = middle + time * np.array(pan) - linear @ np.array([width, height])
        matrix = np.column_stack([linear, shift])
        return np.asarray(cv2.warpAffine(wall, matrix, (width, height), flags=cv2.INTER_CUBIC))

    return frame


def product_before(wall: Scene, side: int, start: tuple[int, int], travel: int) -> Scene:
    """A dark textured square that slides to the right by `travel` px before `wall`."""
    square = texture(side, side, 7, 5.0) // 2

    def frame(time: float) -> Pixels:
        image = 80 + wall(time) * (160 / 255)
        x, y = start[0] + travel * time, start[1]
        matrix = np.array([[1.0, 0, x], [0, 1, y]])
        size = image.shape[1::-1]
        cover = cv2.warpAffine(np.ones((side, side)), matrix, size)[..., None]
        levels = image * (1 - cover) + cv2.warpAffine(square, matrix, size) * cover
        return np.asarray(np.rint(levels), dtype=np.uint8)

    return frame


def psnr(image: Pixels, truth: Pixels) -> float:
    return 10 * math.log10(255**2 / np.mean((image.astype(float) - truth) ** 2))


def blend(frames: Pixels, time: float) -> Pixels:
    return np.asarray(np.rint((1 - time) * frames[0] + time * frames[1]), dtype=np.uint8)


@pytest.mark.parametrize(
    ("scene", "least", "gain"),
    [
        pytest.param(camera(160, 240, pan=(14, 5)), 38, 20, id="pan"),
        pytest.param(camera(160, 240, zoom=0.08), 42, 16, id="zoom"),
        pytest.param(camera(240, 160, zoom=0.05, turn=0.08), 42, 18, id="zoom and turn"),
        pytest.param(camera(256, 256, pan=(40, 0)), 33, 18, id="long pan"),
        pytest.param(camera(64, 64, pan=(4, 1.5)), 40, 20, id="64 px"),
        pytest.param(camera(32, 48, pan=(3, 1)), 38, 17, id="32 px"),
    ],
)
@pytest.mark.parametrize("inbetweens", [1, 2])
def test_motion_is_followed_where_a_blend_ghosts(
    scene: Scene, least: float, gain: float, inbetweens: int
) -> None:
    frames = np.stack([scene(0), scene(1)])
    result = interpolate(frames, inbetweens, CONFIG)
    for k in range(1, inbetweens + 1):
        time = k / (inbetweens + 1)
        found = psnr(result[k], scene(time))
        assert found > least, (k, found)
        assert found > psnr(blend(frames, time), scene(time)) + gain, (k, found)


def test_uncovered_background_comes_from_the_frame_that_shows_it() -> None:
    travel, side, left, top = 16, 60, 70, 50
    scene = product_before(camera(160, 240, pan=(-3, 0), seed=3), side, (left, top), travel)
    frames = np.stack([scene(0), scene(1)])
    truth, middle, ghost = scene(0.5), interpolate(frames, 1, CONFIG)[1], blend(frames, 0.5)
    rows = slice(top + 5, top + side - 5)
    hidden_in_first = slice(left, left + travel // 2 - 1)
    hidden_in_second = slice(left + side + travel // 2 + 1, left + side + travel)
    for columns in (hidden_in_first, hidden_in_second):
        wall, found, mixed = (float(f[rows, columns].mean()) for f in (truth, middle, ghost))
        assert mixed < wall - 30  # a blend lets the dark product shine through
        assert found > wall - 5
    assert psnr(middle, truth) > psnr(ghost, truth) + 6


def test_the_given_frames_stand_untouched_in_order() -> None:
    scene = camera(64, 96, pan=(9, 3))
    frames = np.stack([scene(t) for t in (0, 0.4, 0.7, 1)])
    result = interpolate(frames, 3, CONFIG)
    assert result.dtype == np.uint8
    assert result.shape == (13, 64, 96, 3)
    assert np.array_equal(result[::4], frames)
    # and the new ones lie between: each nearer to its own time than to its neighbours'
    for index in (1, 2, 3):
        scores = [psnr(result[index], scene(0.1 * k)) for k in range(5)]
        assert int(np.argmax(scores)) == index


def test_no_inbetweens_or_a_single_frame_change_nothing() -> None:
    frames = np.stack([camera(32, 32, seed=s)(0) for s in range(3)])
    assert np.array_equal(interpolate(frames, 0, CONFIG), frames)
    assert np.array_equal(interpolate(frames[:1], 5, CONFIG), frames[:1])
    with pytest.raises(ValueError, match="-1"):
        interpolate(frames, -1, CONFIG)


def test_the_flows_agree_except_where_a_frame_hides_something() -> None:
    travel, side, left, top = 16, 60, 70, 50
    scene = product_before(camera(160, 240, seed=3), side, (left, top), travel)
    first, second = scene(0), scene(1)
    flow, back_flow = find_flows(first, second, "medium")
    agreed = _motion(first, second, flow, back_flow, CONFIG.consistency_px).trust == _AGREED
    rows = slice(top + 10, top + side - 10)
    assert agreed[rows, left + 10 : left + side - 10].mean() > 0.95  # the product
    assert agreed[rows, 10 : left - 15].mean() > 0.95  # the wall
    assert agreed[rows, left + side + 3 : left + side + travel - 3].mean() < 0.05  # covered next


def test_of_two_flows_the_one_that_looks_right_is_believed() -> None:
    # A square in the wall's own colours: one direction of the flow misses it, the other does not.
    wall, square = camera(160, 240, seed=3), texture(60, 60, 7, 3.0)

    def scene(time: float) -> Pixels:
        frame = wall(time)
        left = round(70 + 16 * time)
        frame[50:110, left : left + 60] = square
        return frame

    frames = np.stack([scene(0), scene(1)])
    middle = interpolate(frames, 1, CONFIG)[1]
    assert psnr(middle, scene(0.5)) > psnr(blend(frames, 0.5), scene(0.5)) + 4


def test_a_still_scene_stays_still() -> None:
    still = camera(48, 64)(0)
    assert np.array_equal(interpolate(np.stack([still, still]), 2, CONFIG), np.stack([still] * 4))


def on_white(seed: int, radius: int) -> Pixels:
    product = texture(128, 128, seed, 4.0)
    mask = cv2.circle(np.zeros((128, 128, 1), np.uint8), (64, 64), radius, 1, -1)
    return np.where(mask > 0, product, 250).astype(np.uint8)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param(camera(96, 128, seed=1)(0), camera(96, 128, seed=2)(0), id="other scene"),
        pytest.param(on_white(1, 40), on_white(2, 46), id="other product on white"),
        pytest.param(
            np.full((64, 64, 3), 0, np.uint8), np.full((64, 64, 3), 255, np.uint8), id="bw"
        ),
    ],
)
def test_a_cut_stays_a_cut(first: Pixels, second: Pixels) -> None:
    result = interpolate(np.stack([first, second]), 3, CONFIG)
    assert np.array_equal(result, np.stack([first, first, first, second, second]))


@pytest.mark.parametrize("level", [20, 35])
def test_a_change_of_light_is_no_cut(level: int) -> None:
    first = camera(96, 96)(0) // 2 + 40
    result = interpolate(np.stack([first, first + np.uint8(level)]), 1, CONFIG)
    assert np.abs(result[1].astype(int) - first - level / 2).mean() < 2


def test_the_cut_threshold_is_heeded() -> None:
    frames = np.stack([on_white(1, 40), on_white(2, 46)])
    result = interpolate(frames, 1, InterpolationConfig(cut_threshold=1.0))
    assert not (result[1] == frames).all(axis=(1, 2, 3)).any()


@pytest.mark.parametrize("preset", ["ultrafast", "fast", "medium"])
@pytest.mark.parametrize("size", [(12, 12), (16, 300), (11, 300), (300, 16), (20, 24), (33, 65)])
def test_sizes_at_which_dis_crashes_are_handled(preset: str, size: tuple[int, int]) -> None:
    config = InterpolationConfig.model_validate({"dis_preset": preset})
    scene = camera(*size, pan=(1, 1))
    frames = np.stack([scene(0), scene(1)])
    middle = interpolate(frames, 1, config)[1]
    assert psnr(middle, scene(0.5)) > psnr(blend(frames, 0.5), scene(0.5)) + 3


def test_the_number_of_threads_does_not_change_the_result() -> None:
    scene = product_before(camera(128, 160, pan=(4, 0)), 40, (40, 40), 9)
    frames, threads = np.stack([scene(0), scene(1)]), cv2.getNumThreads()
    try:
        results = []
        for count in (1, 2, 5):
            cv2.setNumThreads(count)
            results.append(interpolate(frames, 2, CONFIG).tobytes())
    finally:
        cv2.setNumThreads(threads)
    assert len(set(results)) == 1


def test_the_configuration_is_frozen_and_closed() -> None:
    with pytest.raises(ValidationError):
        InterpolationConfig.model_validate({"threshold": 1})
    with pytest.raises(ValidationError):
        CONFIG.cut_threshold = 0.5  # type: ignore[misc]
