"""What the API can do with uploaded files, without HTTP."""

import asyncio
from typing import Literal

import uuid_utils

from serve.schemas import CreateFile, File, FileList
from serve.store_threads import StoreThreads
from storage import keys
from storage.files import SqlFiles, StoredFile
from storage.object_store import ObjectStore
from storage.tenants import Tenant
from video.photo_pool import PhotoPool


class Files:
    def __init__(
        self, files: SqlFiles, objects: ObjectStore, store: StoreThreads, photos: PhotoPool
    ):
        self._files, self._photos = files, photos
        self._objects, self._store = objects, store

    async def create(self, create: CreateFile, tenant: Tenant) -> File:
        """Checks and stores a photo. Raises PhotoError and QuotaExceeded, which leave nothing."""
        most = tenant.quota.stored_bytes if tenant.quota else None
        if most is not None:
            size = len(create.file)
            await asyncio.to_thread(self._files.require_room, tenant.name, size, most)
        photo = await self._photos.inspect(create.file)
        stored = StoredFile(
            id=f"file_{uuid_utils.uuid7().hex}",
            tenant=tenant.name,
            purpose=create.purpose,
            filename=create.filename,
            media_type=f"image/{photo.format}",
            size_bytes=len(create.file),
            sha256=photo.sha256,
        )
        key = keys.input_key(tenant.name, photo.sha256)
        await self._store.run(self._objects.put, key, create.file, stored.media_type)
        return File.of(await asyncio.to_thread(self._files.add, stored, most))

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

    async def get(self, tenant: str, file_id: str) -> File:
        """Raises FileNotFound."""
        return File.of(await asyncio.to_thread(self._files.get, tenant, file_id))

    async def read(self, tenant: str, file_id: str) -> tuple[StoredFile, bytes]:
        """Raises FileNotFound."""
        file = await asyncio.to_thread(self._files.get, tenant, file_id)
        key = keys.input_key(tenant, file.sha256)
        return file, await self._store.run(self._objects.get, key)

    async def delete(self, tenant: str, file_id: str) -> None:
        """Videos made of it stay; the bytes go when nothing refers to them. Raises FileNotFound."""
        await asyncio.to_thread(self._files.delete, tenant, file_id)
