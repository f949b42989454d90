"""Decoder: the VAE on a GPU. Latents to uint8 frames, a chunk at a time.

And, for clips with a camera move, frames to the latents that they begin at. Not beside the photo:
sixteen frames of 512x512 take 18 TFLOP, 0.43 of a UNet step on a card, and 4.8 s each on
two CPU cores. Nor at the denoiser, whose thread and memory belong to the clips in flight.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import ray
from pydantic import Field

from cluster.stage import StageConfig
from deployments.denoiser import Denoised
from deployments.handover import Handover, HandoverLost, take
from deployments.health import Work, go_down
from deployments.timing import Stopwatch, Timed
from diffusion.errors import CheckpointMismatch, EngineBroken, OutOfMemory
from diffusion.model_folder import ModelConfig, ModelFolder
from monitoring import metrics
from monitoring.stages import StageCall, stage
from monitoring.store_calls import count_store_call
from storage.errors import ObjectNotFound
from storage.jobs import JobEvent
from storage.object_store import ObjectStoreConfig, S3ObjectStore

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from diffusion.state import Latents, StartLatents


log = logging.getLogger(__name__)

T = TypeVar("T")


class DecoderConfig(StageConfig):
    chunk_frames: int = Field(4, ge=1, description="frames at once; 0.38 GiB each at 512x512, fp16")


@dataclass(frozen=True, slots=True)
class Decoded:
    """Where decoded frames are: uint8 [F, H, W, 3] behind the reference."""

    frames: "ray.ObjectRef[object]"
    seconds: float
    events: tuple[JobEvent, ...] = ()  # what went otherwise than planned


@dataclass(frozen=True, slots=True)
class EncodedStart:
    """Where a clip with a camera move begins."""

    value: "StartLatents"
    timings: dict[str, float]  # stage -> seconds
    events: tuple[JobEvent, ...] = ()  # what went otherwise than planned


class Decoder:
    def __init__(
        self,
        config: DecoderConfig,
        model: ModelConfig,
        digests: dict[str, str],
        store: ObjectStoreConfig,
    ):
        import torch

        from diffusion.device import PeakMemory, open_device
        from diffusion.weights import load_vae

        folder = ModelFolder.open(model)
        folder.verify(digests, "vae")
        device = open_device(config.torch_device, config.num_gpus, config.threads)
        self._vae = load_vae(folder, device, getattr(torch, model.dtype_on(config.torch_device)))
        self._chunk_frames = config.chunk_frames
        self._store = S3ObjectStore(store, count_store_call)
        self._handover = Handover()
        self._memory = PeakMemory(device)
        self._lock = asyncio.Lock()
        self._work = Work(config.stall_s)
        self._broken: EngineBroken | None = None

    async def decode(self, denoised: Denoised, call: StageCall | None = None) -> Decoded:
        """Decode the latents behind `denoised`; the frames stay in the object store.

        Raises OutOfMemory when not even a frame at a time fits, EngineBroken, HandoverLost when the
        replica that made the latents is gone and left no checkpoint of them, StoreUnavailable.
        """
        from diffusion.decode import decode_latents

        with stage("decoding", call) as record:
            latents = await self._latents(denoised)
            watch = Stopwatch()
            frames, planned, taken = await self._by_chunks(
                lambda chunk_frames: decode_latents(self._vae, latents, chunk_frames), watch
            )
            record.note(
                seconds=watch.seconds,
                vram_bytes=self._memory.bytes(),
                shapes={"latents": latents.latents.data.shape, "frames": frames.shape},
            )
        metrics.STAGE_SECONDS.observe(watch.seconds, tags={"stage": "decoding"})
        frames_ref = await self._handover.offer(frames)
        return Decoded(frames_ref, watch.seconds, _fewer_at_once(planned, taken))

    async def encode(
        self, rendered: Timed["NDArray[np.uint8]"], call: StageCall | None = None
    ) -> EncodedStart:
        """Latents of rendered frames [F, H, W, 3]. Raises as `decode` does; one frame takes less
        memory than to decode one."""
        from diffusion.start import encode_start

        with stage("frames_encoding", call) as record:
            watch = Stopwatch()
            start, planned, taken = await self._by_chunks(
                lambda chunk_frames: encode_start(self._vae, rendered.value, chunk_frames), watch
            )
            record.note(
                seconds=watch.seconds,
                vram_bytes=self._memory.bytes(),
                shapes={"frames": rendered.value.shape, "latents": start.latents.data.shape},
            )
        metrics.STAGE_SECONDS.observe(watch.seconds, tags={"stage": "frames_encoding"})
        timings = {"rendering": rendered.seconds, "frames_encoding": watch.seconds}
        return EncodedStart(start, timings, _fewer_at_once(planned, taken))

    async def check_health(self) -> None:
        self._work.check()

    async def _by_chunks(self, work: Callable[[int], T], watch: Stopwatch) -> tuple[T, int, int]:
        """`work` with some frames at once: what came of it, how many were planned and taken.

        Raises OutOfMemory, EngineBroken.
        """
        from diffusion.chunks import within_memory_by_chunks

        def chunked() -> tuple[T, int, int]:
            with watch.running(), self._work.under_way():
                self._memory.restart()
                planned = self._chunk_frames
                made, taken = within_memory_by_chunks(work, planned)
                self._chunk_frames = taken  # and stays so
                return made, planned, taken

        async with self._lock:
            if self._broken is not None:
                raise self._broken
            try:
                return await asyncio.to_thread(chunked)
            except OutOfMemory:
                raise
            except Exception as e:
                self._broken = EngineBroken(repr(e))
                self._end = asyncio.create_task(go_down(self._broken))
                raise self._broken from e

    async def _latents(self, denoised: Denoised) -> "Latents":
        """From the denoiser's memory; where that is lost, from its last step's checkpoint."""
        from diffusion.checkpoint import Checkpoint

        try:
            latents: Latents = await take(denoised.latents)
        except HandoverLost as e:
            log.warning("latents come from %s: %s", denoised.checkpoint_key, e)
            try:
                data = await asyncio.to_thread(self._store.get, denoised.checkpoint_key)
                return Checkpoint.from_bytes(data).result()
            except (ObjectNotFound, CheckpointMismatch):  # it was lost before it was stored
                raise e from None
        return latents


def _fewer_at_once(planned: int, taken: int) -> tuple[JobEvent, ...]:
    if taken == planned:
        return ()
    return (JobEvent(time.time(), "decode_chunk", f"{planned} -> {taken} frames at once"),)
