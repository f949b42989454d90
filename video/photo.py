"""A product photo becomes frame 0: checked before it is decoded, made sRGB, fitted to the video."""

import hashlib
import io
import math
import warnings
from dataclasses import dataclass
from enum import StrEnum

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError
from pydantic import BaseModel, ConfigDict, Field

from video.errors import PhotoError, PhotoTooLarge, PhotoTooSmall, UndecodablePhoto
from video.sniff import PhotoFormat, sniff_format
from video.srgb import to_srgb
from video.subject import find_subject

# Pillow only warns between this many pixels and twice as many; here its alarm refuses the file.
_PILLOW_ALARM_PIXELS = 89_478_485
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class PhotoLimits(BaseModel):
    """What a photo may be. The defaults admit what phones and studio cameras make."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_bytes: int = Field(default=25 * 1024**2, gt=0)
    min_side_px: int = Field(default=64, gt=0)
    max_pixels: int = Field(default=64_000_000, gt=0, le=_PILLOW_ALARM_PIXELS)
    max_aspect_ratio: float = Field(default=8.0, ge=1.0)  # long side / short side
    advised_side_px: int = Field(default=512, gt=0)  # below it the photo is taken, with a warning


class Fit(StrEnum):
    """What happens to a photo whose ratio is not the video's."""

    CROP = "crop"  # about its centre
    SUBJECT_CROP = "subject_crop"  # about the product
    CONTAIN_BLUR = "contain_blur"  # whole, over a blurred copy of itself
    CONTAIN_COLOR = "contain_color"  # whole, over one colour
    STRETCH = "stretch"


@dataclass(frozen=True, slots=True, eq=False)
class Photo:
    """Upright sRGB pixels and where they came from."""

    rgb: NDArray[np.uint8]  # [H, W, 3], read-only
    format: PhotoFormat
    sha256: str  # of the bytes as given
    warnings: tuple[str, ...]  # sentences for the person who sent the photo


@dataclass(frozen=True, slots=True)
class PhotoFacts:
    """What is known of a photo that was decoded, without its pixels."""

    width: int  # px, upright
    height: int  # px
    format: PhotoFormat
    sha256: str
    warnings: tuple[str, ...]


def open_photo(data: bytes, limits: PhotoLimits) -> Photo:
    """Reads a JPEG, PNG or WebP; of an animation, the first frame.

    Everything the header tells is checked before a pixel is decoded, so a bomb costs milliseconds.

    Raises UnsupportedPhotoType, UndecodablePhoto, PhotoTooSmall or PhotoTooLarge.
    """
    if len(data) > limits.max_bytes:
        raise PhotoTooLarge(
            f"{len(data) / 1024**2:.1f} MiB",
            f"{limits.max_bytes / 1024**2:g} MiB",
            "save it as a JPEG of quality 90",
        )
    format_ = sniff_format(data)
    try:
        # `formats` keeps Pillow's other decoders, written for trusted files, out of reach.
        with Image.open(io.BytesIO(data), formats=(format_.upper(),)) as image:
            _check_header(image, limits)
            image.load()
            upright = _turn_upright(image)
            pixels, notes = to_srgb(upright)
    except (PhotoError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_many_pixels(f"over {_PILLOW_ALARM_PIXELS:,} px", limits) from error
    except UnidentifiedImageError as error:
        raise UndecodablePhoto("its header is damaged") from error
    except Exception as error:  # Pillow lets damage out as any of a dozen built-in types
        raise UndecodablePhoto(str(error) or type(error).__name__) from error
    if min(pixels.size) < limits.advised_side_px:
        notes.append(
            f"the photo is {pixels.width}x{pixels.height} px; with {limits.advised_side_px} px or "
            "more on each side the video would be sharper"
        )
    return Photo(np.asarray(pixels), format_, hashlib.sha256(data).hexdigest(), tuple(notes))


def inspect_photo(data: bytes, limits: PhotoLimits) -> PhotoFacts:
    """Decodes all of it, since a header tells nothing of damage behind it. Raises as open_photo."""
    photo = open_photo(data, limits)
    height, width = photo.rgb.shape[:2]
    return PhotoFacts(width, height, photo.format, photo.sha256, photo.warnings)


def target_size(
    photo_width: int, photo_height: int, area_px: int, multiple: int
) -> tuple[int, int]:
    """(width, height) in px of the video for a photo: about its ratio, never more than `area_px`.

    Both sides are multiples of `multiple`, at least one. Of all such sizes it is the one with the
    least 2 * |ln(its ratio / the photo's)| + ln(area_px / its area): a percent of the photo cut
    away weighs as much as two percent fewer pixels. For 512 x 512 px in steps of 64, a 3:2 photo
    gives 576 x 384, a 3:4 one 448 x 576.
    """
    cells = max(1, area_px // multiple**2)
    ratio = photo_width / photo_height

    def cost(size: tuple[int, int]) -> float:
        columns, rows = size
        return 2 * abs(math.log(columns / rows / ratio)) + math.log(cells / (columns * rows))

    sizes = (
        (columns, min(max(1, rows), cells // columns))
        for columns in range(1, cells + 1)
        for rows in (math.floor(columns / ratio), math.ceil(columns / ratio))
    )
    columns, rows = min(sizes, key=cost)
    return columns * multiple, rows * multiple


def fit_photo(
    rgb: NDArray[np.uint8],
    width: int,
    height: int,
    fit: Fit,
    color: tuple[int, int, int] = (255, 255, 255),
) -> NDArray[np.uint8]:
    """`rgb` [H, W, 3] as a frame [height, width, 3]. The ratio is kept, except by Fit.STRETCH."""
    photo_height, photo_width = rgb.shape[:2]
    image = Image.fromarray(rgb)
    match fit:
        case Fit.STRETCH:
            return _resize(image, width, height, (0, 0, photo_width, photo_height))
        case Fit.CROP:
            return _cover(image, width, height, (photo_width / 2, photo_height / 2))
        case Fit.SUBJECT_CROP:
            subject = find_subject(rgb)
            centre = (subject.left + subject.right) / 2, (subject.top + subject.bottom) / 2
            return _cover(image, width, height, centre)
        case Fit.CONTAIN_BLUR:
            return _contain(image, _backdrop(image, width, height))
        case Fit.CONTAIN_COLOR:
            return _contain(image, np.full((height, width, 3), color, dtype=np.uint8))


def _resize(
    image: Image.Image, width: int, height: int, box: tuple[float, float, float, float]
) -> NDArray[np.uint8]:
    # Lanczos with its support widened when shrinking, after an area reduction to within 3 times
    # the target; the box may cut through pixels, so that small photos keep their ratio too.
    return np.array(
        image.resize((width, height), Image.Resampling.LANCZOS, box=box, reducing_gap=3.0)
    )


def _cover(
    image: Image.Image, width: int, height: int, centre: tuple[float, float]
) -> NDArray[np.uint8]:
    """The largest window of the frame's ratio, as near to `centre` as the photo's edges allow."""
    scale = max(width / image.width, height / image.height)
    window_width = min(width / scale, image.width)
    window_height = min(height / scale, image.height)
    left = min(max(centre[0] - window_width / 2, 0), image.width - window_width)
    top = min(max(centre[1] - window_height / 2, 0), image.height - window_height)
    return _resize(image, width, height, (left, top, left + window_width, top + window_height))


def _contain(image: Image.Image, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The whole photo, centred on `frame`, which is written to."""
    height, width = frame.shape[:2]
    scale = min(width / image.width, height / image.height)
    inner_width, inner_height = round(image.width * scale), round(image.height * scale)
    left, top = (width - inner_width) // 2, (height - inner_height) // 2
    frame[top : top + inner_height, left : left + inner_width] = _resize(
        image, inner_width, inner_height, (0, 0, image.width, image.height)
    )
    return frame


def _backdrop(image: Image.Image, width: int, height: int) -> NDArray[np.uint8]:
    """The photo itself, covering and blurred until no object can be told."""
    cover = _cover(image, width, height, (image.width / 2, image.height / 2))
    small = cv2.resize(
        cover, (max(1, width // 8), max(1, height // 8)), interpolation=cv2.INTER_AREA
    )
    blurred = cv2.GaussianBlur(small, (0, 0), sigmaX=max(width, height) / 8 / 20)
    return np.asarray(cv2.resize(blurred, (width, height), interpolation=cv2.INTER_CUBIC))


def _check_header(image: Image.Image, limits: PhotoLimits) -> None:
    width, height = image.size
    if min(width, height) < limits.min_side_px:
        raise PhotoTooSmall(width, height, limits.min_side_px)
    if width * height > limits.max_pixels:
        raise _too_many_pixels(f"{width}x{height} px", limits)
    if max(width, height) > limits.max_aspect_ratio * min(width, height):
        raise PhotoTooLarge(
            f"{width}x{height} px, {max(width, height) / min(width, height):.1f} times as long as "
            "it is wide",
            f"{limits.max_aspect_ratio:g} times",
            "cut it to the product",
        )


def _too_many_pixels(found: str, limits: PhotoLimits) -> PhotoTooLarge:
    return PhotoTooLarge(
        found, f"{limits.max_pixels:,} px", "scale it down; 2048 px a side is ample"
    )


def _turn_upright(image: Image.Image) -> Image.Image:
    # Not ImageOps.exif_transpose: it writes the tags back, and fails on ones it cannot re-encode.
    turn = _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    return image if turn is None else image.transpose(turn)
