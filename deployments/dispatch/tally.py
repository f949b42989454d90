"""What the Dispatcher sees, as metrics."""

import time
from collections import Counter
from collections.abc import Iterable, Mapping

from deployments.dispatch.fleet import Fleet
from diffusion.params import Priority
from monitoring import metrics
from storage.jobs import Job, JobStatus, VideoFile
from storage.sql.overview import Line


class Tally:
    def __init__(self, fleet: Fleet):
        self._fleet, self._paid_at = fleet, time.monotonic()
        tiers = fleet.tiers.values()
        metrics.begin(
            metrics.ATTEMPTS,
            metrics.JOB_EVENTS,
            metrics.LEASE_EXPIRATIONS,
            metrics.FRAMES,
            tier=[tier.config.name for tier in tiers],
        )
        priced = [tier.config.name for tier in tiers if tier.config.cost_per_hour is not None]
        metrics.COST.begin(tier=priced)

    def tell(self, under_way: Iterable[Job], lines: Mapping[Priority, Line] | None) -> None:
        """What stands now; `lines` are None where the job table does not answer."""
        in_flight = Counter(job.tier for job in under_way)
        paid_at, self._paid_at = self._paid_at, time.monotonic()
        for name, state in self._fleet.tier_states().items():
            tier = {"tier": name}
            metrics.REPLICAS.set(state.replicas, tags=tier)
            metrics.IN_FLIGHT.set(in_flight[name], tags=tier)
            metrics.BACKLOG.set(sum(work.seconds for work in state.works), tags=tier)
            hourly = self._fleet.tiers[name].config.cost_per_hour or 0.0
            cost = hourly / 3600 * state.replicas * (self._paid_at - paid_at)
            if cost:
                metrics.COST.inc(cost, tags=tier)
        for deployment, starting in self._fleet.starting.items():
            metrics.REPLICAS_STARTING.set(starting, tags={"deployment": deployment})
        for priority, line in (lines or {}).items():
            waits = {"priority": priority.value}
            age_s = 0.0 if line.oldest_at is None else max(0.0, time.time() - line.oldest_at)
            metrics.QUEUE_DEPTH.set(line.length, tags=waits)
            metrics.QUEUE_AGE.set(age_s, tags=waits)


def count_start(job: Job, tier: str) -> None:
    """An attempt begins there."""
    if job.attempt == 1 and job.started_at is not None:
        labels = {"tier": tier, "priority": job.request.priority.value}
        metrics.JOB_WAIT_SECONDS.observe(max(0.0, job.started_at - job.created_at), tags=labels)


def count_video(job: Job, tier: str, video: VideoFile) -> None:
    """An attempt has made a video; `video` is another's where that one was first."""
    if video.is_rendered:
        return  # no frame was generated
    inbetweens, labels = job.request.output.inbetweens, {"tier": tier}
    frames = (video.frames + inbetweens) // (inbetweens + 1)
    metrics.FRAMES.inc(frames, tags=labels)
    # A later attempt may have gone on where another one was.
    if job.attempt == 1 and video.made_by == job.id:
        seconds = sum(video.timings.get(stage, 0.0) for stage in ("denoising", "decoding"))
        metrics.FRAME_SECONDS.observe(seconds / frames, tags=labels)


def count_taken_over(waiting: Iterable[Job], leased: Iterable[Job]) -> None:
    """Of the `leased`, those that were in progress while they waited: another attempt's lease has
    run out."""
    lost = {job.id for job in waiting if job.status is JobStatus.IN_PROGRESS}
    if taken_over := sum(job.id in lost for job in leased):
        metrics.LEASE_EXPIRATIONS.inc(taken_over)
