"""How the S3 store holds against killed, frozen, lying and absent servers."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cluster.embedded_s3 import EmbeddedS3
from storage.errors import StoreMisconfigured, StoreUnavailable
from storage.object_store import ObjectStoreConfig, S3ObjectStore
from tests.integration.s3_proxies import (
    CutBodies,
    Forward,
    IgnoreConditions,
    LoseFirstReply,
    proxy,
)

_BOUND_S = 60.0
"""Much less than the five minutes of minio's own settings, on a busy machine too."""


def test_a_lost_reply_does_not_lose_the_win(s3: ObjectStoreConfig) -> None:
    with proxy(LoseFirstReply, s3) as through:
        assert S3ObjectStore(through).put_if_absent("a", b"mine", "text/plain")
    assert S3ObjectStore(s3).get("a") == b"mine"


def test_a_lost_reply_to_the_loser_wins_nothing(s3: ObjectStoreConfig) -> None:
    S3ObjectStore(s3).put_if_absent("a", b"same", "text/plain")
    with proxy(LoseFirstReply, s3) as through:
        assert not S3ObjectStore(through).put_if_absent("a", b"same", "text/plain")


def test_a_server_that_ignores_conditions_is_refused(s3: ObjectStoreConfig) -> None:
    with (
        proxy(IgnoreConditions, s3) as through,
        pytest.raises(StoreMisconfigured, match="If-None-Match.*use a server with conditional"),
    ):
        S3ObjectStore(through).check()
    assert list(S3ObjectStore(s3).iter_objects("")) == []


def test_the_same_proxy_that_spoils_nothing_is_accepted(s3: ObjectStoreConfig) -> None:
    with proxy(Forward, s3) as through:
        S3ObjectStore(through).check()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[EmbeddedS3]:
    server = EmbeddedS3(tmp_path / "s3").start()
    yield server
    server.stop(grace_s=0)


def test_a_killed_server_is_unavailable_and_keeps_what_it_acknowledged(
    own_server: EmbeddedS3,
) -> None:
    store = S3ObjectStore(own_server.config)
    acknowledged: dict[str, bytes] = {}
    killed = threading.Event()

    def write(writer: int) -> None:
        number = 0
        while not killed.is_set():
            key, data = f"{writer}/{number}", os.urandom(20_000)
            try:
                store.put(key, data, "text/plain")
            except StoreUnavailable:
                return
            acknowledged[key] = data
            number += 1

    with ThreadPoolExecutor(4) as pool:
        writers = [pool.submit(write, writer) for writer in range(4)]
        while len(acknowledged) < 100 and not any(writer.done() for writer in writers):
            time.sleep(0.01)
        os.kill(own_server.pid, signal.SIGKILL)
        for writer in writers:
            writer.result(timeout=_BOUND_S)
        killed.set()

    began = time.monotonic()
    with pytest.raises(StoreUnavailable):
        store.get("0/0")
    assert time.monotonic() - began < _BOUND_S

    endpoint = own_server.config.endpoint
    own_server.stop()
    own_server.start()
    assert own_server.config.endpoint == endpoint
    assert len(acknowledged) >= 100
    for key, data in acknowledged.items():
        assert get_soon(store, key) == data


def get_soon(store: S3ObjectStore, key: str, patience_s: float = 15) -> bytes:
    """Its volumes may not be mounted yet when a restarted server begins to answer (500)."""
    deadline = time.monotonic() + patience_s
    while True:
        try:
            return store.get(key)
        except StoreUnavailable:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def test_a_frozen_server_is_unavailable_in_bounded_time(own_server: EmbeddedS3) -> None:
    patience = {"read_timeout_s": 0.3, "retries": 1}
    store = S3ObjectStore(own_server.config.model_copy(update=patience))
    store.put("a", b"x", "text/plain")
    os.kill(own_server.pid, signal.SIGSTOP)
    try:
        for call in (
            lambda: store.get("a"),
            lambda: store.stat("a"),
            lambda: store.put("b", b"x", "text/plain"),
            lambda: store.put_if_absent("c", b"x", "text/plain"),
            lambda: list(store.iter_objects("")),
            store.check,
        ):
            began = time.monotonic()
            with pytest.raises(StoreUnavailable):
                call()
            assert time.monotonic() - began < _BOUND_S  # two tries of 0.3 s
    finally:
        os.kill(own_server.pid, signal.SIGCONT)
    assert store.get("a") == b"x"


def test_nobody_listening_is_unavailable(s3: ObjectStoreConfig) -> None:
    began = time.monotonic()
    with pytest.raises(StoreUnavailable, match="refused"):
        S3ObjectStore(s3.model_copy(update={"endpoint": "127.0.0.1:1"})).check()
    assert time.monotonic() - began < _BOUND_S


def test_a_body_cut_short_is_not_taken_for_the_object(s3: ObjectStoreConfig) -> None:
    S3ObjectStore(s3).put("a", b"whole", "text/plain")
    with proxy(CutBodies, s3) as through, pytest.raises(StoreUnavailable):
        S3ObjectStore(through).get("a")
