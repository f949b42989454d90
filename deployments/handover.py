"""Large values between replicas by reference: offered, kept alive, taken in time.

Ray may free an object whose reference came in a streamed item before whoever received it is known
to hold it (ray#58080: 6 of 300 references to 1 MB were lost on our path). So the maker keeps its
own reference for longer than the next stage needs, and the taker does not wait for ever.
"""

import asyncio
from collections import deque
from typing import Any

import ray
from ray.exceptions import RayError

KEEP_S = 60.0
TAKE_S = 15.0


class HandoverLost(Exception):
    """What a reference stood for is gone: its maker's process or node, or Ray's count of it."""


class ReplicaSilent(Exception):
    """A denoiser's machine is frozen or unreachable, which Ray notices a minute later or never."""


class Handover:
    """References made in this process, each kept for KEEP_S."""

    def __init__(self) -> None:
        self._kept: deque[ray.ObjectRef[Any]] = deque()

    async def offer(self, value: object) -> "ray.ObjectRef[Any]":
        """`value` in the object store, without a copy where it is numpy."""
        ref = await asyncio.to_thread(ray.put, value)
        self._kept.append(ref)
        asyncio.get_running_loop().call_later(KEEP_S, self._kept.popleft)
        return ref


async def take(ref: "ray.ObjectRef[Any]") -> Any:
    """What `ref` stands for. Raises HandoverLost."""
    try:
        async with asyncio.timeout(TAKE_S):
            return await ref
    except (RayError, TimeoutError) as e:
        raise HandoverLost(f"{type(e).__name__}: {e}".partition("\n")[0]) from e
