"""Where a manifest comes from: a file or a folder of images, on this machine's disk or in S3."""

import gzip
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from hashlib import file_digest
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, Protocol, cast
from urllib.parse import unquote, urlsplit

from catalog.errors import ManifestNotFound, ManifestRefused
from catalog.manifest.contents import Contents
from catalog.manifest.csv_file import csv_contents
from catalog.manifest.folder import (
    Listing,
    folder_contents,
    images_in,
    images_under,
    listing_version,
)
from catalog.manifest.json_lines import json_lines_contents
from catalog.manifest.parquet_file import parquet_contents
from storage.errors import ObjectNotFound
from storage.object_file import ObjectFile
from storage.object_store import ObjectStore

_GET_BYTES = 8 * 2**20
"""Of a text in S3, at a time."""

FORMATS: Mapping[str, Callable[[str, BinaryIO], Contents]] = {
    ".csv": csv_contents,
    ".csv.gz": csv_contents,
    ".jsonl": json_lines_contents,
    ".jsonl.gz": json_lines_contents,
    ".ndjson": json_lines_contents,
    ".parquet": parquet_contents,
}


class Source(Protocol):
    @property
    def uri(self) -> str: ...

    @property
    def base(self) -> str:
        """What relative paths of images are joined to; ends in `/`."""
        ...

    def version(self) -> str:
        """Another one when the bytes are others. Raises ManifestNotFound, and what stores raise."""
        ...

    def contents(self) -> AbstractContextManager[Contents]:
        """Raises ManifestNotFound, ManifestRefused, and what stores raise; its chunks do too."""
        ...


def open_source(uri: str, bucket: Callable[[str], ObjectStore]) -> Source:
    """Of `s3://BUCKET/KEY`, `s3://BUCKET/FOLDER/`, a path or a `file://` URI. `bucket` gives the
    store of a bucket by name.

    Raises ManifestNotFound for a path where nothing lies, ManifestRefused for a format that is not
    read here.
    """
    if uri.startswith("s3://"):
        name, _, key = uri.removeprefix("s3://").partition("/")
        if not name:
            raise ManifestRefused(uri, ["no bucket is named: s3://BUCKET/KEY"])
        objects = bucket(name)
        if not key or key.endswith("/"):
            return FolderSource(uri, uri, lambda: images_under(objects, name, key))
        return ObjectSource(uri, objects, key, suffix_of(uri))
    if "://" in uri and not uri.startswith("file:///"):
        raise ManifestRefused(uri, ["only s3://, file:/// and paths are read"])
    path = Path(canonical(uri))
    if path.is_dir():
        return FolderSource(str(path), f"{path}/", lambda: images_in(path))
    if not path.is_file():
        raise ManifestNotFound(uri)
    return FileSource(path, suffix_of(str(path)))


def canonical(uri: str) -> str:
    """`Source.uri` of what `open_source` opens there, whether something lies there or not."""
    if "://" in uri and not uri.startswith("file:///"):
        return uri
    return str(Path(unquote(urlsplit(uri).path) if uri.startswith("file:///") else uri).resolve())


def suffix_of(uri: str) -> str:
    """Of FORMATS. Raises ManifestRefused."""
    for suffix in FORMATS:
        if uri.lower().endswith(suffix):
            return suffix
    raise ManifestRefused(
        uri,
        [f"the name ends in none of {', '.join(FORMATS)}, nor in / for a folder of images"],
    )


@contextmanager
def _read(uri: str, format_: str, file: BinaryIO) -> Iterator[Contents]:
    with gzip.open(file) if format_.endswith(".gz") else file as plain:
        yield FORMATS[format_](uri, cast(BinaryIO, plain))


@dataclass(frozen=True, slots=True)
class FileSource:
    path: Path
    format: str

    @property
    def uri(self) -> str:
        return str(self.path)

    @property
    def base(self) -> str:
        return f"{self.path.parent}/"

    def version(self) -> str:
        try:
            with self.path.open("rb") as file:
                return file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            raise ManifestNotFound(self.uri) from None

    @contextmanager
    def contents(self) -> Iterator[Contents]:
        with self.path.open("rb") as file, _read(self.uri, self.format, file) as contents:
            yield contents


@dataclass(frozen=True, slots=True)
class ObjectSource:
    uri: str
    objects: ObjectStore
    key: str
    format: str

    @property
    def base(self) -> str:
        return self.uri.rpartition("/")[0] + "/"

    def version(self) -> str:
        found = self.objects.stat(self.key)
        if found is None:
            raise ManifestNotFound(self.uri)
        return f"{found.size_bytes}:{found.etag}"

    @contextmanager
    def contents(self) -> Iterator[Contents]:
        try:
            raw = ObjectFile(self.objects, self.key)
        except ObjectNotFound:
            raise ManifestNotFound(self.uri) from None
        # Parquet's reader has buffers of its own, one for each column.
        file = raw if self.format == ".parquet" else BufferedReader(raw, _GET_BYTES)
        with _read(self.uri, self.format, cast(BinaryIO, file)) as contents:
            yield contents


@dataclass(frozen=True, slots=True)
class FolderSource:
    """Its images only; other files are no rows."""

    uri: str
    base: str
    listing: Listing

    def version(self) -> str:
        return listing_version(self.listing)

    @contextmanager
    def contents(self) -> Iterator[Contents]:
        yield folder_contents(self.uri, self.listing)
