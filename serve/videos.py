"""What the API can do, without HTTP: create, find, list and read videos."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from diffusion.model_folder import ModelCard
from serve.config import AppConfig
from serve.errors import CONFLICT, ApiError
from serve.resolve import resolve
from serve.schemas import CreateVideo, Video, VideoList
from storage import keys
from storage.errors import StorageError
from storage.job_store import JobStore
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


class Videos:
    """The operations behind the routes. `wake` tells the Dispatcher that a job was created;
    `dispatcher_broken` asks it what keeps jobs from running."""

    def __init__(
        self,
        config: AppConfig,
        model: ModelCard,
        jobs: JobStore,
        objects: ObjectStore,
        wake: Callable[[], object],
        dispatcher_broken: Callable[[], Awaitable[list[str]]],
    ):
        self.config = config
        self.model = model
        self._jobs = jobs
        self._objects = objects
        self._wake = wake
        self._dispatcher_broken = dispatcher_broken

    async def create(self, create: CreateVideo, photo: bytes, tenant: str) -> Video:
        """Accept a job: when this returns, the photo, the request and the row are stored.

        Raises PhotoError, UnsupportedSize, ApiError and StorageError; a refused request leaves
        nothing behind.
        """
        opened = await asyncio.to_thread(open_photo, photo, self.config.limits.photo)
        request = resolve(create, opened, tenant, self.model, self.config)
        media_type = f"image/{opened.format}"
        await asyncio.gather(
            asyncio.to_thread(self._objects.put, request.photo_key, photo, media_type),
            asyncio.to_thread(
                self._objects.put,
                keys.request_key(request.id),
                request.to_json(),
                "application/json",
            ),
        )
        job = await asyncio.to_thread(self._jobs.create, request)
        self._wake()
        return Video.of(job)

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

    async def read(self, content: Content) -> bytes:
        return await asyncio.to_thread(self._objects.get, content.key)

    def presigned(self, content: Content, expires_s: int = 900) -> str:
        return self._objects.presign_get(content.key, expires_s, content.filename)

    async def broken(self) -> list[str]:
        """What keeps a request from succeeding now, in words."""
        broken = []
        for part, probe in (
            ("job table", self._jobs.counts),
            ("object store", lambda: self._objects.stat("readiness-probe")),
        ):
            try:
                await asyncio.to_thread(probe)
            except StorageError as e:
                broken.append(f"{part}: {e}")
        return broken + await self._dispatcher_broken()


def _content(job: Job, result: VideoFile, variant: Variant) -> Content:
    key, media_type, suffix = {
        "video": (result.video_key, "video/mp4", ".mp4"),
        "thumbnail": (result.poster_key, "image/webp", ".webp"),
        "spritesheet": (result.spritesheet_key, "image/webp", "_sheet.webp"),
        "manifest": (result.manifest_key, "application/json", ".json"),
    }[variant]
    name = keys.download_name(job.created_at, job.id, job.request.sku).removesuffix(".mp4")
    etag = result.sha256 if variant == "video" else f"{result.sha256}-{variant}"
    return Content(key, media_type, etag, name + suffix)
