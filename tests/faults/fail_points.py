"""The application with replicas that fail at a given point of a job whose prompt asks for it.

`ACT@POINT` in the prompt: `die` ends the process as SIGKILL does, `hold` stands still until the
test lets go of the job, or of this point, `exhaust` asks for more memory than the process may have.
Once a job; `poison` dies every time. The folder in the environment has a file for every time that a
point was reached, and one by which a test steps the Dispatcher's clock.
"""

import asyncio
import os
import resource
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any

import psutil
from ray.serve import Application

import serve.app
from deployments import denoiser, dispatcher, video_encoder
from deployments.denoiser import Denoised, DenoiseOrder, StepDone, Waiting
from storage.jobs import JobEvent, JobRequest, VideoFile

FOLDER_VARIABLE = "FAULTS_FOLDER"
_POLL_S = 0.02
_HEADROOM_BYTES = 1 << 30


class VideoEncoder(video_encoder.VideoEncoder):
    def _encode(self, request: JobRequest, *rest: Any) -> Any:
        _reach("encoding", request.id, request.sampling.prompt)
        return super()._encode(request, *rest)

    def _commit(self, request: JobRequest, video: VideoFile, folder: str) -> VideoFile:
        _reach("uploaded", request.id, request.sampling.prompt)
        winner = super()._commit(request, video, folder)
        _reach("committed", request.id, request.sampling.prompt)
        return winner


class Denoiser(denoiser.Denoiser):
    async def denoise(
        self, order: DenoiseOrder, text: Any, image: Any, start: Any = None
    ) -> AsyncIterator[Waiting | StepDone | JobEvent | Denoised]:
        job_id, prompt = order.attempt.job_id, order.sampling.prompt
        await asyncio.to_thread(_reach, "denoising", job_id, prompt)
        events: Any = super().denoise(order, text, image, start)
        async with aclosing(events):
            async for event in events:
                if isinstance(event, StepDone) and event.step:
                    _reach("step", job_id, prompt)
                yield event


class Dispatcher(dispatcher.Dispatcher):
    async def __init__(self, *args: Any):  # type: ignore[misc]
        await super().__init__(*args)
        self._jobs._clock = _stepped_time


def build_app(args: Mapping[str, Any]) -> Application:
    for replacement in (VideoEncoder, Denoiser, Dispatcher):
        vars(serve.app)[replacement.__name__] = replacement
    return serve.app.build_app(args)


def reached(folder: Path, job_id: str, what: str) -> int:
    """How often the job came to a point (`encoding`), or acted there (`hold@encoding`)."""
    return len(list(folder.glob(f"{job_id}.{what}.*")))


def let_go(folder: Path, job_id: str, point: str = "") -> None:
    """Everywhere, or at one point."""
    (folder / (f"{job_id}.go@{point}" if point else f"{job_id}.go")).touch()


def step_clock(folder: Path, ahead_s: float) -> None:
    """The Dispatcher's wall clock is so much ahead from now on."""
    new = folder / "clock.new"
    new.write_text(str(ahead_s))
    new.rename(folder / "clock")


def _reach(point: str, job_id: str, prompt: str) -> None:
    folder = Path(os.environ[FOLDER_VARIABLE])

    def note(what: str) -> None:
        (folder / f"{job_id}.{what}.{time.time_ns()}").touch()

    note(point)
    if f"poison@{point}" in prompt:
        os._exit(137)
    for act in ("die", "hold", "exhaust"):
        what = f"{act}@{point}"
        if what not in prompt or reached(folder, job_id, what):
            continue
        note(what)
        if act == "die":
            os._exit(137)
        if act == "exhaust":
            _exhaust_memory()
        signs = (folder / f"{job_id}.go", folder / f"{job_id}.go@{point}")
        while act == "hold" and not any(sign.exists() for sign in signs):
            time.sleep(_POLL_S)


def _exhaust_memory() -> None:
    """Raises MemoryError: the kernel refuses the process an allocation, as a cgroup without
    overcommit would."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    in_use = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (in_use + _HEADROOM_BYTES, before[1]))
    try:
        bytearray(2 * _HEADROOM_BYTES)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def _stepped_time() -> float:
    clock = Path(os.environ[FOLDER_VARIABLE]) / "clock"
    return time.time() + (float(clock.read_text()) if clock.exists() else 0.0)
