"""ImageEncoder: the stored photo, fitted to the clip's size, to CLIP embedding and VAE latent.

For a clip with a camera move, the photo to the frames of that move, and the first of them to both.
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from cluster.stage import StageConfig
from deployments.camera import Render
from deployments.timing import Stopwatch, Timed
from diffusion.model_folder import ModelConfig, ModelFolder
from monitoring import metrics
from monitoring.stages import StageCall, StageRecord, stage
from monitoring.store_calls import count_store_call
from storage.object_store import ObjectStoreConfig, S3ObjectStore
from video.camera.move import CameraMove
from video.photo import Fit, PhotoLimits, fit_photo, open_photo

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from diffusion.state import ImageCondition


class ImageEncoder:
    def __init__(
        self,
        config: StageConfig,
        model: ModelConfig,
        digests: dict[str, str],
        store: ObjectStoreConfig,
        limits: PhotoLimits,
        render: Render,
    ):
        import cv2
        import torch

        from diffusion.device import PeakMemory, open_device
        from diffusion.weights import load_image_model

        cv2.setNumThreads(config.threads)
        folder = ModelFolder.open(model)
        folder.verify(digests, "feature_extractor", "image_encoder", "vae")
        device = open_device(config.torch_device, config.num_gpus, config.threads)
        self._model = load_image_model(
            folder, device, getattr(torch, model.dtype_on(config.torch_device))
        )
        self._store = S3ObjectStore(store, count_store_call)
        self._limits = limits
        self._render = render
        self._memory = PeakMemory(device)
        self._lock = asyncio.Lock()

    async def encode(
        self, photo_key: str, width: int, height: int, fit: str, call: StageCall | None = None
    ) -> Timed["ImageCondition"]:
        """Condition on the photo at `photo_key`, made width x height px by `fit`."""

        def first_frame(data: bytes) -> "NDArray[np.uint8]":
            return fit_photo(open_photo(data, self._limits).rgb, width, height, Fit(fit))

        with stage("image_encoding", call) as record:
            data = await asyncio.to_thread(self._store.get, photo_key)
            return await self._condition(lambda: first_frame(data), record)

    async def render(
        self,
        photo_key: str,
        camera: CameraMove,
        num_frames: int,
        width: int,
        height: int,
        fit: str,
        call: StageCall | None = None,
    ) -> Timed["NDArray[np.uint8]"]:
        """Frames [F, H, W, 3] of a camera move over the photo at `photo_key`."""

        def work(data: bytes) -> "NDArray[np.uint8]":
            import numpy as np

            photo = open_photo(data, self._limits).rgb
            return np.stack([*self._render(photo, camera, num_frames, (width, height), Fit(fit))])

        with stage("rendering", call) as record:
            data = await asyncio.to_thread(self._store.get, photo_key)
            watch = Stopwatch()
            async with self._lock:
                with watch.running():
                    frames = await asyncio.to_thread(work, data)
            record.note(seconds=watch.seconds, shapes={"frames": frames.shape})
        metrics.STAGE_SECONDS.observe(watch.seconds, tags={"stage": "rendering"})
        return Timed(frames, watch.seconds)

    async def encode_first(
        self, rendered: Timed["NDArray[np.uint8]"], call: StageCall | None = None
    ) -> Timed["ImageCondition"]:
        """Condition on the first of rendered frames: the model takes it for frame 0 of its clip."""
        with stage("image_encoding", call) as record:
            return await self._condition(lambda: rendered.value[0], record)

    async def _condition(
        self, first_frame: Callable[[], "NDArray[np.uint8]"], record: StageRecord
    ) -> Timed["ImageCondition"]:
        from diffusion.image import encode_image

        watch = Stopwatch()
        async with self._lock:
            with watch.running():
                self._memory.restart()
                condition = await asyncio.to_thread(
                    lambda: encode_image(self._model, first_frame())
                )
        record.note(
            seconds=watch.seconds,
            vram_bytes=self._memory.bytes(),
            shapes={
                "image_embeddings": condition.image_embeddings.data.shape,
                "image_latents": condition.image_latents.data.shape,
            },
        )
        metrics.STAGE_SECONDS.observe(watch.seconds, tags={"stage": "image_encoding"})
        return Timed(condition, watch.seconds)
