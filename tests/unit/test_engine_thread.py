"""The engine's thread: calls between ticks, health, and what breaks it."""

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch

from diffusion.engine import Engine
from diffusion.engine_config import EngineConfig
from diffusion.engine_thread import EngineThread
from diffusion.errors import EngineBroken
from diffusion.events import Event, Failed, Finished
from diffusion.model_folder import ModelFolder
from tests.unit.engine_rig import Models, params


class Rig:
    def __init__(self, folder: ModelFolder):
        self.models = Models.load(folder)
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.thread = EngineThread(Engine(self.models.unet, EngineConfig()), self._deliver)

    def _deliver(self, events: Sequence[Event]) -> None:
        for event in events:
            self.events.put(event)

    def join(self, request_id: str, **changes: Any) -> None:
        self.thread.call(lambda e: self.models.join(e, request_id, params(**changes))).result(20)

    def last(self, request_id: str) -> Event:
        while True:
            event = self.events.get(timeout=20)
            if event.request_id == request_id and isinstance(event, Finished | Failed):
                return event


@pytest.fixture
def rig(tiny: ModelFolder) -> Iterator[Rig]:
    rig = Rig(tiny)
    yield rig
    rig.thread.stop()


def test_requests_join_while_others_run(rig: Rig) -> None:
    rig.join("long", num_inference_steps=200)
    rig.join("short", num_inference_steps=1)
    assert isinstance(rig.last("short"), Finished)
    assert rig.thread.call(lambda e: e.live).result(20) == ("long",)
    assert isinstance(rig.last("long"), Finished)
    assert rig.thread.silent_s == 0


def test_leaving_takes_effect_before_the_next_step(rig: Rig) -> None:
    rig.join("clip", num_inference_steps=200)
    rig.thread.call(lambda e: e.leave("clip")).result(20)
    done = rig.thread.call(lambda e: e.steps_done).result(20)
    time.sleep(0.1)
    assert rig.thread.call(lambda e: e.steps_done).result(20) == done < 200


def test_a_tick_that_hangs_is_seen_from_outside(rig: Rig) -> None:
    go_on = threading.Event()

    def hang(*_: Any) -> None:
        go_on.wait(20)

    rig.models.unet.unet.register_forward_pre_hook(hang)
    rig.join("clip", num_inference_steps=1)
    while rig.thread.silent_s < 0.2:  # it hangs for much longer
        time.sleep(0.01)
    go_on.set()
    rig.last("clip")
    assert rig.thread.call(lambda e: e.live).result(20) == ()
    assert rig.thread.silent_s == 0


def test_an_unforeseen_error_fails_all_and_breaks_the_engine(rig: Rig) -> None:
    def fault(*_: Any) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    rig.models.unet.unet.register_forward_pre_hook(fault)
    rig.join("clip")
    failed = rig.last("clip")
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, EngineBroken)
    with pytest.raises(EngineBroken, match="illegal memory access"):
        rig.join("next")


def test_an_unforeseen_error_in_a_call_breaks_it_too(rig: Rig) -> None:
    """A card that dies while nothing runs is found by whoever asks first."""

    def join(_: Engine) -> None:
        raise RuntimeError("CUDA error: device-side assert triggered")

    with pytest.raises(EngineBroken, match="device-side assert"):
        rig.thread.call(join).result(20)
    assert rig.thread.broken is not None
    with pytest.raises(EngineBroken):
        rig.join("next")


def test_a_failed_self_test_of_an_idle_device_breaks_it(rig: Rig) -> None:
    def fault(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 MiB")

    rig.models.unet.unet.register_forward_pre_hook(fault)
    with pytest.raises(EngineBroken, match="the self-test failed"):
        rig.thread.self_test().result(20)


def test_a_caller_s_own_error_breaks_nothing(rig: Rig) -> None:
    rig.join("clip", num_inference_steps=1)
    with pytest.raises(KeyError):
        rig.thread.call(lambda e: e.pause("unknown")).result(20)
    rig.last("clip")
    assert rig.thread.broken is None


def test_a_device_that_fails_its_self_test_after_running_out_is_broken(rig: Rig) -> None:
    def fault(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 MiB")

    rig.models.unet.unet.register_forward_pre_hook(fault)
    rig.join("clip")
    assert isinstance(rig.last("clip"), Failed)
    with pytest.raises(EngineBroken):  # the test runs before the next call
        rig.join("next")


def test_a_device_that_passes_it_serves_on(rig: Rig) -> None:
    def fault(_module: Any, _args: Any, inputs: dict[str, torch.Tensor]) -> None:
        if len(inputs["sample"]) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")

    rig.models.unet.unet.register_forward_pre_hook(fault, with_kwargs=True)
    rig.join("clip")
    assert isinstance(rig.last("clip"), Finished)
    assert rig.thread.broken is None
