"""The faults, in an order in which none hides another. Each leaves the shop as it found it, but for
the last ones."""

import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import httpx2
from sqlalchemy import select, text, update

from benchmarks.alerts.scarce import LARGE_SIDE
from benchmarks.alerts.shop import MOST_QUEUED, TENANT, TIER, Shop
from benchmarks.alerts.small_root import small_node
from benchmarks.alerts.watch import NotFired, Watch
from cluster.tiers import TierConfig
from storage import keys
from storage.sql.tables import jobs

_DENOISER = TierConfig(name=TIER).deployment_name
_LONG = {"size": "256x256", "num_frames": 16, "num_inference_steps": 200}
_LATE_S = 125.0  # beyond the goal of 120 s
_LATE, _WITHOUT_PHOTO = 100, 35  # of MOST_QUEUED; what fills the queue up is not late
_NEWER = "9999"


def small_faults(shop: Shop, watch: Watch) -> None:
    """Those that disturb nobody else."""
    lost, one, other = (shop.completed() for _ in range(3))
    watch.begin("the file of a completed video deleted from the bucket", "ResultsLost")
    shop.objects.delete(lost.video_key)
    watch.begin("a job's commit overwritten with another job's", "ResultsDuplicated")
    wrong = replace(one, video_key=other.video_key)
    key = keys.result_key(TENANT, one.result_id)
    shop.objects.put(key, wrong.to_json(), "application/json")
    watch.begin("a webhook's endpoint answers 410", "WebhooksGivenUp")
    shop.completed(webhook=shop.hook)
    watch.begin("two rows of a large clip do not fit into memory", "MemoryLadderUsed")
    for frames in (8, 9, 10):  # each is another shape, whose limits are not known yet
        shop.completed(size=f"{LARGE_SIDE}x{LARGE_SIDE}", num_frames=frames)
    watch.await_all("MemoryLadderUsed", "WebhooksGivenUp", patience_s=60)
    watch.await_all("ResultsLost", "ResultsDuplicated", patience_s=100)
    shop.objects.put(lost.video_key, b"found again", "video/mp4")
    shop.objects.put(key, one.to_json(), "application/json")


def bucket_away(shop: Shop, watch: Watch) -> None:
    clip = shop.accepted(**_LONG)
    shop.until(lambda: shop.job(clip).step > 3)
    creating = (f"Creation{pace}" for pace in _PACES)
    caused = ("StorageErrors", "CheckpointsStale", *creating)
    watch.begin("the S3 server stopped", *caused)
    shop.s3.stop()
    try:
        with _asking(shop):
            watch.await_all(*caused, patience_s=150)
    finally:
        shop.s3.start()
    _cancel(shop, [clip])


def weights_gone(shop: Shop, watch: Watch) -> None:
    """No denoiser can start: people wait, a batch stands still. Meanwhile photos are lost, a row is
    damaged and the queue fills up. When the weights are back, videos come late, and those without a
    photo fail."""
    weights = shop.data / "models" / "tiny"
    away = weights.with_name("away")
    waiting = ("NoReplicasReady", "TierEmpty", "QueueOld", "BatchStalled")
    fault = "the weights gone from the disk, the denoiser killed (SIGKILL); people and a batch wait"
    watch.begin(fault, *waiting)
    weights.rename(away)
    shop.kill(_DENOISER)
    try:
        shop.batch(rows=3)
        waiting_for_long = [shop.accepted() for _ in range(_LATE)]
        accepted_at = time.monotonic()
        without = [shop.accepted() for _ in range(_WITHOUT_PHOTO)]
        for job_id in without:
            shop.objects.delete(shop.job(job_id).request.photo_key)
        watch.await_all(*waiting, patience_s=120)
        _damaged_row(shop, watch)
        _queue_full(shop, watch)
        time.sleep(max(0.0, accepted_at + _LATE_S - time.monotonic()))
    except NotFired:
        away.rename(weights)
        raise
    late = [f"Latency{pace}" for pace in _PACES]
    failing = [f"JobSuccess{pace}" for pace in _PACES]
    watch.begin(
        f"{len(waiting_for_long)} jobs have waited for {_LATE_S:.0f} s; the weights put back", *late
    )
    watch.begin(
        f"the weights put back; {len(without)} jobs whose photos were deleted meanwhile", *failing
    )
    away.rename(weights)
    watch.await_all(*late, *failing, patience_s=240)


def _damaged_row(shop: Shop, watch: Watch) -> None:
    """It is looked at like all others; half of the requests are for it."""
    victim, *_ = shop.visited
    caused = [f"ApiAvailability{pace}" for pace in _PACES]
    watch.await_silence(*caused, patience_s=60)  # the bucket was away before
    kept = _set_request(shop, victim, "{}")
    watch.begin(f"the row of one of {len(shop.visited)} videos in demand damaged by hand", *caused)
    watch.await_all(*caused, patience_s=90)
    _set_request(shop, victim, kept)


def _queue_full(shop: Shop, watch: Watch) -> None:
    while shop.order().status_code == 202:
        pass
    watch.begin(
        f"as many jobs queued as may be, {MOST_QUEUED}; people go on asking", "RequestsShed"
    )
    with _asking(shop):
        watch.await_all("RequestsShed", patience_s=120)


def table_is_newer(shop: Shop, watch: Watch) -> None:
    caused = ("DispatcherSilent", "AuditSilent")
    fault = "the job table of a newer release, Dispatcher and Housekeeper killed (SIGKILL)"
    with shop.jobs.database.writing() as db:
        before = db.execute(text("SELECT version_num FROM alembic_version")).scalar_one()
        db.execute(text("UPDATE alembic_version SET version_num = :new"), {"new": _NEWER})
    watch.begin(fault, *caused)
    shop.kill("Dispatcher", "Housekeeper")
    watch.await_all(*caused, patience_s=150)
    with shop.jobs.database.writing() as db:
        db.execute(text("UPDATE alembic_version SET version_num = :old"), {"old": before})


def disk_full(shop: Shop, watch: Watch) -> None:
    with small_node(shop.endpoints.ray_address) as node:
        watch.begin("a node's disk filled to 95 %", "DiskAlmostFull")
        node.fill(leave=0.05)
        watch.await_all("DiskAlmostFull", patience_s=90)


def agent_hangs(shop: Shop, watch: Watch) -> None:
    caused = ("TargetDown", "MetricsAbsent")
    watch.await_silence(*caused, patience_s=240)  # the small node must be found dead first
    agents = shop.processes("DashboardAgent")
    watch.begin("Ray's agent of the node stopped (SIGSTOP)", *caused)
    for agent in agents:
        agent.send_signal(signal.SIGSTOP)
    try:
        watch.await_all(*caused, patience_s=90)
    finally:
        for agent in agents:
            agent.send_signal(signal.SIGCONT)


def _set_request(shop: Shop, job_id: str, to: str) -> str:
    """What stood in the column."""
    with shop.jobs.database.writing() as db:
        here = jobs.c.id == job_id
        before: str = db.execute(select(jobs.c.request).where(here)).scalar_one()
        db.execute(update(jobs).where(here).values(request=to))
    return before


@contextmanager
def _asking(shop: Shop) -> Iterator[None]:
    """A few callers who try to create videos, whatever they are answered."""
    leaving = threading.Event()

    def ask(_: int) -> None:
        while not leaving.wait(0.5):
            shop.order()

    with ThreadPoolExecutor(_CALLERS) as callers:
        asked = callers.map(ask, range(_CALLERS))
        try:
            yield
        finally:
            leaving.set()
            list(asked)


def _cancel(shop: Shop, job_ids: Sequence[str]) -> None:
    for job_id in job_ids:
        httpx2.post(
            f"{shop.endpoints.base_url}/v1/videos/{job_id}/cancel", timeout=60, trust_env=False
        ).raise_for_status()


_CALLERS = 3
_PACES = ("BurnFast", "BurnSlow", "BurnLow")

FAULTS = (
    small_faults,
    bucket_away,
    weights_gone,
    table_is_newer,
    disk_full,
    agent_hangs,
)
