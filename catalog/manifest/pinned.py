"""A pinned manifest: shards of rows that stay as they are, read one at a time from S3."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from io import BufferedReader
from typing import Any, Self
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import from_json

from catalog.errors import PinDamaged
from catalog.manifest.columns import COLUMNS, EXTRA, PROBLEM
from catalog.manifest.rows import BadRow, ProblemCode, Row, RowProblem
from storage.errors import ObjectNotFound
from storage.object_file import ObjectFile
from storage.object_store import ObjectStore

_READ_BYTES = 2**20
"""At a time: a small row group is one GET."""

_GROUP_ROWS = 10_000
"""About so many in a row group, whole shards each: a footer of 10,000 groups took 100 MB or more to
write, and twice that where it was closed."""

FORMAT = 1
"""Of the pinned file. A run that began with another one cannot be continued."""


class Pin(BaseModel):
    """What stands in `manifest.json`: which file is the manifest of this run, and of what."""

    model_config = ConfigDict(frozen=True, extra="ignore")  # newer versions may say more

    uri: str  # of the source
    base: str  # what relative paths of images are joined to; ends in `/`
    fingerprint: str  # of where the source lies and what it held
    key: str  # of the Parquet file
    sha256: str  # of its bytes
    size_bytes: int
    rows: int
    shard_rows: int
    group_rows: int  # of the file's row groups: whole shards
    format: int = FORMAT
    problems: Mapping[ProblemCode, int]  # rows that cannot be used
    extra: tuple[str, ...]  # members in the column EXTRA

    @model_validator(mode="before")
    @classmethod
    def _of_earlier_releases(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Their row groups were the shards."""
        return {"group_rows": given.get("shard_rows"), **given}


@dataclass(frozen=True, slots=True)
class Shard:
    id: int
    first_row: int
    rows: int


@dataclass(frozen=True)
class PinnedManifest:
    """Of one thread at a time."""

    pin: Pin
    _table: pq.ParquetFile = field(repr=False, compare=False)
    _held: dict[tuple[str, ...] | None, tuple[int, pa.Table]] = field(
        default_factory=dict, repr=False, compare=False
    )  # by columns: the group read last, since shards are read in order

    @classmethod
    def open(cls, objects: ObjectStore, prefix: str) -> Self | None:
        """The one of the run whose output folder is `prefix`; None: nothing is pinned yet.

        Raises PinDamaged, and what the store raises.
        """
        try:
            data = objects.get(pin_key(prefix))
        except ObjectNotFound:
            return None
        try:
            pin = Pin.model_validate_json(data)
            file = ObjectFile(objects, pin.key)
            if file.seek(0, 2) != pin.size_bytes:
                raise PinDamaged(pin.key, f"it has {file.tell()} bytes, not {pin.size_bytes}")
            table = pq.ParquetFile(BufferedReader(file, _READ_BYTES), pre_buffer=False)
        except ValidationError as error:
            raise PinDamaged(pin_key(prefix), str(error)) from error
        except ObjectNotFound as error:
            raise PinDamaged(pin_key(prefix), str(error)) from error
        except (pa.ArrowException, OSError) as error:
            raise PinDamaged(pin.key, str(error)) from error
        groups = len(range(0, pin.rows, pin.group_rows))
        if (table.metadata.num_rows, table.num_row_groups) != (pin.rows, groups):
            raise PinDamaged(pin.key, "it holds other rows than manifest.json says")
        return cls(pin, table)

    @property
    def fingerprint(self) -> str:
        return self.pin.fingerprint

    @property
    def rows(self) -> int:
        return self.pin.rows

    @property
    def problems(self) -> Mapping[ProblemCode, int]:
        """Rows that cannot be used."""
        return self.pin.problems

    @property
    def columns(self) -> tuple[str, ...]:
        """That mean something here, as far as the source has them."""
        return tuple(name for name in COLUMNS if name in self._table.schema_arrow.names)

    @property
    def extra_fields(self) -> tuple[pa.Field, ...]:
        """Columns of the source that mean nothing here, to be echoed: names and types of
        Row.extra."""
        known = {*COLUMNS, PROBLEM, EXTRA}
        own = (column for column in self._table.schema_arrow if column.name not in known)
        return (*own, *(pa.field(name, pa.string()) for name in self.pin.extra))

    @property
    def shards(self) -> tuple[Shard, ...]:
        return _shards(self.pin)

    def read(self, shard: Shard) -> Iterator[Row | BadRow]:
        """In order. Raises PinDamaged, and what the store raises."""
        table = self._rows_of(shard, None)
        names = table.schema.names
        values = zip(*(column.to_pylist() for column in table.columns), strict=True)
        for index, cells in enumerate(values, shard.first_row):
            yield self._row(index, dict(zip(names, cells, strict=True)))

    def bad_rows(self) -> Iterator[BadRow]:
        """Of all shards, in order. Raises as `read` does."""
        for shard in self.shards:
            problems = self._rows_of(shard, (PROBLEM,))[PROBLEM]
            if problems.null_count < shard.rows:
                yield from (row for row in self.read(shard) if isinstance(row, BadRow))

    def _rows_of(self, shard: Shard, columns: tuple[str, ...] | None) -> pa.Table:
        group, first = divmod(shard.first_row, self.pin.group_rows)
        if columns not in self._held or self._held[columns][0] != group:
            names = None if columns is None else list(columns)
            try:
                table = self._table.read_row_group(group, names, use_threads=False)
            except (pa.ArrowException, OSError) as error:
                raise PinDamaged(self.pin.key, f"shard {shard.id}: {error}") from error
            self._held[columns] = group, table
        return self._held[columns][1].slice(first, shard.rows)

    def _row(self, index: int, cells: dict[str, Any]) -> Row | BadRow:
        problem, extra = cells.pop(PROBLEM), cells.pop(EXTRA, None)
        known = {name: cells.pop(name, None) for name in COLUMNS}
        echoed = cells if extra is None else cells | from_json(extra)
        if problem is not None:
            told = RowProblem.from_json(problem)
            return BadRow(index, known["sku"], known["title"], told, echoed)
        metadata = from_json(known.pop("metadata_json") or "{}")
        known["image_uri"] = _resolved(known["image_uri"], self.pin.base)
        return Row(index=index, **known, metadata=metadata, extra=echoed)


def group_rows(shard_rows: int) -> int:
    """Rows of a row group of the pinned file: whole shards, about _GROUP_ROWS."""
    return shard_rows * max(1, _GROUP_ROWS // shard_rows)


def pin_key(prefix: str) -> str:
    return f"{prefix}/manifest.json"


def _shards(pin: Pin) -> tuple[Shard, ...]:
    return tuple(
        Shard(id_, first, min(pin.shard_rows, pin.rows - first))
        for id_, first in enumerate(range(0, pin.rows, pin.shard_rows))
    )


def _resolved(image_uri: str, base: str) -> str:
    if image_uri.startswith("file://"):
        return unquote(urlsplit(image_uri).path)
    if "://" in image_uri or image_uri.startswith("/"):
        return image_uri
    return base + image_uri
