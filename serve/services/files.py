"""What the API can do with uploaded files, without HTTP."""

import asyncio
import hashlib
from collections.abc import Mapping
from pathlib import PurePath
from typing import Literal

import uuid_utils

from serve.edge.memory import Share
from serve.errors import REQUEST, ApiError
from serve.schemas import CreateFile, File, FileList
from serve.services.store_threads import StoreThreads
from storage import keys
from storage.errors import FileNotFound, IdempotencyConflict
from storage.files import SqlFiles, StoredFile
from storage.object_store import ObjectStore
from storage.tenants import Tenant
from video.photo_pool import PhotoPool

MANIFEST_TYPES: Mapping[str, str] = {
    ".csv": "text/csv",
    ".jsonl": "application/jsonl",
    ".ndjson": "application/x-ndjson",
    ".parquet": "application/vnd.apache.parquet",
}
"""By the end of the name. Not compressed: of what it becomes nobody would know the size."""


class Files:
    def __init__(
        self,
        files: SqlFiles,
        objects: ObjectStore,
        store: StoreThreads,
        photos: PhotoPool,
        keyed: bool,
        max_manifest_bytes: int,
    ):
        """`keyed`: callers have keys, so their tenants have rows."""
        self._max_manifest_bytes = max_manifest_bytes
        self._files, self._photos, self._keyed = files, photos, keyed
        self._objects, self._store = objects, store

    async def create(
        self, create: CreateFile, tenant: Tenant, key: str | None = None
    ) -> tuple[File, bool]:
        """Checks and stores a photo, or stores a manifest. The file may be the one that stands
        under the idempotency key; then the second value is True. Raises PhotoError, ApiError 400
        and 413, QuotaExceeded and IdempotencyConflict, which leave nothing."""
        file_id = f"file_{uuid_utils.uuid7().hex if key is None else _digest(tenant.name, key)}"
        if key is not None and (standing := await self._standing(tenant.name, file_id)):
            return _same(standing, create, key), True
        most = tenant.quota.stored_bytes if tenant.quota else None
        if most is not None:
            size = len(create.file)
            await asyncio.to_thread(self._files.require_room, tenant.name, size, most)
        media_type, sha256 = await self._inspect(create)
        stored = StoredFile(
            id=file_id,
            tenant=tenant.name,
            purpose=create.purpose,
            filename=create.filename,
            media_type=media_type,
            size_bytes=len(create.file),
            sha256=sha256,
        )
        where = keys.input_key(tenant.name, sha256)
        await self._store.run(self._objects.put, where, create.file, stored.media_type)
        added = await asyncio.to_thread(self._files.add, stored, most, self._keyed)
        return File.of(added) if key is None else _same(added, create, key), False

    async def list_files(
        self, tenant: str, after: str | None, limit: int, order: Literal["asc", "desc"]
    ) -> FileList:
        """One page. Raises FileNotFound for an unknown `after`."""
        found = await asyncio.to_thread(
            self._files.list_files, tenant, limit=limit + 1, after=after, order=order
        )
        page = [File.of(file) for file in found[:limit]]
        return FileList(
            data=page,
            first_id=page[0].id if page else None,
            last_id=page[-1].id if page else None,
            has_more=len(found) > limit,
        )

    async def get(self, tenant: str, file_id: str) -> StoredFile:
        """Raises FileNotFound."""
        return await asyncio.to_thread(self._files.get, tenant, file_id)

    async def read(self, file: StoredFile, share: Share) -> bytes:
        """Takes its bytes of `share`. Raises ObjectNotFound."""
        share.take(file.size_bytes)
        return await self._store.run(self._objects.get, keys.input_key(file.tenant, file.sha256))

    async def delete(self, tenant: str, file_id: str) -> None:
        """Videos made of it stay; the bytes go when nothing refers to them. Raises FileNotFound."""
        await asyncio.to_thread(self._files.delete, tenant, file_id)

    async def _inspect(self, create: CreateFile) -> tuple[str, str]:
        """Media type and sha256. A manifest is not read here: its batch does that, and says why
        where it is none. Raises PhotoError and ApiError."""
        if create.purpose == "vision":
            photo = await self._photos.inspect(create.file)
            return f"image/{photo.format}", photo.sha256
        media_type = MANIFEST_TYPES.get(PurePath(create.filename).suffix.lower())
        if media_type is None:
            message = f"the name {create.filename!r} ends in none of {', '.join(MANIFEST_TYPES)}"
            raise ApiError(400, REQUEST, "unsupported_manifest", message, "file")
        if len(create.file) > self._max_manifest_bytes:
            message = f"a manifest has at most {self._max_manifest_bytes} bytes here"
            raise ApiError(413, REQUEST, "manifest_too_large", message, "file")
        return media_type, await asyncio.to_thread(_sha256, create.file)

    async def _standing(self, tenant: str, file_id: str) -> StoredFile | None:
        try:
            return await self.get(tenant, file_id)
        except FileNotFound:
            return None


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _digest(tenant: str, key: str) -> str:
    """The key's part of a file's id: who repeats it finds the file, and nobody else can."""
    return hashlib.sha256(f"{tenant}/{key}".encode()).hexdigest()[:32]


def _same(standing: StoredFile, create: CreateFile, key: str) -> File:
    """Raises IdempotencyConflict."""
    said = create.purpose, create.filename, hashlib.sha256(create.file).hexdigest()
    if (standing.purpose, standing.filename, standing.sha256) != said:
        raise IdempotencyConflict(key, standing.id)
    return File.of(standing)
