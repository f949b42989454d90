"""How long a run waits for whom: for ever who is busy, for its patience who is away."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from catalog.run import window as module
from catalog.run.errors import ServiceAway, TryLater
from catalog.run.window import Window
from storage.errors import StoreUnavailable


def answering(*faults: Exception) -> Callable[[], Awaitable[str]]:
    """A call that fails so often, then answers."""
    left = list(faults)

    async def call() -> str:
        if left:
            raise left.pop(0)
        return "here"

    return call


def insisted(patience_s: float, *calls: Callable[[], Awaitable[str]]) -> list[str]:
    async def insisting() -> list[str]:
        window = Window(4, patience_s)
        return list(await asyncio.gather(*map(window.insist, calls)))

    return asyncio.run(insisting())


def test_who_answers_that_he_is_busy_is_never_away() -> None:
    busy = [TryLater("429 queue_full", 0.05) for _ in range(6)]
    assert insisted(0.1, answering(*busy)) == ["here"]


def test_a_service_that_answers_nobody_is_given_up_after_the_patience() -> None:
    away = [TryLater("the service does not answer", 0.01, away_s) for away_s in (0.0, 0.05, 0.2)]
    with pytest.raises(ServiceAway, match="does not answer"):
        insisted(0.1, answering(*away))


def test_a_store_is_given_up_after_its_own_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_STORE_AGAIN_S", 0.04)
    with pytest.raises(ServiceAway):
        insisted(0.1, answering(*[StoreUnavailable("no answer")] * 9))


def test_the_time_that_a_busy_service_takes_is_not_the_stores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_STORE_AGAIN_S", 0.01)
    store = answering(StoreUnavailable("no answer"), StoreUnavailable("no answer"))
    service = answering(TryLater("429 queue_full", 1.5))
    began = time.monotonic()
    assert insisted(1.0, store, service) == ["here", "here"]
    assert time.monotonic() - began >= 1.5
