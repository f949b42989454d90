"""What workers leave in the bucket, for tests of what becomes of it."""

import json
from dataclasses import replace

from storage import keys
from storage.errors import ObjectNotFound
from storage.jobs import Attempt, Job, JobRequest, VideoFile
from storage.lifecycle.records import JobRecord
from storage.object_store import ObjectStore
from tests.sample_jobs import VIDEO, make_request

FILES = ("video.mp4", "poster.webp", "spritesheet.webp", "manifest.json")


def request_of(job_id: str, photo: str = "123", tenant: str = "shop") -> JobRequest:
    """Jobs of the same photo have the same result."""
    return replace(
        make_request(job_id, tenant), photo_sha256=photo, photo_key=keys.input_key(tenant, photo)
    )


def record(objects: ObjectStore, job: Job) -> None:
    """As the API does once it has accepted a job."""
    data = JobRecord(job.request, None, job.created_at).to_json()
    objects.put(keys.request_key(job.id), data, "application/json")


def put_photo(objects: ObjectStore, request: JobRequest) -> None:
    objects.put(request.photo_key, b"photo", "image/png")


def put_files(objects: ObjectStore, request: JobRequest, number: int) -> VideoFile:
    """What one try has made: not committed yet."""
    attempt = Attempt(request.id, number, 0)
    folder = keys.attempt_prefix(attempt)
    manifest = {"tenant": request.tenant, "result_id": request.result_id}
    for name in FILES:
        body = json.dumps(manifest).encode() if name == "manifest.json" else folder.encode()
        objects.put(folder + name, body, "application/octet-stream")
    return replace(
        VIDEO,
        result_id=request.result_id,
        video_key=keys.video_key(attempt),
        poster_key=keys.poster_key(attempt),
        spritesheet_key=keys.spritesheet_key(attempt),
        manifest_key=keys.manifest_key(attempt),
    )


def commit(objects: ObjectStore, request: JobRequest, number: int = 1) -> VideoFile:
    """What the whole of a try leaves; the result that stands."""
    video = put_files(objects, request, number)
    key = keys.result_key(request.tenant, request.result_id)
    while not objects.put_if_absent(key, video.to_json(), "application/json"):
        try:
            return VideoFile.from_json(objects.get(key))
        except ObjectNotFound:  # purged in between
            continue
    return video


def put_checkpoint(objects: ObjectStore, job_id: str, number: int) -> None:
    objects.put(keys.checkpoint_key(Attempt(job_id, number, 0)), b"latents", "application/x")


def all_keys(objects: ObjectStore) -> set[str]:
    return {info.key for info in objects.iter_objects("")}


def folder_keys(job_id: str, number: int) -> set[str]:
    return {f"{keys.attempts_prefix(job_id)}{number}/{name}" for name in FILES}
