"""Stills to go with a video: its poster, a sprite sheet for scrubbing, a contact sheet to view."""

import io
import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

_PAPER, _INK, _FAINT, _RULE = "#f6f5f2", "#1d1d1f", "#7a7874", "#dcd9d3"
_SIGNS = "©«°±·»‘’“”…‹›"  # all that Pillow's own font has beside ASCII
_TWINS = {"×": "x", "–": "-", "—": "-"}
_MARGIN, _GAP, _CAPTION, _LINE = 56, 20, 32, 36  # px
_CELL_AREA = 240 * 240  # px² of a frame on the contact sheet
_MAX_CELLS = 16  # frames shown of longer clips, evenly spaced
_PHOTO_SHARE = 0.6  # of the frames' width


def poster(frame: NDArray[np.uint8], quality: int = 85) -> bytes:
    """`frame` [H, W, 3] as WebP; `quality` 0..100."""
    return _encode(Image.fromarray(frame), "WEBP", quality=quality)


def spritesheet(frames: NDArray[np.uint8], columns: int = 4, cell_width: int = 240) -> bytes:
    """All of `frames` [N, H, W, 3] as one WebP: row by row in time, cells `cell_width` px wide.

    Cells keep the frames' ratio. Those left over in the last row are white.
    """
    count, height, width = frames.shape[:3]
    cell = (cell_width, round(height * cell_width / width))
    rows = math.ceil(count / columns)
    sheet = Image.new("RGB", (columns * cell[0], rows * cell[1]), "white")
    for index, frame in enumerate(frames):
        row, column = divmod(index, columns)
        sheet.paste(_resized(frame, cell), (column * cell[0], row * cell[1]))
    return _encode(sheet, "WEBP", quality=80)


@dataclass(frozen=True, slots=True)
class Clip:
    """What a contact sheet shows of one video."""

    frames: NDArray[np.uint8]  # [N, H, W, 3]
    label: str = ""
    fps: float | None = None  # the playback rate; without it frames are captioned by number


def contact_sheet(
    photo_rgb: NDArray[np.uint8], clips: Sequence[Clip], title: str, lines: Sequence[str]
) -> bytes:
    """A PNG to look through: the photo, 16 frames at most of all `clips` in time order, one clip
    below the other, and `lines`.

    Text is drawn in the font that comes with Pillow, which has ASCII and little else: accents are
    dropped, other scripts become question marks.
    """
    shown = [_evenly(len(clip.frames), _MAX_CELLS // len(clips)) for clip in clips]
    columns = math.ceil(math.sqrt(sum(map(len, shown))))
    cells = [_size_of_area(c.frames.shape[2], c.frames.shape[1], _CELL_AREA) for c in clips]
    labelled = _LINE if any(clip.label for clip in clips) else 0
    heights = [
        labelled + math.ceil(len(indices) / columns) * (cell[1] + _CAPTION + _GAP)
        for indices, cell in zip(shown, cells, strict=True)
    ]
    grid_width = max(columns * cell[0] + (columns - 1) * _GAP for cell in cells)
    grid_height = sum(heights) - _GAP
    # The photo is as large as it can be without outweighing the frames.
    photo_scale = min(
        _PHOTO_SHARE * grid_width / photo_rgb.shape[1],
        (grid_height - _CAPTION) / photo_rgb.shape[0],
    )
    photo_size = (round(photo_rgb.shape[1] * photo_scale), round(photo_rgb.shape[0] * photo_scale))

    heading, body, small = (_font(size) for size in (44, 24, 18))
    top = _MARGIN + 44 + 2 * _GAP
    grid_left = _MARGIN + photo_size[0] + 2 * _GAP
    footer = top + grid_height + 2 * _GAP
    sheet = Image.new(
        "RGB",
        (grid_left + grid_width + _MARGIN, footer + _GAP + _LINE * len(lines) + _MARGIN),
        _PAPER,
    )
    draw = ImageDraw.Draw(sheet)
    text_width = sheet.width - 2 * _MARGIN
    draw.text((_MARGIN, _MARGIN), _line(title, heading, text_width), _INK, heading)

    def place(
        image: NDArray[np.uint8], size: tuple[int, int], at: tuple[int, int], caption: str
    ) -> None:
        sheet.paste(_resized(image, size), at)
        draw.rectangle((at[0] - 1, at[1] - 1, at[0] + size[0], at[1] + size[1]), outline=_RULE)
        draw.text((at[0], at[1] + size[1] + 7), caption, _FAINT, small)

    place(photo_rgb, photo_size, (_MARGIN, top + labelled), "photo")
    for clip, indices, cell, height in zip(clips, shown, cells, heights, strict=True):
        draw.text((grid_left, top), _line(clip.label, body, grid_width), _INK, body)
        for position, index in enumerate(indices):
            row, column = divmod(position, columns)
            left = grid_left + column * (cell[0] + _GAP)
            upper = top + labelled + row * (cell[1] + _CAPTION + _GAP)
            caption = f"{index / clip.fps:.2f} s" if clip.fps else f"frame {index + 1}"
            place(clip.frames[index], cell, (left, upper), caption)
        top += height
    draw.line((_MARGIN, footer, sheet.width - _MARGIN, footer), _RULE)
    for index, line in enumerate(lines):
        at = (_MARGIN, footer + _GAP + _LINE * index)
        draw.text(at, _line(line, body, text_width), _FAINT, body)
    return _encode(sheet, "PNG")


def _evenly(count: int, most: int) -> list[int]:
    """Indices of at most `most` frames of `count`, the first and the last among them."""
    cells = min(count, most)
    return [round(position * (count - 1) / max(1, cells - 1)) for position in range(cells)]


def _size_of_area(width: int, height: int, area_px: int) -> tuple[int, int]:
    scale = math.sqrt(area_px / (width * height))
    if scale >= 2:
        scale = math.floor(scale)  # small frames grow by whole numbers: every pixel alike
    return round(width * scale), round(height * scale)


def _resized(image: NDArray[np.uint8], size: tuple[int, int]) -> Image.Image:
    return Image.fromarray(image).resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)  # the other kind comes without a size only
    return font


def _line(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """`text` as the font can draw it, on one line of at most `width` px."""
    text = "".join(map(_drawable, unicodedata.normalize("NFC", text)))
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text.rstrip() + "…"


def _drawable(letter: str) -> str:
    if letter in _SIGNS:
        return letter
    decomposed = unicodedata.normalize("NFKD", _TWINS.get(letter, letter))
    return decomposed.encode("ascii", "ignore").decode() or "?"


def _encode(image: Image.Image, format_: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()
