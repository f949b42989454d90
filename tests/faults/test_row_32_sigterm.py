"""Row 32: SIGTERM to each process that works on requests or jobs, and to all of them."""

import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from random import Random

import httpx2
import psutil
import pytest
from sseclient import Event as Told

from storage.jobs import Job, JobStatus
from tests.faults.caller import PatientCaller
from tests.faults.fragile import CLIP, LONG, RECOVERED_WITHIN_S, FragileCluster, running
from tests.faults.head import PHOTO, TENANT
from tests.faults.on_their_way import Download, Order, follow
from tests.faults.report import FaultLog

pytestmark = pytest.mark.timeout(300)

API_GRACE_S = 12.0
WITH_A_HALT, WAITED_FOR, CUT_OFF = 32_000, 32_001, 32_002  # seeds
_WAITS_S = 3.0
"""An API replica without requests has ended by then."""


@pytest.fixture(scope="module")
def cluster(
    tmp_path_factory: pytest.TempPathFactory, model: Path, faults: FaultLog
) -> Iterator[FragileCluster]:
    folder = tmp_path_factory.mktemp("sigterm")
    with running(folder, model, faults, **{"stages.api.drain_s": API_GRACE_S}) as started:
        yield started


def rows(cluster: FragileCluster) -> Sequence[Job]:
    return cluster.jobs.list_jobs(TENANT, limit=10_000)


def kinds(job: Job) -> list[str]:
    return [event.kind for event in job.events]


def test_row_32_api_told_to_end(cluster: FragileCluster) -> None:
    """The only replica, with a create, one that waits, a download and a listener on their way.

    It never says false at /readyz: Serve's proxy hands the one that leaves nothing new, and holds
    what comes until another one is there."""
    url, known = cluster.live.url, cluster.job_ids()
    manifest = Random(32).randbytes(24 << 20)
    form = {"purpose": "batch"}
    kept = httpx2.post(
        f"{url}/v1/files", data=form, files={"file": ("rows.csv", manifest)}, trust_env=False
    )
    followed = cluster.create(act="hold@denoising")
    order = {"prompt": "a watch turns", **CLIP}
    upload = Order(url, **order, seed=WITH_A_HALT)
    held = order | {"prompt": "a watch turns hold@denoising", "seed": WAITED_FOR}
    waiting = Order(url, {"Prefer": "wait=60"}, **held)
    download = Download(f"{url}/v1/files/{kept.json()['id']}/content")
    told: list[list[Told]] = []
    with ThreadPoolExecutor() as threads, PatientCaller(url, PHOTO, 1.0, **order) as caller:
        listened = threads.submit(follow, f"{url}/v1/videos/{followed}/events", told)
        uploaded, downloaded = threads.submit(upload.send_halting), threads.submit(download.read)
        waited = threads.submit(waiting.send)
        cluster.until(lambda: told and told[0] and upload.halfway.is_set())
        cluster.until(lambda: download.begun.is_set() and len(caller.accepted) > 2)
        cluster.until(lambda: any(job.request.sampling.seed == WAITED_FOR for job in rows(cluster)))

        replica, seen = cluster.live.replica("VideoAPI"), len(caller.accepted)
        at = cluster.kill("VideoAPI", number=signal.SIGTERM)
        soon = waited.result(timeout=RECOVERED_WITHIN_S)
        time.sleep(_WAITS_S)
        assert _runs(replica)  # for the upload
        upload.go_on.set()
        answer = uploaded.result()
        download.go_on.set()
        # The order that was on its way may have been answered by the old one.
        back = cluster.until(lambda: len(caller.accepted) > seen + 1)
        assert downloaded.result() == manifest
        cluster.let_go(followed, soon.json()["id"])
    ids = [followed, answer.json()["id"], soon.json()["id"], *caller.accepted]
    cluster.settle(
        32,
        "SIGTERM to the only API replica with all kinds of requests on their way",
        ids,
        recovery_s=back - at,
    )
    assert (answer.status_code, soon.status_code, caller.refused) == (202, 202, [])
    assert soon.json()["status"] != "completed"  # not waited for any longer
    assert caller.answers.keys() <= {"202", "ReadTimeout"}, caller.answers
    assert cluster.job_ids() - known == set(ids)
    again = upload.send()
    assert (again.headers["Idempotency-Replayed"], again.json()["id"]) == ("true", ids[1])
    listened.result()
    first, then = ([int(event.id or -1) for event in events] for events in told)
    assert (first, then) == (sorted(first), sorted(then))
    assert max(first) < min(then)  # it was told nothing twice
    assert back - at < RECOVERED_WITHIN_S


def test_row_32_api_told_to_end_waits_no_longer_than_its_grace(cluster: FragileCluster) -> None:
    known = cluster.job_ids()
    upload = Order(cluster.live.url, prompt="a watch turns", **CLIP, seed=CUT_OFF)
    with ThreadPoolExecutor() as threads:
        uploaded = threads.submit(upload.send_halting)
        cluster.until(upload.halfway.is_set)
        time.sleep(1)  # the proxy hands it over
        replica = cluster.live.replica("VideoAPI")
        at = cluster.kill("VideoAPI", number=signal.SIGTERM)
        gone = cluster.until(lambda: not _runs(replica))
        upload.go_on.set()
        cut = is_cut_off(uploaded)
    back = cluster.until(cluster.is_ready)
    answer = upload.send()
    ids = [answer.json()["id"]]
    fault = "SIGTERM to the only API replica with a body that stands still"
    cluster.settle(32, fault, ids, recovery_s=back - at)
    assert cut
    assert gone - at > _WAITS_S
    assert (answer.status_code, cluster.job_ids() - known) == (202, set(ids))
    assert back - at < RECOVERED_WITHIN_S


def is_cut_off(request: Future[httpx2.Response]) -> bool:
    try:
        return request.result().is_server_error
    except httpx2.TransportError:
        return True


def test_row_32_dispatcher_told_to_end(cluster: FragileCluster) -> None:
    long = [cluster.create(LONG) for _ in range(2)]
    for job_id in long:
        cluster.until_step(job_id, 20)
    short = [cluster.create() for _ in range(4)]
    at = cluster.kill("Dispatcher", number=signal.SIGTERM)
    during = cluster.create()
    back = cluster.until(
        lambda: all(cluster.job(job_id).attempt == 2 for job_id in long), *long, during
    )
    jobs = cluster.settle(
        32,
        "SIGTERM to the Dispatcher with jobs in flight",
        [*long, *short, during],
        recovery_s=back - at,
    )
    # Not by leases that ran out: it put them back, with what had been done.
    assert {job_id: cluster.charged(job_id) for job_id in jobs} == dict.fromkeys(jobs, 0)
    assert all("resumed" in kinds(jobs[job_id]) for job_id in long)
    assert back - at < RECOVERED_WITHIN_S


def test_row_32_denoiser_told_to_end_amid_a_clip(cluster: FragileCluster) -> None:
    job_id = cluster.create(LONG)
    cluster.until_step(job_id, 30)
    at = cluster.kill("Denoiser-cpu", number=signal.SIGTERM)
    back = cluster.until(
        lambda: cluster.job(job_id).attempt == 2 and cluster.job(job_id).step > 0, job_id
    )
    jobs = cluster.settle(32, "SIGTERM to a denoiser amid a clip", [job_id], recovery_s=back - at)
    assert jobs[job_id].attempt == 2
    assert {"preempted", "resumed"} <= set(kinds(jobs[job_id]))
    assert cluster.charged(job_id) == 0
    assert back - at < RECOVERED_WITHIN_S


def test_row_32_video_encoder_told_to_end_amid_a_clip(cluster: FragileCluster) -> None:
    job_id = cluster.create(act="hold@encoding")
    cluster.until_reached(job_id, "hold@encoding")
    replica = cluster.live.replica("VideoEncoder")
    at = cluster.kill("VideoEncoder", number=signal.SIGTERM)
    time.sleep(_WAITS_S)
    assert _runs(replica)  # for the clip
    cluster.let_go(job_id)
    after = cluster.create()
    back = cluster.until_ended(after)
    jobs = cluster.settle(
        32, "SIGTERM to the video encoder amid a clip", [job_id, after], recovery_s=back - at
    )
    assert [jobs[each].attempt for each in (job_id, after)] == [1, 1]
    assert cluster.reached(job_id, "encoding") == 1  # it was let finish
    assert not _runs(replica)
    assert back - at < RECOVERED_WITHIN_S


@pytest.mark.parametrize("stage", ["TextEncoder", "ImageEncoder", "Decoder"])
def test_row_32_stage_told_to_end(cluster: FragileCluster, stage: str) -> None:
    ids = [cluster.create() for _ in range(3)]
    at = cluster.kill(stage, number=signal.SIGTERM)
    after = cluster.create()
    back = cluster.until_ended(after)
    jobs = cluster.settle(
        32, f"SIGTERM to the {stage} with jobs in flight", [*ids, after], recovery_s=back - at
    )
    assert {job.attempt for job in jobs.values()} == {1}
    assert back - at < RECOVERED_WITHIN_S


def _runs(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_row_32_drain_of_the_whole_cluster(cluster: FragileCluster) -> None:
    held = cluster.create(act="hold@denoising")
    cluster.until_reached(held, "hold@denoising")
    short = [cluster.create() for _ in range(6)]
    cluster.until_reached(short[0], "denoising")
    begun = time.monotonic()
    code = cluster.live.stop()
    took_s = time.monotonic() - begun
    rows = cluster.jobs.get_many([held, *short])
    assert code in (0, 130)
    assert cluster.live.left_behind() == []
    assert not cluster.is_ready()
    assert JobStatus.IN_PROGRESS not in {job.status for job in rows}
    assert cluster.job(held).status is JobStatus.QUEUED
    begun = time.monotonic()
    cluster.live.start()
    jobs = cluster.settle(
        32,
        f"SIGTERM to `shopreel up` with jobs in flight; it took {took_s:.0f} s",
        [held, *short],
        recovery_s=cluster.until(cluster.is_ready) - begun,
    )
    assert jobs[held].attempt == 2
    assert max(jobs[job_id].attempt for job_id in short) <= 2
