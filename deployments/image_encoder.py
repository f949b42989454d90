"""ImageEncoder: the stored photo, fitted to the clip's size, to CLIP embedding and VAE latent."""

import asyncio
from typing import TYPE_CHECKING

from cluster.stage import StageConfig
from deployments.timing import Stopwatch, Timed
from diffusion.model_folder import ModelConfig, ModelFolder
from monitoring import metrics
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

        from diffusion.device import open_device
        from diffusion.weights import load_image_model

        cv2.setNumThreads(config.threads)
        folder = ModelFolder.open(model)
        folder.verify(digests, "feature_extractor", "image_encoder", "vae")
        device = open_device(config.torch_device, config.num_gpus, config.threads)
        self._model = load_image_model(
            folder, device, getattr(torch, model.dtype_on(config.torch_device))
        )
        self._store = S3ObjectStore(store)
        self._limits = limits
        self._lock = asyncio.Lock()

    async def encode(
        self, photo_key: str, width: int, height: int, fit: str
    ) -> Timed["ImageCondition"]:
        """Condition on the photo at `photo_key`, made width x height px by `fit`."""
        data = await asyncio.to_thread(self._store.get, photo_key)
        watch = Stopwatch()
        async with self._lock:
            with watch.running():
                condition = await asyncio.to_thread(self._encode, data, width, height, Fit(fit))
        metrics.STAGE_SECONDS.observe(watch.seconds, tags={"stage": "image_encoding"})
        return Timed(condition, watch.seconds)

    def _encode(self, data: bytes, width: int, height: int, fit: Fit) -> "ImageCondition":
        from diffusion.image import encode_image

        photo = open_photo(data, self._limits)
        return encode_image(self._model, fit_photo(photo.rgb, width, height, fit))
