"""A file of a catalogue run's folder: its report, and what that links to."""

from dataclasses import dataclass
from typing import Self

from catalog.results.output import RunOutput
from serve.edge.memory import Share
from serve.services.store_threads import StoreThreads
from storage.object_store import ObjectInfo, ObjectStore


@dataclass(frozen=True, slots=True)
class RunFile:
    """As it was when it was found: drivers write a report anew."""

    info: ObjectInfo
    _objects: ObjectStore
    _store: StoreThreads

    @classmethod
    async def find(cls, output: RunOutput, name: str, store: StoreThreads) -> Self | None:
        info = await store.run(output.objects.stat, output.key(name))
        return None if info is None else cls(info, output.objects, store)

    async def size_bytes(self) -> int:
        return self.info.size_bytes

    async def read(self, part: range, share: Share) -> bytes:
        """The bytes at `part`, taken of `share`; all that there are by now where it is all that
        were found. Raises ObjectNotFound."""
        share.take(len(part))
        if part == range(self.info.size_bytes):
            return await self._store.run(self._objects.get, self.info.key)
        return await self._store.run(self._objects.get_range, self.info.key, part.start, part.stop)
