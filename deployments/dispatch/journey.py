"""The way of one video through the stages."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ray.serve.handle import DeploymentHandle

from deployments.camera import ONE_LAYER, Rendered
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
    otherwise than planned, and `freed` of the moment when the slot is free again. A denoiser
    that has a clip's checkpoint and then says nothing for `silence_s` is taken for lost."""

    def __init__(
        self,
        stages: Stages,
        job: Job,
        call: StageCall,
        sampling: SamplingParams,
        report: Callable[[Stage, int], None],
        note: Callable[[JobEvent], None],
        freed: Callable[[Denoised | None], None],
        silence_s: float,
    ):
        self._stages = stages
        self._job, self._call = job, call
        self._sampling = sampling  # a smaller clip than was asked for, where memory ran out
        self._report, self._note, self._freed = report, note, freed
        self._silence_s = silence_s

    async def run(self, worker: DeploymentHandle) -> VideoFile:
        """The way of one video. `worker`: the job's tier, a Denoiser or the CameraRenderer."""
        if self._sampling.is_rendered:
            return await self._published(lambda: self._render(worker))
        denoised = await self._condition_and_denoise(worker)
        self._freed(denoised)
        return await self._published(lambda: self._decode(denoised))

    async def _condition_and_denoise(self, denoiser: DeploymentHandle) -> Denoised:
        sampling = self._sampling
        self._report(Stage.ENCODING, 0)
        text = self._stages.text_encoder.encode.remote(
            sampling.prompt, sampling.negative_prompt, self._call
        )
        rendered, *images = self._frames() if sampling.starts_from_frames else self._photo()
        return await self._denoise(denoiser, rendered, text, *images)

    async def _published(
        self, make_frames: Callable[[], Awaitable[tuple[Decoded, Provenance]]]
    ) -> VideoFile:
        for tries_left in reversed(range(_STAGE_TRIES)):
            frames, provenance = await make_frames()
            try:
                return await self._publish(frames, provenance)
            except HandoverLost:  # whoever made them is gone, and the frames with it
                if tries_left == 0:
                    raise
        raise AssertionError("unreachable")

    async def _render(self, renderer: DeploymentHandle) -> tuple[Decoded, Provenance]:
        """The camera move's frames are the clip."""
        request, sampling = self._job.request, self._sampling
        self._report(Stage.RENDERING, 0)
        rendered: Rendered = await _finished(
            lambda: renderer.render.remote(request, sampling, self._call)
        )
        self._freed(None)
        camera = request.camera(is_rendered=True)
        flat = rendered.layers == 1 and camera is not None and camera.move.is_orbit
        warnings = (ONE_LAYER,) if flat else ()
        timings = {"rendering": rendered.frames.seconds}
        return rendered.frames, Provenance(timings, warnings, camera_layers=rendered.layers)

    def _photo(self) -> Sequence[Any]:
        """No frames, and the response of the photo's encoding."""
        request, sampling = self._job.request, self._sampling
        encode = self._stages.image_encoder.encode.remote
        size = sampling.width, sampling.height
        return None, encode(request.photo_key, *size, request.output.fit, self._call)

    def _frames(self) -> Sequence[Any]:
        """The responses of the camera move's frames, of the first one's encoding, and of all
        theirs."""
        request, sampling = self._job.request, self._sampling
        rendered = self._stages.image_encoder.render.remote(
            request.photo_key,
            request.camera_motion,
            sampling.num_frames,
            sampling.width,
            sampling.height,
            request.output.fit,
            self._call,
        )
        first = self._stages.image_encoder.encode_first.remote(rendered, self._call)
        return rendered, first, self._stages.decoder.encode.remote(rendered, self._call)

    async def _denoise(
        self, denoiser: DeploymentHandle, rendered: Any, *conditions: Any
    ) -> Denoised:
        """The conditions are responses, not values: they go to the Denoiser without us. `rendered`
        is one that they come from, if there is any."""
        job = self._job
        order = DenoiseOrder(
            job.current_attempt,
            self._sampling,
            job.request.priority,
            job.request.deadline_at,
            self._call,
        )
        events = denoiser.denoise.remote(order, *conditions)
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
            for response in filter(None, (events, *conditions, rendered)):
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

    async def _decode(self, denoised: Denoised) -> tuple[Decoded, Provenance]:
        self._report(Stage.DECODING, self._sampling.unet_steps)
        decode = self._stages.decoder.decode.remote
        decoded: Decoded = await _finished(lambda: decode(denoised, self._call))
        for event in decoded.events:
            self._note(event)
        return decoded, _provenance(denoised, decoded)

    async def _publish(self, decoded: Decoded, provenance: Provenance) -> VideoFile:
        """Encode and store; a store that is away must not cost the denoising that was paid for."""
        steps = self._sampling.unet_steps

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
