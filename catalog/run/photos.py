"""The photos that a manifest names: objects, files, and https addresses of allowed hosts."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from catalog.run.config import is_under
from catalog.run.errors import PhotoUnusable
from deployments.egress.client import Egress, EgressError
from storage.errors import ObjectNotFound, StorageError, StoreUnavailable
from storage.object_store import ObjectStoreConfig, S3ObjectStore

_FETCH_WAITS_S = (1, 5, 20)  # somebody else's server: the row fails, the run goes on


class Photos:
    """Reads whole photos of at most `max_bytes`, besides https from `prefixes` only where there are
    any."""

    def __init__(
        self,
        store: ObjectStoreConfig,
        egress: Egress,
        max_bytes: int,
        prefixes: Sequence[str] | None = None,
    ):
        self._store, self._egress, self._max_bytes = store, egress, max_bytes
        self._prefixes = prefixes
        self._buckets: dict[str, S3ObjectStore] = {}

    async def read(self, uri: str) -> bytes:
        """`uri` is `s3://BUCKET/KEY`, `https://…` or an absolute path.

        Raises PhotoUnusable, and StoreUnavailable where it may be had in a while."""
        try:
            if uri.startswith("https://"):
                return await self._fetched(uri)
            if self._prefixes is not None and not is_under(uri, self._prefixes):
                raise PhotoUnusable("image_not_allowed", f"{uri} is not where you may read photos")
            read = self._object if uri.startswith("s3://") else self._file
            return await asyncio.to_thread(read, uri)
        except StoreUnavailable:
            raise
        except StorageError as e:
            raise PhotoUnusable("image_not_readable", f"{uri}: {e}") from e
        except ValueError as e:  # of a bucket, key or path that cannot be
            raise PhotoUnusable("image_uri_unusable", f"{uri!r} cannot be read: {e}") from e

    def _object(self, uri: str) -> bytes:
        # Not urlsplit: a key may hold ? and #, which S3 does not take for more than letters.
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        objects = self._buckets.get(bucket)
        if objects is None:
            config = self._store.model_copy(update={"bucket": bucket})
            objects = self._buckets[bucket] = S3ObjectStore(config)
        try:
            info = objects.stat(key)
            if info is None:
                raise PhotoUnusable("image_not_found", f"there is no {uri}")
            self._check_size(uri, info.size_bytes)
            return objects.get(key)
        except ObjectNotFound as e:
            raise PhotoUnusable("image_not_found", f"there is no {uri}") from e

    def _file(self, uri: str) -> bytes:
        path = Path(uri)
        try:
            self._check_size(uri, path.stat().st_size)
            return path.read_bytes()
        except FileNotFoundError as e:
            raise PhotoUnusable("image_not_found", f"there is no file {path}") from e
        except OSError as e:
            raise PhotoUnusable("image_not_readable", f"{path}: {e.strerror}") from e

    async def _fetched(self, uri: str) -> bytes:
        for wait_s in (*_FETCH_WAITS_S, None):
            try:
                return await self._egress.fetch_image(uri, self._max_bytes)
            except EgressError as e:
                if not e.retryable or wait_s is None:
                    raise PhotoUnusable(e.code, str(e)) from e
            await asyncio.sleep(wait_s)
        raise AssertionError("unreachable")

    def _check_size(self, uri: str, size_bytes: int) -> None:
        if size_bytes > self._max_bytes:
            message = f"{uri} has {size_bytes} bytes, more than {self._max_bytes}"
            raise PhotoUnusable("image_too_large", message)
