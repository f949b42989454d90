"""Checkpoints in a real S3 server: stored behind the caller's back, found by whoever resumes."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
import torch

from deployments.checkpoint_shelf import CheckpointShelf
from diffusion.checkpoint import Checkpoint
from diffusion.params import SamplingParams
from storage import keys
from storage.errors import StoreUnavailable
from storage.jobs import Attempt
from storage.object_store import ObjectStoreConfig, S3ObjectStore

SAMPLING = SamplingParams("a bag turns", "", 64, 64, 8, 20, 9.0, 16, seed=1)
FIRST, SECOND, THIRD = (Attempt("job", number, 1) for number in (1, 2, 3))


def checkpoint(step: int, revision: str = "weights") -> Checkpoint:
    return Checkpoint(
        params=SAMPLING,
        model_revision=revision,
        step=step,
        safe_precision=False,
        latents=torch.full((1, 4, 8, 8, 8), float(step)),
        generator_state=torch.Generator().get_state(),
        scheduler_state={},
    )


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 60))


def test_the_furthest_of_earlier_attempts_is_found(s3: ObjectStoreConfig) -> None:
    async def scenario() -> None:
        shelf = CheckpointShelf(S3ObjectStore(s3))
        assert await shelf.furthest(SECOND, SAMPLING, "weights") is None
        for attempt, step in ((FIRST, 9), (SECOND, 4)):  # the second had to begin again
            shelf.save(attempt, checkpoint(step))
            await shelf.flush(attempt)
        found = await shelf.furthest(THIRD, SAMPLING, "weights")
        assert found is not None
        assert (found.step, found.latents[0, 0, 0, 0, 0].item()) == (9, 9)
        assert (await shelf.furthest(FIRST, SAMPLING, "weights")) is None  # not its own

    run(scenario)


@pytest.mark.parametrize(
    ("sampling", "revision"),
    [(replace(SAMPLING, width=96), "weights"), (SAMPLING, "other weights")],
)
def test_what_is_of_another_clip_or_other_weights_is_left_alone(
    s3: ObjectStoreConfig, sampling: SamplingParams, revision: str
) -> None:
    async def scenario() -> None:
        shelf = CheckpointShelf(S3ObjectStore(s3))
        shelf.save(FIRST, checkpoint(9))
        await shelf.flush_all()
        assert await shelf.furthest(SECOND, sampling, revision) is None
        S3ObjectStore(s3).put(keys.checkpoint_key(FIRST), b"not one", "text/plain")
        assert await shelf.furthest(SECOND, SAMPLING, "weights") is None

    run(scenario)


class SlowStore(S3ObjectStore):
    """Counts what is stored, and takes its time."""

    def __init__(self, config: ObjectStoreConfig):
        super().__init__(config)
        self.puts: list[str] = []
        self.error: Exception | None = None

    def put(self, key: str, data: bytes, content_type: str) -> None:
        if self.error:
            raise self.error
        self.puts.append(key)
        super().put(key, data, content_type)


def test_newer_ones_replace_what_still_waits(s3: ObjectStoreConfig) -> None:
    async def scenario() -> None:
        store = SlowStore(s3)
        shelf = CheckpointShelf(store)
        for step in range(1, 20):
            shelf.save(FIRST, checkpoint(step))
        await shelf.flush(FIRST)
        assert len(store.puts) == 1
        found = await shelf.furthest(SECOND, SAMPLING, "weights")
        assert found is not None
        assert found.step == 19

    run(scenario)


def test_a_store_that_is_away_costs_the_checkpoint_and_nothing_else(s3: ObjectStoreConfig) -> None:
    async def scenario() -> None:
        store = SlowStore(s3)
        shelf = CheckpointShelf(store)
        store.error = StoreUnavailable("away")
        shelf.save(FIRST, checkpoint(3))
        await shelf.flush(FIRST)
        store.error = None
        shelf.save(FIRST, checkpoint(5))
        await shelf.flush(FIRST)
        found = await shelf.furthest(SECOND, SAMPLING, "weights")
        assert found is not None
        assert found.step == 5

    run(scenario)


def test_steps_are_at_risk_until_a_checkpoint_of_them_is_stored(
    s3: ObjectStoreConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("deployments.checkpoint_shelf.time.monotonic", lambda: now[0])

    async def scenario() -> None:
        store = SlowStore(s3)
        shelf = CheckpointShelf(store)
        assert shelf.unsaved_s == 0
        shelf.moved(FIRST)
        now[0] = 105.0
        shelf.moved(FIRST)
        assert shelf.unsaved_s == 5
        store.error = StoreUnavailable("away")
        shelf.save(FIRST, checkpoint(2))
        await shelf.flush(FIRST)
        assert shelf.unsaved_s == 5  # it could not be stored
        store.error = None
        shelf.save(FIRST, checkpoint(2))
        now[0] = 107.0
        shelf.moved(FIRST)  # while that is on its way
        await shelf.flush(FIRST)
        assert shelf.unsaved_s == 2
        shelf.save(FIRST, checkpoint(3))
        await shelf.flush(FIRST)
        assert shelf.unsaved_s == 0
        shelf.moved(FIRST)
        shelf.moved(SECOND)
        now[0] = 110.0
        shelf.forget(FIRST)
        assert shelf.unsaved_s == 3
        shelf.forget(SECOND)
        assert shelf.unsaved_s == 0

    run(scenario)
