"""CameraRenderer: the stored photo to a whole clip, the frames of a camera move. No model."""

import asyncio
from typing import TYPE_CHECKING

from cluster.tiers import CameraTierConfig
from deployments.camera import Rendered
from deployments.decoder import Decoded
from deployments.handover import Handover
from deployments.health import Work
from deployments.timing import Stopwatch
from diffusion.params import SamplingParams
from monitoring import metrics
from monitoring.stages import StageCall, stage
from monitoring.store_calls import count_store_call
from storage.jobs import Attempt, JobRequest
from storage.object_store import ObjectStoreConfig, S3ObjectStore
from video.photo import Fit, PhotoLimits, open_photo

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class CameraRenderer:
    def __init__(self, config: CameraTierConfig, store: ObjectStoreConfig, limits: PhotoLimits):
        import cv2

        cv2.setNumThreads(config.threads)
        self._store = S3ObjectStore(store, count_store_call)
        self._limits = limits
        self._handover = Handover()
        self._lock = asyncio.Lock()
        self._work = Work(config.stall_s)

    async def render(
        self, request: JobRequest, sampling: SamplingParams, call: StageCall | None = None
    ) -> Rendered:
        """The frames of `request`'s camera move; they stay in the object store.

        Raises PhotoError, ObjectNotFound where the photo is gone, StoreUnavailable.
        """
        with stage("rendering", call) as record:
            data = await asyncio.to_thread(self._store.get, request.photo_key)
            watch = Stopwatch()
            async with self._lock:
                with watch.running(), self._work.under_way():
                    frames, layers = await asyncio.to_thread(self._frames, request, sampling, data)
            record.note(seconds=watch.seconds, shapes={"frames": frames.shape})
        metrics.STAGE_SECONDS.observe(watch.seconds, tags={"stage": "rendering"})
        return Rendered(Decoded(await self._handover.offer(frames), watch.seconds), layers)

    async def hand_out(self, attempts: frozenset[Attempt]) -> None:
        """The Dispatcher is replaced. A clip takes seconds: nothing is worth saving."""

    async def check_health(self) -> None:
        self._work.check()

    def _frames(
        self, request: JobRequest, sampling: SamplingParams, data: bytes
    ) -> "tuple[NDArray[np.uint8], int]":
        import numpy as np

        from video.camera.path import CameraPath
        from video.camera.scene import open_scene

        camera = request.camera(is_rendered=True)
        assert camera is not None, "nothing else makes frames without a UNet step"
        path = CameraPath(camera, sampling.width, sampling.height, sampling.num_frames)
        photo = open_photo(data, self._limits).rgb
        scene = open_scene(photo, path, Fit(request.output.fit))
        frames = np.empty((path.num_frames, path.height, path.width, 3), dtype=np.uint8)
        for index, frame in enumerate(scene.frames()):
            frames[index] = frame
        return frames, scene.layers
