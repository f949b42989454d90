"""What one clip is asked to be. No torch here: the API and the job table use it too."""

from dataclasses import dataclass
from enum import StrEnum


class Priority(StrEnum):
    """Who waits for the clip: a person, or a catalogue run."""

    INTERACTIVE = "interactive"
    BATCH = "batch"


class Sampler(StrEnum):
    """How a prediction of the UNet moves the latents; each request has its own."""

    DDIM = "ddim"
    DPMPP_2M = "dpmpp_2m"
    UNIPC = "unipc"


class TimestepSpacing(StrEnum):
    """Which of the 1000 training timesteps are visited."""

    CHECKPOINT = "checkpoint"  # as scheduler_config.json says
    TRAILING = "trailing"  # from the last one on, for any number of steps (arXiv 2305.08891)


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """Everything that decides the latents of one clip, and nothing else.

    Two equal values on the same weights and photo give the same latents.
    """

    prompt: str
    negative_prompt: str
    width: int  # px, a multiple of ModelFolder.size_multiple
    height: int  # px, a multiple of ModelFolder.size_multiple
    num_frames: int
    num_inference_steps: int
    guidance_scale: float  # 1.0 switches classifier-free guidance off
    motion_fps: int  # a condition of the UNet (diffusers' target_fps), not the playback rate
    seed: int
    sampler: Sampler = Sampler.DDIM
    timestep_spacing: TimestepSpacing = TimestepSpacing.CHECKPOINT
    # Guidance acts on the steps in [start, stop) of all, as fractions; elsewhere a step costs half
    # (arXiv 2404.07724).
    guidance_start: float = 0.0
    guidance_stop: float = 1.0

    def is_guided(self, step: int) -> bool:
        """Whether `step` (from 0) runs the UNet on the negative prompt too."""
        begun = step / self.num_inference_steps
        return self.guidance_scale > 1 and self.guidance_start <= begun < self.guidance_stop

    @property
    def unet_rows(self) -> int:
        """Rows of all UNet calls together: what the clip costs, in forwards of one row."""
        return sum(1 + self.is_guided(step) for step in range(self.num_inference_steps))
