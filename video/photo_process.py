"""PhotoProcess: one decoder process, as the process that started it sees it.

Plain subprocess, not multiprocessing (nor pebble, which stands on it): that would import Ray again
in every child of a replica, hand it the replica's environment with the stores' keys, and unpickle
what it answers.
"""

import hashlib
import logging
import socket
import subprocess
import sys
import time
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from video.errors import UndecodablePhoto
from video.photo import PhotoFacts, PhotoLimits
from video.photo_worker import ANSWER, LENGTH_BYTES, READY, Refusal

log = logging.getLogger(__name__)

_START_S = 60.0
"""For Python to import Pillow and numpy: 0.2 s, or many on a machine whose disk is cold."""
_LONGEST_ANSWER = 64 * 1024  # bytes
_ENVIRONMENT = {
    "PYTHONPATH": str(Path(__file__).parents[1]),
    "OPENBLAS_NUM_THREADS": "1",  # each thread of it would take address space
}


class PhotoProcessConfig(BaseModel):
    """What the decoding of one photo may take."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    timeout_s: float = Field(10.0, gt=0, description="64 megapixels take 0.4 to 2.2 s of one core")
    memory_bytes: int = Field(
        2560 << 20,
        ge=512 << 20,
        description="address space; an RGBA WebP of 64 megapixels that is turned takes 2.1 GB",
    )
    photos_per_process: int = Field(1000, ge=1, description="then a fresh one takes over")


class ProcessDied(Exception):
    """The decoder ended, or answered what no decoder answers. Not the photo's fault for certain."""


class PhotoProcess:
    """Not thread-safe, `kill` excepted."""

    def __init__(self, config: PhotoProcessConfig, limits: PhotoLimits):
        self._config = config
        self._command = [
            *(sys.executable, "-P", "-m", "video.photo_worker"),
            *(limits.model_dump_json(), str(config.memory_bytes), str(2 * config.timeout_s)),
        ]
        self._ready, self._served = False, 0
        self._launch()

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_ready(self) -> None:
        """Raises RuntimeError where it does not start; what it says of that is on our stderr."""
        if self._ready:
            return
        try:
            if self._receive(time.monotonic() + _START_S) + b"\n" != READY:
                raise ProcessDied("it greets oddly")
        except (ProcessDied, OSError) as error:
            self.restart()  # for the next photo: what kept this one from starting may pass
            raise RuntimeError(f"a photo decoder did not start: {error}") from error
        self._ready = True

    def inspect(self, data: bytes) -> PhotoFacts:
        """Raises PhotoError, UndecodablePhoto when time or memory run out, and ProcessDied; after
        the latter and after a time-out, a fresh process starts for the next photo. Raises
        RuntimeError where this one does not start."""
        if self._served >= self._config.photos_per_process:
            self.restart()
        self.wait_ready()
        self._served += 1
        try:
            answer = self._exchange(data)
        except TimeoutError:
            self.restart()
            took = f"reading it took longer than {self._config.timeout_s:g} s"
            raise UndecodablePhoto(took) from None
        except (ProcessDied, OSError) as error:
            self.kill()
            status = self._process.wait()
            self.restart()
            log.warning("a photo decoder ended (%s): %s", status, error)
            raise ProcessDied(f"{error} ({status})") from error
        if isinstance(answer, Refusal):
            raise answer.error()
        return answer

    def kill(self) -> None:
        self._process.kill()

    def end(self) -> None:
        self.kill()
        self._process.wait()
        self._channel.close()

    def restart(self) -> None:
        self.end()
        self._launch()

    def _launch(self) -> None:
        # Of a socket pair, the other end reads an end-of-file as soon as this process is gone,
        # however it went. (A parent-death signal would come when the thread that forked ends.)
        self._channel, theirs = socket.socketpair()
        self._ready, self._served = False, 0
        with theirs:
            end = theirs.fileno()
            self._process = subprocess.Popen(
                self._command, stdin=end, stdout=end, env=_ENVIRONMENT, cwd="/"
            )

    def _exchange(self, data: bytes) -> PhotoFacts | Refusal:
        deadline = time.monotonic() + self._config.timeout_s
        self._channel.settimeout(self._config.timeout_s)
        self._channel.sendall(len(data).to_bytes(LENGTH_BYTES, "little"))
        self._channel.sendall(data)
        try:
            answer = ANSWER.validate_json(self._receive(deadline))
            if isinstance(answer, Refusal):
                answer.error()
        except (ValidationError, TypeError) as error:
            raise ProcessDied("its answer makes no sense") from error
        if isinstance(answer, PhotoFacts) and answer.sha256 != hashlib.sha256(data).hexdigest():
            raise ProcessDied("its answer is about another photo")
        return answer

    def _receive(self, deadline: float) -> bytes:
        """One line, without its end. Raises ProcessDied and OSError, TimeoutError above all."""
        line = b""
        while not line.endswith(b"\n"):
            self._channel.settimeout(max(deadline - time.monotonic(), 1e-3))
            part = self._channel.recv(4096)
            line += part
            if not part or len(line) > _LONGEST_ANSWER:
                raise ProcessDied("it hung up" if not part else "its answer has no end")
        return line[:-1]
