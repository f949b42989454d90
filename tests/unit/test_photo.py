"""Photos as people send them, good and bad, and the frame they become."""

import contextlib
import hashlib
import io
import math
import pickle
import resource
import struct
import subprocess
import sys
import time
import tracemalloc
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageCms
from pydantic import ValidationError

from video.errors import (
    EncodeFailed,
    PhotoError,
    PhotoTooLarge,
    PhotoTooSmall,
    UndecodablePhoto,
    UnsupportedPhotoType,
    VideoError,
)
from video.photo import Fit, Photo, PhotoLimits, fit_photo, open_photo, target_size

LIMITS = PhotoLimits()
Pixels = NDArray[np.uint8]


def encode(image: Image.Image, format_: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


def png(
    width: int,
    height: int,
    depth: int,
    color_type: int,
    rows: bytes,
    extra: tuple[tuple[bytes, bytes], ...] = (),
) -> bytes:
    """A PNG by hand, for what Pillow does not write."""
    header = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0)
    chunks = ((b"IHDR", header), *extra, (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


def png16(pixels: NDArray[np.uint16], color_type: int, **chunks: bytes) -> bytes:
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    extra = tuple((kind.encode(), body) for kind, body in chunks.items())
    return png(pixels.shape[1], pixels.shape[0], 16, color_type, rows, extra)


def noise(height: int, width: int) -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def flat(color: object, mode: str = "RGB", side: int = 64) -> Image.Image:
    return Image.new(mode, (side, side), color)  # type: ignore[arg-type]


def colors_of(photo: Photo) -> set[tuple[int, ...]]:
    return {tuple(color) for color in np.unique(photo.rgb.reshape(-1, 3), axis=0).tolist()}


def linear_profile(space: str) -> bytes:
    """An ICC profile, by hand, whose primaries are sRGB's and whose values are linear light."""

    def s15(*values: float) -> bytes:
        return b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    tags = {b"wtpt": b"XYZ \0\0\0\0" + s15(0.9642, 1.0, 0.8249)}
    linear = b"curv\0\0\0\0\0\0\0\0"
    if space == "GRAY":
        tags[b"kTRC"] = linear
    else:
        primaries = (0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141)
        for letter, xyz in zip((b"r", b"g", b"b"), primaries, strict=True):
            tags[letter + b"XYZ"] = b"XYZ \0\0\0\0" + s15(*xyz)
            tags[letter + b"TRC"] = linear
    table, body = struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        table += name + struct.pack(">II", 132 + 12 * len(tags) + len(body), len(data))
        body += data
    head = struct.pack(">I4sI4s4s4s12x4s", 132 + 12 * len(tags) + len(body), b"", 0x02400000,
                       b"mntr", space.encode().ljust(4), b"XYZ ", b"acsp")  # fmt: skip
    return head.ljust(68, b"\0") + s15(0.9642, 1.0, 0.8249).ljust(60, b"\0") + table + body


# --- what is refused ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (encode(flat(0), "GIF"), "GIF"),
        (encode(flat(0), "TIFF"), "TIFF"),
        (encode(flat(0), "BMP"), "BMP"),
        (b"%PDF-1.7\n", "PDF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "PostScript"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"),
        (b"\0\0\0\x18ftypavif\0\0\0\0", "AVIF"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0", "video"),
        (b"just some words", "unknown"),
        (b"RIFF\0\0\0\0WAVEfmt ", "unknown"),
    ],
)
def test_other_files_are_refused_by_name(data: bytes, named: str) -> None:
    with pytest.raises(UnsupportedPhotoType, match=f"{named}.*JPEG, PNG or WebP"):
        open_photo(data, LIMITS)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xd8\xff" + bytes(500),
        b"\x89PNG\r\n\x1a\n" + bytes(500),
        b"RIFF\x10\0\0\0WEBPVP8 ",
    ],
)
def test_a_signature_without_a_picture_is_undecodable(data: bytes) -> None:
    with pytest.raises(UndecodablePhoto) as caught:
        open_photo(data, LIMITS)
    assert caught.value.code == "image_undecodable"
    assert " at 0x" not in str(caught.value)  # Pillow's own message shows an address


@pytest.mark.filterwarnings("error::PIL.Image.DecompressionBombWarning")  # pytest drops ours
@pytest.mark.parametrize("side", [8_001, 9_400, 9_500, 13_300, 60_000])
def test_a_bomb_is_refused_by_its_header(side: int) -> None:
    # Below, between and above Pillow's own two limits.
    data = png(side, side, 8, 2, bytes(100))
    tracemalloc.start()
    memory, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    try:
        with pytest.raises(PhotoTooLarge) as caught:
            open_photo(data, LIMITS)
        seconds, peak = time.process_time() - started, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert caught.value.code == "image_too_large"
    assert "64,000,000 px" in str(caught.value)
    assert seconds < 0.1
    assert peak < 1024**2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 8 * 1024  # KiB


def test_pillow_prints_no_warning_of_its_own() -> None:
    script = (
        "import sys; from video.photo import PhotoLimits, open_photo\n"
        "try: open_photo(sys.stdin.buffer.read(), PhotoLimits())\n"
        "except Exception as error: print(type(error).__name__)"
    )
    data = png(9_500, 9_500, 8, 2, bytes(100))  # where Pillow's alarm is but a warning
    done = subprocess.run([sys.executable, "-c", script], input=data, capture_output=True)
    assert (done.stdout.strip(), done.stderr) == (b"PhotoTooLarge", b"")


def test_a_compressed_text_bomb_is_refused() -> None:
    text = (b"zTXt", b"Comment\0\0" + zlib.compress(bytes(64 * 1024**2)))
    with pytest.raises(UndecodablePhoto):
        open_photo(png(64, 64, 8, 2, bytes(64 * 193), (text,)), LIMITS)


@pytest.mark.parametrize(
    ("width", "height", "error"),
    [
        (1, 1, PhotoTooSmall),
        (1, 30_000, PhotoTooSmall),
        (63, 400, PhotoTooSmall),
        (64, 513, PhotoTooLarge),
        (513, 64, PhotoTooLarge),
    ],
)
def test_sides_beyond_the_limits_are_refused(
    width: int, height: int, error: type[PhotoError]
) -> None:
    with pytest.raises(error):
        open_photo(png(width, height, 8, 0, bytes(height * (width + 1))), LIMITS)


def test_sides_at_the_limits_are_taken() -> None:
    assert open_photo(png(64, 512, 8, 0, bytes(512 * 65)), LIMITS).rgb.shape == (512, 64, 3)


def test_bytes_beyond_the_limit_are_refused_before_they_are_read() -> None:
    data = encode(flat(0), "PNG")
    assert open_photo(data, PhotoLimits(max_bytes=len(data)))
    with pytest.raises(PhotoTooLarge, match="MiB"):
        open_photo(data, PhotoLimits(max_bytes=len(data) - 1))


def test_limits_cannot_exceed_the_alarm_of_pillow_nor_be_misspelt() -> None:
    with pytest.raises(ValidationError):
        PhotoLimits(max_pixels=90_000_000)
    with pytest.raises(ValidationError):
        PhotoLimits.model_validate({"max_side": 3})


SAMPLES = {
    "jpeg": encode(Image.fromarray(noise(70, 90)), "JPEG"),
    "png": encode(Image.fromarray(noise(70, 90)), "PNG"),
    "webp": encode(Image.fromarray(noise(70, 90)), "WEBP"),
    "lossless": encode(Image.fromarray(noise(70, 90)), "WEBP", lossless=True),
    "cmyk": encode(Image.fromarray(noise(70, 90)).convert("CMYK"), "JPEG"),
    "grey16": png16(noise(64, 64)[..., :1].astype(np.uint16) * 251, 0),
}


@given(st.sampled_from(sorted(SAMPLES)), st.floats(0, 1, exclude_max=True))
@settings(max_examples=300, deadline=None)
def test_a_truncated_photo_is_a_photo_error(name: str, share: float) -> None:
    whole = SAMPLES[name]
    length = int(share * len(whole))
    try:
        photo = open_photo(whole[:length], LIMITS)
    except PhotoError:
        return
    # The pixels of a PNG end some bytes before the file: checksums and the end chunk.
    assert len(whole) - length <= 24
    assert np.array_equal(photo.rgb, open_photo(whole, LIMITS).rgb)


@given(
    st.sampled_from(sorted(SAMPLES)),
    st.lists(st.tuples(st.integers(0, 700), st.integers(0, 255)), min_size=1, max_size=8),
)
@settings(max_examples=300, deadline=None)
def test_a_damaged_photo_opens_or_is_a_photo_error(
    name: str, damage: list[tuple[int, int]]
) -> None:
    data = bytearray(SAMPLES[name])
    for offset, value in damage:
        data[offset % len(data)] = value
    with contextlib.suppress(PhotoError):
        assert open_photo(bytes(data), LIMITS).rgb.ndim == 3


@pytest.mark.parametrize(
    "error",
    [
        UnsupportedPhotoType("a GIF"),
        UndecodablePhoto("truncated"),
        PhotoTooSmall(10, 20, 64),
        PhotoTooLarge("30 MiB", "25 MiB", "save it smaller"),
        EncodeFailed("odd sides"),
    ],
)
def test_errors_survive_pickling_and_say_not_to_retry(error: VideoError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), copy.code) == (type(error), str(error), error.code)
    assert not copy.retryable


# --- what is taken, and the pixels it gives -----------------------------------------------------


@pytest.mark.parametrize("format_", ["jpeg", "png", "webp"])
def test_a_photo_knows_its_format_and_hash(format_: str) -> None:
    data = encode(flat((200, 30, 40)), format_.upper())
    photo = open_photo(data, LIMITS)
    assert (photo.format, photo.sha256) == (format_, hashlib.sha256(data).hexdigest())
    assert photo.rgb.dtype == np.uint8
    assert photo.rgb.shape == (64, 64, 3)
    assert not photo.rgb.flags.writeable
    assert np.abs(photo.rgb.astype(int) - (200, 30, 40)).max() <= 3


def test_a_phone_photo_of_several_pictures_is_a_jpeg() -> None:
    data = encode(flat("red"), "MPO", save_all=True, append_images=[flat("blue")])
    photo = open_photo(data, LIMITS)
    assert photo.format == "jpeg"
    assert photo.rgb[0, 0, 0] > 250


def test_of_an_animation_the_first_frame_is_taken() -> None:
    data = encode(flat("red"), "WEBP", save_all=True, append_images=[flat("blue")], lossless=True)
    assert colors_of(open_photo(data, LIMITS)) == {(255, 0, 0)}


UPRIGHT = noise(70, 90)
STORED = {
    1: UPRIGHT,
    2: UPRIGHT[:, ::-1],
    3: UPRIGHT[::-1, ::-1],
    4: UPRIGHT[::-1],
    5: UPRIGHT.transpose(1, 0, 2),
    6: np.rot90(UPRIGHT),
    7: UPRIGHT[::-1, ::-1].transpose(1, 0, 2),
    8: np.rot90(UPRIGHT, -1),
}


@pytest.mark.parametrize("orientation", STORED)
def test_exif_orientation_is_applied(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation]))
    photo = open_photo(encode(stored, "PNG", exif=exif), LIMITS)
    assert np.array_equal(photo.rgb, UPRIGHT)


def palette_with_hole() -> bytes:
    image = flat(1, "P")
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((0, 0), 0)
    return encode(image, "PNG", transparency=1)


def grey16(value: int, key: int | None = None) -> bytes:
    chunks = {} if key is None else {"tRNS": struct.pack(">H", key)}
    return png16(np.full((64, 64, 1), value, np.uint16), 0, **chunks)


@pytest.mark.parametrize(
    ("data", "colors"),
    [
        pytest.param(grey16(40_000), {(156,) * 3}, id="16-bit grey is scaled, not clipped"),
        pytest.param(grey16(65_535), {(255,) * 3}, id="16-bit white"),
        pytest.param(grey16(200), {(1,) * 3}, id="16-bit grey is rounded"),
        pytest.param(grey16(300, key=300), {(255,) * 3}, id="16-bit grey, transparent"),
        pytest.param(grey16(300, key=301), {(1,) * 3}, id="16-bit grey, another grey transparent"),
        pytest.param(
            png16(np.full((64, 64, 3), (40_000, 0, 65_535), np.uint16), 2),
            {(156, 0, 255)},
            id="16-bit RGB",
        ),
        pytest.param(
            png16(np.full((64, 64, 4), (65_535, 0, 0, 32_768), np.uint16), 6),
            {(255, 127, 127)},
            id="16-bit RGBA over white",
        ),
        pytest.param(
            encode(flat((255, 0, 0, 128), "RGBA"), "PNG"), {(255, 127, 127)}, id="RGBA over white"
        ),
        pytest.param(encode(flat((0, 0), "LA"), "PNG"), {(255,) * 3}, id="LA, transparent black"),
        pytest.param(encode(flat((0, 51), "LA"), "PNG"), {(204,) * 3}, id="LA over white"),
        pytest.param(palette_with_hole(), {(255, 0, 0), (255,) * 3}, id="palette with a hole"),
        pytest.param(encode(flat(7, "L"), "PNG", transparency=7), {(255,) * 3}, id="grey key"),
        pytest.param(encode(flat(1, "1"), "PNG"), {(255,) * 3}, id="one bit"),
        pytest.param(
            encode(flat((255, 0, 0, 0), "CMYK"), "JPEG", quality=100), {(0, 255, 255)}, id="CMYK"
        ),
        pytest.param(
            encode(flat((0, 255, 0, 128), "RGBA"), "WEBP", lossless=True),
            {(127, 255, 127)},
            id="WebP over white",
        ),
    ],
)
def test_every_colour_mode_has_defined_pixels(
    data: bytes, colors: set[tuple[int, int, int]]
) -> None:
    assert colors_of(open_photo(data, LIMITS)) == colors


def test_a_16_bit_ramp_keeps_all_256_levels() -> None:
    ramp = np.repeat(np.arange(256, dtype=np.uint16)[None, :, None] * 257, 64, axis=0)
    assert np.array_equal(open_photo(png16(ramp, 0), LIMITS).rgb[0, :, 0], np.arange(256))


def test_an_embedded_profile_is_converted_to_srgb() -> None:
    # 128/255 of linear light is 188 in sRGB (IEC 61966-2-1).
    rgb = encode(flat((128, 0, 255)), "PNG", icc_profile=linear_profile("RGB"))
    photo = open_photo(rgb, LIMITS)
    assert np.abs(photo.rgb[0, 0].astype(int) - (188, 0, 255)).max() <= 1
    grey = open_photo(encode(flat(128, "L"), "PNG", icc_profile=linear_profile("GRAY")), LIMITS)
    assert np.abs(grey.rgb[0, 0].astype(int) - 188).max() <= 1


def test_transparent_pixels_are_white_whatever_the_profile() -> None:
    image = flat((128, 128, 128, 0), "RGBA")
    data = encode(image, "PNG", icc_profile=linear_profile("RGB"))
    assert colors_of(open_photo(data, LIMITS)) == {(255, 255, 255)}


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.mark.parametrize(
    ("image", "profile"),
    [
        pytest.param(flat((10, 200, 90)), b"not a profile", id="rubbish"),
        pytest.param(flat((10, 200, 90)), SRGB[:400], id="truncated"),
        pytest.param(flat(90, "L"), SRGB, id="of another colour space"),
    ],
)
def test_a_broken_profile_is_ignored_and_said(image: Image.Image, profile: bytes) -> None:
    photo = open_photo(encode(image, "PNG", icc_profile=profile), LIMITS)
    assert np.array_equal(photo.rgb, np.asarray(image.convert("RGB")))
    assert [note for note in photo.warnings if "colour profile" in note]


def test_warnings_speak_of_size_and_cmyk_only_where_they_apply() -> None:
    assert open_photo(encode(flat(0, side=512), "PNG"), LIMITS).warnings == ()
    (note,) = open_photo(encode(Image.new("RGB", (900, 511)), "PNG"), LIMITS).warnings
    assert "900x511" in note
    assert "512" in note
    (note,) = open_photo(encode(flat(0, "CMYK", side=512), "JPEG"), LIMITS).warnings
    assert "CMYK" in note


# --- the frame --------------------------------------------------------------------------------


@pytest.mark.parametrize("fit", Fit)
@pytest.mark.parametrize("size", [(64, 64), (512, 320), (192, 320)])
def test_every_fit_gives_the_size_and_no_colour_of_its_own(fit: Fit, size: tuple[int, int]) -> None:
    rgb = np.full((150, 333, 3), (90, 140, 250), np.uint8)
    frame = fit_photo(rgb, *size, fit, color=(90, 140, 250))
    assert frame.dtype == np.uint8
    assert frame.shape == (size[1], size[0], 3)
    assert frame.flags.writeable
    assert np.unique(frame.reshape(-1, 3), axis=0).tolist() == [[90, 140, 250]]


def disc(width: int, height: int, at: tuple[int, int], radius: int, backdrop: Pixels) -> Pixels:
    image = np.broadcast_to(backdrop, (height, width, 3)).copy()
    return np.asarray(cv2.circle(image, at, radius, (200, 30, 40), -1, cv2.LINE_AA), np.uint8)


def redness(frame: Pixels) -> NDArray[np.bool_]:
    return (frame[..., 0] > 150) & (frame[..., 1] < 110)


WHITE = np.full(3, 250, np.uint8)


@pytest.mark.parametrize("size", [(100, 100), (120, 40), (40, 90), (700, 500)])
def test_all_fits_but_stretch_keep_a_disc_round(size: tuple[int, int]) -> None:
    photo = disc(600, 400, (300, 200), 60, WHITE)
    for fit in Fit:
        rows, columns = np.nonzero(redness(fit_photo(photo, *size, fit)))
        ratio = (np.ptp(columns) + 1) / (np.ptp(rows) + 1)
        wanted = (size[0] / 600) / (size[1] / 400) if fit is Fit.STRETCH else 1
        assert ratio == pytest.approx(wanted, rel=0.15), fit


def test_crop_takes_the_middle() -> None:
    photo = np.zeros((200, 600, 3), np.uint8)
    photo[:, 200:400] = 255
    across = fit_photo(photo, 100, 100, Fit.CROP)
    upright = fit_photo(photo.transpose(1, 0, 2), 100, 100, Fit.CROP)
    assert across[:, 2:-2].min() >= 250  # the filter reaches over the window's edge
    assert upright[2:-2].min() >= 250


def test_contain_shows_the_whole_photo_on_the_colour() -> None:
    photo = noise(100, 200)
    frame = fit_photo(photo, 200, 200, Fit.CONTAIN_COLOR, color=(1, 2, 3))
    assert np.array_equal(frame[50:150], photo)
    assert np.unique(frame[[*range(50), *range(150, 200)]].reshape(-1, 3), axis=0).tolist() == [
        [1, 2, 3]
    ]


def test_contain_blur_surrounds_the_photo_with_its_own_soft_colours() -> None:
    photo = noise(100, 300)
    photo[:, :150] //= 4
    frame = fit_photo(photo, 300, 300, Fit.CONTAIN_BLUR)
    assert np.array_equal(frame[100:200], photo)
    above = frame[:100].astype(int)
    assert np.abs(np.diff(above, axis=0)).max() <= 6
    assert np.abs(np.diff(above, axis=1)).max() <= 6
    assert above[:, :60].mean() == pytest.approx(photo[:, 100:120].mean(), abs=12)
    assert above[:, 240:].mean() == pytest.approx(photo[:, 180:200].mean(), abs=12)


def backdrops() -> dict[str, Pixels]:
    y, x = np.mgrid[0:1:400j, 0:1:700j]
    rng = np.random.default_rng(1)
    plain = {
        "white": np.full((400, 700, 3), 250.0),
        "gradient": np.dstack([200 - 90 * y, 190 - 60 * y + 20 * x, 210 - 80 * y]),
        "vignette": np.repeat((235 - 120 * ((x - 0.5) ** 2 + (y - 0.5) ** 2))[..., None], 3, 2),
        "two tones": np.where(y[..., None] > 0.6, (150.0, 145, 140), (225.0, 222, 220)),
    }
    return {
        name: np.clip(image + rng.normal(0, 2, image.shape), 0, 255).astype(np.uint8)
        for name, image in plain.items()
    }


@pytest.mark.parametrize("backdrop", backdrops())
@pytest.mark.parametrize("at", [(90, 200), (150, 110), (560, 290), (620, 200)])
@pytest.mark.parametrize("shape", [(256, 256), (192, 320)])
def test_subject_crop_keeps_an_off_centre_product(
    backdrop: str, at: tuple[int, int], shape: tuple[int, int]
) -> None:
    photo = disc(700, 400, at, 70, backdrops()[backdrop])
    whole = redness(photo).sum() * (shape[1] / 400) ** 2
    assert redness(fit_photo(photo, *shape, Fit.SUBJECT_CROP)).sum() > 0.97 * whole
    assert redness(fit_photo(photo, *shape, Fit.CROP)).sum() < 0.9 * whole


@pytest.mark.parametrize("backdrop", ["white", "gradient", "vignette"])
@pytest.mark.parametrize("at", [(0, 200), (699, 200)])
def test_subject_crop_keeps_a_product_that_the_photo_cuts_off(
    backdrop: str, at: tuple[int, int]
) -> None:
    photo = disc(700, 400, at, 190, backdrops()[backdrop])
    whole = redness(photo).sum() * (256 / 400) ** 2
    assert redness(fit_photo(photo, 256, 256, Fit.SUBJECT_CROP)).sum() > 0.97 * whole


def test_subject_crop_finds_white_on_white() -> None:
    photo = np.full((300, 900, 3), 250, np.uint8)
    photo[100:200, 60:180] = 232
    frame = fit_photo(photo, 300, 300, Fit.SUBJECT_CROP)
    assert (frame[..., 0] < 240).sum() == pytest.approx(120 * 100, rel=0.03)


def test_subject_crop_finds_a_product_in_a_busy_scene() -> None:
    rng = np.random.default_rng(5)
    tiles = rng.integers(20, 200, (8, 18, 3), dtype=np.uint8) // (4, 1, 2)  # green-blue clutter
    scene = cv2.resize(tiles.astype(np.uint8), (900, 400), interpolation=cv2.INTER_NEAREST)
    photo = disc(900, 400, (230, 200), 90, np.asarray(scene, np.uint8))
    frame = fit_photo(photo, 400, 400, Fit.SUBJECT_CROP)
    assert redness(frame).sum() > 0.97 * redness(photo).sum()


def test_subject_crop_of_nothing_is_the_centre_crop() -> None:
    photo = np.full((200, 600, 3), 128, np.uint8)
    photo[:, ::7] += 1
    centre = fit_photo(photo, 100, 100, Fit.CROP)
    assert np.array_equal(fit_photo(photo, 100, 100, Fit.SUBJECT_CROP), centre)


@pytest.mark.parametrize(
    ("photo", "area", "multiple", "size"),
    [
        ((1000, 1000), 512**2, 64, (512, 512)),
        ((4000, 3000), 512**2, 64, (576, 448)),
        ((3000, 4000), 512**2, 64, (448, 576)),
        ((6000, 4000), 512**2, 64, (576, 384)),
        ((1920, 1080), 512**2, 64, (640, 384)),
        ((1080, 1920), 512**2, 64, (384, 640)),
        ((1920, 1080), 768**2, 64, (1024, 576)),
        ((1600, 900), 512**2, 8, (680, 384)),
        ((800, 100), 512**2, 64, (1344, 192)),
        ((300, 200), 100, 64, (64, 64)),
    ],
)
def test_target_sizes(
    photo: tuple[int, int], area: int, multiple: int, size: tuple[int, int]
) -> None:
    assert target_size(*photo, area, multiple) == size


@given(
    st.integers(64, 8000), st.floats(1 / 8, 8), st.integers(1, 300_000), st.sampled_from([16, 64])
)
@settings(max_examples=60, deadline=None)
def test_target_size_is_the_best_there_is(
    width: int, ratio: float, area: int, multiple: int
) -> None:
    height = max(1, round(width / ratio))
    cells = max(1, area // multiple**2)
    found = target_size(width, height, area, multiple)
    (columns, over), (rows, under) = (divmod(side, multiple) for side in found)
    assert over == under == 0
    assert columns * rows <= cells

    def cost(columns: int, rows: int) -> float:
        skew = abs(math.log(columns * height / (rows * width)))
        return 2 * skew + math.log(cells / (columns * rows))

    best = min(cost(c, r) for c in range(1, cells + 1) for r in range(1, cells // c + 1))
    assert cost(columns, rows) == pytest.approx(best, abs=1e-9)
