"""The files of a finished video: where they are, their bytes, a URL for them."""

import asyncio
from dataclasses import dataclass
from typing import Literal

from serve.edge.memory import Share
from serve.errors import CONFLICT, NOT_FOUND, ApiError
from serve.services.store_threads import StoreThreads
from storage import keys
from storage.errors import ObjectNotFound
from storage.job_contract import JobStore
from storage.jobs import Job, VideoFile
from storage.object_store import ObjectStore

Variant = Literal["video", "thumbnail", "spritesheet", "manifest"]


@dataclass(frozen=True, slots=True)
class Content:
    """One file of a finished video."""

    key: str
    media_type: str
    etag: str
    filename: str
    size_bytes: int | None  # None: only the store knows


class Contents:
    def __init__(self, jobs: JobStore, objects: ObjectStore, store: StoreThreads):
        self._jobs, self._objects, self._store = jobs, objects, store

    async def find(
        self, tenant: str, video_id: str, variant: Variant, candidate: int | None = None
    ) -> Content:
        """Where a finished video's file is, or that of a `candidate`. Raises JobNotFound, ApiError
        404 for a candidate that there is not or that was not kept, 409 before the end and 410 once
        the video was not kept any longer."""
        job = await asyncio.to_thread(self._jobs.get, tenant, video_id)
        made, what = job, f"video {video_id}"
        if candidate is not None:
            made, what = part_of(job, candidate), f"candidate {candidate} of {what}"
        if job.expired:
            raise ApiError(410, NOT_FOUND, "content_expired", f"video {video_id} is kept no more")
        if made.expired:
            message = f"{what} was not selected, and not kept; `select=all` keeps every one"
            raise ApiError(404, NOT_FOUND, "candidate_not_kept", message, "candidate")
        if made.result is None:
            raise ApiError(
                409, CONFLICT, "not_ready", f"{what} is {made.status}; it has no content"
            )
        return _content(job, made.result, variant, candidate)

    async def size_bytes(self, content: Content) -> int:
        """Raises ObjectNotFound."""
        if content.size_bytes is not None:
            return content.size_bytes
        found = await self._store.run(self._objects.stat, content.key)
        if found is None:
            raise ObjectNotFound(content.key)
        return found.size_bytes

    async def read(self, content: Content, part: range, share: Share) -> bytes:
        """The bytes at `part`, taken of `share`. Raises ObjectNotFound."""
        share.take(len(part))
        return await self._store.run(self._objects.get_range, content.key, part.start, part.stop)

    def presigned(self, content: Content, expires_s: int = 900) -> str:
        return self._objects.presign_get(content.key, expires_s, content.filename)


def part_of(job: Job, candidate: int) -> Job:
    """Raises ApiError 404."""
    if candidate >= len(job.parts):
        message = f"video {job.id} has no candidate {candidate}: they are 0 to {len(job.parts) - 1}"
        raise ApiError(404, NOT_FOUND, "candidate_not_found", message, "candidate")
    return job.parts[candidate]


def _content(job: Job, result: VideoFile, variant: Variant, candidate: int | None) -> Content:
    key, media_type, suffix, size_bytes = {
        "video": (result.video_key, "video/mp4", ".mp4", result.size_bytes),
        "thumbnail": (result.poster_key, "image/webp", ".webp", None),
        "spritesheet": (result.spritesheet_key, "image/webp", "_sheet.webp", None),
        "manifest": (result.manifest_key, "application/json", ".json", None),
    }[variant]
    name = keys.download_name(job.created_at, job.id, job.request.sku).removesuffix(".mp4")
    if candidate is not None:
        name += f"_c{candidate}"
    etag = result.sha256 if variant == "video" else f"{result.sha256}-{variant}"
    return Content(key, media_type, etag, name + suffix, size_bytes)
