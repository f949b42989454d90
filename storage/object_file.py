"""An object of the store as a seekable binary file, for readers that want one."""

import io
from typing import TYPE_CHECKING

from storage.errors import ObjectNotFound
from storage.object_store import ObjectStore

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class ObjectFile(io.RawIOBase):
    """Every read is one ranged GET: put an io.BufferedReader around it for small reads.

    Holds no connection open, so a break costs one repeated GET and not the whole stream. Raises
    ObjectNotFound when opened, later whatever ObjectStore.get_range raises.
    """

    def __init__(self, objects: ObjectStore, key: str) -> None:
        found = objects.stat(key)
        if found is None:
            raise ObjectNotFound(key)
        self._objects, self._key = objects, key
        self._size, self._at = found.size_bytes, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise ValueError(f"byte {start + offset} lies before the start of {self._key}")
        self._at = start + offset
        return self._at

    def readinto(self, buffer: "WriteableBuffer") -> int:
        view = memoryview(buffer).cast("B")
        stop = min(self._at + len(view), self._size)
        if stop <= self._at:
            return 0
        data = self._objects.get_range(self._key, self._at, stop)
        view[: len(data)] = data
        self._at += len(data)
        return len(data)
