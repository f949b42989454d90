"""A folder of images as a manifest: every image in it, at any depth, is a row named by its stem."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from pathlib import Path, PurePosixPath

import pyarrow as pa

from catalog.errors import ManifestRefused
from catalog.manifest.contents import CHUNK_ROWS, Chunk, Contents
from catalog.manifest.rows import ProblemCode, RowProblem
from storage.object_store import ObjectStore

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")

_SCHEMA = pa.schema([("sku", pa.string()), ("image_uri", pa.string())])


@dataclass(frozen=True, slots=True)
class FoundImage:
    path: str  # absolute, or s3://BUCKET/KEY
    version: str


Listing = Callable[[], Iterator[FoundImage]]  # in an order that stays


def images_in(folder: Path) -> Iterator[FoundImage]:
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            if name.lower().endswith(SUFFIXES):
                found = (Path(parent) / name).stat()
                yield FoundImage(f"{parent}/{name}", f"{found.st_size}:{found.st_mtime_ns}")


def images_under(objects: ObjectStore, bucket: str, prefix: str) -> Iterator[FoundImage]:
    for found in objects.iter_objects(prefix):
        if found.key.lower().endswith(SUFFIXES):
            yield FoundImage(f"s3://{bucket}/{found.key}", found.etag)


def listing_version(listing: Listing) -> str:
    digest = sha256()
    for image in listing():
        digest.update(f"{image.path}\0{image.version}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()


def folder_contents(uri: str, listing: Listing) -> Contents:
    """Raises ManifestRefused, while reading, when no image is there."""
    return Contents(_SCHEMA, _chunks(uri, listing))


def _chunks(uri: str, listing: Listing) -> Iterator[Chunk]:
    images = listing()
    taken = list(islice(images, CHUNK_ROWS))
    if not taken:
        raise ManifestRefused(uri, [f"the folder holds no image ({', '.join(SUFFIXES)})"])
    while taken:
        paths = [os.fsencode(image.path).decode(errors="replace") for image in taken]
        problems = {
            i: RowProblem(ProblemCode.BAD_ENCODING, "image_uri", f"{path!r} is not UTF-8", None)
            for i, path in enumerate(paths)
            if path != taken[i].path
        }
        columns = [pa.array([PurePosixPath(path).stem for path in paths]), pa.array(paths)]
        yield Chunk(pa.RecordBatch.from_arrays(columns, schema=_SCHEMA), problems)
        taken = list(islice(images, CHUNK_ROWS))
