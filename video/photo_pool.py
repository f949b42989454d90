"""PhotoPool: photos from outside are decoded in a few processes that may die of them; ours may not.

A pool bounds what one photo may take (time, memory, the decoder's life) and what all of them may:
so many at once, so many waiting, and an error that says to come back for the rest.
"""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Self

from pydantic import Field

from video.errors import PhotoPoolBusy, UndecodablePhoto
from video.photo import PhotoFacts, PhotoLimits
from video.photo_process import PhotoProcess, PhotoProcessConfig, ProcessDied


class PhotoPoolConfig(PhotoProcessConfig):
    """How many photos are decoded and held at once by one replica of the API."""

    workers: int = Field(2, ge=1, description="processes; they run all the time, 65 MB each")
    max_waiting: int = Field(
        64, ge=0, description="photos held for a free process; beyond, the caller is sent away"
    )


class PhotoPool:
    """A context, or to be closed. Its processes end with this one in any case."""

    def __init__(self, config: PhotoPoolConfig, limits: PhotoLimits):
        """Starts the processes and waits for them. Raises RuntimeError where one does not start."""
        self._config = config
        self._closed = False
        self._processes = [PhotoProcess(config, limits) for _ in range(config.workers)]
        self._idle: SimpleQueue[PhotoProcess] = SimpleQueue()
        self._room = threading.BoundedSemaphore(config.workers + config.max_waiting)
        # Threads of its own: waiting for decoders must not take those that ask the stores.
        self._threads = ThreadPoolExecutor(config.workers, "photo-pool")
        try:
            for process in self._processes:
                process.wait_ready()
                self._idle.put(process)
        except RuntimeError:
            self.close()
            raise

    async def inspect(self, data: bytes) -> PhotoFacts:
        """`inspect_photo` in another process. Raises PhotoError as it does, UndecodablePhoto also
        where time, memory or the decoder's life ended first, and PhotoPoolBusy."""
        if not self._room.acquire(blocking=False):
            raise PhotoPoolBusy(f"{self._config.max_waiting} wait before it")
        try:
            future = self._threads.submit(self._inspect, data)
        except RuntimeError:  # the pool is closed
            self._room.release()
            raise
        future.add_done_callback(lambda _: self._room.release())  # cancelled ones as well
        return await asyncio.wrap_future(future)

    @property
    def pids(self) -> list[int]:
        """Of the decoder processes as of now."""
        return [process.pid for process in self._processes]

    def close(self) -> None:
        """Photos that wait are cancelled, those at work refused as PhotoPoolBusy."""
        self._closed = True
        for process in self._processes:
            process.kill()  # no more: its thread may be reading from it
        self._threads.shutdown(cancel_futures=True)
        for process in self._processes:
            process.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _inspect(self, data: bytes) -> PhotoFacts:
        process = self._idle.get()
        try:
            return self._twice(process, data)
        finally:
            self._idle.put(process)

    def _twice(self, process: PhotoProcess, data: bytes) -> PhotoFacts:
        """A process may end for reasons of its own: the photo is blamed when it takes two along."""
        for _ in range(2):
            try:
                return process.inspect(data)
            except ProcessDied:
                if self._closed:
                    raise PhotoPoolBusy("this server is leaving") from None
        raise UndecodablePhoto("its decoder crashed")
