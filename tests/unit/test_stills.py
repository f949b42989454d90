"""Poster, sprite sheet and contact sheet, looked at pixel by pixel."""

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from video.stills import Clip, contact_sheet, poster, spritesheet

Pixels = NDArray[np.uint8]
PAPER = (246, 245, 242)


def opened(data: bytes, format_: str) -> Pixels:
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == format_
        return np.asarray(image.convert("RGB"))


def tinted(count: int, height: int = 48, width: int = 64) -> Pixels:
    """Frames of one colour each: red tells the number, blue that it is a frame."""
    frames = np.zeros((count, height, width, 3), np.uint8)
    frames[..., 0] = (np.arange(count) * 255 // max(1, count - 1))[:, None, None]
    frames[..., 2] = 255
    return frames


PHOTO = np.full((90, 120, 3), (0, 160, 0), np.uint8)


def runs_of_blue(line: Pixels) -> list[int]:
    """The red level of each stretch of frame colour along a line of pixels."""
    is_frame = (line[:, 2] > 240) & (line[:, 1] < 20)
    starts = np.nonzero(is_frame & ~np.roll(is_frame, 1))[0]
    return [int(line[start + 5, 0]) for start in starts]


def frame_reds(sheet: Pixels) -> list[int]:
    """Red levels of the frames of a contact sheet, in reading order."""
    is_frame = (sheet[..., 2] > 240) & (sheet[..., 1] < 20)
    rows = is_frame.any(axis=1)
    tops = np.nonzero(rows & ~np.roll(rows, 1))[0]
    return [red for top in tops for red in runs_of_blue(sheet[top + 5])]


def test_a_poster_is_the_frame_as_webp() -> None:
    y, x = np.mgrid[0:1:90j, 0:1:120j]
    frame = np.dstack([255 * x, 255 * y, 255 * (1 - x)]).astype(np.uint8)
    good, poor = poster(frame), poster(frame, quality=20)
    assert np.abs(opened(good, "WEBP").astype(int) - frame).mean() < 3
    assert len(poor) < len(good)
    assert poster(frame) == good


def test_a_sprite_sheet_reads_row_by_row() -> None:
    sheet = opened(spritesheet(tinted(6), columns=4, cell_width=128), "WEBP")
    assert sheet.shape == (2 * 96, 4 * 128, 3)
    middles = sheet[48::96, 64::128].reshape(-1, 3).astype(int)
    assert np.abs(middles[:6, 0] - np.arange(6) * 51).max() <= 4
    assert (middles[6:] > 250).all()  # left over: white


@pytest.mark.parametrize(("height", "cell_height"), [(48, 75), (64, 100), (100, 156)])
def test_sprite_cells_keep_the_ratio(height: int, cell_height: int) -> None:
    sheet = opened(spritesheet(tinted(1, height, 64), columns=1, cell_width=100), "WEBP")
    assert sheet.shape == (cell_height, 100, 3)


@pytest.mark.parametrize("count", [1, 2, 8, 16])
def test_a_contact_sheet_shows_every_frame_in_order_right_of_the_photo(count: int) -> None:
    sheet = opened(contact_sheet(PHOTO, [Clip(tinted(count))], "Mug", ["seed 7"]), "PNG")
    reds = frame_reds(sheet)
    assert reds == tinted(count)[:, 0, 0, 0].tolist()
    green = np.nonzero((sheet == PHOTO[0, 0]).all(axis=-1).any(axis=0))[0]
    blue = np.nonzero(((sheet[..., 2] > 240) & (sheet[..., 1] < 20)).any(axis=0))[0]
    assert green.max() < blue.min()
    assert tuple(sheet[0, 0]) == PAPER


def test_of_a_long_clip_sixteen_frames_are_shown_first_and_last_among_them() -> None:
    reds = frame_reds(opened(contact_sheet(PHOTO, [Clip(tinted(31))], "Mug", []), "PNG"))
    assert len(reds) == 16
    assert (reds[0], reds[-1]) == (0, 255)
    assert reds == sorted(set(reds))


def test_clips_stand_below_each_other_each_with_its_share_and_its_label() -> None:
    bright = tinted(31)
    dark = bright.copy()
    dark[..., 0] //= 2
    clips = [Clip(bright, "first", 24.0), Clip(dark, "second", 24.0)]
    sheet = opened(contact_sheet(PHOTO, clips, "Mug", []), "PNG")
    reds = frame_reds(sheet)
    assert len(reds) == 16
    assert (reds[0], reds[7], reds[8], reds[15]) == (0, 255, 0, 127)
    unlabelled = [Clip(bright, fps=24.0), Clip(dark, fps=24.0)]
    assert sheet.shape[0] > opened(contact_sheet(PHOTO, unlabelled, "Mug", []), "PNG").shape[0]


@pytest.mark.parametrize(
    ("height", "width"), [(32, 48), (64, 64), (128, 72), (512, 512), (1080, 1920)]
)
def test_frames_of_any_size_are_shown_at_a_readable_one(height: int, width: int) -> None:
    sheet = opened(contact_sheet(PHOTO, [Clip(tinted(4, height, width))], "Mug", []), "PNG")
    is_frame = (sheet[..., 2] > 240) & (sheet[..., 1] < 20)
    area = is_frame.sum() / 4
    assert 0.5 * 240**2 < area < 1.1 * 240**2
    if width < 120:  # grown by a whole number
        left, right = np.nonzero(is_frame.any(axis=0))[0][[0, -1]]
        assert (int(right - left) + 1 - 20) % (2 * width) == 0


@pytest.mark.parametrize("shape", [(100, 100), (60, 400), (400, 60)])
def test_the_photo_keeps_its_ratio(shape: tuple[int, int]) -> None:
    photo = np.full((*shape, 3), (0, 160, 0), np.uint8)
    sheet = opened(contact_sheet(photo, [Clip(tinted(9))], "Mug", []), "PNG")
    rows, columns = np.nonzero((sheet == (0, 160, 0)).all(axis=-1))
    ratio = (np.ptp(columns) + 1) / (np.ptp(rows) + 1)
    assert ratio == pytest.approx(shape[1] / shape[0], rel=0.03)


def test_title_captions_and_lines_are_drawn() -> None:
    def sheet(
        title: str = "Mug", lines: tuple[str, ...] = ("a",), fps: float | None = None
    ) -> Pixels:
        return opened(contact_sheet(PHOTO, [Clip(tinted(4), fps=fps)], title, lines), "PNG")

    plain = sheet()
    header, footer = plain[:110], plain[-100:]
    assert (header.min(axis=-1) < 60).sum() > 100  # ink
    assert not np.array_equal(sheet("Jug")[:110], header)
    assert not np.array_equal(sheet(lines=("b",))[-100:], footer)
    assert sheet(lines=("a", "b")).shape[0] > plain.shape[0]
    assert not np.array_equal(sheet(fps=8.0), plain)  # times in place of numbers


@pytest.mark.parametrize("title", ["word " * 80, "x" * 500])
def test_long_text_is_cut_at_the_margin(title: str) -> None:
    sheet = opened(contact_sheet(PHOTO, [Clip(tinted(4))], title, [title]), "PNG")
    assert (sheet[:, -55:] == PAPER).all()  # of the margin, a frame's rule takes 1 px
    assert sheet.shape == opened(contact_sheet(PHOTO, [Clip(tinted(4))], "x", ["x"]), "PNG").shape


@pytest.mark.parametrize(
    ("title", "drawn"),
    [("Café crème — 20×30", "Cafe creme - 20x30"), ("cafe\u0301", "cafe"), ("杯子", "??")],
)
def test_letters_the_font_lacks_are_replaced_not_drawn_as_boxes(title: str, drawn: str) -> None:
    assert contact_sheet(PHOTO, [Clip(tinted(4))], title, []) == contact_sheet(
        PHOTO, [Clip(tinted(4))], drawn, []
    )
