"""The columns of a manifest: what each may hold, and which headers are refused."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import pyarrow as pa
from pydantic import Field, TypeAdapter

from catalog.manifest.rows import ProblemCode
from diffusion.params import Priority
from video.camera.move import Move

PROBLEM, EXTRA = "_problem", "_extra"
"""Columns of the pinned file only, JSON both: the RowProblem of a row that cannot be used (each
leaf of a struct would cost memory for every shard), and, where the source is JSONL, an object of
the unknown members as texts (their names are known only when all is read)."""

NOT_BUILT = ("destination", "end_image_uri")
"""Refused: they would change the video, and to echo them would look like consent."""

REQUIRED = {"sku": ProblemCode.MISSING_SKU, "image_uri": ProblemCode.MISSING_IMAGE}

METADATA: TypeAdapter[dict[str, str]] = TypeAdapter(
    Annotated[
        dict[
            Annotated[str, Field(min_length=1, max_length=64)],
            Annotated[str, Field(max_length=512, pattern=r"^[^\x00]*$")],
        ],
        Field(max_length=16),
    ]
)
"""The API's own limits (serve.schemas.create)."""


@dataclass(frozen=True, slots=True)
class Column:
    """Values come as text from every format. Without a pattern any text will do."""

    code: ProblemCode
    says: str  # completes "'abc' is not …"
    pattern: str | None = None  # RE2
    max_chars: int = 500
    number: pa.DataType | None = None  # to compare with the bounds as
    bounds: tuple[float, float] = (0, 0)  # both allowed; with `number` only
    type: pa.DataType = pa.string()  # in the pinned file


def _text(max_chars: int) -> Column:
    says = f"text of at most {max_chars} characters, without NUL"
    return Column(ProblemCode.BAD_TEXT, says, max_chars=max_chars)


COLUMNS: Mapping[str, Column] = {
    "sku": _text(200),
    "image_uri": Column(
        ProblemCode.BAD_IMAGE_URI,
        "s3://BUCKET/KEY, https://…, file:///…, /… or a path without ':'",
        r"(?s)^(?:s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/.+|https://.+|file:///.+|/.+|[^:]+)$",
        max_chars=2048,
    ),
    "category": _text(200),
    "title": _text(500),
    "prompt": _text(10_000),
    "negative_prompt": _text(10_000),
    "preset": _text(200),
    "seconds": Column(
        ProblemCode.BAD_SECONDS,
        "a number of seconds from 0.001 to 999.999",
        r"^[0-9]{1,3}(?:\.[0-9]{1,3})?$",
        number=pa.float64(),
        bounds=(0.001, 999.999),
    ),
    "seed": Column(
        ProblemCode.BAD_SEED,
        "a whole number from 0 to 2^63-1",
        r"^[0-9]{1,19}$",
        number=pa.uint64(),
        bounds=(0, 2**63 - 1),
        type=pa.int64(),
    ),
    "n": Column(
        ProblemCode.BAD_N,
        "a whole number from 1 to 100",
        r"^[0-9]{1,3}$",
        number=pa.int64(),
        bounds=(1, 100),
        type=pa.int64(),
    ),
    "camera_motion": Column(
        ProblemCode.BAD_CAMERA_MOTION,
        f"a camera move, one of {', '.join(Move)}",
        rf"^(?:{'|'.join(Move)})$",
    ),
    "motion_strength": Column(
        ProblemCode.BAD_MOTION_STRENGTH,
        "a number from 0.0001 to 1",
        r"^[01]?(?:\.[0-9]{1,16})?$",
        number=pa.float64(),
        bounds=(0.0001, 1),
    ),
    "priority": Column(
        ProblemCode.BAD_PRIORITY,
        f"{Priority.BATCH.value!r}, the only priority that rows of a run have",
        rf"^{Priority.BATCH.value}$",
    ),
    "metadata_json": Column(
        ProblemCode.BAD_METADATA,
        "a JSON object of at most 16 texts, names up to 64 and values up to 512 characters long",
        max_chars=20_000,
    ),
}


def header_problems(names: Sequence[str]) -> list[str]:
    """Why a table with these columns is no manifest; empty when it is one."""
    problems = [f"column {i + 1} has no name" for i, name in enumerate(names) if not name.strip()]
    seen: set[str] = set()
    for name in names:
        if name in seen and name.strip():
            problems.append(f"column {name!r} comes twice")
        seen.add(name)
        if name in NOT_BUILT:
            problems.append(f"column {name!r} is not built yet: leave it out")
        if name in (PROBLEM, EXTRA):
            problems.append(f"column {name!r} is taken by the pinned file: name it otherwise")
    for name in REQUIRED:
        if name not in seen:
            alike = [found for found in names if found.strip().lower() == name]
            hint = f"{alike[0]!r} must be written so" if alike else f"there are {list(names)[:20]}"
            problems.append(f"column {name!r} is missing ({hint})")
    return problems
