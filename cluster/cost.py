"""What a request costs on each tier: seconds of a replica and bytes of its card. Pure: no clock.

Seconds are FLOPs over the rate that a tier's replicas sustain. Requests on one replica take turns
step by step, so their seconds add up. Small clips run below the rate (their kernels are too short
to fill a card) and take longer than said here.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace

from cluster.capacity import CUDA_CONTEXT_GB
from cluster.tiers import CameraTierConfig, TierConfig
from diffusion.memory import Architecture
from diffusion.model_folder import ModelConfig
from diffusion.params import SamplingParams

GB = 1e9
"""Bytes in a GB of `vram_gb`. Most cards have that many GiB, 7 % more, but those that keep error
correction in it (T4, L4, A10, L40S) have little over the decimal figure."""

FEWER_FRAMES = (24, 16, 8)
"""What clips may be shortened to."""

NEWEST_WEIGHT = 0.2
"""Of the newest measurement in a tier's rate; the last ten make up nine tenths of it."""

_DTYPE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was measured on one tier, kept as JSON in the object store."""

    tier: str
    device: str  # the card's own name
    tflops: float  # sustained by the UNet of one replica, its neighbours on the card at work
    measured_at: float  # Unix seconds
    bytes_factor: float = 1.0  # peak bytes measured, over Architecture.denoiser_bytes

    def to_json(self) -> bytes:
        return json.dumps(asdict(self), sort_keys=True).encode()

    @classmethod
    def from_json(cls, data: bytes) -> "Calibration":
        """Raises ValueError where `data` is none."""
        try:
            calibration = cls(**json.loads(data))
            usable = calibration.tflops > 0 and calibration.bytes_factor > 0
        except TypeError as e:
            raise ValueError(f"not a calibration: {e}") from e
        if not usable:
            raise ValueError(f"not a calibration: {calibration}")
        return calibration


class DoesNotFit(Exception):
    """No tier has the memory for a clip. `largest`: (width, height, frames) of one that fits."""

    def __init__(self, sampling: SamplingParams, largest: tuple[int, int, int] | None) -> None:
        super().__init__(sampling, largest)
        self.sampling, self.largest = sampling, largest

    def __str__(self) -> str:
        asked = f"{self.sampling.width}x{self.sampling.height}, {self.sampling.num_frames} frames"
        if self.largest is None:
            return f"{asked}: no card of this cluster can make a video of this shape"
        width, height, frames = self.largest
        return (
            f"{asked}: too large for every card of this cluster; the largest of this shape that"
            f" fits is {width}x{height}, {frames} frames"
        )


class CostModel:
    """Every method but `observe` leaves it as it is. Unknown tier names raise KeyError."""

    def __init__(
        self,
        architecture: Architecture,
        tiers: Iterable[TierConfig],
        model: ModelConfig,
        calibrations: Mapping[str, Calibration],
    ):
        """`calibrations` by tier name; a tier without one goes by its configuration."""
        self._architecture = architecture
        self._tiers = {tier.name: tier for tier in tiers}
        self._model = model
        self._calibrations = calibrations
        self._measured_tflops = {name: c.tflops for name, c in calibrations.items()}

    def fits(self, sampling: SamplingParams) -> list[TierConfig]:
        """The tiers whose memory holds the request, if need be at the engine's last rung; of one
        that is rendered, those that render."""
        return [
            tier
            for name, tier in self._tiers.items()
            if tier.denoises is not sampling.is_rendered
            and (sampling.is_rendered or self.needs_bytes(sampling, name) <= replica_bytes(tier))
        ]

    def tiers_for(self, sampling: SamplingParams) -> list[str]:
        """The names of those."""
        return [tier.name for tier in self.fits(sampling)]

    def needs_bytes(self, sampling: SamplingParams, tier_name: str) -> float:
        """Device memory at the least: one row per UNet call, transformer_in's feed forward in
        parts. Weights included, CUDA context not."""
        calibration = self._calibrations.get(tier_name)
        predicted = self._architecture.denoiser_bytes(
            sampling.width,
            sampling.height,
            sampling.num_frames,
            rows=1,
            dtype_bytes=_DTYPE_BYTES[self._model.dtype_on(self._tiers[tier_name].torch_device)],
            chunked=True,
        )
        return predicted * (calibration.bytes_factor if calibration else 1.0)

    def largest_that_fits(self, sampling: SamplingParams) -> tuple[int, int, int] | None:
        """(width, height, frames) of the largest clip of about this shape that some tier holds,
        and no larger than `sampling`; a shorter one only where no size fits. None: not even that.
        """
        fewer = (frames for frames in FEWER_FRAMES if frames < sampling.num_frames)
        for frames in (sampling.num_frames, *fewer):
            for width, height in self._sizes(sampling.width, sampling.height):
                if self.fits(replace(sampling, width=width, height=height, num_frames=frames)):
                    return width, height, frames
        return None

    def seconds(self, sampling: SamplingParams, tier_name: str, steps_done: int = 0) -> float:
        """Of one replica, for the UNet steps after the first `steps_done`, or for the rendering."""
        tier = self._tiers[tier_name]
        if isinstance(tier, CameraTierConfig):
            pixels = sampling.width * sampling.height * sampling.num_frames
            return pixels / (tier.mpx_per_s * 1e6)
        return self._flops(sampling, steps_done) / (self.tflops(tier_name) * 1e12)

    def encode_share(self, sampling: SamplingParams) -> float:
        """Of the time that decoding the clip takes: what encoding the frames takes that it begins
        at, on the same VAE. 0 for a clip that begins at noise."""
        if not sampling.starts_from_frames:
            return 0.0
        size = sampling.width, sampling.height, sampling.num_frames
        return self._architecture.encode_flops(*size) / self._architecture.decode_flops(*size)

    def tflops(self, tier_name: str) -> float:
        """What one replica of the tier sustains, as far as is known."""
        return self._measured_tflops.get(tier_name, self._tiers[tier_name].tflops)

    def is_measured(self, tier_name: str) -> bool:
        """Whether that was ever seen of it, or is what the configuration presumes."""
        return tier_name in self._measured_tflops

    def observe(
        self, tier_name: str, sampling: SamplingParams, steps_done: int, seconds: float
    ) -> None:
        """Learn from a finished denoising that began after `steps_done` steps.

        `seconds` > 0: what the replica spent on this request, its turns of others apart. The first
        measurement replaces what was configured, later ones move the rate (an EMA).
        """
        flops = self._flops(sampling, steps_done)
        if flops == 0:  # resumed after its last step
            return
        tflops = flops / seconds / 1e12
        before = self._measured_tflops.get(tier_name, tflops)
        self._measured_tflops[tier_name] = before + NEWEST_WEIGHT * (tflops - before)

    def _flops(self, sampling: SamplingParams, steps_done: int) -> float:
        steps = range(steps_done, sampling.unet_steps)
        rows = sum(1 + sampling.is_guided(step) for step in steps)
        return rows * self._architecture.unet_flops(
            sampling.width, sampling.height, sampling.num_frames
        )

    def _sizes(self, width: int, height: int) -> Iterator[tuple[int, int]]:
        """Sizes of about this shape, the largest first: `width` x `height` itself."""
        longer = max(width, height)
        for side in range(longer, 0, -self._architecture.size_multiple):
            yield self._nearest(width * side / longer), self._nearest(height * side / longer)

    def _nearest(self, px: float) -> int:
        multiple = self._architecture.size_multiple
        return max(multiple, round(px / multiple) * multiple)


def replica_bytes(tier: TierConfig) -> float:
    """Device memory of one replica, CUDA context apart; infinite where the tier does not say."""
    if tier.num_gpus == 0 or tier.vram_gb == 0:
        return math.inf
    return GB * min(tier.vram_gb * tier.num_gpus, tier.vram_gb - CUDA_CONTEXT_GB)
