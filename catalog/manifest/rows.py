"""Rows of a pinned manifest: usable ones, and ones with a problem."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pydantic import TypeAdapter


class ProblemCode(StrEnum):
    MISSING_SKU = "missing_sku"
    MISSING_IMAGE = "missing_image"
    DUPLICATE_SKU = "duplicate_sku"
    BAD_IMAGE_URI = "bad_image_uri"
    BAD_TEXT = "bad_text"
    BAD_SECONDS = "bad_seconds"
    BAD_SEED = "bad_seed"
    BAD_N = "bad_n"
    BAD_CAMERA_MOTION = "bad_camera_motion"
    BAD_MOTION_STRENGTH = "bad_motion_strength"
    BAD_PRIORITY = "bad_priority"
    BAD_METADATA = "bad_metadata"
    BAD_ENCODING = "bad_encoding"
    BROKEN_ROW = "broken_row"


@dataclass(frozen=True, slots=True)
class RowProblem:
    """Why a row cannot be used; of several problems the first."""

    code: ProblemCode
    column: str | None  # None: the row as a whole
    message: str
    line: int | None  # of a text file, where the row begins; the first is 1

    def to_json(self) -> str:
        return _PROBLEM.dump_json(self).decode()

    @staticmethod
    def from_json(text: str) -> "RowProblem":
        return _PROBLEM.validate_json(text)

    def __str__(self) -> str:
        line = None if self.line is None else f"line {self.line}"
        column = None if self.column is None else f"column {self.column}"
        where = ", ".join(filter(None, (line, column)))
        return f"{where}: {self.message}" if where else self.message


_PROBLEM = TypeAdapter(RowProblem)


@dataclass(frozen=True, slots=True)
class Row:
    """One photo and what is wanted of it; None: not given."""

    index: int  # in the manifest, from 0
    sku: str
    image_uri: str  # s3://BUCKET/KEY, https://…, or the absolute path of a local file
    category: str | None
    title: str | None
    prompt: str | None
    negative_prompt: str | None
    preset: str | None
    seconds: str | None  # of the clip, as the API takes it
    seed: int | None
    n: int | None  # candidates, of which the best is kept
    priority: str | None  # a value of diffusion.params.Priority
    metadata: Mapping[str, str]
    extra: Mapping[str, Any]  # columns that mean nothing here, to be echoed
    camera_motion: str | None = None  # a value of video.camera.move.Move
    motion_strength: str | None = None  # as the API takes it


@dataclass(frozen=True, slots=True)
class BadRow:
    index: int  # in the manifest, from 0
    sku: str | None
    title: str | None
    problem: RowProblem
    extra: Mapping[str, Any]

    def __str__(self) -> str:
        return f"row {self.index}, {self.problem}"
