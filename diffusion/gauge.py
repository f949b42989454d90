"""What the UNet of this process sustains and takes, measured on blank rows."""

import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from diffusion.engine import Engine
from diffusion.engine_thread import EngineThread
from diffusion.errors import OutOfMemory
from diffusion.memory import Architecture
from diffusion.params import SamplingParams
from diffusion.trajectory import Bucket

WARM_UPS, REPEATS = 1, 5
"""Calls per shape. The first one pays for compilation and for kernels that are chosen by trial."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One shape of call, measured."""

    flops: float  # of one call
    seconds: float  # of one call, the median
    bytes_factor: float  # peak bytes, over Architecture.denoiser_bytes; 1.0 on a CPU


@dataclass(frozen=True, slots=True)
class Measured:
    device: str  # the card's own name, or the CPU's
    tflops: float
    bytes_factor: float

    @classmethod
    def of(cls, device: str, samples: Sequence[Sample]) -> "Measured":
        """One rate of several shapes: all FLOPs over all seconds, so that a large clip counts for
        more than a small one. Of memory the worst counts."""
        tflops = sum(s.flops for s in samples) / sum(s.seconds for s in samples) / 1e12
        return cls(device, tflops, max(s.bytes_factor for s in samples))


@dataclass(frozen=True, slots=True)
class Gauge:
    """Times UNet calls in the engine's thread. Each is one call between two ticks, so clips in
    flight go on meanwhile."""

    engine: EngineThread
    architecture: Architecture
    device: torch.device
    dtype: torch.dtype
    chunk_feed_forward: bool

    def measure(self, clips: Sequence[SamplingParams]) -> Measured:
        """Steps of `clips` with guidance; without, where memory does not hold both rows. Blocks.

        Raises OutOfMemory when not one of the clips fits, EngineBroken.
        """
        samples = [sample for clip in clips if (sample := self._sample(clip))]
        if not samples:
            sizes = ", ".join(f"{c.width}x{c.height}, {c.num_frames} frames" for c in clips)
            raise OutOfMemory(f"not one row of any of these: {sizes}")
        return Measured.of(device_name(self.device), samples)

    def _sample(self, clip: SamplingParams) -> Sample | None:
        for rows in (2, 1):
            try:
                return self._sample_rows(clip, rows)
            except OutOfMemory:
                continue
        return None

    def _sample_rows(self, clip: SamplingParams, rows: int) -> Sample:
        scale, size = self.architecture.latent_scale, (clip.width, clip.height, clip.num_frames)
        bucket = Bucket(clip.num_frames, clip.height // scale, clip.width // scale)
        calls = [
            self.engine.call(lambda engine: self._call(engine, bucket, rows)).result()
            for _ in range(WARM_UPS + REPEATS)
        ]
        predicted = self.architecture.denoiser_bytes(
            *size, rows, self.dtype.itemsize, self.chunk_feed_forward
        )
        peaks = [peak for _, peak in calls if peak is not None]
        return Sample(
            flops=rows * self.architecture.unet_flops(*size),
            seconds=statistics.median(seconds for seconds, _ in calls[WARM_UPS:]),
            bytes_factor=max(peaks) / predicted if peaks else 1.0,
        )

    def _call(self, engine: Engine, bucket: Bucket, rows: int) -> tuple[float, int | None]:
        """Seconds of one call, and the most bytes allocated in it; None on a CPU."""
        if self.device.type == "cpu":
            return engine.call_seconds(bucket, rows), None
        torch.cuda.reset_peak_memory_stats(self.device)
        seconds = engine.call_seconds(bucket, rows)
        return seconds, torch.cuda.max_memory_allocated(self.device)


def device_name(device: torch.device) -> str:
    """The card's own name, or the CPU's as Linux knows it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()  # Arm's kernel gives no name
