"""Jobs, a clock and a policy to test the job store with."""

from collections.abc import Callable, Sequence
from pathlib import Path

from diffusion.params import Priority, SamplingParams
from storage.job_store import JobStore, JobStoreConfig
from storage.jobs import Attempt, Job, JobEvent, JobRequest, OutputParams, VideoFile

LEASE_S = 30.0
MAX_ATTEMPTS = 3
MADE = "attempts/video_1/1/video.mp4"
VIDEO = VideoFile("r", MADE, "p", "s", "m", "0" * 64, 1, 64, 64, 8, 8.0, 1.0, {"denoising": 0.5})


def make_request(
    job_id: str,
    tenant: str = "shop",
    sku: str | None = None,
    priority: Priority = Priority.INTERACTIVE,
    deadline_at: float | None = None,
    category: str | None = None,
    candidates: int = 1,
) -> JobRequest:
    return JobRequest(
        id=job_id,
        tenant=tenant,
        model="i2vgen-xl",
        model_revision="abc",
        photo_key="inputs/shop/123",
        photo_sha256="123",
        sampling=SamplingParams("a bag turns", "", 64, 64, 8, 4, 9.0, 16, seed=1),
        output=OutputParams(fit="crop", fps=8.0, inbetweens=0),
        preset="preview",
        priority=priority,
        deadline_at=deadline_at,
        sku=sku,
        category=category,
        candidates=candidates,
        metadata={"k": "värde"},
    )


class Clock:
    """Stands still until a test moves it. Unix seconds."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def sqlite_url(folder: Path) -> str:
    return f"sqlite:///{folder / 'jobs.sqlite'}"


def store_config(url: str) -> JobStoreConfig:
    return JobStoreConfig(url=url, lease_s=LEASE_S, max_attempts=MAX_ATTEMPTS)


def lease_next(store: JobStore, epoch: int, limit: int) -> list[Job]:
    """The plain order: interactive before batch, then in order of creation."""
    return store.lease(epoch, {job.id: "cpu" for job in store.waiting(limit)[:limit]})


def lease_one(store: JobStore, epoch: int) -> Attempt:
    (job,) = lease_next(store, epoch, 1)
    return job.current_attempt


def ways_out(store: JobStore, events: Sequence[JobEvent] = ()) -> list[Callable[[Attempt], object]]:
    """The three ways out of an attempt."""
    return [
        lambda attempt: store.complete(attempt, VIDEO, events),
        lambda attempt: store.fail(attempt, "internal", "", events),
        lambda attempt: store.release(attempt, "internal", events=events),
    ]
