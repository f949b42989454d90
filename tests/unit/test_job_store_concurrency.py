"""The job store under several threads and several processes, on SQLite and Postgres."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from storage.job_store import Idempotency, JobStore, JobStoreConfig, SqlJobStore
from storage.jobs import JobStatus
from tests.sample_jobs import make_request

JOBS = 200


@pytest.fixture
def store(config: JobStoreConfig) -> Iterator[JobStore]:
    store = SqlJobStore(config)
    yield store
    store.close()


def test_many_threads_with_one_key_make_one_job(store: JobStore) -> None:
    def create(number: int) -> str:
        return store.create(make_request(f"job-{number}"), Idempotency("key", "body")).id

    with ThreadPoolExecutor(50) as pool:
        assert len(set(pool.map(create, range(50)))) == 1
    assert store.counts()[JobStatus.QUEUED] == 1


def test_threads_lease_each_job_once(store: JobStore) -> None:
    for number in range(JOBS):
        store.create(make_request(f"job-{number}"))
    epoch = store.next_epoch()
    start = threading.Barrier(6)

    def lease_all(_: int) -> list[str]:
        start.wait()
        leased: list[str] = []
        while found := store.waiting(7):  # the same for all: most are gone by the time of the lease
            leased += [job.id for job in store.lease(epoch, {job.id: "cpu" for job in found})]
        return leased

    with ThreadPoolExecutor(6) as pool:
        leased = [job_id for ids in pool.map(lease_all, range(6)) for job_id in ids]
    assert len(leased) == JOBS
    assert len(set(leased)) == JOBS


LEASE_ALL = """
import sys
from storage.job_store import JobStoreConfig, SqlJobStore
store = SqlJobStore(JobStoreConfig(url=sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
while found := store.waiting(3):
    leased = store.lease(int(sys.argv[2]), {job.id: "cpu" for job in found})
    print(*(job.id for job in leased))
"""


def test_processes_lease_each_job_once(config: JobStoreConfig, store: JobStore) -> None:
    for number in range(JOBS):
        store.create(make_request(f"job-{number}"))
    command = [sys.executable, "-c", LEASE_ALL, config.url, str(store.next_epoch())]
    workers = [
        subprocess.Popen(
            command,
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    leased = []
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    for worker in workers:
        printed, _ = worker.communicate(timeout=60)
        assert worker.returncode == 0
        leased += printed.split()
    assert len(leased) == JOBS
    assert len(set(leased)) == JOBS
