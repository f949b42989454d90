"""Camera moves: frames against the closed form, the photo, and the words that ask for them."""

import io
import itertools
import tracemalloc

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from video.camera.measure import path_error_px, photo_from, sharpness_kept
from video.camera.move import CameraMove, Ease, Move, Speed
from video.camera.path import CameraPath, View
from video.camera.scene import open_scene
from video.camera.stage import make_stage
from video.photo import Fit, PhotoLimits, fit_photo, open_photo

Pixels = NDArray[np.uint8]
MOVES = [move for move in Move if move is not Move.STATIC]


def textured(width: int = 900, height: int = 700) -> Pixels:
    """Blobs of all sizes: flow is well defined everywhere, and nothing is a plain backdrop."""
    noise = np.random.default_rng(7).normal(size=(height, width, 3)).astype(np.float32)
    image = sum(2**k * cv2.GaussianBlur(noise, (0, 0), 2.0**k) for k in (1, 2, 3, 4))
    pixels = np.clip(128 + 70 * np.asarray(image) / np.std(image), 0, 255)
    return np.asarray(pixels, dtype=np.uint8)


def boxed(width: int = 960, height: int = 720) -> Pixels:
    """A product with straight edges before a backdrop with a light fall-off and a table's edge."""
    y, x = np.mgrid[0:height, 0:width]
    backdrop = 215 + 12 * x / width - 10 * y / height - 8 * (y > 0.7 * height)
    rgb = np.repeat(backdrop[..., None], 3, axis=2)
    rgb[200:600, 330:630] = (150, 60, 40)
    rgb[300:420, 400:560] = (240, 235, 220)
    return np.asarray(np.rint(rgb), dtype=np.uint8)


# The path.


def test_ease_runs_from_0_to_1_and_never_back() -> None:
    for ease in Ease:
        way = [ease(k / 100) for k in range(101)]
        assert (way[0], way[-1]) == (0, 1)
        assert all(a <= b for a, b in itertools.pairwise(way))


def test_the_camera_goes_where_its_name_says() -> None:
    def corner_flow(move: Move) -> list[float]:
        flow = CameraPath(CameraMove(move), 100, 80, 11).flow(0, 10)
        return [float(v) for v in flow[0, 0]]  # of what is top left

    def goes(move: Move, x: int, y: int) -> bool:
        flow = corner_flow(move)
        return [int(np.sign(round(v, 6))) for v in flow] == [x, y]

    assert goes(Move.STATIC, 0, 0)
    assert goes(Move.ZOOM_IN, -1, -1)  # away from the centre
    assert goes(Move.ZOOM_OUT, 1, 1)
    assert goes(Move.PAN_LEFT, 1, 0)  # the picture goes the other way
    assert goes(Move.PAN_RIGHT, -1, 0)
    assert goes(Move.TILT_UP, 0, 1)
    assert goes(Move.TILT_DOWN, 0, -1)
    assert goes(Move.ROLL_LEFT, 1, -1)  # the picture turns clockwise
    assert goes(Move.ROLL_RIGHT, -1, 1)
    assert goes(Move.ORBIT_LEFT, 1, 0)
    assert goes(Move.ORBIT_RIGHT, -1, 0)


@pytest.mark.parametrize("move", MOVES)
def test_speed_sets_how_far(move: Move) -> None:
    ways = [
        np.abs(CameraPath(CameraMove(move, speed), 64, 48, 9).flow(0, 8)).max()
        for speed in (Speed.SLOW, Speed.NORMAL, Speed.FAST)
    ]
    assert 1.5 * ways[0] < ways[1] < ways[2] / 1.5


def test_flow_there_and_back_is_none() -> None:
    path = CameraPath(CameraMove(Move.ROLL_LEFT, Speed.FAST), 64, 48, 9)
    assert np.abs(path.flow(3, 3)).max() < 1e-4
    # Of one pixel: where it went, the way back leads to where it was.
    there = path.flow(2, 7)[10, 20]
    back = View.to_stage(path.views()[7], 64, 48) @ [20 + there[0], 10 + there[1], 1]
    assert np.allclose(back, View.to_stage(path.views()[2], 64, 48) @ [20, 10, 1], atol=1e-4)


def test_margin_is_told() -> None:
    assert CameraPath(CameraMove(Move.ZOOM_IN), 64, 48, 9).kept == (1, 1)
    assert CameraPath(CameraMove(Move.PAN_LEFT), 64, 48, 9).kept == pytest.approx((1 / 1.2, 1))


# Frames.


@pytest.mark.parametrize("move", list(Move))
@pytest.mark.parametrize(("width", "height"), [(160, 120), (90, 160)])
def test_every_pixel_is_the_photo_at_its_place(move: Move, width: int, height: int) -> None:
    """Against a picture that is a formula: what lies under a pixel is known exactly."""

    def shade(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(128 + 50 * np.sin(x / 17) + 50 * np.cos(y / 23 + 1))

    photo_height, photo_width = 560, 800
    y, x = np.mgrid[0:photo_height, 0:photo_width] + 0.0
    photo = np.repeat(np.rint(shade(x, y))[..., None], 3, axis=2).astype(np.uint8)
    path = CameraPath(CameraMove(move), width, height, 5)
    scene = open_scene(photo, path)
    assert scene.layers == 1
    per_unit = min(photo_width / path.extent[0], photo_height / path.extent[1])
    centre = np.array([photo_width - 1, photo_height - 1]) / 2
    v, u = np.mgrid[0:height, 0:width]
    pixels = np.stack((u, v, np.ones_like(u)), axis=-1)
    for frame, view in zip(scene.frames(), path.views(), strict=True):
        place = centre + per_unit * (pixels @ view.to_stage(width, height).T)
        assert place.min() >= -0.5
        assert (place.max(axis=(0, 1)) <= (photo_width - 0.5, photo_height - 0.5)).all()
        off = np.abs(frame[..., 0] - shade(place[..., 0], place[..., 1]))[2:-2, 2:-2]
        assert off.max() < 6  # at the photo's edge a filter has half its neighbours
        assert off.mean() < 1


@pytest.mark.parametrize("move", list(Move))
def test_measured_motion_is_the_paths(move: Move) -> None:
    scene = open_scene(textured(), CameraPath(CameraMove(move), 320, 256, 25))
    frames = list(scene.frames())
    for first, second in ((0, 2), (11, 13), (12, 16)):
        assert path_error_px(scene, frames, first, second) < 0.25


def test_a_wrong_path_is_noticed() -> None:
    right = open_scene(textured(), CameraPath(CameraMove(Move.PAN_LEFT), 320, 256, 25))
    wrong = open_scene(textured(), CameraPath(CameraMove(Move.PAN_RIGHT), 320, 256, 25))
    assert path_error_px(wrong, list(right.frames()), 11, 13) > 5


@pytest.mark.parametrize("fit", list(Fit))
def test_static_is_the_photo_fitted(fit: Fit) -> None:
    photo = textured()
    frames = list(open_scene(photo, CameraPath(CameraMove(Move.STATIC), 192, 128, 3), fit).frames())
    assert len(frames) == 3
    for frame in frames:
        assert np.array_equal(frame, fit_photo(photo, 192, 128, fit))


def test_a_zoom_in_begins_with_the_photo_fitted() -> None:
    photo = textured()
    first = next(open_scene(photo, CameraPath(CameraMove(Move.ZOOM_IN), 320, 256, 9)).frames())
    assert np.abs(first.astype(int) - fit_photo(photo, 320, 256, Fit.CROP)).mean() < 1


@pytest.mark.parametrize("fit", [Fit.CONTAIN_BLUR, Fit.CONTAIN_COLOR])
def test_containing_lays_the_margin_out_as_backdrop(fit: Fit) -> None:
    """Half way along a pan the whole photo is in the frame."""
    photo = np.full((400, 200, 3), 30, np.uint8)
    path = CameraPath(CameraMove(Move.PAN_LEFT), 240, 160, 3)
    middle = list(open_scene(photo, path, fit, (255, 255, 255)).frames())[1]
    assert (middle[:, 85:155] < 40).all()  # the photo is 80 px wide at this height
    if fit is Fit.CONTAIN_COLOR:
        assert (middle[:, :78] == 255).all()
        assert (middle[:, 162:] == 255).all()


def test_stretching_does_not_depend_on_the_move() -> None:
    """A circle on a photo of twice the width becomes the same ellipse in every move."""
    photo = np.full((300, 600, 3), 255, np.uint8)
    cv2.circle(photo, (300, 150), 60, (0, 0, 0), -1)

    def ratio(move: Move) -> float:
        path = CameraPath(CameraMove(move), 200, 200, 3)
        middle = list(open_scene(photo, path, Fit.STRETCH).frames())[1][..., 0] < 128
        return float(middle.any(axis=0).sum() / middle.any(axis=1).sum())

    for move in (Move.STATIC, Move.PAN_LEFT, Move.TILT_UP, Move.ZOOM_IN):
        assert ratio(move) == pytest.approx(0.5, abs=0.03)


@settings(max_examples=60)
@given(
    move=st.sampled_from(Move),
    speed=st.sampled_from(Speed),
    ease=st.sampled_from(Ease),
    fit=st.sampled_from(Fit),
    photo=st.tuples(st.integers(64, 300), st.integers(64, 300)),
    size=st.tuples(st.integers(16, 200), st.integers(16, 200)),
    count=st.integers(1, 4),
)
def test_any_size_is_filled_from_within(
    move: Move,
    speed: Speed,
    ease: Ease,
    fit: Fit,
    photo: tuple[int, int],
    size: tuple[int, int],
    count: int,
) -> None:
    """A view that left the stage would raise."""
    rgb = np.full((photo[1], photo[0], 3), 90, np.uint8)
    path = CameraPath(CameraMove(move, speed, ease), *size, count)
    frames = list(open_scene(rgb, path, fit, (90, 90, 90)).frames())
    assert len(frames) == count
    for frame in frames:
        assert frame.shape == (size[1], size[0], 3)
        assert frame.dtype == np.uint8
        assert np.abs(frame.astype(int) - 90).max() <= 1  # no border of another colour gets in


@pytest.mark.parametrize("view", [View(1, 0), View(0, -0.01), View(0, 0, angle=0.01)])
def test_a_view_outside_the_photo_is_refused(view: View) -> None:
    stage = make_stage(textured(), CameraPath(CameraMove(Move.STATIC), 64, 48, 1), Fit.CROP)
    with pytest.raises(ValueError, match="leaves a stage"):
        stage.look(view, 64, 48)


def test_sharpness_is_kept() -> None:
    photo = textured()
    for move in (Move.ZOOM_IN, Move.PAN_LEFT, Move.ROLL_LEFT):
        path = CameraPath(CameraMove(move), 320, 256, 5)
        frames = list(open_scene(photo, path).frames())
        for frame, view in zip(frames, path.views(), strict=True):
            kept = sharpness_kept(frame, photo_from(photo, path, view, Fit.CROP))
            assert 0.95 < kept < 1.3
            blurred = np.asarray(cv2.GaussianBlur(frame, (0, 0), 1.0))
            assert sharpness_kept(blurred, photo_from(photo, path, view, Fit.CROP)) < 0.9


def test_memory_does_not_grow_with_the_clip() -> None:
    photo = textured()

    def peak_bytes(count: int) -> int:
        scene = open_scene(photo, CameraPath(CameraMove(Move.ZOOM_IN), 256, 256, count))
        tracemalloc.start()
        for _ in scene.frames():
            pass
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    assert peak_bytes(40) < peak_bytes(4) + 256 * 256 * 3


def test_photos_as_people_send_them() -> None:
    """Turned by EXIF, and with alpha: the camera sees what the product's own decoder made."""
    upright = Image.fromarray(textured(300, 200))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = io.BytesIO()
    upright.transpose(Image.Transpose.ROTATE_90).save(turned, "JPEG", exif=exif, quality=95)
    photo = open_photo(turned.getvalue(), PhotoLimits())
    (frame,) = open_scene(photo.rgb, CameraPath(CameraMove(Move.STATIC), 300, 200, 1)).frames()
    assert np.abs(frame.astype(int) - np.asarray(upright)).mean() < 4

    clear = io.BytesIO()
    Image.new("RGBA", (128, 128), (255, 0, 0, 0)).save(clear, "PNG")
    photo = open_photo(clear.getvalue(), PhotoLimits())
    (frame,) = open_scene(photo.rgb, CameraPath(CameraMove(Move.ZOOM_IN), 64, 64, 1)).frames()
    assert (frame == 255).all()


# Orbit.


def left_edge_x(frame: Pixels, rows: range) -> NDArray[np.float64]:
    """Of the product in each row, to a fraction of a pixel: where half of its step is done."""
    green = frame[..., 1].astype(np.float64)
    edges = []
    for row in rows:
        line = green[row]
        x = int(np.flatnonzero(line < 130)[0])
        high, low = line[x - 4], line[x + 3]
        edges.append(x - 4 + ((line[x - 4 : x + 4] - low) / (high - low)).sum())
    return np.array(edges)


@pytest.mark.parametrize("move", [Move.ORBIT_LEFT, Move.ORBIT_RIGHT])
def test_an_orbit_moves_two_layers_and_bends_nothing(move: Move) -> None:
    scene = open_scene(boxed(), CameraPath(CameraMove(move), 320, 240, 7))
    assert scene.layers == 2
    rows = range(80, 180)
    edges = [left_edge_x(frame, rows) for frame in scene.frames()]
    for edge in edges:
        assert np.ptp(edge) < 0.1  # upright edges stay upright and straight
    way = edges[-1].mean() - edges[0].mean()
    assert way == pytest.approx(float(scene.path.flow(0, 6)[0, 0, 0]), abs=0.1)


def test_an_orbits_backdrop_goes_the_other_way() -> None:
    """A line on the backdrop, too faint to count as product, tells."""
    marked = boxed()
    marked[:, 100:104] -= 2
    path = CameraPath(CameraMove(Move.ORBIT_LEFT), 320, 240, 3)
    scenes = open_scene(marked, path), open_scene(boxed(), path)
    assert [scene.layers for scene in scenes] == [2, 2]
    true = scenes[0].flow(0, 2)
    assert true[120, 160, 0] > 0 > true[20, 10, 0]
    places = []
    for frame, plain in zip(*(scene.frames() for scene in scenes), strict=True):
        difference = plain.astype(float)[:40, :100] - frame[:40, :100]
        places.append(int(difference.mean(axis=(0, 2)).argmax()))
    way = places[2] - places[0]
    assert way == pytest.approx(float(true[20, 10, 0]), abs=1.5)
    assert places[0] > places[1] > places[2]


def test_half_way_an_orbit_is_the_photo() -> None:
    photo = boxed()
    path = CameraPath(CameraMove(Move.ORBIT_LEFT), 320, 240, 3)
    middle = list(open_scene(photo, path).frames())[1]
    still = photo_from(photo, path, View(0, 0), Fit.CROP)
    off = np.abs(middle.astype(int) - still)
    assert off.mean() < 0.6
    assert np.percentile(off, 99) < 12  # Lanczos against the area's mean, along the edges


@pytest.mark.parametrize("photo", [textured(), np.full((300, 400, 3), 200, np.uint8)])
def test_without_a_clear_product_an_orbit_has_one_layer(photo: Pixels) -> None:
    scene = open_scene(photo, CameraPath(CameraMove(Move.ORBIT_LEFT), 160, 120, 3))
    assert scene.layers == 1
    assert np.array_equal(scene.flow(0, 2), scene.path.flow(0, 2))
