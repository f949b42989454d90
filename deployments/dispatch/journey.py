"""The way of one video through the stages."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from ray.serve.handle import DeploymentHandle

from deployments.decoder import Decoded
from deployments.denoiser import Denoised, DenoiseOrder, StepDone, Waiting
from deployments.dispatch.verdict import WORKER_LOST
from deployments.handover import HandoverLost, ReplicaSilent
from deployments.provenance import Provenance
from diffusion.params import SamplingParams
from monitoring.stages import StageCall
from storage.errors import StoreUnavailable
from storage.jobs import Job, JobEvent, Stage, VideoFile

_STAGE_TRIES = 3
_STORAGE_WAITS_S = (1, 2, 4, 8, 16)


@dataclass(frozen=True, slots=True)
class Stages:
    """The deployments beside the denoisers; the video encoder's calls are streams."""

    text_encoder: DeploymentHandle
    image_encoder: DeploymentHandle
    decoder: DeploymentHandle
    video_encoder: DeploymentHandle


class Journey:
    """One attempt at one job. `report` hears of every stage and step, `note` of what goes
    otherwise than planned, and `denoised` of the moment when the slot is free again. A denoiser
    that has a clip's checkpoint and then says nothing for `silence_s` is taken for lost."""

    def __init__(
        self,
        stages: Stages,
        job: Job,
        call: StageCall,
        sampling: SamplingParams,
        report: Callable[[Stage, int], None],
        note: Callable[[JobEvent], None],
        denoised: Callable[[Denoised], None],
        silence_s: float,
    ):
        self._stages = stages
        self._job, self._call = job, call
        self._sampling = sampling  # a smaller clip than was asked for, where memory ran out
        self._report, self._note, self._denoised = report, note, denoised
        self._silence_s = silence_s

    async def run(self, denoiser: DeploymentHandle) -> VideoFile:
        """The way of one video."""
        sampling, request = self._sampling, self._job.request
        self._report(Stage.ENCODING, 0)
        text = self._stages.text_encoder.encode.remote(
            sampling.prompt, sampling.negative_prompt, self._call
        )
        image = self._stages.image_encoder.encode.remote(
            request.photo_key, sampling.width, sampling.height, request.output.fit, self._call
        )
        denoised = await self._denoise(denoiser, text, image)
        self._denoised(denoised)

        for tries_left in reversed(range(_STAGE_TRIES)):
            decoded = await self._decode(denoised)
            try:
                return await self._publish(decoded, _provenance(denoised, decoded))
            except HandoverLost:  # the decoder is gone, and the frames with it
                if tries_left == 0:
                    raise
        raise AssertionError("unreachable")

    async def _denoise(self, denoiser: DeploymentHandle, text: Any, image: Any) -> Denoised:
        """`text` and `image` are responses, not values: they go to the Denoiser without us."""
        job = self._job
        order = DenoiseOrder(
            job.current_attempt,
            self._sampling,
            job.request.priority,
            job.request.deadline_at,
            self._call,
        )
        events = denoiser.denoise.remote(order, text, image)
        loop = asyncio.get_running_loop()
        silence, heard = asyncio.timeout(None), False
        try:
            async with silence:
                async for event in events:
                    # A clip may have to wait for its replica to start; and after the first word,
                    # for its checkpoint, which a slow store hands out when it can.
                    if heard:
                        silence.reschedule(loop.time() + self._silence_s)
                    heard = True
                    self._hear(event)
                    if isinstance(event, Denoised):
                        result = event
        except BaseException:
            for response in (events, text, image):
                response.cancel()
            if silence.expired():
                raise ReplicaSilent(f"no UNet step reported for {self._silence_s:g} s") from None
            raise
        return result

    def _hear(self, event: Waiting | StepDone | JobEvent | Denoised) -> None:
        if isinstance(event, Waiting):
            self._report(Stage.WAITING_DENOISER, event.step)
        elif isinstance(event, StepDone):
            self._report(Stage.DENOISING, event.step)
        elif isinstance(event, JobEvent):
            self._note(event)

    async def _decode(self, denoised: Denoised) -> Decoded:
        self._report(Stage.DECODING, self._sampling.num_inference_steps)
        decode = self._stages.decoder.decode.remote
        decoded: Decoded = await _finished(lambda: decode(denoised, self._call))
        for event in decoded.events:
            self._note(event)
        return decoded

    async def _publish(self, decoded: Decoded, provenance: Provenance) -> VideoFile:
        """Encode and store; a store that is away must not cost the denoising that was paid for."""
        steps = self._sampling.num_inference_steps

        def call() -> Any:
            return self._stages.video_encoder.encode.remote(
                self._job.request,
                self._sampling,
                self._job.current_attempt,
                decoded,
                provenance,
                self._call,
            )

        async def stored(events: AsyncIterator[Stage | VideoFile]) -> VideoFile:
            self._report(Stage.ENCODING_VIDEO, steps)
            async for event in events:
                if isinstance(event, VideoFile):
                    result = event
                else:
                    self._report(event, steps)
            return result

        for wait_s in (*_STORAGE_WAITS_S, None):
            try:
                video: VideoFile = await _finished(call, stored)
            except StoreUnavailable:
                if wait_s is None:
                    raise
                self._report(Stage.WAITING_STORAGE, steps)
                await asyncio.sleep(wait_s)
            else:
                break
        return video


def _provenance(denoised: Denoised, decoded: Decoded) -> Provenance:
    dropped = denoised.dropped_prompt
    return Provenance(
        {**denoised.timings, "decoding": decoded.seconds},
        (f"the prompt was too long; left out: {dropped!r}",) if dropped else (),
        denoised.peak_vram_bytes,
    )


async def _itself(response: Any) -> Any:
    return await response


async def _finished(
    call: Callable[[], Any], result: Callable[[Any], Awaitable[Any]] = _itself
) -> Any:
    """Await the `result` of a stage's response: again where its replica died, and stop it where we
    are stopped ourselves."""
    for tries_left in reversed(range(_STAGE_TRIES)):
        response = call()
        try:
            return await result(response)
        except WORKER_LOST:
            if tries_left == 0:
                raise
        except BaseException:
            response.cancel()
            raise
    raise AssertionError("unreachable")
