"""Bytes in an S3 bucket: the ObjectStore interface and its one implementation, on the minio SDK."""

import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Protocol
from uuid import uuid4

from minio import Minio
from minio.deleteobjects import DeleteObject
from minio.error import S3Error
from pydantic import BaseModel, ConfigDict, Field, SecretStr
from urllib3 import PoolManager, Retry, Timeout

from storage.calls import Call, Hear, told, unheard
from storage.errors import ObjectNotFound, StoreMisconfigured, StoreUnavailable
from storage.s3_errors import storage_errors

MAX_PRESIGN_S = 900

_PART_BYTES = 16 * 2**20
"""Up to here an object is one PUT, which may be repeated; above, it is a multipart upload."""


class ObjectStoreConfig(BaseModel):
    """Where the bucket is, and how long to wait for it.

    A server that accepts but never answers costs (retries + 1) x read_timeout_s before
    StoreUnavailable; one that is not there, (retries + 1) x connect_timeout_s at most.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    endpoint: str = Field(pattern=r"^[^/\s]+:\d{1,5}$")  # host:port
    bucket: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")
    access_key: str
    secret_key: SecretStr
    secure: bool = False  # TLS
    region: str = "us-east-1"
    connect_timeout_s: float = Field(default=2.0, gt=0)
    read_timeout_s: float = Field(default=30.0, gt=0)
    retries: int = Field(default=2, ge=0)
    pool_size: int = Field(default=16, ge=1)  # connections kept open


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    key: str
    size_bytes: int
    etag: str  # opaque: the MD5 of the bytes only for some objects on some servers
    content_type: str | None  # None in listings, which do not carry it
    modified_at: float  # Unix seconds, by the server's clock


class ObjectStore(Protocol):
    """One bucket. Safe to call from several threads; every method may raise StoreUnavailable
    (retry later) and StoreMisconfigured (an operator must act)."""

    def put(self, key: str, data: bytes, content_type: str) -> None: ...

    def put_file(self, key: str, path: Path, content_type: str) -> None: ...

    def put_if_absent(self, key: str, data: bytes, content_type: str) -> bool:
        """True: this call wrote the object. False: another call's object stands, untouched.

        Of any number of concurrent calls exactly one gets True, even with equal bytes. A caller
        that saw StoreUnavailable may have written all the same, and calling again then gives
        False: read what stands and adopt it.
        """
        ...

    def get(self, key: str) -> bytes:
        """Raises ObjectNotFound."""
        ...

    def get_range(self, key: str, start: int, stop: int) -> bytes:
        """Bytes [start, stop), fewer where the object ends sooner.

        Raises ObjectNotFound, and ValueError when the range is empty or begins past the end.
        """
        ...

    def stat(self, key: str) -> ObjectInfo | None:
        """None: no such object (or no such bucket: a HEAD answer does not tell them apart)."""
        ...

    def delete(self, key: str) -> None:
        """An object that is not there counts as deleted."""
        ...

    def delete_many(self, keys: Iterable[str]) -> None:
        """As `delete`, a thousand a request. Where it raises, some may be gone."""
        ...

    def delete_prefix(self, prefix: str) -> int:
        """Deletes what lies under a folder and says how many objects that were.

        Raises ValueError unless the prefix ends in `/`: `attempts/a` also begins `attempts/ab/`.
        """
        ...

    def iter_objects(self, prefix: str) -> Iterator[ObjectInfo]:
        """In key order, page by page as it is consumed."""
        ...

    def presign_get(self, key: str, expires_s: int, filename: str | None) -> str:
        """A URL that needs no key for `expires_s` (1 to MAX_PRESIGN_S). No request is made.

        With a filename browsers save instead of showing. Raises ValueError for a longer life or
        a filename outside [A-Za-z0-9._-].
        """
        ...

    def ensure_bucket(self) -> None: ...

    def check(self) -> None:
        """Start-up probe. Raises StoreMisconfigured, saying what to do, when the bucket is missing,
        cannot be written, or (the reason to probe at all) the server ignores If-None-Match and
        would silently overwrite a committed result."""
        ...


def in_bucket(server: ObjectStoreConfig, bucket: str, hear: Hear = unheard) -> "S3ObjectStore":
    """Another bucket of the same server."""
    return S3ObjectStore(server.model_copy(update={"bucket": bucket}), hear)


class S3ObjectStore:
    """An ObjectStore on any S3 endpoint; `hear` is told of every call. Pickles as its arguments:
    each process opens its own pool."""

    def __init__(self, config: ObjectStoreConfig, hear: Hear = unheard) -> None:
        self._config, self._hear = config, hear
        # The SDK's own pool waits five minutes, five times. Never share one between Minio objects:
        # Minio.__del__ clears it under the other's feet.
        pool = PoolManager(
            maxsize=config.pool_size,
            timeout=Timeout(connect=config.connect_timeout_s, read=config.read_timeout_s),
            retries=Retry(
                total=config.retries,
                backoff_factor=0.1,
                backoff_jitter=0.1,
                status_forcelist=(500, 502, 503, 504),
                raise_on_status=False,  # the last answer's error code says more
                respect_retry_after_header=False,  # a server could make us sleep for an hour
            ),
        )
        self._client = Minio(
            config.endpoint,
            access_key=config.access_key,
            secret_key=config.secret_key.get_secret_value(),
            secure=config.secure,
            region=config.region,
            http_client=pool,
        )
        self._bucket = config.bucket

    def __reduce__(self) -> tuple[type["S3ObjectStore"], tuple[ObjectStoreConfig, Hear]]:
        return S3ObjectStore, (self._config, self._hear)

    def put(self, key: str, data: bytes, content_type: str) -> None:
        with told(self._hear, "put", key) as call:
            self._client.put_object(
                self._bucket, key, io.BytesIO(data), len(data), content_type, part_size=_PART_BYTES
            )
            call.size_bytes = len(data)

    def put_file(self, key: str, path: Path, content_type: str) -> None:
        with told(self._hear, "put", key) as call:
            self._client.fput_object(
                self._bucket, key, str(path), content_type, part_size=_PART_BYTES
            )
            call.size_bytes = path.stat().st_size

    def put_if_absent(self, key: str, data: bytes, content_type: str) -> bool:
        # A 412 can be the echo of our own PUT, written and repeated because its answer was lost.
        # Comparing bytes would also credit a rival who stored the same ones, so each call signs
        # its object with an id and looks whose stands there.
        put_id = uuid4().hex
        headers = {
            "If-None-Match": "*",
            "Content-Type": content_type,
            "x-amz-meta-put-id": put_id,
        }
        with told(self._hear, "put_if_absent", key) as call:
            try:
                # Private, hence the exact pin of minio: put_object(metadata=...) would send the
                # condition as x-amz-meta-if-none-match and overwrite.
                self._client._put_object(self._bucket, key, data, headers=headers)
            except S3Error as error:
                if error.code != "PreconditionFailed":
                    raise
            else:
                call.size_bytes = len(data)
                return True
            try:
                standing = self._client.stat_object(self._bucket, key)
            except S3Error as error:
                if error.code != "NoSuchKey":
                    raise
                return False  # theirs, deleted since
            return bool(standing.metadata.get("x-amz-meta-put-id") == put_id)

    def get(self, key: str) -> bytes:
        with told(self._hear, "get", key) as call:
            return self._read(call, key)

    def get_range(self, key: str, start: int, stop: int) -> bytes:
        if not 0 <= start < stop:
            raise ValueError(f"empty or negative byte range {start}:{stop}")
        with told(self._hear, "get", key) as call:
            try:
                return self._read(call, key, offset=start, length=stop - start)
            except S3Error as error:
                if error.code != "InvalidRange":
                    raise
                raise ValueError(f"byte {start} lies past the end of {key}") from None

    def _read(self, call: Call, key: str, offset: int = 0, length: int = 0) -> bytes:
        response = self._client.get_object(self._bucket, key, offset=offset, length=length)
        try:
            data: bytes = response.read()
            call.size_bytes = len(data)
            return data
        finally:
            response.close()
            response.release_conn()

    def stat(self, key: str) -> ObjectInfo | None:
        try:
            with told(self._hear, "stat", key):
                found = self._client.stat_object(self._bucket, key)
        except ObjectNotFound:
            return None
        return ObjectInfo(
            key, found.size, found.etag, found.content_type, found.last_modified.timestamp()
        )

    def delete(self, key: str) -> None:
        with told(self._hear, "delete", key):
            self._client.remove_object(self._bucket, key)

    def delete_many(self, keys: Iterable[str]) -> None:
        doomed = [DeleteObject(key) for key in keys]
        if not doomed:
            return
        with told(self._hear, "delete", doomed[0].name):
            # The SDK deletes only as far as its answers are consumed.
            refused = list(self._client.remove_objects(self._bucket, doomed))
            if refused:
                raise StoreUnavailable(f"{len(refused)} objects stay: {refused[0]}")

    def delete_prefix(self, prefix: str) -> int:
        if not prefix.endswith("/"):
            raise ValueError(f"{prefix!r} is not a folder: it must end in '/'")
        doomed = [found.key for found in self.iter_objects(prefix)]
        self.delete_many(doomed)
        return len(doomed)

    def iter_objects(self, prefix: str) -> Iterator[ObjectInfo]:
        with told(self._hear, "list", prefix) as call:
            for found in self._client.list_objects(self._bucket, prefix, recursive=True):
                info = ObjectInfo(
                    found.object_name, found.size, found.etag, None, found.last_modified.timestamp()
                )
                with call.paused():
                    yield info

    def presign_get(self, key: str, expires_s: int, filename: str | None) -> str:
        if not 1 <= expires_s <= MAX_PRESIGN_S:
            raise ValueError(f"a presigned URL lives 1 to {MAX_PRESIGN_S} s, not {expires_s}")
        answer_headers = {}
        if filename is not None:
            if not re.fullmatch(r"[A-Za-z0-9._-]+", filename):
                raise ValueError(f"not a plain file name: {filename!r}")
            answer_headers["response-content-disposition"] = f'attachment; filename="{filename}"'
        url: str = self._client.presigned_get_object(
            self._bucket, key, timedelta(seconds=expires_s), response_headers=answer_headers
        )
        return url

    def ensure_bucket(self) -> None:
        with storage_errors(self._bucket):
            if self._client.bucket_exists(self._bucket):
                return
            try:
                self._client.make_bucket(self._bucket)
            except S3Error as error:
                if error.code != "BucketAlreadyOwnedByYou":  # another process was quicker
                    raise

    def check(self) -> None:
        where = f"bucket {self._bucket!r} at {self._config.endpoint}"
        with storage_errors(self._bucket):
            if not self._client.bucket_exists(self._bucket):
                raise StoreMisconfigured(f"{where} does not exist: create it, or name another")
        probe = f"_probe/{uuid4().hex}"
        try:
            written = self.put_if_absent(probe, b"first", "text/plain")
            overwritten = self.put_if_absent(probe, b"second", "text/plain")
            if not written or overwritten or self.get(probe) != b"first":
                raise StoreMisconfigured(
                    f"{where} ignores 'If-None-Match: *' and overwrites, so one job could show two "
                    "results: use a server with conditional writes (Amazon S3, SeaweedFS, MinIO, "
                    "Ceph), and let no proxy drop the header"
                )
        finally:
            self.delete(probe)
