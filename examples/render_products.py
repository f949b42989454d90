"""Renders the example product photos with the numpy studio in `studio/`: no camera, no assets.

    python examples/render_products.py                       # all photos, some minutes
    python examples/render_products.py watch-steel --scale 0.3 --out draft

The set is test material too: ratios, formats, an alpha channel and an EXIF orientation vary on
purpose. The same versions of numpy, OpenCV and Pillow write the same bytes on every run.
"""

import argparse
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import cv2
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from studio.render import Photo, render
from studio.scene import Scene
from studio.scenes import art, beanie, car, lamp, macarons, mug, perfume, speaker, vase, watch

OUT = Path(__file__).parent / "products"
BUDGET = 215_000  # bytes a file
EXIF_ORIENTATION = 0x0112
TURN_CLOCKWISE = 6  # "rotate by 90 degrees clockwise to display"


class Store(Enum):
    """How a photo is written."""

    JPEG = "jpg"
    JPEG_TURNED = "turned.jpg"  # pixels on their side, an EXIF tag to put them right
    WEBP = "webp"
    PNG_CUT_OUT = "png"  # the product alone on transparency

    @property
    def extension(self) -> str:
        return self.value.rpartition(".")[2]


@dataclass(frozen=True)
class Product:
    """One entry of the catalogue; the width and height are those that a viewer shows."""

    name: str  # <category>-<product>
    scene: Callable[[], Scene]
    width: int
    height: int
    store: Store
    title: str
    prompt: str  # [subject] + [action] + [direction/speed] + [ambience]
    camera_motion: str  # that suits it

    @property
    def file(self) -> str:
        return f"{self.name}.{self.store.extension}"

    @property
    def category(self) -> str:
        return self.name.partition("-")[0]


PRODUCTS = (
    Product(
        "apparel-beanie", beanie.scene, 1024, 1024, Store.JPEG,
        "Mustard knit beanie with pompom",
        "a mustard knitted beanie with a white pompom turns gently to the right, slowly, "
        "bright neutral studio light",
        "orbit_right",
    ),
    Product(
        "digital-speaker", speaker.scene, 960, 1280, Store.JPEG_TURNED,
        "Fabric smart speaker",
        "a grey fabric smart speaker rotates slowly to the right, its light ring glowing, "
        "cool soft studio light",
        "zoom_in",
    ),
    Product(
        "home-lamp", lamp.scene, 960, 1280, Store.JPEG,
        "Ribbed ceramic table lamp",
        "a ceramic table lamp with a linen shade glows while the camera pushes in slowly, "
        "warm evening light",
        "zoom_in",
    ),
    Product(
        "home-vase", vase.scene, 1024, 1024, Store.WEBP,
        "Speckled stoneware vase",
        "a speckled stoneware vase spins steadily to the left at low speed, "
        "calm diffuse daylight",
        "orbit_left",
    ),
    Product(
        "home-mug", mug.scene, 1024, 1024, Store.PNG_CUT_OUT,
        "Two-tone stoneware mug",
        "a teal and cream stoneware mug rotates slowly to the right, clean white studio light",
        "pan_left",
    ),
    Product(
        "food-macarons", macarons.scene, 1280, 960, Store.JPEG,
        "Six assorted macarons",
        "a stack of pastel macarons stands still while the camera glides slowly to the left, "
        "airy patisserie light",
        "pan_left",
    ),
    Product(
        "beauty-perfume", perfume.scene, 960, 1280, Store.JPEG,
        "Amber eau de parfum",
        "a glass perfume bottle turns slowly to the left, light gliding over its edges, "
        "warm blush studio ambience",
        "tilt_up",
    ),
    Product(
        "watch-steel", watch.scene, 1024, 1024, Store.JPEG,
        "Steel automatic watch, leather strap",
        "a steel wristwatch rotates slowly to the left, soft studio light",
        "orbit_left",
    ),
    Product(
        "art-print", art.scene, 1280, 960, Store.JPEG,
        "Framed abstract art print",
        "a framed abstract print hangs still while the camera drifts slowly to the right, "
        "quiet gallery daylight",
        "pan_right",
    ),
    Product(
        "toys-car", car.scene, 1280, 960, Store.JPEG,
        "Wooden toy car",
        "a wooden toy car with red wheels rolls forward to the right at walking pace, "
        "bright playful daylight",
        "zoom_out",
    ),
)  # fmt: skip


def encode(photo: Photo, store: Store) -> bytes:
    """The file's bytes: PNG as it is, JPEG and WebP at the best quality within the budget."""
    cut_out = store is Store.PNG_CUT_OUT
    image = Image.fromarray(photo.cut_out if cut_out else photo.full)
    exif = Image.Exif()
    if store is Store.JPEG_TURNED:
        image = image.transpose(Image.Transpose.ROTATE_90)  # anticlockwise
        exif[EXIF_ORIENTATION] = TURN_CLOCKWISE
    for quality in range(95, 50, -3):
        buffer = io.BytesIO()
        if cut_out:
            image.save(buffer, "PNG", optimize=True)
        elif store is Store.WEBP:
            image.save(buffer, "WEBP", quality=quality, method=6)
        else:
            image.save(buffer, "JPEG", quality=quality, optimize=True, exif=exif)
        if buffer.tell() <= BUDGET:
            return buffer.getvalue()
        if cut_out:
            break
    raise ValueError(f"the photo does not fit {BUDGET} bytes at any acceptable quality")


def describe(products: tuple[Product, ...]) -> str:
    keys = ("file", "category", "title", "prompt", "camera_motion")
    entries = [{key: getattr(product, key) for key in keys} for product in products]
    return json.dumps(entries, indent=2) + "\n"


def main() -> None:
    names = [product.name for product in PRODUCTS]
    parser = argparse.ArgumentParser(description="Render the example product photos.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)}")
    parser.add_argument("--out", type=Path, default=OUT, help="folder to write to")
    parser.add_argument("--scale", type=float, default=1.0, help="of width and height")
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(names))
    if unknown:
        parser.error(f"no such product: {', '.join(unknown)}")

    cv2.setNumThreads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    console = Console()
    columns = (TextColumn("{task.description:18}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        for product in PRODUCTS:
            if options.names and product.name not in options.names:
                continue
            task = progress.add_task(product.name)
            size = (round(product.width * options.scale), round(product.height * options.scale))

            def show(done: int, to_do: int, task: TaskID = task) -> None:
                progress.update(task, completed=done, total=to_do)

            data = encode(render(product.scene(), *size, show), product.store)
            (options.out / product.file).write_bytes(data)
            console.print(f"{product.file}: {size[0]} x {size[1]}, {len(data) / 1000:.0f} kB")
    if not options.names:
        (options.out / "products.json").write_text(describe(PRODUCTS))


if __name__ == "__main__":
    main()
