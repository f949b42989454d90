"""Rows 7 to 13: the S3 server dies, freezes, refuses, loses answers, is locked or full; a worker's
disk is full. The cluster reaches a real server through two proxies, one for sockets, one for HTTP.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import pytest
from minio import Minio

from cluster.embedded_s3 import EmbeddedS3
from storage import keys
from storage.jobs import JobStatus, Stage
from storage.object_store import ObjectStoreConfig, S3ObjectStore
from tests.faults.ledger import account
from tests.faults.report import FaultLog
from tests.faults.rig import LONG, SHORT, Rig, until, up
from tests.faults.s3_storm import Storm
from tests.faults.small_disk import SmallDisk
from tests.faults.tcp_proxy import Cut, Pass, TcpProxy
from tests.integration.live import ROOT, SHOPREEL, free_port, write_config
from tests.integration.s3_proxies import proxy
from tests.integration.service import Service, error_of

pytestmark = pytest.mark.timeout(420)

READ_TIMEOUT_S, RETRIES = 3.0, 2
STORE_GIVES_UP_S = (RETRIES + 1) * READ_TIMEOUT_S + 1  # one call to a server that never answers
SLACK_S = 15.0  # of a machine that has other work


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallDisk]:
    with SmallDisk(tmp_path_factory.mktemp("disks") / "s3", 256 << 20) as disk:
        yield disk


@pytest.fixture(scope="module")
def server(disk: SmallDisk) -> Iterator[EmbeddedS3]:
    server = EmbeddedS3(disk.path / "s3").start()
    yield server
    server.stop(grace_s=0)


@pytest.fixture(scope="module")
def wire(server: EmbeddedS3) -> Iterator[TcpProxy]:
    with proxy(Storm, server.config) as storm, TcpProxy(storm.endpoint) as wire:
        yield wire


@pytest.fixture(scope="module")
def worker_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallDisk]:
    with SmallDisk(tmp_path_factory.mktemp("disks") / "temp", 16 << 20) as disk:
        yield disk


def section(config: ObjectStoreConfig, **changes: object) -> dict[str, object]:
    return {
        "endpoint": config.endpoint,
        "bucket": config.bucket,
        "access_key": config.access_key,
        "secret_key": config.secret_key.get_secret_value(),
        "read_timeout_s": READ_TIMEOUT_S,
        "retries": RETRIES,
        **changes,
    }


@pytest.fixture(scope="module")
def rig_of_module(
    tmp_path_factory: pytest.TempPathFactory,
    server: EmbeddedS3,
    wire: TcpProxy,
    worker_disk: SmallDisk,
    model: Path,
) -> Iterator[Rig]:
    folder = tmp_path_factory.mktemp("cluster")
    config = write_config(
        folder / "config.yaml",
        **{
            "import_path": "tests.faults.cramped:build_app",
            "model.source": str(model),
            "object_store": section(server.config, endpoint=wire.endpoint),
        },
    )
    data = folder / "data"
    data.mkdir()
    (data / "temp").symlink_to(worker_disk.path)
    with up(data, config) as rig:
        yield rig


@pytest.fixture
def rig(rig_of_module: Rig) -> Rig:
    """As the last test should have left it: well."""
    rig_of_module.until_well()
    return rig_of_module


@pytest.fixture
def objects(server: EmbeddedS3) -> S3ObjectStore:
    """Past the proxies."""
    return S3ObjectStore(server.config)


def kill(server: EmbeddedS3) -> None:
    os.kill(server.pid, signal.SIGKILL)
    until(lambda: not server.is_running, lambda: server.pid)


def kinds(rig: Rig, job_id: str) -> set[str]:
    return {event.kind for event in rig.job(job_id).events}


def test_row_07_storage_down_at_upload(
    rig: Rig, server: EmbeddedS3, objects: S3ObjectStore, faults: FaultLog
) -> None:
    job_id = rig.accepted(**LONG)
    rig.until_denoising(job_id)
    kill(server)
    rig.until(lambda: rig.job(job_id).stage is Stage.WAITING_STORAGE)
    seen = rig.http.get(f"/v1/videos/{job_id}").json()
    server.start()
    recovery_s = rig.until_ended(job_id)

    found = account(rig.jobs, objects, [job_id])
    faults.record(
        7,
        "the S3 server killed before an upload",
        injected=1,
        accepted=1,
        lost=len(found.lost),
        duplicates=len(found.duplicates),
        recovery_s=recovery_s,
    )
    assert found == ([], [])
    assert (seen["status"], seen["step"], seen["steps"]) == ("in_progress", 200, 200)
    job = rig.job(job_id)
    assert (job.status, job.attempt) == (JobStatus.COMPLETED, 1)  # denoised once
    assert kinds(rig, job_id).isdisjoint({"resumed", "store_unavailable", "worker_lost"})


def test_row_08_storage_hangs(
    rig: Rig, server: EmbeddedS3, objects: S3ObjectStore, faults: FaultLog
) -> None:
    job_id = rig.accepted(**LONG)
    rig.until_denoising(job_id)
    os.kill(server.pid, signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(16) as callers:
            begun = time.monotonic()
            answers = [callers.submit(rig.order, **SHORT) for _ in range(16)]
            looks = []
            while not all(answer.done() for answer in answers):
                looked = time.monotonic()
                assert rig.http.get(f"/v1/videos/{job_id}").status_code == 200
                looks.append(time.monotonic() - looked)
                time.sleep(0.2)
            refused_s = time.monotonic() - begun
        asked = time.monotonic()
        broken = rig.broken()
        asked_s = time.monotonic() - asked
    finally:
        os.kill(server.pid, signal.SIGCONT)
    recovery_s = rig.until_well()
    after = rig.accepted(**SHORT)
    rig.until_ended(job_id, after)

    found = account(rig.jobs, objects, [job_id, after])
    faults.record(
        8,
        f"the S3 server frozen: 16 creates refused in {refused_s:.1f} s,"
        f" meanwhile a video was read in {max(looks):.1f} s at most",
        injected=1,
        accepted=2,
        lost=len(found.lost),
        duplicates=len(found.duplicates),
        recovery_s=recovery_s,
    )
    assert found == ([], [])
    for answer in answers:
        refused = answer.result()
        assert (refused.status_code, error_of(refused)["code"]) == (503, "store_unavailable")
        assert int(refused.headers["retry-after"]) > 0
    assert refused_s < STORE_GIVES_UP_S + SLACK_S
    assert max(looks) < STORE_GIVES_UP_S / 2
    assert any("object store" in line for line in broken)
    assert asked_s < STORE_GIVES_UP_S
    assert rig.all_completed([job_id, after])


def test_row_09_storage_slows_down(rig: Rig, objects: S3ObjectStore, faults: FaultLog) -> None:
    Storm.rage(refusals=RETRIES)
    try:
        job_id = rig.accepted(**SHORT)
        rig.until_ended(job_id)
        tried_at = {request: list(times) for request, times in Storm.tried_at.items()}
    finally:
        Storm.rage(refusals=0)

    found = account(rig.jobs, objects, [job_id])
    refused = sum(min(RETRIES, len(times)) for times in tried_at.values())
    faults.record(
        9,
        f"every request answered 500 and 503 SlowDown before it is served: {refused} refusals",
        injected=refused,
        accepted=1,
        lost=len(found.lost),
        duplicates=len(found.duplicates),
    )
    assert found == ([], [])
    job = rig.job(job_id)
    assert (job.status, job.attempt) == (JobStatus.COMPLETED, 1)
    uploads = [  # that got through: the Housekeeper's last one may just be under way
        times for (method, _), times in tried_at.items() if method == "PUT" and len(times) > RETRIES
    ]
    assert len(uploads) >= 7  # photo, request, four files, commit
    waits_s = sorted(times[2] - times[1] for times in uploads)
    assert waits_s[0] >= 0.19  # backs off
    assert waits_s[-1] - waits_s[0] > 0.005  # not all at one moment
    content = rig.http.get(f"/v1/videos/{job_id}/content")
    assert content.headers["etag"] == f'"{sha256(content.content).hexdigest()}"'


def test_row_09_reset_in_mid_body(
    rig: Rig, wire: TcpProxy, objects: S3ObjectStore, faults: FaultLog
) -> None:
    before = rig.accepted(**SHORT)
    rig.until_ended(before)
    wire.set(Cut(after_bytes=2000, reset=True))  # answers to a PUT get through, objects do not
    try:
        job_id = rig.accepted(**SHORT)
        rig.until(lambda: "store_unavailable" in kinds(rig, job_id))
        cut_short = rig.http.get(f"/v1/videos/{before}/content")
    finally:
        wire.set(Pass())
    recovery_s = rig.until_ended(job_id)

    found = account(rig.jobs, objects, [before, job_id])
    faults.record(
        9,
        "connections reset in the middle of an object",
        injected=1,
        accepted=2,
        lost=len(found.lost),
        duplicates=len(found.duplicates),
        recovery_s=recovery_s,
    )
    assert found == ([], [])
    assert (cut_short.status_code, error_of(cut_short)["code"]) == (503, "store_unavailable")
    assert rig.all_completed([before, job_id])
    whole = rig.http.get(f"/v1/videos/{before}/content")
    assert whole.headers["etag"] == f'"{sha256(whole.content).hexdigest()}"'


def test_row_10_lost_reply_of_the_commit(
    rig: Rig, wire: TcpProxy, objects: S3ObjectStore, faults: FaultLog
) -> None:
    lost_before = wire.lost_replies
    wire.lose_reply_to(b"if-none-match: *")
    job_id = rig.accepted(**SHORT)
    rig.until_ended(job_id)

    found = account(rig.jobs, objects, [job_id])
    faults.record(
        10,
        "the answer to the commit's conditional PUT is lost",
        injected=wire.lost_replies - lost_before,
        accepted=1,
        lost=len(found.lost),
        duplicates=len(found.duplicates),
    )
    assert wire.lost_replies - lost_before == 1
    assert found == ([], [])
    job = rig.job(job_id)
    assert (job.status, job.attempt) == (JobStatus.COMPLETED, 1)
    assert job.result is not None
    assert job.result.video_key == keys.video_key(job.current_attempt)  # our own won


def test_row_11_keys_refused(
    rig: Rig, server: EmbeddedS3, disk: SmallDisk, faults: FaultLog
) -> None:
    """The server comes back with other keys, as when they were rotated under a running cluster."""
    job_id = rig.accepted(**LONG)
    rig.until_denoising(job_id)
    identities = disk.path / "s3" / "identities.json"
    ours = identities.read_text()
    theirs = json.loads(ours)
    theirs["identities"][0]["credentials"][0]["accessKey"] = "rotated-meanwhile"
    kill(server)
    identities.write_text(json.dumps(theirs))
    try:
        server.start()
        begun, asked = time.monotonic(), Storm.requests
        refused = rig.order(**SHORT)
        refused_s, asked_of_create = time.monotonic() - begun, Storm.requests - asked
        broken = rig.broken()
        asked = Storm.requests
        rig.until(lambda: len(rig.job(job_id).events) >= 3)
        asked = Storm.requests - asked
    finally:
        kill(server)
        identities.write_text(ours)
        server.start()
    recovery_s = rig.until_ended(job_id)

    found = account(rig.jobs, S3ObjectStore(server.config), [job_id])
    faults.record(
        11,
        f"keys refused: a create is told in {refused_s:.1f} s; three tries at the job in all ask"
        f" {asked} times",
        injected=1,
        accepted=1,
        lost=len(found.lost),
        duplicates=len(found.duplicates),
        recovery_s=recovery_s,
    )
    assert found == ([], [])
    assert (refused.status_code, error_of(refused)["code"]) == (503, "store_misconfigured")
    assert int(refused.headers["retry-after"]) == 60
    assert asked_of_create < 10
    assert any("object store" in line and "check the access key" in line for line in broken)
    tried_at = [event.at for event in rig.job(job_id).events if event.kind == "store_unavailable"]
    first_wait_s, second_wait_s = (b - a for a, b in pairwise(tried_at[:3]))
    assert first_wait_s >= 0.9  # no retry loop
    assert second_wait_s >= 1.9
    assert asked < 50  # checkpoints of the clip under way among them
    assert rig.job(job_id).status is JobStatus.COMPLETED


def test_row_11_bucket_deleted(server: EmbeddedS3, tmp_path: Path, faults: FaultLog) -> None:
    config = server.config.model_copy(update={"bucket": "gone-tomorrow"})
    S3ObjectStore(config).ensure_bucket()
    with proxy(Storm, config) as through:
        service = Service(through, tmp_path)
        with service.http:
            assert service.http.get("/readyz").status_code == 200
            keys_ = (config.access_key, config.secret_key.get_secret_value())
            Minio(config.endpoint, *keys_, secure=False).remove_bucket(config.bucket)
            Storm.rage(refusals=0)
            refused = service.create()
            tries = {request: len(times) for request, times in Storm.tried_at.items()}
            broken = service.http.get("/readyz")
    faults.record(
        11, "the bucket deleted", injected=1, accepted=0, lost=0, duplicates=0, recovery_s=None
    )
    assert (refused.status_code, error_of(refused)["code"]) == (503, "store_misconfigured")
    assert set(tries.values()) == {1}  # no retry
    assert not service.jobs.list_jobs("default", limit=1)
    assert broken.status_code == 503
    assert "create the bucket" in " ".join(broken.json()["broken"])


def test_row_11_deploying_on_a_missing_bucket_is_refused(
    server: EmbeddedS3, model: Path, tmp_path: Path
) -> None:
    config = write_config(
        tmp_path / "config.yaml",
        **{
            "model.source": str(model),
            "object_store": section(server.config, bucket="never-made"),
        },
    )
    data, port = str(tmp_path / "data"), str(free_port())
    ended = subprocess.run(
        [str(SHOPREEL), "up", "--data", data, "--port", port, "--config", str(config)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "SHOPR"))},
        timeout=180,
    )
    assert ended.returncode == 1
    assert "never-made" in ended.stderr
    assert "does not exist: create it" in " ".join(ended.stderr.split())


def test_row_12_storage_full(
    rig: Rig, disk: SmallDisk, objects: S3ObjectStore, faults: FaultLog
) -> None:
    first = rig.accepted(**LONG)
    rig.until_denoising(first)
    second = rig.accepted(**SHORT)
    disk.fill()
    try:
        rig.until(lambda: rig.job(first).stage is Stage.WAITING_STORAGE)
        refused = rig.order(**SHORT)
        standing = rig.http.get(f"/v1/videos/{first}").json()
    finally:
        disk.make_room()
    recovery_s = rig.until_ended(first, second)

    found = account(rig.jobs, objects, [first, second])
    faults.record(
        12,
        "the S3 server's disk is full",
        injected=1,
        accepted=2,
        lost=len(found.lost),
        duplicates=len(found.duplicates),
        recovery_s=recovery_s,
    )
    assert found == ([], [])
    assert (refused.status_code, error_of(refused)["code"]) == (503, "store_unavailable")
    assert standing["status"] == "in_progress"
    assert rig.all_completed([first, second])


def test_row_13_worker_disk_full(
    rig: Rig, worker_disk: SmallDisk, objects: S3ObjectStore, faults: FaultLog
) -> None:
    worker_disk.fill(leave_bytes=8192)
    try:
        failed = rig.accepted(**SHORT)
        rig.until_ended(failed)
        left = worker_disk.files
    finally:
        worker_disk.make_room()
    begun = time.monotonic()
    after = rig.accepted(**SHORT)
    rig.until_ended(after)

    found = account(rig.jobs, objects, [failed, after])
    faults.record(
        13,
        "the disk for a worker's temporary files is full: the job fails, and says so",
        injected=1,
        accepted=2,
        lost=len(found.lost),
        duplicates=len(found.duplicates),
        recovery_s=time.monotonic() - begun,
    )
    assert found == ([], [])
    video = rig.http.get(f"/v1/videos/{failed}").json()
    assert (video["status"], video["error"]["code"]) == ("failed", "no_space")
    assert left == []
    assert rig.all_completed([after])
    assert not list(objects.iter_objects(keys.attempts_prefix(failed)))
