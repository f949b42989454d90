"""What the API can do with videos, without HTTP: create, find, watch, cancel, delete, read."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Literal

from sse_starlette import EventSourceResponse

from cluster.eta import Eta
from deployments.egress.client import Egress
from deployments.egress.webhooks import check_webhook_url
from diffusion.model_folder import ModelCard
from monitoring import metrics
from serve.config import CAMERA, AppConfig
from serve.edge.lingering import Lingering
from serve.edge.memory import MemoryBudget, Share
from serve.edge.tracking import Origin, tell_created
from serve.errors import ApiError
from serve.schemas import CreateVideo, Video, VideoFeedback, VideoList
from serve.services.admission import Admission
from serve.services.contents import part_of
from serve.services.create_request import PhotoSource, RemoteImage, UploadedFile
from serve.services.events import PACE, MayListen, event_stream
from serve.services.files import Files
from serve.services.foresight import Foresight
from serve.services.resolve import resolve
from serve.services.resolve_camera import resolve_camera
from serve.services.store_threads import StoreThreads
from serve.services.watch import Watch
from storage import keys
from storage.job_contract import Caps, Idempotency, JobStore
from storage.jobs import Feedback, Job, JobRequest, JobStatus
from storage.lifecycle.records import JobRecord
from storage.object_store import ObjectStore
from storage.tenants import Tenant
from video.photo_pool import PhotoPool


class Videos:
    """The operations behind the routes; every one may raise StorageError. `wake` tells the
    Dispatcher that a job was created, `stop` that one was cancelled or deleted."""

    def __init__(
        self,
        config: AppConfig,
        model: ModelCard,
        admission: Admission,
        jobs: JobStore,
        objects: ObjectStore,
        store: StoreThreads,
        files: Files,
        photos: PhotoPool,
        memory: MemoryBudget,
        egress: Egress,
        foresight: Foresight,
        watch: Watch,
        wake: Callable[[], object],
        stop: Callable[[str], object],
    ):
        self.config = config
        self.model = model
        self._admission = admission
        self._jobs = jobs
        self._objects, self._store = objects, store
        self._files = files
        self._photos, self._memory = photos, memory
        self._egress = egress
        self._foresight = foresight
        self.watch = watch
        self._hourly = {
            tier.name: tier.cost_per_hour for tier in config.tiers if tier.cost_per_hour is not None
        }
        limits = config.limits
        self._lingering = Lingering(limits.max_lingering, limits.max_lingering_per_tenant)
        self._wake, self._stop = wake, stop

    # Create.

    async def create(
        self,
        create: CreateVideo,
        source: PhotoSource,
        tenant: Tenant,
        idempotency: Idempotency | None,
        origin: Origin,
    ) -> tuple[Video, bool]:
        """Accept a job: when this returns, the photo, the row and the request are stored.

        The job may be the one that stands under the idempotency key; then the second value is
        True. A request whose result exists is completed at once. Raises PhotoError, EgressError,
        UnsupportedSize, UnusableStrength, DoesNotFit and ApiError, which leave nothing,
        IdempotencyConflict, QueueFull, QuotaExceeded and TenantNotFound, which may leave the photo.
        """
        if idempotency is not None:
            standing = await asyncio.to_thread(self._jobs.find, tenant.name, idempotency)
            if standing is not None:
                return await self._accepted(standing, idempotency), True
        if create.webhook is not None:
            check_webhook_url(create.webhook, self.config.egress)
        # The photo first, as a job may be leased as soon as it is a row; the request last, when
        # it is known which job stands.
        prepared = await self._prepared(create, source, tenant)
        request = replace(prepared, request_id=origin.request_id, traceparent=origin.traceparent)
        caps = (tenant.quota or self.config.quota).caps(self.config.limits.max_queued_jobs)
        job = await asyncio.to_thread(self._create, request, idempotency, caps)
        replayed = job.id != request.id
        if not replayed:
            metrics.JOBS_CREATED.inc(request.candidates, tags={"priority": request.priority.value})
            tell_created(job)
        return await self._accepted(job, idempotency), replayed

    async def _prepared(
        self, create: CreateVideo, source: PhotoSource, tenant: Tenant
    ) -> JobRequest:
        """The complete request, whose photo is stored."""
        with self._memory.share() as share:
            photo = await self._photo(source, tenant, share)
            facts = await self._photos.inspect(photo)
            if (create.model or self.config.default_model_name) == CAMERA:
                request = resolve_camera(create, facts, tenant.name, self.config)
            else:
                request = resolve(create, facts, tenant.name, self.model, self.config)
            self._admission.check(request)
            media_type = f"image/{facts.format}"
            await self._store.run(self._objects.put, request.photo_key, photo, media_type)
        return request

    def _create(self, request: JobRequest, idempotency: Idempotency | None, caps: Caps) -> Job:
        """A part that was made before is not made again. (Where only the object store knows of it,
        because its job was forgotten, the Dispatcher finds it before any GPU does.)"""
        made = self._jobs.made(request.tenant, [part.result_id for part in request.parts])
        registered = self.config.auth.enabled
        return self._jobs.create(
            request, idempotency, caps=caps, results=made, registered=registered
        )

    async def _photo(self, source: PhotoSource, tenant: Tenant, share: Share) -> bytes:
        """Takes of `share` what did not come with the body."""
        match source:
            case UploadedFile(file_id):
                return await self._files.read(await self._files.get(tenant.name, file_id), share)
            case RemoteImage(url):
                most = self.config.limits.photo.max_bytes
                return await self._egress.fetch_image(url, most, share.take)
            case _:
                return source

    async def _accepted(self, job: Job, idempotency: Idempotency | None) -> Video:
        """Written for a replay too: whoever created it may have died before this."""
        record = JobRecord(job.request, idempotency, job.created_at)
        _, video = await asyncio.gather(
            self._store.run(
                self._objects.put, keys.request_key(job.id), record.to_json(), "application/json"
            ),
            self.describe(job),
        )
        if any(part.status is JobStatus.QUEUED for part in job.parts):
            self._wake()
        return video

    # Find and watch.

    async def get(self, tenant: str, video_id: str) -> Video:
        """Raises JobNotFound."""
        # One trip to a thread for all that it takes: who polls does this all the time.
        return await asyncio.to_thread(
            lambda: self._describe(self._jobs.get(tenant, video_id)),
        )

    async def job(self, tenant: str, video_id: str) -> Job:
        """Raises JobNotFound."""
        return await asyncio.to_thread(self._jobs.get, tenant, video_id)

    async def wait(self, tenant: str, video: Video, wait_s: float) -> tuple[Video, bool]:
        """The video when it has ended, or as it is after `wait_s`. False: it was not waited for so
        long, as too many wait already, or this replica leaves."""
        try:
            self._lingering.enter(tenant)
        except ApiError:
            return video, False
        try:
            waited = await self.watch.wait(video.id, wait_s)
        finally:
            self._lingering.leave(tenant)
        return await self.get(tenant, video.id), waited

    async def events(
        self, tenant: str, video_id: str, last_event_id: str | None, may_listen: MayListen
    ) -> EventSourceResponse:
        """Raises JobNotFound, ApiError where too many listen already."""
        job = await self.job(tenant, video_id)
        self._lingering.enter(tenant)
        over = partial(self._lingering.leave, tenant)
        return event_stream(job, self.watch, self.describe, last_event_id, may_listen, over, PACE)

    async def list_videos(
        self,
        tenant: str,
        after: str | None,
        limit: int,
        order: Literal["asc", "desc"],
        *,
        status: JobStatus | None = None,
        sku: str | None = None,
        category: str | None = None,
        batch_id: str | None = None,
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
            category=category,
            batch_id=batch_id,
        )
        kept_s = self.config.retention.results_s
        page = [Video.of(job, kept_s=kept_s, hourly=self._hourly) for job in jobs[:limit]]
        return VideoList(
            data=page,
            first_id=page[0].id if page else None,
            last_id=page[-1].id if page else None,
            has_more=len(jobs) > limit,
        )

    async def describe(self, job: Job) -> Video:
        """The job as its caller sees it, with its place and its ETA."""
        return await asyncio.to_thread(self._describe, job)

    def _describe(self, job: Job) -> Video:
        queued = [part for part in job.parts if part.status is JobStatus.QUEUED]
        position = self._jobs.queue_position(queued[0].id) if queued else None
        kept_s, eta = self.config.retention.results_s, self._eta(job, position)
        return Video.of(job, position, eta, kept_s, self._hourly)

    def _eta(self, job: Job, position: int | None) -> Eta | None:
        """Of what ends last; `position` is that of its first part that waits."""
        etas = []
        for part in job.parts:
            if part.status.is_terminal:
                continue
            eta = self._foresight.eta(part, position)
            if eta is None:
                return None
            etas.append(eta)
            if part.status is JobStatus.QUEUED and position is not None:
                position += 1  # they were created together
        return max(etas, key=lambda eta: eta.seconds, default=None)

    # Change.

    async def cancel(self, tenant: str, video_id: str) -> Video:
        """A video that has ended stays as it ended; of several candidates, those that are made are
        kept, and the video is completed with them. Raises JobNotFound."""
        job = await asyncio.to_thread(self._jobs.cancel, tenant, video_id)
        for part in job.parts:
            if part.status is JobStatus.CANCELLED:
                self._stop(part.id)
        return await self.describe(job)

    async def delete(self, tenant: str, video_id: str) -> None:
        """Stops the work and forgets the job. Its files, those of a result that another job refers
        to excepted, the Housekeeper deletes within seconds. Raises JobNotFound."""
        request = (await self.job(tenant, video_id)).request
        await asyncio.to_thread(self._jobs.delete, tenant, video_id)
        for part in request.parts:
            self._stop(part.id)

    async def rate(self, tenant: str, video_id: str, feedback: VideoFeedback) -> Video:
        """Raises JobNotFound, IllegalTransition for a video that is not completed, ApiError for a
        candidate that it has not."""
        if feedback.candidate is not None:
            part_of(await self.job(tenant, video_id), feedback.candidate)
        rated = Feedback(feedback.rating, tuple(feedback.tags), time.time(), feedback.candidate)
        job = await asyncio.to_thread(self._jobs.rate, tenant, video_id, rated)
        return await self.describe(job)
