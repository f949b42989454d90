"""Job number i of so many: its row, and what such a job has in the bucket."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from diffusion.params import SamplingParams
from storage import keys
from storage.jobs import Attempt, Job, JobRequest, JobStatus, OutputParams, VideoFile
from storage.lifecycle.records import JobEnd, JobRecord

TENANTS = 10
_DAY_S = 86_400.0
OLDEST_S = 900 * _DAY_S  # the first job ended so long ago: between two lies more than a minute
_FILE = bytes(100)


class Fate(StrEnum):
    EXPIRED = "expired"  # its video went
    KEPT = "kept"
    FAILED = "failed"  # with files and a checkpoint of its try
    RUNNING = "running"  # with files and a checkpoint of its try, not committed or not yet told
    QUEUED = "queued"


SHARES = {
    Fate.EXPIRED: 0.5,
    Fate.KEPT: 0.409,
    Fate.FAILED: 0.01,
    Fate.RUNNING: 0.001,
    Fate.QUEUED: 0.08,
}
"""Of all rows, in their order: the oldest first."""

ONE_IN = {Fate.EXPIRED: 50, Fate.KEPT: 80, Fate.FAILED: 10, Fate.RUNNING: 1, Fate.QUEUED: 8}
"""Has its objects in the bucket: so many are written in minutes."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Which of `rows` jobs is what. Orphans are numbered on from there: they have no row."""

    rows: int
    orphans: int
    now: float  # Unix seconds, of the filling

    def fate(self, number: int) -> Fate:
        end = 0.0
        for fate, share in SHARES.items():
            end += share * self.rows
            if number < round(end):
                return fate
        raise ValueError(f"job {number} has no row: there are {self.rows}")

    def has_objects(self, number: int) -> bool:
        return number % ONE_IN[self.fate(number)] == 0

    def completed_at(self, number: int) -> float:
        return self.now - OLDEST_S * (1 - number / self.rows)

    def with_objects(self) -> list[int]:
        found = [number for number in range(self.rows) if self.has_objects(number)]
        return [*found, *range(self.rows, self.rows + self.orphans)]


def tenant_of(number: int) -> str:
    # Not the number's last digits: those say whether it has objects.
    return f"shop-{number * 7919 // 80 % TENANTS}"


def job_id(number: int) -> str:
    return f"video_{number:09d}"


def photo_sha256(number: int) -> str:
    return hashlib.sha256(f"photo {number}".encode()).hexdigest()


def result_id(number: int) -> str:
    return hashlib.sha256(f"result {number}".encode()).hexdigest()


def request_of(number: int) -> JobRequest:
    photo = photo_sha256(number)
    return replace(
        _REQUEST,
        id=job_id(number),
        tenant=tenant_of(number),
        photo_sha256=photo,
        photo_key=keys.input_key(tenant_of(number), photo),
    )


def video_of(number: int) -> VideoFile:
    attempt = Attempt(job_id(number), 1, 1)
    return replace(
        _VIDEO,
        result_id=result_id(number),
        video_key=keys.video_key(attempt),
        poster_key=keys.poster_key(attempt),
        spritesheet_key=keys.spritesheet_key(attempt),
        manifest_key=keys.manifest_key(attempt),
    )


def row_of(layout: Layout, number: int) -> dict[str, Any]:
    """For one insertion with all others: the same columns in each. Text where an object would
    cost the filling of a million its time."""
    fate, name = layout.fate(number), job_id(number)
    ended_at = layout.completed_at(number)
    status = _STATUS[fate]
    made = status is JobStatus.COMPLETED
    return {
        "id": name,
        "tenant": tenant_of(number),
        "request": _REQUEST_JSON.replace(_REQUEST.id, name),
        "photo_sha256": photo_sha256(number),
        "priority": _REQUEST.priority,
        "status": status,
        "created_at": ended_at - 60,
        "completed_at": ended_at if status.is_terminal else None,
        "attempt": 0 if fate is Fate.QUEUED else 1,
        "epoch": 0 if fate is Fate.QUEUED else 1,
        "lease_until": layout.now + _DAY_S if fate is Fate.RUNNING else None,
        "result": _VIDEO_JSON.replace("video_template", name) if made else None,
        "result_id": result_id(number) if fate is Fate.KEPT else None,
        "expired": fate is Fate.EXPIRED,
        "recorded": status.is_terminal,
    }


def photo_of(number: int) -> tuple[str, bytes]:
    return request_of(number).photo_key, _FILE


def records_of(layout: Layout, number: int, *, ended: bool) -> Iterator[tuple[str, bytes]]:
    request = request_of(number)
    yield keys.request_key(request.id), JobRecord(request, None, layout.now).to_json()
    if ended:
        job = Job(request=request, status=JobStatus.CANCELLED, created_at=0.0, completed_at=0.0)
        yield keys.end_key(request.id), JobEnd.of(job).to_json()


def files_of(number: int) -> Iterator[tuple[str, bytes]]:
    """Of its one try."""
    video = video_of(number)
    manifest = {"tenant": tenant_of(number), "result_id": video.result_id}
    yield video.manifest_key, json.dumps(manifest).encode()
    for key in (video.video_key, video.poster_key, video.spritesheet_key):
        yield key, _FILE


def commit_of(number: int) -> tuple[str, bytes]:
    video = video_of(number)
    return keys.result_key(tenant_of(number), video.result_id), video.to_json()


def checkpoint_of(number: int) -> tuple[str, bytes]:
    return keys.checkpoint_key(Attempt(job_id(number), 1, 1)), _FILE


_STATUS = {
    Fate.EXPIRED: JobStatus.COMPLETED,
    Fate.KEPT: JobStatus.COMPLETED,
    Fate.FAILED: JobStatus.FAILED,
    Fate.RUNNING: JobStatus.IN_PROGRESS,
    Fate.QUEUED: JobStatus.QUEUED,
}
_REQUEST = JobRequest(
    id="video_template",
    tenant="shop",
    model="i2vgen-xl",
    model_revision="0" * 64,
    photo_key="inputs/shop/0",
    photo_sha256="0" * 64,
    sampling=SamplingParams("a bag turns", "", 64, 64, 8, 4, 9.0, 16, seed=1),
    output=OutputParams(fit="crop", fps=8.0, inbetweens=0),
    preset="preview",
)
_VIDEO = VideoFile(
    "r", "attempts/video_template/1/video.mp4", "p", "s", "m", "0" * 64, 1, 64, 64, 8, 8.0, 1.0
)
_REQUEST_JSON, _VIDEO_JSON = _REQUEST.to_json().decode(), _VIDEO.to_json().decode()
