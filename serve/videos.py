"""What the API can do, without HTTP: create, find, list and read videos."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from diffusion.model_folder import ModelCard
from serve.admission import Admission
from serve.config import AppConfig
from serve.errors import CONFLICT, ApiError
from serve.resolve import resolve
from serve.schemas import CreateVideo, Video, VideoList
from storage import keys
from storage.errors import ObjectNotFound, StorageError
from storage.job_contract import Idempotency, JobStore
from storage.jobs import Job, JobStatus, VideoFile
from storage.object_store import ObjectStore
from video.photo import open_photo

Variant = Literal["video", "thumbnail", "spritesheet", "manifest"]


@dataclass(frozen=True, slots=True)
class Content:
    """One file of a finished video."""

    key: str
    media_type: str
    etag: str
    filename: str
    size_bytes: int | None  # None: only the store knows


class Videos:
    """The operations behind the routes. `wake` tells the Dispatcher that a job was created;
    `dispatcher_broken` asks it what keeps jobs from running."""

    def __init__(
        self,
        config: AppConfig,
        model: ModelCard,
        admission: Admission,
        jobs: JobStore,
        objects: ObjectStore,
        wake: Callable[[], object],
        dispatcher_broken: Callable[[], Awaitable[list[str]]],
    ):
        self.config = config
        self.model = model
        self._admission = admission
        self._jobs = jobs
        self._objects = objects
        self._wake = wake
        self._dispatcher_broken = dispatcher_broken
        self._probes: dict[str, asyncio.Task[object]] = {}  # by the part that was asked

    async def create(
        self, create: CreateVideo, photo: bytes, tenant: str, idempotency: Idempotency | None
    ) -> tuple[Video, bool]:
        """Accept a job: when this returns, the photo, the row and the request are stored.

        The job may be the one that stands under the idempotency key; then the second value is
        True. Raises PhotoError, UnsupportedSize, DoesNotFit and ApiError, which leave nothing,
        IdempotencyConflict, which leaves the photo, and StorageError.
        """
        opened = await asyncio.to_thread(open_photo, photo, self.config.limits.photo)
        request = resolve(create, opened, tenant, self.model, self.config)
        self._admission.check(request)
        # The photo first, as a job may be leased as soon as it is a row; the request last, when
        # it is known which job stands.
        await asyncio.to_thread(
            self._objects.put, request.photo_key, photo, f"image/{opened.format}"
        )
        job = await asyncio.to_thread(self._jobs.create, request, idempotency)
        await asyncio.to_thread(
            self._objects.put,
            keys.request_key(job.id),
            job.request.to_json(),
            "application/json",
        )
        self._wake()
        return Video.of(job), job.id != request.id

    async def get(self, tenant: str, video_id: str) -> Video:
        """Raises JobNotFound."""
        job = await asyncio.to_thread(self._jobs.get, tenant, video_id)
        position = None
        if job.status is JobStatus.QUEUED:
            position = await asyncio.to_thread(self._jobs.queue_position, video_id)
        return Video.of(job, position)

    async def list_videos(
        self,
        tenant: str,
        after: str | None,
        limit: int,
        order: Literal["asc", "desc"],
        status: JobStatus | None,
        sku: str | None,
    ) -> VideoList:
        """One page. Raises JobNotFound for an unknown `after`."""
        jobs = await asyncio.to_thread(
            self._jobs.list_jobs,
            tenant,
            limit=limit + 1,
            after=after,
            order=order,
            status=status,
            sku=sku,
        )
        page = [Video.of(job) for job in jobs[:limit]]
        return VideoList(
            data=page,
            first_id=page[0].id if page else None,
            last_id=page[-1].id if page else None,
            has_more=len(jobs) > limit,
        )

    async def content(self, tenant: str, video_id: str, variant: Variant) -> Content:
        """Where a finished video's file is. Raises JobNotFound, ApiError(409) before the end."""
        job = await asyncio.to_thread(self._jobs.get, tenant, video_id)
        if job.result is None:
            raise ApiError(
                409, CONFLICT, "not_ready", f"video {video_id} is {job.status}; it has no content"
            )
        return _content(job, job.result, variant)

    async def size_bytes(self, content: Content) -> int:
        """Raises ObjectNotFound."""
        if content.size_bytes is not None:
            return content.size_bytes
        found = await asyncio.to_thread(self._objects.stat, content.key)
        if found is None:
            raise ObjectNotFound(content.key)
        return found.size_bytes

    async def read(self, content: Content, part: range | None = None) -> bytes:
        """All of it, or the bytes at `part`. Raises ObjectNotFound."""
        if part is None:
            return await asyncio.to_thread(self._objects.get, content.key)
        return await asyncio.to_thread(self._objects.get_range, content.key, part.start, part.stop)

    def presigned(self, content: Content, expires_s: int = 900) -> str:
        return self._objects.presign_get(content.key, expires_s, content.filename)

    async def broken(self) -> list[str]:
        """What keeps a request from succeeding now, in words."""

        def list_one() -> None:  # a stat would not tell a missing bucket from a missing object
            next(self._objects.iter_objects("_probe/"), None)

        found = await asyncio.gather(
            self._broken_store("job table", self._jobs.counts),
            self._broken_store("object store", list_one),
            self._dispatcher_broken(),
        )
        return [problem for problems in found for problem in problems]

    async def _broken_store(
        self, part: str, probe: Callable[[], object], timeout_s: float = 3.0
    ) -> list[str]:
        # A probe that hangs holds a thread that requests need: it is waited for, not repeated.
        if part not in self._probes or self._probes[part].done():
            self._probes[part] = asyncio.create_task(asyncio.to_thread(probe))
        try:
            await asyncio.wait_for(asyncio.shield(self._probes[part]), timeout_s)
        except TimeoutError:
            return [f"{part}: no answer in {timeout_s:g} s"]
        except StorageError as e:
            return [f"{part}: {e}"]
        return []


def _content(job: Job, result: VideoFile, variant: Variant) -> Content:
    key, media_type, suffix, size_bytes = {
        "video": (result.video_key, "video/mp4", ".mp4", result.size_bytes),
        "thumbnail": (result.poster_key, "image/webp", ".webp", None),
        "spritesheet": (result.spritesheet_key, "image/webp", "_sheet.webp", None),
        "manifest": (result.manifest_key, "application/json", ".json", None),
    }[variant]
    name = keys.download_name(job.created_at, job.id, job.request.sku).removesuffix(".mp4")
    etag = result.sha256 if variant == "video" else f"{result.sha256}-{variant}"
    return Content(key, media_type, etag, name + suffix, size_bytes)
