"""Stages that do nothing, as Serve deployments or as plain objects behind handles of our own."""

from collections.abc import AsyncIterator, Generator
from typing import Any

from ray import serve
from ray.serve import Application

from benchmarks.stopwatch import VIDEO, StopwatchDispatcher
from cluster.cost import CostModel
from cluster.ladder import Floor
from cluster.tiers import TierConfig
from deployments.decoder import Decoded
from deployments.denoiser import Denoised, StepDone, Waiting
from deployments.dispatch.fleet import Replicas
from deployments.dispatcher import DispatcherConfig
from diffusion.memory import Architecture
from diffusion.model_folder import ModelConfig
from storage.errors import ObjectNotFound
from storage.job_store import JobStoreConfig
from storage.jobs import Stage, VideoFile

_CPUS = 0.1  # booked, of each replica


class Encoder:
    async def encode(self, *_: object) -> None:
        return None


class Denoiser:
    async def denoise(self, *_: object) -> AsyncIterator[Waiting | StepDone | Denoised]:
        yield Waiting(0)
        yield StepDone(1)
        yield Denoised(None, "", {"denoising": 1.0}, "")


class Decoder:
    async def decode(self, *_: object) -> Decoded:
        return Decoded(None, 0.0)


class VideoEncoder:
    async def encode(self, *_: object) -> AsyncIterator[Stage | VideoFile]:
        yield Stage.STORING
        yield VIDEO


class EmptyStore:
    """An object store in which no result is ever found."""

    def get(self, key: str) -> bytes:
        raise ObjectNotFound(key)


class LoneDispatcher(StopwatchDispatcher):
    """Without Serve: every stage has its replica."""

    async def _replica_counts(self) -> dict[str, Replicas]:
        return {"Denoiser-noop": Replicas(1)}

    def __del__(self) -> None:  # type: ignore[override]
        """Serve awaits the real one; here the process ends."""


class Response:
    """What a handle returns: awaited, iterated or cancelled."""

    def __init__(self, method: Any, args: tuple[Any, ...]):
        self._method, self._args = method, args

    def __await__(self) -> Generator[Any, None, Any]:
        answer: Generator[Any, None, Any] = self._method(*self._args).__await__()
        return answer

    def __aiter__(self) -> AsyncIterator[Any]:
        events: AsyncIterator[Any] = self._method(*self._args)
        return events

    def cancel(self) -> None:
        pass


class Handle:
    """A deployment handle on an object of this process."""

    def __init__(self, stage: Any, method: str = ""):
        self._stage, self._method = stage, method

    def options(self, **_: Any) -> "Handle":
        return self

    def __getattr__(self, method: str) -> "Handle":
        return Handle(self._stage, method)

    def remote(self, *args: Any) -> Response:
        return Response(getattr(self._stage, self._method), args)


def dispatcher_args(jobs: JobStoreConfig, architecture: Architecture, slots: int) -> list[Any]:
    """Those of a Dispatcher with one tier of one replica, handles apart. It polls so seldom that
    only a wake-up starts it."""
    tiers = [TierConfig(name="noop", max_ongoing_requests=slots, num_cpus=_CPUS)]
    return [
        DispatcherConfig(poll_s=3600, num_cpus=_CPUS),
        jobs,
        tiers,
        CostModel(architecture, tiers, ModelConfig(source="i2vgen-xl"), {}),
        Floor(area_px=512**2, num_frames=16, size_multiple=64),
        EmptyStore(),
    ]


async def start_alone(args: list[Any]) -> LoneDispatcher:
    """A Dispatcher and all stages in this process."""
    dispatcher = LoneDispatcher.__new__(LoneDispatcher)
    stages = [Handle(stage()) for stage in (Encoder, Encoder, Decoder, VideoEncoder)]
    await dispatcher.__init__(*args, [Handle(Denoiser())], stages)  # type: ignore[misc]
    return dispatcher


def build(args: list[Any]) -> Application:
    """The same on Serve: a replica each, bound as serve/app.py does."""
    tier, config = args[2][0], args[0]

    def stage(cls: type, name: str) -> Application:
        options = tier.model_copy(update={"max_ongoing_requests": 1000}).options(name)
        return serve.deployment(**options)(cls).bind()

    names: dict[str, type] = {"TextEncoder": Encoder, "ImageEncoder": Encoder}
    names |= {"Decoder": Decoder, "VideoEncoder": VideoEncoder}
    denoiser = serve.deployment(**tier.options(tier.deployment_name))(Denoiser).bind()
    stages = [stage(cls, name) for name, cls in names.items()]
    return serve.deployment(**config.options())(StopwatchDispatcher).bind(*args, [denoiser], stages)
