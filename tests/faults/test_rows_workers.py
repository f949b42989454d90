"""Rows 1-4, 21, 24, 26, 27 and 31: what ends, stops or misleads the processes that work on a job,
on one cluster whose replicas fail where a job's prompt asks for it."""

import asyncio
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from storage import keys
from storage.jobs import Job, JobStatus
from storage.lifecycle.collector import Collector
from storage.lifecycle.retention import Retention
from tests.faults.caller import PatientCaller
from tests.faults.fail_points import step_clock
from tests.faults.fragile import CLIP, LONG, RECOVERED_WITHIN_S, FragileCluster, running
from tests.faults.head import PHOTO, TENANT
from tests.faults.report import FaultLog

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def cluster(
    tmp_path_factory: pytest.TempPathFactory, model: Path, faults: FaultLog
) -> Iterator[FragileCluster]:
    with running(tmp_path_factory.mktemp("fragile"), model, faults) as started:
        yield started


def kinds(job: Job) -> list[str]:
    return [event.kind for event in job.events]


def files(cluster: FragileCluster, job_id: str, attempt: int) -> list[str]:
    return [found.key for found in cluster.objects.iter_objects(f"attempts/{job_id}/{attempt}/")]


def test_row_01_killed_amid_a_clip(cluster: FragileCluster) -> None:
    job_id = cluster.create(LONG)
    cluster.until_step(job_id, 30)
    at = cluster.kill("Denoiser-cpu")
    back = cluster.until(
        lambda: cluster.job(job_id).attempt == 2 and cluster.job(job_id).step > 0, job_id
    )
    jobs = cluster.settle(1, "denoiser killed amid a clip", [job_id], recovery_s=back - at)
    assert jobs[job_id].attempt == 2
    assert "resumed" in kinds(jobs[job_id])


def test_row_02_api_killed_after_202(cluster: FragileCluster) -> None:
    known = cluster.job_ids()
    fields: dict[str, Any] = {"prompt": "a watch turns", **CLIP}
    with PatientCaller(cluster.live.url, PHOTO, 0.2, **fields) as caller:

        def until_next_202() -> float:
            seen = len(caller.accepted)
            return cluster.until(lambda: len(caller.accepted) > seen)

        until_next_202()
        at = cluster.kill("VideoAPI")
        recovery_s = until_next_202() - at
    cluster.settle(
        2, "the only API replica killed right after a 202", caller.accepted, recovery_s=recovery_s
    )
    assert recovery_s < RECOVERED_WITHIN_S
    assert caller.refused == []
    # An order that is repeated because its answer was lost is one job.
    assert cluster.job_ids() - known == set(caller.accepted)
    assert all(cluster.video(job_id)["status"] == "completed" for job_id in caller.accepted)


@pytest.mark.parametrize(
    ("row", "point"), [(3, "uploaded"), (4, "committed")], ids=["row_03", "row_04"]
)
def test_video_encoder_killed_about_the_commit(
    cluster: FragileCluster, row: int, point: str
) -> None:
    job_id = cluster.create(act=f"die@{point}")
    at = cluster.until_reached(job_id, f"die@{point}")
    back = cluster.until_reached(job_id, "encoding", times=2)
    jobs = cluster.settle(
        row, f"video encoder killed once it had {point}", [job_id], recovery_s=back - at
    )
    # The stage is done again, not the attempt.
    assert jobs[job_id].attempt == 1
    assert cluster.reached(job_id, "denoising") == 1


def test_row_03_killed_between_upload_and_commit_with_its_dispatcher(
    cluster: FragileCluster,
) -> None:
    job_id = cluster.create(act="hold@uploaded")
    cluster.until_reached(job_id, "hold@uploaded")
    at = cluster.kill("Dispatcher", "VideoEncoder")
    jobs = cluster.settle(
        3,
        "video encoder and Dispatcher killed between upload and commit",
        [job_id],
        recovery_s=cluster.until_ended(job_id) - at,
    )
    assert jobs[job_id].attempt == 2
    assert "resumed" in kinds(jobs[job_id])
    orphans = files(cluster, job_id, 1)
    assert len(orphans) == 4

    # What it left behind goes with the next collection, and nothing else does.
    collector = Collector(cluster.jobs, cluster.objects, Retention(attempts_s=1, grace_s=1))
    try:
        cluster.until(lambda: collector.run_once() and not files(cluster, job_id, 1), job_id)
    finally:
        collector.close()
    assert len(files(cluster, job_id, 2)) == 4


def test_row_04_killed_between_commit_and_job_table_with_its_dispatcher(
    cluster: FragileCluster,
) -> None:
    job_id = cluster.create(act="hold@committed")
    cluster.until_reached(job_id, "hold@committed")
    at = cluster.kill("Dispatcher", "VideoEncoder")
    jobs = cluster.settle(
        4,
        "video encoder and Dispatcher killed after the commit",
        [job_id],
        recovery_s=cluster.until_ended(job_id) - at,
    )
    # Its result was found, and recorded as what it is: that of the first attempt.
    assert jobs[job_id].attempt == 1
    assert cluster.reached(job_id, "denoising") == 1
    assert cluster.reached(job_id, "encoding") == 1


def test_row_21_host_out_of_memory(cluster: FragileCluster) -> None:
    """Emulated both ways: the kernel's OOM killer, whose SIGKILL we send, and an allocation that
    it refuses under RLIMIT_AS. Encoding is one clip at a time already, so there is no concurrency
    to lower."""
    killed, refused = cluster.create(act="hold@encoding"), cluster.create(act="exhaust@encoding")
    cluster.until_reached(killed, "hold@encoding")
    at = cluster.kill("VideoEncoder")
    back = cluster.until_reached(killed, "encoding", times=2)
    jobs = cluster.settle(
        21,
        "video encoder out of host memory: killed, and an allocation refused",
        [killed, refused],
        injected=2,
        recovery_s=back - at,
    )
    assert cluster.reached(refused, "exhaust@encoding") == 1
    assert (jobs[killed].attempt, jobs[refused].attempt) == (1, 2)
    assert "worker_lost" in kinds(jobs[refused])


def test_row_24_cancel_while_queued(cluster: FragileCluster) -> None:
    held = [cluster.create(act="hold@denoising") for _ in range(4)]  # all slots of the tier
    for job_id in held:
        cluster.until_reached(job_id, "hold@denoising")
    queued = cluster.create()
    assert cluster.video(queued)["status"] == "queued"
    answers = [cluster.cancel(job_id) for job_id in (queued, queued, *held)]
    cluster.let_go(*held)
    jobs = cluster.settle(
        24,
        "cancelled while queued, and while waiting for a denoiser",
        [queued, *held],
        injected=5,
        otherwise=[queued, *held],
    )
    assert {answer["status"] for answer in answers} == {"cancelled"}
    assert answers[0] == answers[1]
    assert {job.status for job in jobs.values()} == {JobStatus.CANCELLED}
    assert jobs[queued].attempt == 0
    assert cluster.reached(queued, "denoising") == 0


def test_row_24_cancel_while_denoising(cluster: FragileCluster) -> None:
    with cluster.connected() as handle:

        def steps() -> int:
            asked = handle("Denoiser-cpu").broadcast("steps_done")
            return sum(asked.results(timeout_s=30))

        def clips() -> int:
            asked = handle("Denoiser-cpu").broadcast("clips_in_flight")
            return sum(asked.results(timeout_s=30))

        cluster.until(lambda: clips() == 0)
        # Steps of this size take longer than an answer to `steps`.
        job_id = cluster.create({"size": "256x256", "num_frames": 24, "num_inference_steps": 150})
        begun = steps()
        cluster.until(lambda: steps() >= begun + 2, job_id)
        before = steps()
        answer = cluster.cancel(job_id)
        at_answer = steps()
        cluster.until(lambda: clips() == 0, job_id)
        after = steps()
    cluster.settle(24, "cancelled while denoising", [job_id], otherwise=[job_id])
    assert answer["status"] == "cancelled"
    assert cluster.job(job_id).attempt == 1
    assert (before, after - at_answer <= 1) == (before, True), (before, at_answer, after)


@pytest.mark.parametrize("point", ["uploaded", "committed"])
def test_row_24_cancel_at_the_moment_of_the_commit(cluster: FragileCluster, point: str) -> None:
    job_id = cluster.create(act=f"hold@{point}", seed=424_242)
    cluster.until_reached(job_id, f"hold@{point}")
    answers = [cluster.cancel(job_id), cluster.cancel(job_id)]
    cluster.let_go(job_id)
    result_id = cluster.job(job_id).request.result_id
    commit = keys.result_key(TENANT, result_id)
    cluster.until(lambda: cluster.objects.stat(commit), job_id)
    # What was committed without a reader is found by the same order again.
    again = cluster.create(act=f"hold@{point}", seed=424_242)
    jobs = cluster.settle(24, f"cancelled once it had {point}", [job_id, again], otherwise=[job_id])
    assert [answer["status"] for answer in answers] == ["cancelled", "cancelled"]
    assert jobs[job_id].status is JobStatus.CANCELLED
    assert jobs[job_id].result is None
    found = jobs[again].result
    assert found is not None
    assert (found.result_id, found.made_by) == (result_id, job_id)
    assert cluster.reached(again, "denoising") == 0  # nor any other stage
    assert cluster.reached(again, "encoding") == 0


def test_row_24_cancel_races_the_end_and_comes_after_it(cluster: FragileCluster) -> None:
    ids, answers = [cluster.create(seed=5000 + n) for n in range(8)], {}
    for delay, job_id in enumerate(ids):
        cluster.until_reached(job_id, "encoding")
        time.sleep(0.02 * delay)
        answers[job_id] = cluster.cancel(job_id)["status"]
    jobs = cluster.settle(24, "cancelled about the commit", ids, injected=len(ids), otherwise=ids)
    assert {job_id: str(job.status) for job_id, job in jobs.items()} == answers
    done = cluster.create()
    cluster.settle(24, "cancelled after the end", [done])
    assert cluster.cancel(done)["status"] == "completed"
    assert cluster.job(done).status is JobStatus.COMPLETED


def test_row_26_zombie_dispatcher_and_worker(cluster: FragileCluster) -> None:
    """The Dispatcher stands still while its video encoder is about to commit. Another one takes
    the job over once the lease is lost; what the first ones do later changes nothing."""
    job_id = cluster.create(act="hold@uploaded")
    cluster.until_reached(job_id, "hold@uploaded")
    zombie = cluster.stop_dispatcher()
    try:
        with cluster.connected() as handle:
            asyncio.run(cluster.dispatch_until_ended(handle, job_id))
        done = cluster.job(job_id)
        assert done.result is not None
        assert (done.status, done.attempt) == (JobStatus.COMPLETED, 2)
        assert len(files(cluster, job_id, 1)) == 4
    finally:
        zombie.resume()
    cluster.let_go(job_id)
    # The late commit is refused, and its files go.
    cluster.until(lambda: not files(cluster, job_id, 1), job_id)
    at = cluster.kill("Dispatcher")  # superseded, it takes no more jobs
    after = cluster.create()
    jobs = cluster.settle(
        26,
        "Dispatcher and worker stopped past the lease, and continued",
        [job_id, after],
        injected=2,
        recovery_s=cluster.until_ended(after) - at,
    )
    assert jobs[job_id] == done


@pytest.mark.parametrize("point", ["denoising", "step"])
def test_row_27_poison_job(cluster: FragileCluster, point: str) -> None:
    company = [cluster.create(LONG) for _ in range(2)]
    for job_id in company:
        cluster.until_step(job_id, 5)
    poison = cluster.create(act=f"poison@{point}")
    later = cluster.create()
    cluster.until(lambda: cluster.job(poison).status is JobStatus.FAILED, poison)
    jobs = cluster.settle(
        27,
        f"a job ends its denoiser every time, at {point}",
        [*company, poison, later],
        injected=cluster.reached(poison, point),
        otherwise=[poison],
    )
    assert jobs[poison].error_code == "worker_lost"
    assert jobs[poison].attempt <= 4


def test_row_31_clock_step(cluster: FragileCluster) -> None:
    job_id = cluster.create(LONG)
    cluster.until_step(job_id, 10)
    for ahead_s in (3600.0, -3600.0, 0.0):
        step_clock(cluster.points, ahead_s)
        stepped = time.time() + ahead_s
        cluster.until(partial(_is_leased_about, cluster, job_id, stepped), job_id)
    cluster.settle(31, "the Dispatcher's clock stepped by an hour, and back", [job_id], injected=3)


def _is_leased_about(cluster: FragileCluster, job_id: str, now: float) -> bool:
    job = cluster.job(job_id)
    return job.status.is_terminal or abs((job.lease_until or 0.0) - now) < 600
