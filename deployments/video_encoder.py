"""VideoEncoder: frames to a published result. Measure, interpolate, encode, verify, commit once."""

import asyncio
import hashlib
import json
import logging
import math
import tempfile
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from cluster.stage import StageConfig
from deployments.camera import Render
from deployments.decoder import Decoded
from deployments.handover import take
from deployments.health import Work
from deployments.provenance import Provenance
from deployments.quality_meter import QualityMeter
from deployments.timing import Stopwatch
from diffusion.params import SamplingParams
from monitoring import metrics
from monitoring.stages import StageCall, stage
from monitoring.store_calls import count_store_call
from monitoring.tracing import span
from storage import keys
from storage.errors import ObjectNotFound, StorageError
from storage.jobs import (
    NOTHING_GENERATED,
    PIPELINE_VERSION,
    Attempt,
    JobRequest,
    Stage,
    VideoFile,
)
from storage.object_store import ObjectStoreConfig, S3ObjectStore
from video.errors import EncodeFailed
from video.interpolate import InterpolationConfig, interpolate
from video.mp4 import Mp4Config, VideoInfo, choose_codec, probe_mp4, write_mp4
from video.photo import PhotoLimits
from video.quality import Quality
from video.stills import poster, spritesheet

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

_MOST_ON_SHEET = 32  # frames; WebP ends at 16,383 px
_PARTS = ("quality", "interpolation", "video_encoding")


class VideoEncoderConfig(StageConfig):
    mp4: Mp4Config = Field(default_factory=Mp4Config)
    interpolation: InterpolationConfig = Field(default_factory=InterpolationConfig)
    lpips_weights: Path | None = Field(
        None, description="safetensors, see diffusion/lpips.py; without them LPIPS is not measured"
    )


@dataclass(frozen=True, slots=True)
class _Encoded:
    """One clip ready to be stored."""

    files: dict[str, tuple[bytes, str]]  # name -> (content, media type)
    info: VideoInfo
    sha256: str
    timings: dict[str, float]
    peak_vram_bytes: int | None
    quality: Quality
    camera_layers: int | None


class VideoEncoder:
    def __init__(
        self,
        config: VideoEncoderConfig,
        store: ObjectStoreConfig,
        limits: PhotoLimits,
        render: Render,
    ):
        import cv2

        cv2.setNumThreads(config.threads)
        self._config = config
        self._codec = choose_codec(config.mp4)
        self._store = S3ObjectStore(store, count_store_call)
        self._meter = QualityMeter(
            self._store, limits, render, config.lpips_weights, config.threads
        )
        self._lock = asyncio.Lock()
        self._work = Work(config.stall_s)
        metrics.begin(metrics.RESULTS_ADOPTED)

    async def encode(
        self,
        request: JobRequest,
        sampling: SamplingParams,
        attempt: Attempt,
        decoded: Decoded,
        provenance: Provenance,
        call: StageCall | None = None,
    ) -> AsyncIterator[Stage | VideoFile]:
        """Publish the frames behind `decoded` as the result of `request`: yield Stage.STORING once
        the file is made, and the VideoFile at the end.

        `sampling` is what was made: the request's own, or less where memory ran out.

        Whoever commits first wins; a loser adopts the winner's result and drops its own files.
        Raises EncodeFailed if the written file is not a publishable MP4, HandoverLost when the
        frames are gone, StoreUnavailable.
        """
        with stage("video_encoding", call) as record:
            frames: NDArray[np.uint8] = await take(decoded.frames)
            photo = await asyncio.to_thread(self._meter.photo, request)
            async with self._lock:
                encoded = await asyncio.to_thread(
                    self._encode, request, sampling, frames, photo, provenance
                )
            parts = {name: encoded.timings[name] for name in _PARTS}
            record.note(
                seconds=sum(parts.values()),
                parts=parts,
                shapes={"frames": frames.shape},
                bytes=len(encoded.files["video.mp4"][0]),
            )
        for name, seconds in parts.items():
            metrics.STAGE_SECONDS.observe(seconds, tags={"stage": name})

        yield Stage.STORING
        watch = Stopwatch()
        with stage("storing", call) as record:
            with watch.running():
                folder = keys.attempt_prefix(attempt)
                await asyncio.gather(
                    *(
                        asyncio.to_thread(self._store.put, f"{folder}{name}", data, media_type)
                        for name, (data, media_type) in encoded.files.items()
                    )
                )
                video = _video_file(request, attempt, encoded)
                with span("commit", record.traceparent):
                    committed = await asyncio.to_thread(self._commit, request, video, folder)
                await asyncio.to_thread(self._forget_checkpoints, request)
            record.note(seconds=watch.seconds, adopted=committed is not video)
        metrics.STAGE_SECONDS.observe(watch.seconds, tags={"stage": "storing"})
        committed.timings.setdefault("storing", watch.seconds)
        yield committed

    async def check_health(self) -> None:
        self._work.check()

    def _encode(
        self,
        request: JobRequest,
        sampling: SamplingParams,
        frames: "NDArray[np.uint8]",
        photo: bytes | None,
        provenance: Provenance,
    ) -> _Encoded:
        measuring, interpolating, encoding = Stopwatch(), Stopwatch(), Stopwatch()
        output = request.output
        with self._work.under_way(), measuring.running():
            quality = self._meter.measure(request, sampling, frames, photo)
        warnings = [*request.warnings, *provenance.warnings]
        if photo is None:
            warnings.append("the photo was gone: likeness to it and score are not measured")
        with interpolating.running():
            played = interpolate(frames, output.inbetweens, self._config.interpolation)
        fps = output.fps * (output.inbetweens + 1)
        with (
            self._work.under_way(),
            encoding.running(),
            tempfile.TemporaryDirectory(prefix="shopreel-") as folder,
        ):
            path = Path(folder) / "video.mp4"
            recipe = self._recipe(request, sampling)
            metadata = {"shopreel": json.dumps(recipe, sort_keys=True)}
            write_mp4(path, played, fps, self._codec, self._config.mp4, metadata)
            info = probe_mp4(path)
            size = (sampling.width, sampling.height)
            if problems := info.problems(*size, fps, len(played)):
                raise EncodeFailed("; ".join(problems))
            video = path.read_bytes()
            poster_webp, sheet_webp = poster(played[0]), spritesheet(_for_sheet(frames))
        sha256 = hashlib.sha256(video).hexdigest()
        timings = {
            **provenance.timings,
            "quality": measuring.seconds,
            "interpolation": interpolating.seconds,
            "video_encoding": encoding.seconds,
        }
        manifest = {
            "video": {"sha256": sha256, "bytes": len(video), **asdict(info)},
            "request": recipe,
            "tenant": request.tenant,
            "result_id": request.result_id,  # whose files these are, where the job is gone
            "first_job": {  # who had it made; others may share it since
                "id": request.id,
                "sku": request.sku,
                "title": request.title,
                "metadata": dict(request.metadata),
            },
            "timings": timings,
            "peak_vram_bytes": provenance.peak_vram_bytes,
            "camera_layers": provenance.camera_layers,
            "quality": asdict(quality),
            "warnings": warnings,
        }
        return _Encoded(
            {
                "video.mp4": (video, "video/mp4"),
                "poster.webp": (poster_webp, "image/webp"),
                "spritesheet.webp": (sheet_webp, "image/webp"),
                "manifest.json": (
                    json.dumps(manifest, indent=1, sort_keys=True, default=str).encode(),
                    "application/json",
                ),
            },
            info,
            sha256,
            timings,
            provenance.peak_vram_bytes,
            quality,
            provenance.camera_layers,
        )

    def _recipe(self, request: JobRequest, sampling: SamplingParams) -> dict[str, Any]:
        """What is needed to make the same video again, on the same kind of machine."""
        move = request.camera(sampling.is_rendered)
        camera = move and {
            "camera_motion": asdict(move),
            "unet_steps": sampling.unet_steps,  # that were run, of sampling.num_inference_steps
            "starts_from_frames": sampling.starts_from_frames,
        }
        if camera and sampling.is_rendered:
            camera |= {"made_by": NOTHING_GENERATED, "camera_words": request.camera_words}
        return (camera or {}) | {
            "photo_sha256": request.photo_sha256,
            "model": request.model,
            "model_revision": request.model_revision,
            "pipeline_version": PIPELINE_VERSION,
            "preset": request.preset,
            "sampling": asdict(sampling),
            "output": asdict(request.output),
            "interpolation": self._config.interpolation.model_dump(),
            "mp4": self._config.mp4.model_dump() | {"codec": self._codec},
        }

    def _forget_checkpoints(self, request: JobRequest) -> None:
        try:
            self._store.delete_prefix(keys.checkpoints_prefix(request.id))
        except StorageError:  # the video is published; the bucket's lifecycle rule sweeps these
            log.warning("the checkpoints of %s stay", request.id, exc_info=True)

    def _commit(self, request: JobRequest, video: VideoFile, folder: str) -> VideoFile:
        key = keys.result_key(request.tenant, request.result_id)
        while not self._store.put_if_absent(key, video.to_json(), "application/json"):
            try:
                winner = VideoFile.from_json(self._store.get(key))
                break
            except ObjectNotFound:  # deleted just now: ours may be the one
                continue
        else:
            return video
        metrics.RESULTS_ADOPTED.inc()
        # A repeat of this very attempt commits the files that it has just written again.
        if not winner.video_key.startswith(folder):
            self._store.delete_prefix(folder)
        return winner


def _for_sheet(frames: "NDArray[np.uint8]") -> "NDArray[np.uint8]":
    """All of a generated clip; of a longer one every second, third, … frame."""
    return frames[:: math.ceil(len(frames) / _MOST_ON_SHEET)]


def _video_file(request: JobRequest, attempt: Attempt, encoded: _Encoded) -> VideoFile:
    return VideoFile(
        result_id=request.result_id,
        video_key=keys.video_key(attempt),
        poster_key=keys.poster_key(attempt),
        spritesheet_key=keys.spritesheet_key(attempt),
        manifest_key=keys.manifest_key(attempt),
        sha256=encoded.sha256,
        size_bytes=len(encoded.files["video.mp4"][0]),
        width=encoded.info.width,
        height=encoded.info.height,
        frames=encoded.info.frames,
        fps=encoded.info.fps,
        seconds=encoded.info.seconds,
        timings=encoded.timings,
        peak_vram_bytes=encoded.peak_vram_bytes,
        quality=encoded.quality,
        camera_layers=encoded.camera_layers,
    )
