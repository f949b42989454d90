"""A disk that a test can fill: a tmpfs of a few megabytes."""

import os
import subprocess
from pathlib import Path
from typing import Self


class SmallDisk:
    """A context. Mounting wants root; who is not runs the tests under
    `unshare --user --map-root-user --mount`."""

    def __init__(self, path: Path, size_bytes: int):
        self.path = path
        self._ballast = path / "ballast"
        self._size_bytes = size_bytes

    def __enter__(self) -> Self:
        self.path.mkdir(parents=True)
        size = f"size={self._size_bytes}"
        subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", self.path], check=True)
        return self

    def __exit__(self, *_: object) -> None:
        # Lazily: what a process still has open here must not keep the mount for ever.
        subprocess.run(["umount", "--lazy", self.path], check=True)

    def fill(self, leave_bytes: int = 0) -> None:
        state = os.statvfs(self.path)
        with self._ballast.open("wb") as file:
            free_bytes = state.f_bavail * state.f_frsize
            os.posix_fallocate(file.fileno(), 0, free_bytes - leave_bytes)

    def make_room(self) -> None:
        self._ballast.unlink(missing_ok=True)

    @property
    def files(self) -> list[str]:
        """All that lies on it beside the ballast."""
        return [str(p.relative_to(self.path)) for p in self.path.rglob("*") if p != self._ballast]
