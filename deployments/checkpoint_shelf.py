"""Checkpoints of a replica's clips in the object store: stored behind the UNet's back, found again.

Every attempt has a key of its own, so one that lost its job unknowingly overwrites nobody's.
"""

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from diffusion.errors import CheckpointMismatch
from diffusion.params import SamplingParams
from monitoring import metrics
from storage import keys
from storage.errors import StorageError
from storage.jobs import Attempt
from storage.object_store import ObjectStore

if TYPE_CHECKING:
    from diffusion.checkpoint import Checkpoint

log = logging.getLogger(__name__)

_MEDIA_TYPE = "application/octet-stream"


class CheckpointShelf:
    def __init__(self, store: ObjectStore):
        self._store = store
        # The newest of each that is not stored yet, and when (monotonic) it was made.
        self._waiting: dict[Attempt, tuple[Checkpoint, float]] = {}
        self._storing: dict[Attempt, asyncio.Task[None]] = {}
        # When (monotonic) the first step that no stored checkpoint has was done, and the last.
        self._unsaved: dict[Attempt, tuple[float, float]] = {}
        metrics.begin(metrics.CHECKPOINTS, metrics.CHECKPOINT_BYTES)

    def save(self, attempt: Attempt, checkpoint: "Checkpoint") -> None:
        """Store it soon. One at a time per attempt; a newer one replaces one that still waits."""
        self._waiting[attempt] = checkpoint, time.monotonic()
        if attempt not in self._storing:
            self._storing[attempt] = asyncio.create_task(self._store_waiting(attempt))

    def moved(self, attempt: Attempt) -> None:
        """It has done a step."""
        now = time.monotonic()
        since, _ = self._unsaved.get(attempt, (now, now))
        self._unsaved[attempt] = since, now

    def forget(self, attempt: Attempt) -> None:
        """It does no more steps."""
        self._unsaved.pop(attempt, None)

    @property
    def unsaved_s(self) -> float:
        """Age of the oldest step that would be lost with this process."""
        now = time.monotonic()
        return max((now - since for since, _ in self._unsaved.values()), default=0.0)

    async def flush(self, attempt: Attempt) -> None:
        """Wait until what was saved is stored, or could not be."""
        if task := self._storing.get(attempt):
            await asyncio.shield(task)

    async def flush_all(self) -> None:
        await asyncio.gather(*self._storing.values())

    async def furthest(
        self, attempt: Attempt, sampling: SamplingParams, model_revision: str
    ) -> "Checkpoint | None":
        """What an earlier attempt at the same job left, where this one can go on from it.

        None also when the store does not answer: the clip then begins again.
        """
        try:
            return await asyncio.to_thread(self._furthest, attempt, sampling, model_revision)
        except StorageError:
            log.warning("no checkpoint of %s can be read", attempt.job_id, exc_info=True)
            return None

    def _furthest(
        self, attempt: Attempt, sampling: SamplingParams, model_revision: str
    ) -> "Checkpoint | None":
        from diffusion.checkpoint import Checkpoint

        found = None
        for number in range(attempt.number - 1, 0, -1):
            key = keys.checkpoint_key(Attempt(attempt.job_id, number, attempt.epoch))
            if self._store.stat(key) is None:
                continue
            try:
                checkpoint = Checkpoint.from_bytes(self._store.get(key))
                checkpoint.check(sampling, model_revision)
            except CheckpointMismatch as e:
                log.warning("%s is left alone: %s", key, e)
                continue
            if found is None or checkpoint.step > found.step:
                found = checkpoint
        return found

    async def _store_waiting(self, attempt: Attempt) -> None:
        key = keys.checkpoint_key(attempt)
        try:
            while newest := self._waiting.pop(attempt, None):
                checkpoint, made_at = newest
                data = await asyncio.to_thread(checkpoint.to_bytes)
                try:
                    await asyncio.to_thread(self._store.put, key, data, _MEDIA_TYPE)
                except StorageError:  # a newer one that waits is tried all the same
                    metrics.CHECKPOINTS.inc(tags={"outcome": "failed"})
                    log.warning("a checkpoint is not stored: %s", key, exc_info=True)
                else:
                    metrics.CHECKPOINTS.inc(tags={"outcome": "stored"})
                    metrics.CHECKPOINT_BYTES.inc(len(data))
                    self._saved(attempt, made_at)
        finally:
            del self._storing[attempt]

    def _saved(self, attempt: Attempt, made_at: float) -> None:
        _, moved_at = self._unsaved.pop(attempt, (0.0, 0.0))
        if moved_at > made_at:
            self._unsaved[attempt] = made_at, moved_at
