"""What a store tells of its calls, against a real server."""

import pickle
from pathlib import Path

import pytest

from monitoring import metrics
from monitoring.store_calls import count_store_call
from storage.errors import ObjectNotFound, StoreMisconfigured, StoreUnavailable
from storage.object_store import ObjectStoreConfig, S3ObjectStore
from tests.integration.live import free_port
from tests.recorded import Recorded

Heard = tuple[str, int, str | None]


class Ear:
    def __init__(self) -> None:
        self.calls: list[Heard] = []
        self.seconds: list[float] = []

    def __call__(self, op: str, seconds: float, size_bytes: int, failure: str | None) -> None:
        self.calls.append((op, size_bytes, failure))
        self.seconds.append(seconds)


def test_every_call_is_told_with_what_it_moved(s3: ObjectStoreConfig, tmp_path: Path) -> None:
    ear = Ear()
    store = S3ObjectStore(s3, ear)
    (tmp_path / "file").write_bytes(b"12345")
    store.put("a/1", b"123", "text/plain")
    store.put_file("a/2", tmp_path / "file", "text/plain")
    assert store.put_if_absent("a/1", b"xy", "text/plain") is False
    assert store.get("a/1") == b"123"
    assert store.get_range("a/2", 1, 3) == b"23"
    assert store.stat("a/1") is not None
    assert len(list(store.iter_objects("a/"))) == 2
    store.delete("a/1")
    assert ear.calls == [
        ("put", 3, None),
        ("put", 5, None),
        ("put_if_absent", 0, None),  # another's stands
        ("get", 3, None),
        ("get", 2, None),
        ("stat", 0, None),
        ("list", 0, None),
        ("delete", 0, None),
    ]
    assert all(0 < seconds < 30 for seconds in ear.seconds)
    assert {op for op, _, _ in ear.calls} == set(metrics.STORE_SECONDS.labels["op"] or ())


def test_that_nothing_is_there_is_no_failure(s3: ObjectStoreConfig) -> None:
    ear = Ear()
    store = S3ObjectStore(s3, ear)
    with pytest.raises(ObjectNotFound):
        store.get("nothing")
    assert store.stat("nothing") is None
    assert ear.calls == [("get", 0, None), ("stat", 0, None)]


def test_failures_are_told_by_whether_waiting_helps(s3: ObjectStoreConfig) -> None:
    ear = Ear()
    away = s3.model_copy(update={"endpoint": f"127.0.0.1:{free_port()}", "retries": 0})
    with pytest.raises(StoreUnavailable):
        S3ObjectStore(away, ear).put("a", b"1", "text/plain")
    with pytest.raises(StoreMisconfigured):
        S3ObjectStore(s3.model_copy(update={"bucket": "not-there"}), ear).get("a")
    assert ear.calls == [("put", 0, "unavailable"), ("get", 0, "misconfigured")]


def test_who_consumes_a_listing_slowly_does_not_make_the_store_slow(
    s3: ObjectStoreConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    ear = Ear()
    store = S3ObjectStore(s3, ear)
    store.put("a/1", b"1", "text/plain")
    now = [0.0]
    monkeypatch.setattr("storage.calls.time.perf_counter", lambda: now[0])
    for _ in store.iter_objects("a/"):
        now[0] += 100
    assert ear.seconds[-1] == 0.0


def test_a_store_that_travels_goes_on_telling(
    s3: ObjectStoreConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = Recorded(monkeypatch)
    there: S3ObjectStore = pickle.loads(pickle.dumps(S3ObjectStore(s3, count_store_call)))
    there.put("a", b"123", "text/plain")
    missing = S3ObjectStore(s3.model_copy(update={"bucket": "not-there"}), count_store_call)
    with pytest.raises(StoreMisconfigured):
        missing.get("a")
    assert sum(recorded.values(metrics.STORE_BYTES, op="put")) == 3
    assert sum(recorded.values(metrics.STORE_ERRORS, op="get", kind="misconfigured")) == 1
    assert len(recorded.values(metrics.STORE_SECONDS, op="put")) == 1
