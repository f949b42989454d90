"""What the engine reports, by request id."""

from dataclasses import dataclass

from diffusion.checkpoint import Checkpoint
from diffusion.errors import DiffusionError
from diffusion.state import Latents


@dataclass(frozen=True, slots=True)
class Began:
    """A call of the UNet begins with it; the one before was without it, or it has just joined."""

    request_id: str


@dataclass(frozen=True, slots=True)
class Paused:
    """A call of the UNet begins without it, for others go first; the one before was with it."""

    request_id: str


@dataclass(frozen=True, slots=True)
class Stepped:
    request_id: str
    step: int  # steps done


@dataclass(frozen=True, slots=True)
class Finished:
    request_id: str
    latents: Latents
    seconds: float  # of UNet calls, each shared by the rows in it
    peak_memory_bytes: int | None = None  # on the GPU, with its company and the weights


@dataclass(frozen=True, slots=True)
class Failed:
    request_id: str
    error: DiffusionError


@dataclass(frozen=True, slots=True)
class Saved:
    """A checkpoint is due; storing it is the caller's."""

    request_id: str
    checkpoint: Checkpoint


@dataclass(frozen=True, slots=True)
class Degraded:
    """The engine went on in another way than planned: chunked_unet, solo_rows, safe_precision,
    checkpoint_refused."""

    request_id: str
    kind: str
    detail: str


Event = Began | Paused | Stepped | Finished | Failed | Saved | Degraded
