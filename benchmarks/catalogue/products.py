"""A manifest of so many products: the example photos in variations, and rows that cannot work."""

import csv
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageEnhance

from serve.commands import EXAMPLES

COLUMNS = (
    "sku",
    "image_uri",
    "title",
    "category",
    "prompt",
    "preset",
    "seconds",
    "seed",
    "n",
    "priority",
    "metadata_json",
    "shelf",  # of no meaning to the service: echoed
)
_SIDE_PX = 256
_NOT_UTF8 = b"\xff\xfe"

Cells = dict[str, str]


@dataclass(frozen=True, slots=True)
class Products:
    """What a manifest asks for, and what must become of it."""

    manifest: Path
    rows: int
    problems: Mapping[int, str]  # row -> error code
    twins: Mapping[int, int]  # row -> the earlier row that asks for the same video

    @property
    def jobs(self) -> int:
        """Rows that become a job of the service."""
        return self.rows - len(self.problems)

    @property
    def videos(self) -> int:
        """That a GPU makes."""
        return self.jobs - len(self.twins)


def write_products(
    folder: Path, rows: int, bad_every: int | None = None, twin_every: int | None = None
) -> Products:
    """Photos and `products.csv` into `folder`. One row in `bad_every` is bad, each in another way
    until all ways were had; of the good ones, one in `twin_every` asks for the row before it under
    a sku of its own."""
    photos, files = folder / "photos", _unusable_files(folder)
    photos.mkdir(parents=True)
    lines = [_line(dict(zip(COLUMNS, COLUMNS, strict=True)))]
    problems: dict[int, str] = {}
    twins: dict[int, int] = {}
    latest, good = 0, 0
    for row in range(rows):
        if bad_every and row % bad_every == bad_every - 1:
            code, spoil = _WAYS[len(problems) % len(_WAYS)]
            problems[row] = code
            lines.append(spoil(_product(row, _photo(photos, row)), files))
            continue
        good += 1
        if twin_every and good % twin_every == 0:
            twins[row] = latest
        else:
            latest = row
        product = _product(latest, _photo(photos, latest))
        lines.append(_line(product | {"sku": f"P{row:05d}", "shelf": f"S{row % 7}"}))
    manifest = folder / "products.csv"
    manifest.write_bytes(b"".join(lines))
    return Products(manifest, rows, problems, twins)


def _product(row: int, photo: Path) -> Cells:
    kind = photo.stem.split("-", 1)[1].replace("-", " ")
    blank = dict.fromkeys(COLUMNS, "")
    return blank | {
        "sku": f"P{row:05d}",
        "image_uri": str(photo),
        "title": f"{kind} no. {row}",
        "prompt": f"the {kind} turns slowly to the left",
        "shelf": f"S{row % 7}",
    }


def _photo(photos: Path, row: int) -> Path:
    """One of the examples, cut and lit as no other row has it."""
    examples = sorted(p for p in EXAMPLES.iterdir() if p.suffix != ".json")
    example, turn = examples[row % len(examples)], row // len(examples)
    path = photos / f"{row:05d}-{example.stem}.jpg"
    if not path.exists():
        with Image.open(example) as opened:
            image = opened.convert("RGB")
        side = min(image.size) * (20 - turn % 10) // 20
        image = image.crop((0, 0, side, side)).resize((_SIDE_PX, _SIDE_PX))
        ImageEnhance.Brightness(image).enhance(0.8 + turn % 40 / 100).save(path, quality=85)
    return path


def _unusable_files(folder: Path) -> Mapping[str, Path]:
    files = folder / "unusable"
    files.mkdir(parents=True)
    gif, tiny, long, broken = (
        files / name for name in ("x.gif", "tiny.png", "long.png", "broken.jpg")
    )
    Image.new("RGB", (256, 256)).save(gif)
    Image.new("RGB", (32, 32)).save(tiny)
    Image.new("RGB", (1000, 100)).save(long)
    stream = io.BytesIO()
    Image.effect_noise((256, 256), 80).save(stream, "JPEG")
    broken.write_bytes(stream.getvalue()[:2000])
    return {"gif": gif, "tiny": tiny, "long": long, "broken": broken, "folder": files}


Spoil = Callable[[Cells, Mapping[str, Path]], bytes]


def _line(cells: Cells) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerow([cells[name] for name in COLUMNS])
    return text.getvalue().encode()


def _with(**cells: str) -> Spoil:
    return lambda product, _: _line(product | cells)


def _photo_of(file: str) -> Spoil:
    return lambda product, files: _line(product | {"image_uri": str(files[file])})


_WAYS: tuple[tuple[str, Spoil], ...] = (
    ("missing_sku", _with(sku="")),
    ("missing_image", _with(image_uri="")),
    ("duplicate_sku", _with(sku="P00000")),
    ("bad_image_uri", _with(image_uri="ftp://photos/mug.jpg")),
    ("bad_image_uri", _with(image_uri="s3://my photos/mug.jpg")),
    ("bad_text", _with(prompt="turn " * 2001)),
    ("bad_seconds", _with(seconds="an hour")),
    ("bad_seed", _with(seed="-1")),
    ("bad_n", _with(n="101")),
    ("bad_priority", _with(priority="interactive")),
    ("bad_metadata", _with(metadata_json='{"season": ')),
    ("bad_encoding", lambda product, _: _NOT_UTF8 + _line(product)),
    ("broken_row", lambda product, _: _line(product).rstrip() + b",one cell more\r\n"),
    ("image_not_found", _with(image_uri="/nowhere/mug.jpg")),
    ("image_not_found", _with(image_uri="//[nowhere/mug.jpg")),
    ("image_uri_unusable", _with(image_uri="s3://10.0.0.1/mug.jpg")),
    ("image_uri_unusable", _with(image_uri="s3://photos/../mug.jpg")),
    ("image_not_readable", _photo_of("folder")),
    ("image_unsupported", _photo_of("gif")),
    ("image_undecodable", _photo_of("broken")),
    ("image_too_small", _photo_of("tiny")),
    ("image_too_large", _photo_of("long")),
    ("fetch_blocked", _with(image_uri="https://photos.example.com/mug.jpg")),
    ("fetch_blocked", _with(image_uri="https://[photos.example.com/mug.jpg")),
    ("invalid_parameter", _with(preset="gigantic")),
)
"""Error codes, and how a good row comes to that."""

WAYS = len(_WAYS)
