"""The ObjectStore contract, on every store there is, and how it holds against faults."""

import os
import pickle
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest
from pydantic import SecretStr, ValidationError

from cluster.embedded_s3 import EmbeddedS3
from storage.errors import ObjectNotFound, StorageError, StoreMisconfigured
from storage.object_store import MAX_PRESIGN_S, ObjectStore, ObjectStoreConfig, S3ObjectStore

BIG = 40 * 2**20  # bytes: three parts of a multipart upload


@pytest.fixture(params=["s3"])
def store(request: pytest.FixtureRequest) -> ObjectStore:
    return S3ObjectStore(request.getfixturevalue(request.param))


# --- the contract


@pytest.mark.parametrize("data", [b"", b"hello", bytes(range(256)) * 1000])
def test_what_is_put_comes_back(store: ObjectStore, data: bytes) -> None:
    before = time.time()
    store.put("a/b.bin", data, "application/x-test")
    assert store.get("a/b.bin") == data
    info = store.stat("a/b.bin")
    assert info is not None
    assert (info.key, info.size_bytes, info.content_type) == (
        "a/b.bin",
        len(data),
        "application/x-test",
    )
    assert before - 2 < info.modified_at < time.time() + 2  # whole seconds, same clock


def test_a_second_put_replaces(store: ObjectStore) -> None:
    store.put("a", b"first", "text/plain")
    first = store.stat("a")
    store.put("a", b"second", "text/plain")
    second = store.stat("a")
    assert store.get("a") == b"second"
    assert first is not None
    assert second is not None
    assert first.etag != second.etag


@pytest.mark.parametrize("size", [0, 100_000, BIG])
def test_files_of_any_size(store: ObjectStore, tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(size))
    store.put_file("file", path, "video/mp4")
    info = store.stat("file")
    assert info is not None
    assert (info.size_bytes, info.content_type) == (size, "video/mp4")
    assert store.get("file") == path.read_bytes()


def test_a_missing_local_file_is_the_callers_error(store: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        store.put_file("file", tmp_path / "none", "video/mp4")


def test_missing_objects(store: ObjectStore) -> None:
    assert store.stat("none") is None
    store.delete("none")
    with pytest.raises(ObjectNotFound, match="no object under key 'none'"):
        store.get("none")
    with pytest.raises(ObjectNotFound):
        store.get_range("none", 0, 1)


@pytest.mark.parametrize(("start", "stop"), [(0, 1), (0, 10), (3, 7), (9, 10), (4, 99)])
def test_ranges_are_half_open(store: ObjectStore, start: int, stop: int) -> None:
    store.put("a", b"0123456789", "text/plain")
    assert store.get_range("a", start, stop) == b"0123456789"[start:stop]


@pytest.mark.parametrize(("start", "stop"), [(3, 3), (4, 3), (-1, 3), (10, 11)])
def test_impossible_ranges_are_refused(store: ObjectStore, start: int, stop: int) -> None:
    store.put("a", b"0123456789", "text/plain")
    with pytest.raises(ValueError, match="byte"):
        store.get_range("a", start, stop)


def test_deleting(store: ObjectStore) -> None:
    store.put("a", b"x", "text/plain")
    store.delete("a")
    store.delete("a")
    assert store.stat("a") is None


def test_listing_is_recursive_and_in_order(store: ObjectStore) -> None:
    keys = ["a/1", "a/10/z", "a/2", "ab/1", "b"]
    for key in reversed(keys):
        store.put(key, key.encode(), "text/plain")
    assert [info.key for info in store.iter_objects("")] == keys
    (first, *rest) = store.iter_objects("a/")
    assert [info.key for info in rest] == ["a/10/z", "a/2"]
    stat = store.stat("a/1")
    assert stat is not None
    assert (first.size_bytes, first.etag, first.content_type) == (3, stat.etag, None)
    assert list(store.iter_objects("none/")) == []


def test_listings_longer_than_a_page(store: ObjectStore) -> None:
    keys = [f"many/{number:04}" for number in range(1_005)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: store.put(key, b"", "text/plain"), keys))
    assert [info.key for info in store.iter_objects("many/")] == keys
    assert store.delete_prefix("many/") == len(keys)
    assert list(store.iter_objects("many/")) == []


def test_deleting_a_folder_spares_its_neighbours(store: ObjectStore) -> None:
    for key in ("attempts/a/1/x", "attempts/a/2/x", "attempts/ab/1/x"):
        store.put(key, b"x", "text/plain")
    assert store.delete_prefix("attempts/a/") == 2
    assert [info.key for info in store.iter_objects("")] == ["attempts/ab/1/x"]
    assert store.delete_prefix("attempts/a/") == 0
    for prefix in ("", "attempts/a"):
        with pytest.raises(ValueError, match="not a folder"):
            store.delete_prefix(prefix)


# --- one winner


@pytest.mark.parametrize("data", [b"", b"mine"])
def test_put_if_absent(store: ObjectStore, data: bytes) -> None:
    assert store.put_if_absent("a", data, "application/json")
    assert not store.put_if_absent("a", b"theirs", "application/json")
    assert not store.put_if_absent("a", data, "application/json")  # equal bytes win nothing
    assert store.get("a") == data
    info = store.stat("a")
    assert info is not None
    assert info.content_type == "application/json"
    store.delete("a")
    assert store.put_if_absent("a", b"theirs", "application/json")


def test_of_sixteen_writers_one_wins(store: ObjectStore) -> None:
    start = threading.Barrier(16)

    def write(number: int) -> bytes | None:
        data = b"%d" % number
        start.wait()
        return data if store.put_if_absent("race", data, "text/plain") else None

    with ThreadPoolExecutor(16) as pool:
        (won,) = [data for data in pool.map(write, range(16)) if data is not None]
    assert store.get("race") == won


# --- presigned URLs


def test_a_presigned_url_needs_no_key(store: ObjectStore) -> None:
    store.put("video.mp4", b"moving", "video/mp4")
    answer = httpx2.get(store.presign_get("video.mp4", 60, None))
    assert (answer.status_code, answer.content) == (200, b"moving")
    assert answer.headers["content-type"] == "video/mp4"
    assert "content-disposition" not in answer.headers


def test_a_presigned_url_can_name_the_download(store: ObjectStore) -> None:
    store.put("video.mp4", b"moving", "video/mp4")
    answer = httpx2.get(store.presign_get("video.mp4", 60, "bag_1.mp4"))
    assert answer.headers["content-disposition"] == 'attachment; filename="bag_1.mp4"'


def test_a_presigned_url_is_for_one_object(store: ObjectStore) -> None:
    store.put("mine", b"x", "text/plain")
    store.put("other", b"x", "text/plain")
    url = store.presign_get("mine", 60, None)
    assert httpx2.get(url.replace("/mine?", "/other?")).status_code == 403
    assert httpx2.get(re.sub("Expires=60", "Expires=600", url)).status_code == 403
    assert httpx2.get(url.split("?")[0]).status_code == 403


def test_a_presigned_url_expires(store: ObjectStore) -> None:
    store.put("a", b"x", "text/plain")
    url = store.presign_get("a", 1, None)
    deadline = time.monotonic() + 10
    while httpx2.get(url).status_code == 200:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert httpx2.get(url).status_code == 403


@pytest.mark.parametrize("expires_s", [0, -1, MAX_PRESIGN_S + 1])
def test_presigned_urls_are_short_lived(store: ObjectStore, expires_s: int) -> None:
    with pytest.raises(ValueError, match="presigned URL lives"):
        store.presign_get("a", expires_s, None)


@pytest.mark.parametrize("filename", ["", 'a"b', "a\r\nb", "../a", "ä.mp4"])
def test_download_names_cannot_carry_headers(store: ObjectStore, filename: str) -> None:
    with pytest.raises(ValueError, match="not a plain file name"):
        store.presign_get("a", 60, filename)


# --- configuration


def test_a_good_bucket_passes_the_check_and_stays_clean(store: ObjectStore) -> None:
    store.ensure_bucket()
    store.check()
    assert list(store.iter_objects("")) == []


def test_a_missing_bucket_is_misconfigured(s3: ObjectStoreConfig) -> None:
    store = S3ObjectStore(s3.model_copy(update={"bucket": "nowhere"}))
    with pytest.raises(StoreMisconfigured, match="'nowhere'.* does not exist: create it"):
        store.check()
    for call in (
        lambda: store.put("a", b"x", "text/plain"),
        lambda: store.put_if_absent("a", b"x", "text/plain"),
        lambda: store.get("a"),
        lambda: list(store.iter_objects("")),
    ):
        with pytest.raises(StoreMisconfigured, match="create the bucket"):
            call()


@pytest.mark.parametrize(
    "wrong", [{"access_key": "nobody"}, {"secret_key": SecretStr("wrong")}], ids=["id", "secret"]
)
def test_wrong_keys_are_misconfigured(s3: ObjectStoreConfig, wrong: dict[str, object]) -> None:
    store = S3ObjectStore(s3.model_copy(update=wrong))
    for call in (
        store.check,
        store.ensure_bucket,
        lambda: store.put("a", b"x", "text/plain"),
        lambda: store.put_if_absent("a", b"x", "text/plain"),
        lambda: store.get("a"),
        lambda: store.stat("a"),
        lambda: store.delete("a"),
        lambda: list(store.iter_objects("")),
    ):
        with pytest.raises(StoreMisconfigured, match="check .* key"):
            call()


def test_an_endpoint_that_is_no_s3_server_is_misconfigured(s3_server: EmbeddedS3) -> None:
    host, port = s3_server.config.endpoint.split(":")
    filer = s3_server.config.model_copy(update={"endpoint": f"{host}:{int(port) + 3}"})
    with pytest.raises(StorageError) as raised:
        S3ObjectStore(filer).check()
    assert not raised.value.retryable


def test_tls_against_a_plain_port(s3: ObjectStoreConfig) -> None:
    with pytest.raises(StoreMisconfigured, match="`secure`"):
        S3ObjectStore(s3.model_copy(update={"secure": True, "retries": 0})).check()


@pytest.mark.parametrize(
    "wrong",
    [
        {"endpoint": "http://host:1"},
        {"endpoint": "host"},
        {"bucket": "UPPER"},
        {"bucket": "a/b"},
        {"retries": -1},
        {"unknown": 1},
    ],
)
def test_bad_configs_are_refused(s3: ObjectStoreConfig, wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ObjectStoreConfig.model_validate(s3.model_dump() | wrong)


def test_the_secret_is_not_printed(s3: ObjectStoreConfig) -> None:
    assert s3.secret_key.get_secret_value() not in repr(s3)


def test_a_store_travels_as_its_config(s3: ObjectStoreConfig) -> None:
    S3ObjectStore(s3).put("a", b"x", "text/plain")
    travelled = pickle.loads(pickle.dumps(S3ObjectStore(s3)))
    assert travelled.get("a") == b"x"
