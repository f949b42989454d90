"""Decoder: latents to uint8 frames, a chunk at a time."""

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import ray
from pydantic import Field

from cluster.stage import StageConfig
from deployments.denoiser import Denoised
from deployments.handover import Handover, HandoverLost, take
from deployments.health import Work, go_down
from deployments.timing import Stopwatch
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

    from diffusion.state import Latents


log = logging.getLogger(__name__)


class DecoderConfig(StageConfig):
    chunk_frames: int = Field(4, ge=1, description="frames at once; 0.38 GiB each at 512x512, fp16")


@dataclass(frozen=True, slots=True)
class Decoded:
    """Where decoded frames are: uint8 [F, H, W, 3] behind the reference."""

    frames: "ray.ObjectRef[object]"
    seconds: float
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
        from diffusion.weights import load_vae_decoder

        folder = ModelFolder.open(model)
        folder.verify(digests, "vae")
        device = open_device(config.torch_device, config.num_gpus, config.threads)
        self._vae = load_vae_decoder(
            folder, device, getattr(torch, model.dtype_on(config.torch_device))
        )
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
        from diffusion.decode import decode_within_memory

        with stage("decoding", call) as record:
            latents = await self._latents(denoised)
            watch = Stopwatch()

            def work() -> tuple["NDArray[np.uint8]", int, int]:
                with watch.running(), self._work.under_way():
                    self._memory.restart()
                    planned = self._chunk_frames
                    frames, taken = decode_within_memory(self._vae, latents, planned)
                    self._chunk_frames = taken  # and stays so
                    return frames, planned, taken

            async with self._lock:
                if self._broken is not None:
                    raise self._broken
                try:
                    frames, planned, taken = await asyncio.to_thread(work)
                except OutOfMemory:
                    raise
                except Exception as e:
                    self._broken = EngineBroken(repr(e))
                    self._end = asyncio.create_task(go_down(self._broken))
                    raise self._broken from e
            record.note(
                seconds=watch.seconds,
                vram_bytes=self._memory.bytes(),
                shapes={"latents": latents.latents.data.shape, "frames": frames.shape},
            )
        metrics.STAGE_SECONDS.observe(watch.seconds, tags={"stage": "decoding"})
        events: tuple[JobEvent, ...] = ()
        if taken < planned:
            detail = f"{planned} -> {taken} frames at once"
            events = (JobEvent(time.time(), "decode_chunk", detail),)
        return Decoded(await self._handover.offer(frames), watch.seconds, events)

    async def check_health(self) -> None:
        self._work.check()

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
