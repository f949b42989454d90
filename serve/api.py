"""Everything that the routes call, opened from a configuration."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from deployments.egress.client import Egress
from diffusion.model_folder import ModelCard
from monitoring.store_calls import count_store_call
from serve.config import AppConfig
from serve.edge.auth import Authenticator, authenticator
from serve.edge.memory import MemoryBudget
from serve.services.admission import Admission
from serve.services.batches import Batches
from serve.services.cluster_status import ClusterStatus
from serve.services.contents import Contents
from serve.services.files import Files
from serve.services.foresight import Foresight
from serve.services.readiness import Readiness
from serve.services.store_threads import StoreThreads
from serve.services.videos import Videos
from serve.services.watch import Watch
from storage.batches import SqlBatches
from storage.facts import SqlFacts
from storage.files import SqlFiles
from storage.job_store import SqlJobStore
from storage.object_store import S3ObjectStore
from storage.sql import overview
from storage.tenants import SqlTenants
from video.photo_pool import PhotoPool


@dataclass(frozen=True, slots=True)
class DispatcherLine:
    """How the API reaches the Dispatcher. Nothing is lost when it is not heard."""

    wake: Callable[[], object]  # a job was created
    stop: Callable[[str], object]  # a job was cancelled or deleted
    broken: Callable[[], Awaitable[list[str]]]  # what keeps jobs from running now


@dataclass(frozen=True, slots=True)
class Api:
    """`tenant_of` is a FastAPI dependency: whose request it is."""

    videos: Videos
    contents: Contents
    files: Files
    batches: Batches
    readiness: Readiness
    cluster: ClusterStatus
    tenant_of: Authenticator
    memory: MemoryBudget


def open_api(
    config: AppConfig,
    model: ModelCard,
    admission: Admission,
    dispatcher: DispatcherLine,
    photos: PhotoPool,
) -> Api:
    """Connects to the stores that `config` names. Raises StorageError."""
    assert config.job_store is not None
    assert config.object_store is not None
    jobs, objects = (
        SqlJobStore(config.job_store),
        S3ObjectStore(config.object_store, count_store_call),
    )
    tenants = SqlTenants(jobs.database, cache_s=config.auth.cache_s)
    store, memory = StoreThreads(), MemoryBudget(config.limits.max_body_bytes_at_once)
    uploads = SqlFiles(jobs.database)
    files = Files(
        uploads, objects, store, photos, config.auth.enabled, config.catalog.max_upload_bytes
    )
    foresight = Foresight(SqlFacts(jobs.database), admission.cost)
    readiness = Readiness(jobs, objects, dispatcher.broken)
    tiers = (*config.tiers, config.stages.camera)
    videos = Videos(
        config,
        model,
        admission,
        jobs,
        objects,
        store,
        files,
        photos,
        memory,
        Egress(config.egress),
        foresight,
        Watch(jobs),
        wake=dispatcher.wake,
        stop=dispatcher.stop,
    )
    return Api(
        videos,
        Contents(jobs, objects, store),
        files,
        Batches(config, model.name, SqlBatches(jobs.database), uploads, store),
        readiness,
        ClusterStatus(tiers, readiness, foresight, partial(overview.lines, jobs.database)),
        authenticator(config.auth, config.quota, tenants),
        memory,
    )
