"""QualityMeter: a clip measured against the photo it was made from."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from deployments.camera import Render
from diffusion.params import SamplingParams
from storage.errors import ObjectNotFound
from storage.jobs import JobRequest
from storage.object_store import ObjectStore
from video.photo import Fit, PhotoLimits, fit_photo, open_photo
from video.quality import Quality

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

log = logging.getLogger(__name__)


class QualityMeter:
    """Loads what it measures with at once, so that no clip waits for it."""

    def __init__(
        self,
        store: ObjectStore,
        limits: PhotoLimits,
        render: Render,
        lpips_weights: Path | None,
        threads: int,
    ) -> None:
        """Raises WeightsUnusable."""
        from video.measure import Perceptual, measure

        self._measure = measure
        self._store = store
        self._limits = limits
        self._render = render
        self._perceptual: Perceptual | None = None
        if lpips_weights is not None:
            import torch

            from diffusion.lpips import PerceptualDistance

            torch.set_num_threads(threads)
            self._perceptual = PerceptualDistance(lpips_weights)

    def photo(self, request: JobRequest) -> bytes | None:
        """The photo's file; None where retention was quicker than the job. Raises
        StoreUnavailable."""
        try:
            return self._store.get(request.photo_key)
        except ObjectNotFound:
            log.warning("%s: photo %s is gone", request.id, request.photo_key)
            return None

    def measure(
        self,
        request: JobRequest,
        sampling: SamplingParams,
        frames: "NDArray[np.uint8]",
        photo: bytes | None,
    ) -> Quality:
        """Of the generated `frames` [F, H, W, 3]. Without the photo, less is known of them."""
        if photo is None:
            return self._measure(frames, None)
        rgb = open_photo(photo, self._limits).rgb
        return self._measure(frames, self._first(request, sampling, rgb), self._perceptual)

    def _first(
        self, request: JobRequest, sampling: SamplingParams, rgb: "NDArray[np.uint8]"
    ) -> "NDArray[np.uint8]":
        """Frame 0 as ImageEncoder gave it to the model, or as it was rendered."""
        size, fit = (sampling.width, sampling.height), Fit(request.output.fit)
        if not (sampling.starts_from_frames or sampling.is_rendered):
            return fit_photo(rgb, *size, fit)
        camera = request.camera(sampling.is_rendered)
        assert camera is not None, "without a move nothing starts from frames"
        return next(self._render(rgb, camera, sampling.num_frames, size, fit))
