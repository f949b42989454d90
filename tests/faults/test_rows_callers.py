"""Rows 18, 22, 23, 25 and 30: callers who name things badly, come all at once, go away, repeat
themselves, and whose receivers of webhooks are down, slow or a trap."""

import json
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import httpx2
import psutil
import pytest
from standardwebhooks import Webhook

from cluster.embedded_s3 import EmbeddedS3
from deployments.egress.webhooks import WebhookConfig, webhook_secret
from storage.deliveries import Delivery, Outcome, SqlDeliveries
from storage.object_store import S3ObjectStore
from tests.faults.head import PHOTO, TENANT
from tests.faults.ledger import account
from tests.faults.report import FaultLog
from tests.faults.rig import LONG, SHORT, Rig, until, up
from tests.faults.served import on_socket, run_in, running_loop, sent
from tests.integration.live import write_config
from tests.integration.service import Service, error_of, jpeg
from tests.postgres import Postgres
from tests.receivers import Answer, Received, plain, receiver

pytestmark = pytest.mark.timeout(420)

MOST_QUEUED = 6
MOST_UPLOADED_BYTES = 64 << 20
MUCH_BYTES = 64 << 20  # that a process may grow by, whatever its allocator keeps
WEBHOOKS = WebhookConfig(
    secrets=("a secret of at least 24 bytes",),
    timeout_s=8.0,
    first_retry_s=0.5,
    max_per_host=2,
)


@dataclass(frozen=True)
class Receivers:
    """URLs of four endpoints on loopback, and what each has got. One address of two is allowed."""

    flaky: str  # 500, then 200
    slow: str  # never answers
    turning: str  # redirects to the trap
    trap: str  # on an address that is not allowed, under a name that is
    got: dict[str, list[Received]]

    @property
    def hosts(self) -> list[str]:
        return [urlsplit(url).netloc for url in self.got]


async def silent(_: Received, writer: Any) -> None:
    await writer.wait_closed()


def first_fails() -> Answer:
    """500 for the first try of each webhook."""
    seen: set[str] = set()

    async def answer(request: Received, writer: Any) -> None:
        known = request.headers["webhook-id"] in seen
        seen.add(request.headers["webhook-id"])
        await plain("200 OK" if known else "500 Oh")(request, writer)

    return answer


@pytest.fixture(scope="module")
def receivers() -> Iterator[Receivers]:
    stack = AsyncExitStack()
    got: dict[str, list[Received]] = {}

    async def open_one(answer: Answer, host: str, name: str | None = None) -> str:
        port, requests = await stack.enter_async_context(receiver(answer, host=host))
        url = f"http://{name or host}:{port}/hook"
        got[url] = requests
        return url

    async def open_all() -> Receivers:
        trap = await open_one(plain("200 OK"), "127.0.0.1", "localhost")
        return Receivers(
            flaky=await open_one(first_fails(), "127.0.0.2"),
            slow=await open_one(silent, "127.0.0.2"),
            turning=await open_one(plain("302 Found", f"Location: {trap}"), "127.0.0.2"),
            trap=trap,
            got=got,
        )

    with running_loop() as loop:
        yield run_in(loop, open_all())
        run_in(loop, stack.aclose())


@pytest.fixture(scope="module")
def rig(
    tmp_path_factory: pytest.TempPathFactory, receivers: Receivers, model: Path
) -> Iterator[Rig]:
    folder = tmp_path_factory.mktemp("cluster")
    config = write_config(
        folder / "config.yaml",
        **{
            "model.source": str(model),
            "limits.max_queued_jobs": MOST_QUEUED,
            "limits.max_body_bytes_at_once": MOST_UPLOADED_BYTES,
            "egress": {"webhook_hosts": receivers.hosts, "networks": ["127.0.0.2/32"]},
            "webhooks": WEBHOOKS.model_dump(mode="json")
            | {"secrets": [secret.get_secret_value() for secret in WEBHOOKS.secrets]},
        },
    )
    with up(folder / "data", config) as rig:
        yield rig


@pytest.fixture
def objects(rig: Rig) -> S3ObjectStore:
    return S3ObjectStore(EmbeddedS3.running(rig.cluster.data / "s3"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedS3]:
    with EmbeddedS3(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with Postgres() as started:
        yield started


@pytest.fixture
def service(
    server: EmbeddedS3, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Service]:
    """The API alone, in this process, over the database that the test's parameter names."""
    config = server.config.model_copy(update={"bucket": f"test-{uuid4().hex[:12]}"})
    S3ObjectStore(config).ensure_bucket()
    url = None
    if getattr(request, "param", "sqlite") == "postgres":
        url = request.getfixturevalue("postgres").new_database()
    service = Service(config, tmp_path, url=url)
    with service.http:
        yield service


on_both = pytest.mark.parametrize("service", ["sqlite", "postgres"], indirect=True)


# --- row 18: names


HOSTILE = (
    "../../x",
    "..\\..\\x",
    "/etc/passwd",
    'a"; filename="evil.exe',
    "a\r\nSet-Cookie: sid=1\r\n\r\n<script>",
    "Uhr Größe 42 手表",
    "⌚🔥👩‍👩‍👧",
    "\u202egnp.exe",
    "%2e%2e%2f%00",
    ".",
    "a" * 200,
)
CLEAN_KEY = re.compile(r"([A-Za-z0-9_-]+/)+[A-Za-z0-9_-]+(\.[a-z0-9]+)?")
REFUSED = ("a\x00b", "s" * 2048, "")


@on_both
@pytest.mark.parametrize("as_json", [False, True], ids=["multipart", "json"])
def test_row_18_hostile_names(service: Service, as_json: bool, faults: FaultLog) -> None:
    def create(sku: str, **more: Any) -> Any:
        if as_json:
            file = service.http.post(
                "/v1/files",
                data={"purpose": "vision"},
                files={"file": ("../../etc/passwd\u202e", jpeg())},
            )
            reference = {"file_id": file.json()["id"]}
            body = {"prompt": "a mug turns", "sku": sku, "input_reference": reference, **more}
            return service.http.post("/v1/videos", json=body)
        if "metadata" in more:
            more["metadata"] = json.dumps(more["metadata"])
        return service.http.post(
            "/v1/videos",
            data={"prompt": "a mug turns", "sku": sku, **more},
            files={"input_reference": ("../../../x\u202e.jpg", jpeg())},
        )

    accepted = []
    for sku in HOSTILE:
        answer = create(sku, metadata={"row": sku})
        assert answer.status_code == 202, (sku, answer.text)
        video = answer.json()
        assert (video["sku"], video["metadata"]) == (sku, {"row": sku})
        listed = service.http.get("/v1/videos", params={"sku": sku}).json()["data"]
        assert [found["id"] for found in listed] == [video["id"]]
        service.finish(video["id"], b"mp4")
        accepted.append(video["id"])
        content = service.http.get(f"/v1/videos/{video['id']}/content")
        assert content.content == b"mp4"
        assert is_safe(content.headers["content-disposition"])
        assert "set-cookie" not in content.headers
        link = service.http.get(
            f"/v1/videos/{video['id']}/content?redirect=1", follow_redirects=False
        ).headers["location"]
        assert httpx2.get(link, trust_env=False).content == b"mp4"
    for sku in REFUSED:
        assert create(sku).status_code == 400, sku
    keys = [info.key for info in service.objects.iter_objects("")]
    found = account(service.jobs, service.objects, ())
    faults.record(
        18,
        f"hostile product names by {'JSON' if as_json else 'multipart'}",
        injected=len(HOSTILE) + len(REFUSED),
        accepted=len(accepted),
        lost=len(found.lost),
        duplicates=len(found.duplicates),
    )
    assert [key for key in keys if not CLEAN_KEY.fullmatch(key)] == []
    assert len(service.jobs.list_jobs("default", limit=100)) == len(accepted)


def is_safe(disposition: str) -> bool:
    """One plain name, quoted, nothing behind it."""
    opening = 'attachment; filename="shopreel_'
    name = disposition.removeprefix(opening).removesuffix('.mp4"')
    return disposition.startswith(opening) and all(
        c.isascii() and (c.isalnum() or c in "_-") for c in name
    )


HOSTILE_IDS = (
    "..%2f..%2fx",
    "%00",
    "x" * 2048,
    "%0d%0aSet-Cookie:%20a=b",
    "%F0%9F%94%A5",
    "%ff%fe",
)


@on_both
def test_row_18_hostile_ids_in_paths_and_queries(service: Service, faults: FaultLog) -> None:
    statuses = []
    for hostile in HOSTILE_IDS:
        for path in ("videos", "files"):
            for tail in ("", "/content"):
                answer = service.http.get(f"/v1/{path}/{hostile}{tail}")
                statuses.append(answer.status_code)
                assert "set-cookie" not in answer.headers
        for query in ("after", "sku"):
            answer = service.http.get(f"/v1/videos?{query}={hostile}")
            statuses.append(answer.status_code)
        statuses.append(service.http.delete(f"/v1/videos/{hostile}").status_code)
        statuses.append(service.http.post(f"/v1/videos/{hostile}/cancel").status_code)
    for file_id in ("\x00", "../../x", "🔥"):
        body = {"prompt": "a mug turns", "input_reference": {"file_id": file_id}}
        statuses.append(service.http.post("/v1/videos", json=body).status_code)
    faults.record(18, "hostile ids", injected=len(statuses), accepted=0, lost=0, duplicates=0)
    assert set(statuses) <= {200, 400, 404}
    assert service.is_untouched()


@on_both
@pytest.mark.parametrize(
    "name",
    [b'x"\r\nX-Evil: 1', b"\x00", b"\xff\xfe", b"x" * 2048, "⌚".encode()],
    ids=["CRLF", "NUL", "no UTF-8", "2 kB", "emoji"],
)
def test_row_18_hostile_part_headers(service: Service, name: bytes) -> None:
    """Written by hand: clients quote a file's name before they send it."""
    for path, field in (("/v1/videos", "input_reference"), ("/v1/files", "file")):
        answer = service.http.post(
            path,
            content=multipart(name, jpeg(), field, prompt="a mug turns")
            if path == "/v1/videos"
            else multipart(name, jpeg(), field, purpose="vision"),
            headers={"Content-Type": "multipart/form-data; boundary=frontier"},
        )
        assert answer.status_code in (200, 202, 400), answer.text
        assert "x-evil" not in answer.headers
        if answer.status_code < 300:
            where = f"{path}/{answer.json()['id']}"
            assert service.http.get(where).status_code == 200
    assert all(name not in info.key.encode() for info in service.objects.iter_objects(""))


def multipart(filename: bytes, photo: bytes, field: str = "input_reference", **form: str) -> bytes:
    parts = [
        f'--frontier\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in form.items()
    ]
    head = f'--frontier\r\nContent-Disposition: form-data; name="{field}"; filename="'.encode()
    return b"".join([*parts, head, filename, b'"\r\n\r\n', photo, b"\r\n--frontier--\r\n"])


# --- row 22: too much


class Resident:
    """A context: the most memory that a process had meanwhile, in bytes, sampled."""

    def __init__(self, process: psutil.Process):
        self._process = process
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self.before = self.most = process.memory_info().rss

    def __enter__(self) -> "Resident":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._done.wait(0.02):
            self.most = max(self.most, self._process.memory_info().rss)

    @property
    def grown(self) -> int:
        return self.most - self.before


def test_row_22_more_orders_than_the_queue_holds(
    rig: Rig, objects: S3ObjectStore, faults: FaultLog
) -> None:
    rig.until_ended(rig.accepted(**SHORT))  # what is imported late is in memory now
    orders = 10 * MOST_QUEUED
    with Resident(rig.cluster.replica("VideoAPI")) as memory, ThreadPoolExecutor(30) as callers:
        answers = list(callers.map(lambda _: rig.order(**SHORT), range(orders)))
    accepted = [a.json()["id"] for a in answers if a.status_code == 202]
    refused = [a for a in answers if a.status_code != 202]
    drained_s = rig.until_ended(*accepted)

    found = account(rig.jobs, objects, accepted)
    faults.record(
        22,
        f"{orders} orders at once for a queue of {MOST_QUEUED}: {len(refused)} sent away,"
        f" the API grew by {memory.grown >> 20} MB",
        injected=orders,
        accepted=len(accepted),
        lost=len(found.lost),
        duplicates=len(found.duplicates),
        recovery_s=drained_s,
    )
    assert found == ([], [])
    assert len(accepted) >= MOST_QUEUED
    assert refused
    for answer in refused:
        assert answer.status_code == 503
        # Refused by the queue, or sooner, when too many photos wait to be looked at.
        assert error_of(answer)["code"] in ("queue_full", "server_busy")
        assert int(answer.headers["retry-after"]) > 0
    assert rig.all_completed(accepted)
    assert memory.grown < MUCH_BYTES
    rig.until_ended(rig.accepted(**SHORT))


def test_row_22_more_uploads_than_memory(rig: Rig, faults: FaultLog) -> None:
    uploads, upload = 16, b"\xff\xd8\xff" + bytes(25 << 20)

    def send(_: int) -> str:
        try:
            answer = rig.http.post(
                "/v1/videos",
                data={"prompt": "a mug turns"},
                files={"input_reference": ("x.jpg", upload)},
            )
        except httpx2.TransportError as e:  # it does not read on what it has refused
            return type(e).__name__
        return str(error_of(answer)["code"])

    known = rig.jobs.list_jobs(TENANT, limit=1)
    with Resident(rig.cluster.replica("VideoAPI")) as memory, ThreadPoolExecutor(uploads) as pool:
        answers = list(pool.map(send, range(uploads)))
    begun = time.monotonic()
    rig.until_ended(rig.accepted(**SHORT))
    faults.record(
        22,
        f"{uploads} uploads of 25 MB at once: {answers.count('overloaded')} sent away,"
        f" the API grew by {memory.grown >> 20} MB",
        injected=uploads,
        accepted=0,
        lost=0,
        duplicates=0,
        recovery_s=time.monotonic() - begun,
    )
    assert "overloaded" in answers
    assert (
        memory.grown < 2 * MOST_UPLOADED_BYTES + MUCH_BYTES
    )  # once as it comes, once in one piece
    assert known == rig.jobs.list_jobs(TENANT, limit=2)[1:]


# --- row 23: callers who go away


def request_head(url: str, body: bytes, *headers: str) -> bytes:
    lines = (
        "POST /v1/videos HTTP/1.1",
        f"Host: {urlsplit(url).netloc}",
        "Content-Type: multipart/form-data; boundary=frontier",
        f"Content-Length: {len(body)}",
        *headers,
    )
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def get(url: str, path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\n\r\n".encode()


def test_row_23_gone_in_mid_upload(rig: Rig, objects: S3ObjectStore, faults: FaultLog) -> None:
    url, body = rig.cluster.url, multipart(b"x.jpg", PHOTO.read_bytes(), prompt="a", sku="row-23")
    for end in (len(body) // 2, len(body) - 1, 0):
        with sent(url, request_head(url, body) + body[:end]):
            pass
    after = rig.accepted(sku="row-23", **SHORT)
    rig.until_ended(after)

    found = account(rig.jobs, objects, [after])
    faults.record(
        23,
        "the caller gone in the middle of an upload",
        injected=3,
        accepted=1,
        lost=len(found.lost),
        duplicates=len(found.duplicates),
    )
    assert found == ([], [])
    assert [job.id for job in rig.jobs.list_jobs(TENANT, limit=10, sku="row-23")] == [after]


def test_row_23_gone_while_it_waits_for_the_end(
    rig: Rig, objects: S3ObjectStore, faults: FaultLog
) -> None:
    url = rig.cluster.url
    form = {"prompt": "a watch turns", "sku": "row-23-wait", "seed": "23"}
    form |= {name: str(value) for name, value in LONG.items()}
    body = multipart(b"x.jpg", PHOTO.read_bytes(), **form)
    request = request_head(url, body, "Prefer: wait=60") + body
    with sent(url, request):
        rig.until(lambda: rig.jobs.list_jobs(TENANT, limit=1, sku="row-23-wait"))
        (job,) = rig.jobs.list_jobs(TENANT, limit=2, sku="row-23-wait")
        rig.until_denoising(job.id)
    rig.until_ended(job.id)

    found = account(rig.jobs, objects, [job.id])
    faults.record(
        23,
        "the caller gone while `Prefer: wait` holds the answer back",
        injected=1,
        accepted=1,
        lost=len(found.lost),
        duplicates=len(found.duplicates),
    )
    assert found == ([], [])
    assert rig.all_completed([job.id])
    assert rig.job(job.id).attempt == 1


def test_row_23_gone_while_it_watches_and_downloads(
    rig: Rig, objects: S3ObjectStore, faults: FaultLog
) -> None:
    job_id, url = rig.accepted(**LONG), rig.cluster.url
    host = urlsplit(url).netloc
    for _ in range(20):
        with sent(
            url, f"GET /v1/videos/{job_id}/events HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
        ) as c:
            assert c.recv(12) == b"HTTP/1.1 200"
    rig.until_ended(job_id)
    for _ in range(20):
        with sent(
            url, f"GET /v1/videos/{job_id}/content HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
        ) as c:
            assert c.recv(12) == b"HTTP/1.1 200"

    found = account(rig.jobs, objects, [job_id])
    faults.record(
        23,
        "callers gone while they watch, and while they download",
        injected=40,
        accepted=1,
        lost=len(found.lost),
        duplicates=len(found.duplicates),
    )
    assert found == ([], [])
    assert rig.all_completed([job_id])
    assert rig.broken() == []


def test_row_23_nobody_is_watched_for_who_has_gone(service: Service, faults: FaultLog) -> None:
    """On the API alone, where the watchers can be counted."""
    watch = service.videos.watch
    with on_socket(service) as url, ExitStack() as connections:
        for _ in range(5):
            video_id = service.create().json()["id"]
            watching = sent(url, get(url, f"/v1/videos/{video_id}/events"))
            connection = connections.enter_context(watching)
            assert connection.recv(12) == b"HTTP/1.1 200"
        until(lambda: len(watch._topics) == 5, lambda: watch._topics)
        connections.close()
        gone_s = until(lambda: not watch._topics, lambda: watch._topics)
        polling = watch._polling
        assert polling is not None
        until(polling.done, lambda: polling)
    faults.record(
        23,
        "five watchers gone: the job table is asked no more",
        injected=5,
        accepted=5,
        lost=0,
        duplicates=0,
        recovery_s=gone_s,
    )
    assert service.jobs.queued() == 5
    assert service.stopped == []


# --- row 25: repeats


def test_row_25_fifty_creates_with_one_key(
    rig: Rig, objects: S3ObjectStore, faults: FaultLog
) -> None:
    key = {"Idempotency-Key": "order-25"}

    def repeated(seed: int) -> httpx2.Response:
        """As a caller does who is told to come back: fifty photos at once are many to look at."""
        while (answer := rig.order(headers=key, seed=seed, sku="row-25", **SHORT)).is_server_error:
            assert int(answer.headers["retry-after"]) > 0
        return answer

    with ThreadPoolExecutor(50) as callers:
        answers = list(callers.map(repeated, [25] * 50))
        others = list(callers.map(repeated, range(100, 110)))
    (job,) = rig.jobs.list_jobs(TENANT, limit=2, sku="row-25")
    rig.until_ended(job.id)

    found = account(rig.jobs, objects, [job.id])
    faults.record(
        25,
        "one order sent fifty times at once under one key, and ten others under it",
        injected=60,
        accepted=1,
        lost=len(found.lost),
        duplicates=len(found.duplicates),
    )
    assert found == ([], [])
    assert {(a.status_code // 100, a.json()["id"]) for a in answers} == {(2, job.id)}
    replayed = [a.headers.get("idempotency-replayed") for a in answers]
    assert replayed.count(None) == 1
    assert replayed.count("true") == 49
    assert {(a.status_code, error_of(a)["code"]) for a in others} == {(409, "idempotency_conflict")}
    assert rig.all_completed([job.id])


# --- row 30: webhooks


def test_row_30_webhooks(
    rig: Rig, receivers: Receivers, objects: S3ObjectStore, faults: FaultLog
) -> None:
    deliveries = SqlDeliveries(rig.jobs.database)

    def delivery(job_id: str) -> Delivery:
        (found,) = deliveries.of_job(job_id)
        return found

    jobs = {
        name: rig.accepted(webhook=url, **SHORT)
        for name, url in (
            ("slow", receivers.slow),
            ("trap", receivers.trap),
            ("turning", receivers.turning),
            ("flaky", receivers.flaky),
        )
    }
    rig.until_ended(*jobs.values())
    rig.until(lambda: receivers.got[receivers.slow])
    recovery_s = rig.until(lambda: delivery(jobs["flaky"]).outcome)
    rig.until(lambda: delivery(jobs["trap"]).outcome)
    rig.until(lambda: delivery(jobs["turning"]).tries > 1)
    unlisted = rig.order(webhook="https://example.com/hook", **SHORT)

    found = account(rig.jobs, objects, list(jobs.values()))
    faults.record(
        30,
        "webhooks to who fails once, never answers, redirects, or is at a private address",
        injected=4,
        accepted=len(jobs),
        lost=len(found.lost),
        duplicates=len(found.duplicates),
        recovery_s=recovery_s,
    )
    assert found == ([], [])
    assert rig.all_completed(list(jobs.values()))

    assert (delivery(jobs["flaky"]).outcome, delivery(jobs["flaky"]).tries) == (
        Outcome.DELIVERED,
        2,
    )
    tries = receivers.got[receivers.flaky]
    assert [t.headers["webhook-id"] for t in tries] == [delivery(jobs["flaky"]).id] * 2
    signed = Webhook(webhook_secret(WEBHOOKS, TENANT))
    for request in tries:
        event = signed.verify(request.body, dict(request.headers))
        assert (event["type"], event["data"]["id"]) == ("video.completed", jobs["flaky"])

    assert "answered 302" in (delivery(jobs["turning"]).detail or "")
    assert (delivery(jobs["trap"]).outcome, delivery(jobs["trap"]).tries) == (Outcome.GIVEN_UP, 1)
    assert "address not allowed" in (delivery(jobs["trap"]).detail or "")
    assert receivers.got[receivers.trap] == []
    assert (unlisted.status_code, error_of(unlisted)["code"]) == (400, "webhook_not_allowed")


def test_row_30_a_slow_receiver_holds_up_nobody(
    rig: Rig, receivers: Receivers, faults: FaultLog
) -> None:
    """More webhooks wait for the slow one than may be sent to it at once."""
    deliveries = SqlDeliveries(rig.jobs.database)
    slow = [rig.accepted(webhook=receivers.slow, seed=30, **SHORT)]
    rig.until_ended(*slow)
    for _ in range(5):  # the same video again: ended at once, and told at once
        again = rig.order(webhook=receivers.slow, seed=30, **SHORT)
        assert again.status_code == 200, again.text
        slow.append(again.json()["id"])
    quick = rig.order(webhook=receivers.flaky, seed=30, **SHORT).json()["id"]
    sent_s = rig.until(lambda: deliveries.of_job(quick)[0].outcome)
    waiting = [deliveries.of_job(job_id)[0].outcome for job_id in slow]
    faults.record(
        30,
        f"six webhooks for a receiver that never answers; another's arrives in {sent_s:.1f} s",
        injected=6,
        accepted=7,
        lost=0,
        duplicates=0,
    )
    assert deliveries.of_job(quick)[0].outcome is Outcome.DELIVERED
    assert waiting == [None] * 6
