"""The process that decodes photos for a PhotoPool: photos come in on stdin, facts go out on stdout.

What it answers is JSON and never a pickle: whoever reads it must not trust it, since a photo may
have taken the decoder over.
"""

import resource
import signal
import sys
from pathlib import Path
from typing import BinaryIO, Literal

from PIL import Image
from pydantic import BaseModel, ConfigDict, TypeAdapter

from video.errors import (
    PhotoError,
    PhotoTooLarge,
    PhotoTooSmall,
    UndecodablePhoto,
    UnsupportedPhotoType,
)
from video.photo import PhotoFacts, PhotoLimits, inspect_photo
from video.sandbox import give_up_privileges, give_up_surroundings

READY = b"ready\n"
LENGTH_BYTES = 8  # before each photo: how long it is, little-endian

_ERRORS: dict[str, type[PhotoError]] = {
    cls.__name__: cls
    for cls in (UnsupportedPhotoType, UndecodablePhoto, PhotoTooSmall, PhotoTooLarge)
}


class Refusal(BaseModel):
    """A PhotoError on its way to another process."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: Literal["UnsupportedPhotoType", "UndecodablePhoto", "PhotoTooSmall", "PhotoTooLarge"]
    args: tuple[int | str, ...]

    def error(self) -> PhotoError:
        """Raises TypeError where the arguments are not those of the type."""
        return _ERRORS[self.type](*self.args)


ANSWER: TypeAdapter[PhotoFacts | Refusal] = TypeAdapter(PhotoFacts | Refusal)


def main(limits: PhotoLimits, memory_bytes: int, patience_s: float) -> None:
    """Answers photos until stdin ends, as it does when the process at its other end is gone."""
    Image.init()  # every import now, outside of the first photo's time
    _restrict(memory_bytes)
    photos, answers = sys.stdin.buffer, sys.stdout.buffer
    _send(answers, READY)
    while head := photos.read(LENGTH_BYTES):
        data = photos.read(int.from_bytes(head, "little"))
        # Ends this process, C code included, should nobody be there any more to do it.
        signal.setitimer(signal.ITIMER_REAL, patience_s)
        answer = ANSWER.dump_json(_inspect(data, limits)) + b"\n"
        signal.setitimer(signal.ITIMER_REAL, 0)
        _send(answers, answer)


def _inspect(data: bytes, limits: PhotoLimits) -> PhotoFacts | Refusal:
    try:
        return inspect_photo(data, limits)
    except PhotoError as error:
        return Refusal.model_validate({"type": type(error).__name__, "args": error.args})
    except MemoryError:
        reason = "decoding it took more memory than is allowed"
        return Refusal(type="UndecodablePhoto", args=(reason,))


def _send(answers: BinaryIO, line: bytes) -> None:
    answers.write(line)
    answers.flush()


def _restrict(memory_bytes: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is for the API process to act on
    Path("/proc/self/oom_score_adj").write_text("1000")  # the first to go when the machine is full
    for what, most in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, 16),
        (resource.RLIMIT_NPROC, 0),
    ):
        resource.setrlimit(what, (most, most))
    give_up_privileges()
    give_up_surroundings()


if __name__ == "__main__":
    _limits, _memory_bytes, _patience_s = sys.argv[1:]
    main(PhotoLimits.model_validate_json(_limits), int(_memory_bytes), float(_patience_s))
