"""ImageEncoder: the stored photo, fitted to the clip's size, to CLIP embedding and VAE latent."""

import asyncio
from typing import TYPE_CHECKING

from cluster.stage import StageConfig
from deployments.timing import Stopwatch, Timed
from diffusion.model_folder import ModelConfig, ModelFolder
from monitoring import metrics
from monitoring.stages import StageCall, stage
from monitoring.store_calls import count_store_call
from storage.object_store import ObjectStoreConfig, S3ObjectStore
from video.photo import Fit, PhotoLimits, fit_photo, open_photo

if TYPE_CHECKING:
    from diffusion.state import ImageCondition


class ImageEncoder:
    def __init__(
        self,
        config: StageConfig,
        model: ModelConfig,
        digests: dict[str, str],
        store: ObjectStoreConfig,
        limits: PhotoLimits,
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
        self._memory = PeakMemory(device)
        self._lock = asyncio.Lock()

    async def encode(
        self, photo_key: str, width: int, height: int, fit: str, call: StageCall | None = None
    ) -> Timed["ImageCondition"]:
        """Condition on the photo at `photo_key`, made width x height px by `fit`."""
        with stage("image_encoding", call) as record:
            data = await asyncio.to_thread(self._store.get, photo_key)
            watch = Stopwatch()
            async with self._lock:
                with watch.running():
                    self._memory.restart()
                    condition = await asyncio.to_thread(self._encode, data, width, height, Fit(fit))
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

    def _encode(self, data: bytes, width: int, height: int, fit: Fit) -> "ImageCondition":
        from diffusion.image import encode_image

        photo = open_photo(data, self._limits)
        return encode_image(self._model, fit_photo(photo.rgb, width, height, fit))
