"""Frames a few at a time: the VAE knows single images, so how many changes memory and no pixel."""

from collections.abc import Callable
from typing import TypeVar

from diffusion.errors import OutOfMemory

T = TypeVar("T")


def within_memory_by_chunks(work: Callable[[int], T], chunk_frames: int) -> tuple[T, int]:
    """`work` with so many frames at once, and with half as many whenever memory runs out.

    Also returns how many at once it took in the end. Raises OutOfMemory when one is too many.
    """
    while True:
        try:
            return work(chunk_frames), chunk_frames
        except OutOfMemory:
            if chunk_frames == 1:
                raise
            chunk_frames //= 2
