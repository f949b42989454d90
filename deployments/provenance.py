"""What the stages before the last tell of a clip, for its manifest and its usage."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Provenance:
    timings: dict[str, float] = field(default_factory=dict)  # stage -> seconds
    warnings: tuple[str, ...] = ()
    peak_vram_bytes: int | None = None  # of the denoiser during its steps; None: no GPU
    camera_layers: int | None = None  # of a rendered camera move
