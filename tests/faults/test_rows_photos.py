"""Photos that hurt, through the HTTP API: rows 14 to 17 of the fault table.

What is refused leaves nothing behind; what is taken becomes the pixels that the ImageEncoder makes
of the stored file.
"""

import asyncio
import io
import struct
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4
from zlib import compress, crc32

import numpy as np
import psutil
import pytest
from PIL import Image

from cluster.embedded_s3 import EmbeddedS3
from storage import keys
from storage.object_store import S3ObjectStore
from tests.faults.report import FaultLog
from tests.integration.service import Service, error_of, jpeg, photo_pool, png_header
from video.errors import PhotoTooLarge
from video.photo import PhotoLimits, open_photo

SIDE = 64


FAULTS = {
    14: "photo that claims 60000 x 60000 px",
    15: "file that is damaged or no photo",
    16: "photo of an odd kind",
    17: "photo of one pixel, or of extreme ratio",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedS3]:
    with EmbeddedS3(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def service(server: EmbeddedS3, tmp_path: Path) -> Iterator[Service]:
    bucket = server.config.model_copy(update={"bucket": f"test-{uuid4().hex[:12]}"})
    S3ObjectStore(bucket).ensure_bucket()
    service = Service(bucket, tmp_path)
    with service.http:
        yield service


@pytest.fixture(scope="module")
def injected(faults: FaultLog) -> Iterator[Counter[int]]:
    """Photos by row of the table; none of them costs a job that was accepted."""
    rows = Counter[int]()
    yield rows
    for row, count in rows.items():
        faults.record(row, FAULTS[row], injected=count, accepted=0, lost=0, duplicates=0)


@pytest.fixture(autouse=True)
def _counted(request: pytest.FixtureRequest, injected: Counter[int]) -> None:
    injected[int(request.node.name.split("_")[2])] += 1


def encoded(image: Image.Image, format_: str, **save: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format_, **save)
    return stream.getvalue()


def flat(mode: str, color: Any) -> Image.Image:
    return Image.new(mode, (SIDE, SIDE), color)


def png16(grey: int) -> bytes:
    """A PNG of 16 bits a sample, which Pillow does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc32(kind + data))

    header = struct.pack(">IIBBBBB", SIDE, SIDE, 16, 0, 0, 0, 0)
    rows = (b"\0" + grey.to_bytes(2, "big") * SIDE) * SIDE
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def refused(service: Service, photo: bytes) -> tuple[int, str]:
    """(status, code) of a refusal that left nothing."""
    response = service.create(photo)
    error = error_of(response)
    assert error["param"] == "input_reference"
    assert service.is_untouched()
    return response.status_code, error["code"]


def test_row_14_decompression_bomb(service: Service) -> None:
    bomb = png_header(60_000, 60_000)  # 10.8 GB of pixels, were they decoded
    assert refused(service, bomb) == (422, "image_too_large")
    decoders = [psutil.Process(pid) for pid in photo_pool().pids]
    resident = [process.memory_info().rss for process in decoders]
    seconds = []
    for _ in range(20):
        started = time.perf_counter()
        with pytest.raises(PhotoTooLarge):
            asyncio.run(photo_pool().inspect(bomb))
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < 0.01
    assert photo_pool().pids == [process.pid for process in decoders]
    for process, before in zip(decoders, resident, strict=True):
        assert process.memory_info().rss - before < 8 << 20


@pytest.mark.parametrize(
    ("photo", "expected"),
    [
        pytest.param(jpeg()[: len(jpeg()) // 2], (422, "image_undecodable"), id="truncated JPEG"),
        pytest.param(png16(9)[:-40], (422, "image_undecodable"), id="truncated PNG"),
        pytest.param(
            encoded(Image.effect_noise((90, 70), 60), "WEBP")[:-100],
            (422, "image_undecodable"),
            id="truncated WebP",
        ),
        pytest.param(b"", (422, "image_undecodable"), id="zero bytes"),
        pytest.param(b"\xff\xd8\xff" + bytes(999), (422, "image_undecodable"), id="zeros"),
        pytest.param(b"a mug on a table", (415, "image_unsupported"), id="text"),
        pytest.param(b"%PDF-1.7\n", (415, "image_unsupported"), id="pdf"),
        pytest.param(b"<svg xmlns='x'/>", (415, "image_unsupported"), id="svg"),
        pytest.param(b"\0\0\0\x18ftypheic\0\0", (415, "image_unsupported"), id="heic"),
        pytest.param(encoded(flat("RGB", 0), "EPS"), (415, "image_unsupported"), id="eps"),
        pytest.param(encoded(flat("RGB", 0), "GIF"), (415, "image_unsupported"), id="gif"),
    ],
)
def test_row_15_corrupt_or_unsupported(
    service: Service, photo: bytes, expected: tuple[int, str]
) -> None:
    assert refused(service, photo) == expected


def turned() -> tuple[bytes, Any]:
    """A photo whose EXIF says "turn me by 90° clockwise", and its upright corners."""
    stored = Image.new("RGB", (96, SIDE), "blue")
    stored.paste("red", (0, 0, 48, 32))
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(stored, "PNG", exif=exif), {(0, 63): (255, 0, 0), (0, 0): (0, 0, 255)}


def palette() -> bytes:
    image = flat("P", 1)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((0, 0), 0)
    return encoded(image, "PNG", transparency=1)


def animated() -> bytes:
    frames = [flat("RGB", "red"), flat("RGB", "blue")]
    return encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)


CENTRE = (32, 32)


@pytest.mark.parametrize(
    ("photo", "golden"),
    [
        pytest.param(
            encoded(flat("CMYK", (255, 0, 0, 0)), "JPEG", quality=100),
            {CENTRE: (0, 255, 255)},
            id="CMYK",
        ),
        pytest.param(
            encoded(flat("RGBA", (255, 0, 0, 128)), "PNG"), {CENTRE: (255, 127, 127)}, id="RGBA"
        ),
        pytest.param(
            palette(), {(0, 0): (255, 0, 0), CENTRE: (255, 255, 255)}, id="palette with a hole"
        ),
        pytest.param(png16(40_000), {CENTRE: (156, 156, 156)}, id="16-bit"),
        pytest.param(*turned(), id="EXIF 6"),
        pytest.param(animated(), {CENTRE: (255, 0, 0)}, id="animated WebP"),
    ],
)
def test_row_16_odd_photos_have_golden_pixels(
    service: Service, photo: bytes, golden: dict[tuple[int, int], tuple[int, int, int]]
) -> None:
    response = service.create(photo)
    assert response.status_code == 202, response.text
    job = service.jobs.get("default", response.json()["id"])
    stored = service.objects.get(keys.input_key("default", job.request.photo_sha256))
    rgb = open_photo(stored, PhotoLimits()).rgb
    assert {at: tuple(rgb[at].tolist()) for at in golden} == golden


def test_row_16_a_turned_photo_makes_an_upright_video(service: Service) -> None:
    photo, _ = turned()
    width, height = map(int, service.create(photo).json()["size"].split("x"))
    assert np.isclose(width / height, 64 / 96, atol=0.08)


@pytest.mark.parametrize(
    ("width", "height", "code"),
    [
        (1, 1, "image_too_small"),
        (1, 30_000, "image_too_small"),
        (64, 30_000, "image_too_large"),
    ],
)
def test_row_17_sides_and_ratio(service: Service, width: int, height: int, code: str) -> None:
    assert refused(service, encoded(Image.new("L", (width, height)), "PNG")) == (422, code)
