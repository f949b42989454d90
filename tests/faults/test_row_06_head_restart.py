"""Row 6: the whole head dies by SIGKILL and comes back with the command that started it. Nobody
deploys again; whoever has a job's id gets his video."""

import random
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from cluster.embedded_s3 import EmbeddedS3
from storage.job_store import JobStore, JobStoreConfig, SqlJobStore
from storage.jobs import Job, JobStatus
from storage.object_store import S3ObjectStore
from tests.faults.caller import PatientCaller
from tests.faults.head import PHOTO, TENANT, Head, running
from tests.faults.ledger import account
from tests.faults.report import FaultLog
from tests.integration.live import LiveCluster

pytestmark = pytest.mark.timeout(420)

CLIP = {"prompt": "a watch turns", "num_frames": 8, "num_inference_steps": 40}
LONG = CLIP | {"num_inference_steps": 200, "seed": 1_000_000}
PAUSE_S = 1.5  # between orders: the tiny model just keeps up
AGENTS = {"ray::DashboardAgent", "ray::RuntimeEnvAgent"}
RESTART_S, DRAIN_S = 150.0, 120.0  # patience


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Iterator[Head]:
    folder = tmp_path_factory.mktemp("head")
    with EmbeddedS3(folder / "s3") as s3, running(folder, s3.config, model) as started:
        yield started


def ids_of(jobs: JobStore) -> set[str]:
    return {job.id for job in jobs.list_jobs(TENANT, limit=10_000)}


def all_ended(jobs: JobStore, job_ids: Collection[str]) -> bool:
    return all(job.status.is_terminal for job in jobs.get_many(job_ids))


def completed(jobs: JobStore, job_ids: Collection[str]) -> int:
    return sum(job.status is JobStatus.COMPLETED for job in jobs.get_many(job_ids))


def in_flight(jobs: JobStore, job_ids: Collection[str]) -> list[Job]:
    """Denoising by now, so that a kill takes something away."""
    return [
        job
        for job in jobs.get_many(job_ids)
        if job.status is JobStatus.IN_PROGRESS and job.step > 0
    ]


def restarted(head: Head) -> float:
    """Seconds from the command to a service that says it is ready."""
    head.start()
    return head.until(head.is_ready, RESTART_S, head.told)


def test_row_06_head_restart(head: Head, faults: FaultLog) -> None:
    known, deployed_at = ids_of(head.jobs), head.application()["last_deployed_time_s"]
    with PatientCaller(head.url, PHOTO, PAUSE_S, **CLIP) as caller:
        orders = caller.accepted
        head.until(lambda: completed(head.jobs, orders) >= 1, 60, head.told)
        long = head.create(**LONG)
        head.until(lambda: head.job(long).step > 50, 60, head.told)
        assert head.kill() > 20  # daemons, dashboard, replicas
        done = completed(head.jobs, orders)
        ready_s = restarted(head)
        again_s = ready_s + head.until(
            lambda: completed(head.jobs, orders) > done, DRAIN_S, head.told
        )
    orders = [*orders, long]
    head.until(lambda: all_ended(head.jobs, orders), DRAIN_S, head.told)

    lost, duplicates = account(head.jobs, head.objects, orders)
    faults.record(
        6,
        f"every process of the head killed; first video {again_s - ready_s:.1f} s after it is back",
        injected=1,
        accepted=len(orders),
        lost=len(lost),
        duplicates=len(duplicates),
        recovery_s=ready_s,
    )
    assert (lost, duplicates, caller.refused) == ([], [], [])
    assert completed(head.jobs, orders) == len(orders)
    assert ids_of(head.jobs) - known == set(orders)  # an order repeated in the outage is one job
    assert head.application()["last_deployed_time_s"] == deployed_at
    assert head.job(long).attempt == 2
    assert "resumed" in {event.kind for event in head.job(long).events}


def test_row_06_head_killed_again_while_it_comes_back(head: Head, faults: FaultLog) -> None:
    known = ids_of(head.jobs)
    with PatientCaller(head.url, PHOTO, PAUSE_S, **CLIP) as caller:
        orders = caller.accepted
        head.until(lambda: bool(in_flight(head.jobs, orders)), 60, head.told)
        time.sleep(random.uniform(0, 3))
        head.kill()
        for longest_s in (5.0, 15.0):  # while Ray starts, while replicas do
            head.start()
            time.sleep(random.uniform(0, longest_s))
            head.kill()
        ready_s = restarted(head)
        time.sleep(3 * PAUSE_S)
    head.until(lambda: all_ended(head.jobs, orders), DRAIN_S, head.told)

    lost, duplicates = account(head.jobs, head.objects, orders)
    faults.record(
        6,
        "the head killed three times in a row, at random moments of its start",
        injected=3,
        accepted=len(orders),
        lost=len(lost),
        duplicates=len(duplicates),
        recovery_s=ready_s,
    )
    assert (lost, duplicates, caller.refused) == ([], [], [])
    assert completed(head.jobs, orders) == len(orders)
    assert ids_of(head.jobs) - known == set(orders)


def left(head: Head) -> set[str]:
    names = set()
    for process in head.processes():
        with suppress(psutil.NoSuchProcess):
            names.add(process.name())
    return names


def test_row_06_gcs_killed_alone(head: Head, faults: FaultLog) -> None:
    """`ray start --block` then ends the rest of the head and itself, so that whatever supervises
    it, a kubelet or systemd, starts all of it again. A GCS is not replaced under a live raylet."""
    with PatientCaller(head.url, PHOTO, PAUSE_S, **CLIP) as caller:
        orders = caller.accepted
        head.until(lambda: bool(in_flight(head.jobs, orders)), 60, head.told)
        head.kill_gcs()
        head.until(head.has_given_up, 60, head.told)
        head.until(lambda: left(head) <= AGENTS, 60, lambda: left(head))
        head.kill()  # the agents: a pod, or a unit of systemd, ends with all of its processes
        ready_s = restarted(head)
    head.until(lambda: all_ended(head.jobs, orders), DRAIN_S, head.told)

    lost, duplicates = account(head.jobs, head.objects, orders)
    faults.record(
        6,
        "gcs_server killed alone, and the head started again",
        injected=1,
        accepted=len(orders),
        lost=len(lost),
        duplicates=len(duplicates),
        recovery_s=ready_s,
    )
    assert (lost, duplicates, caller.refused) == ([], [], [])
    assert completed(head.jobs, orders) == len(orders)


def test_row_06_one_machine_cluster_killed(tmp_path: Path, faults: FaultLog) -> None:
    """`shopreel up` deploys anew each time; what it must keep is the job table and the bucket."""
    data = tmp_path / "data"
    cluster = LiveCluster(data).start()
    with PatientCaller(cluster.url, PHOTO, PAUSE_S / 3, **CLIP) as caller:
        time.sleep(random.uniform(4, 8))
    orders = caller.accepted
    jobs = SqlJobStore(JobStoreConfig(url=f"sqlite:///{data.resolve() / 'jobs.sqlite'}"))
    assert not all_ended(jobs, orders)
    up = psutil.Process(cluster.endpoints.pid)
    family = [up, *up.children(recursive=True)]
    for process in family:
        process.kill()
    psutil.wait_procs(family, timeout=10)
    assert cluster.left_behind() == []

    begun = time.monotonic()
    with LiveCluster(data) as again:
        ready_s = time.monotonic() - begun
        with again.client() as client:
            ends = {job_id: client.wait(job_id, lambda _: None)["status"] for job_id in orders}
    with EmbeddedS3(data / "s3") as s3:
        lost, duplicates = account(jobs, S3ObjectStore(s3.config), orders)
    known = ids_of(jobs)
    jobs.close()
    faults.record(
        6,
        "`shopreel up` and everything under it killed, S3 server included",
        injected=1,
        accepted=len(orders),
        lost=len(lost),
        duplicates=len(duplicates),
        recovery_s=ready_s,
    )
    assert (lost, duplicates) == ([], [])
    assert set(ends.values()) == {"completed"}
    assert known == set(orders)
