"""Play a trace of requests to one replica: a real engine on its thread, slots given out by a
discipline. What an attempt does beside denoising is left out."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.arrivals import Asked
from benchmarks.disciplines import Discipline
from benchmarks.models import conditions
from diffusion.engine import Engine
from diffusion.engine_config import EngineConfig
from diffusion.engine_thread import EngineThread
from diffusion.events import Event, Failed, Finished, Stepped
from diffusion.params import Priority
from diffusion.weights import DenoisingModel


@dataclass(frozen=True, slots=True)
class Served:
    asked: Asked
    started_s: float  # since the trace began: it got a slot
    ended_s: float

    @property
    def latency_s(self) -> float:
        return self.ended_s - self.asked.at_s


async def play(
    trace: Sequence[Asked], discipline: Discipline, model: DenoisingModel, config: EngineConfig
) -> list[Served]:
    """Serve all of the trace; returns when the last one has ended."""
    replica = _Replica(model, config)
    served: list[Served] = []
    begun = time.monotonic()

    async def serve(asked: Asked) -> None:
        started_s = time.monotonic() - begun
        await replica.denoise(
            asked, discipline.priority(asked), lambda step: discipline.steps(asked, step)
        )
        served.append(Served(asked, started_s, time.monotonic() - begun))
        discipline.ends(asked)
        start_some()

    def start_some() -> None:
        for asked in discipline.starts():
            group.create_task(serve(asked))

    async with asyncio.TaskGroup() as group:
        for asked in trace:
            await asyncio.sleep(begun + asked.at_s - time.monotonic())
            discipline.arrives(asked)
            start_some()
    await asyncio.to_thread(replica.stop)
    return served


class _Replica:
    """What deployments.denoiser does with an engine, without Ray."""

    def __init__(self, model: DenoisingModel, config: EngineConfig):
        self._model = model
        self._loop = asyncio.get_running_loop()
        self._events: dict[str, asyncio.Queue[Event]] = {}
        self._thread = EngineThread(Engine(model, config), self._deliver)

    async def denoise(
        self, asked: Asked, priority: Priority, on_step: Callable[[int], None]
    ) -> None:
        events = self._events[asked.id] = asyncio.Queue()
        text, image = conditions(self._model, asked.params)
        await asyncio.wrap_future(
            self._thread.call(
                lambda engine: engine.join(asked.id, asked.params, text, image, priority=priority)
            )
        )
        while not isinstance(event := await events.get(), Finished):
            if isinstance(event, Failed):
                raise event.error
            if isinstance(event, Stepped):
                on_step(event.step)
        del self._events[asked.id]

    def stop(self) -> None:
        self._thread.stop()

    def _deliver(self, events: Sequence[Event]) -> None:
        self._loop.call_soon_threadsafe(self._sort, events)

    def _sort(self, events: Sequence[Event]) -> None:
        for event in events:
            self._events[event.request_id].put_nowait(event)
