"""What a run was asked for. It stands in `run.json`, and every driver of the run reads it there."""

import hashlib
import json
import re
from typing import Any
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field

from catalog.manifest.rows import Row
from catalog.run.errors import TooManyFailures

_SEED_STEP = 1_000_003  # between the tries of a row; candidates of one try are neighbours


class RunOptions(BaseModel):
    """Equal photos and parameters are one video, whichever rows ask: hence one seed for all."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    manifest_uri: str
    output_uri: str = Field(pattern=r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/[^/](.*[^/])?$")
    model: str | None = Field(None, description="of all rows; None: the service's default")
    preset: str | None = Field(None, description="of rows that name none")
    category: str | None = Field(None, description="of rows that name none")
    seed: int = Field(0, ge=0, lt=2**63, description="of rows that name none")
    retry_failed: bool = Field(False, description="rows that failed in finished shards, again")
    submission: str = Field(
        default_factory=lambda: uuid4().hex,
        description="one for all drivers of one asking: what failed under it, it tries no more",
    )
    limit: int | None = Field(None, gt=0, description="rows; the manifest's first ones")
    max_failures: str | None = Field(None, pattern=r"^\d+$|^(100|\d{1,2})(\.\d+)?%$")
    min_score: float = Field(0.0, ge=0, le=1, description="0: no quality gate")
    quality_retries: int = Field(2, ge=0, le=10, description="other seeds, below min_score")
    in_flight: int = Field(64, gt=0, le=4096, description="jobs of this run at once")
    shard_rows: int = Field(1000, gt=0, le=100_000)
    patience_s: float = Field(3600, gt=0, description="for a service or store that is away")
    photo_prefixes: tuple[str, ...] | None = Field(
        None, description="s3:// folders that photos may lie in; None: all that the driver reads"
    )

    @property
    def run_id(self) -> str:
        """By the output: one folder is one run, and the same command continues it."""
        return f"run_{hashlib.sha256(self.output_uri.encode()).hexdigest()[:20]}"

    def of_the_rows(self) -> dict[str, Any]:
        """What decides what becomes of a row; a run keeps these from its beginning to its end."""
        unset = {"model"} if self.model is None else set()  # older releases' runs know none
        return self.model_dump(
            exclude=unset
            | {
                "manifest_uri",
                "output_uri",
                "max_failures",
                "retry_failed",
                "submission",
                "in_flight",
                "patience_s",
                "photo_prefixes",
            }
        )

    @property
    def bucket(self) -> str:
        return self.output_uri.removeprefix("s3://").split("/", 1)[0]

    @property
    def prefix(self) -> str:
        return self.output_uri.removeprefix("s3://").split("/", 1)[1]

    def allowed_failures(self, rows: int) -> int | None:
        """Of so many rows; None: all of them may fail."""
        if self.max_failures is None:
            return None
        if self.max_failures.endswith("%"):
            return int(rows * float(self.max_failures[:-1]) / 100)
        return int(self.max_failures)

    def check_failures(self, failed: int, rows: int) -> None:
        """Raises TooManyFailures."""
        allowed = self.allowed_failures(rows)
        if allowed is not None and failed > allowed:
            raise TooManyFailures(failed, allowed)

    def fields(self, row: Row, try_number: int) -> dict[str, str]:
        """The form of `POST /v1/videos`, the photo apart."""
        seed = self.seed if row.seed is None else row.seed
        given: dict[str, Any] = {
            "model": self.model,
            "prompt": row.prompt,
            "negative_prompt": row.negative_prompt,
            "title": row.title,
            "category": row.category or self.category,
            "preset": row.preset or self.preset,
            "seconds": row.seconds,
            "seed": (seed + try_number * _SEED_STEP) % 2**63,
            "n": row.n,
            "camera_motion": row.camera_motion,
            "motion_strength": row.motion_strength,
            "sku": row.sku,
            "priority": "batch",
            "batch_id": self.run_id,
        }
        if row.metadata:
            given["metadata"] = json.dumps(row.metadata, sort_keys=True)
        return {name: str(value) for name, value in given.items() if value is not None}


def readable(sku: str, row: int) -> str:
    """A file name that a person finds, which no other row has."""
    words = re.sub(r"[^A-Za-z0-9_-]+", "-", sku)[:60].strip("-")
    return f"{words}-{row}" if words else str(row)
