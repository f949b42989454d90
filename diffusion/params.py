"""What one clip is asked to be. No torch here: the API and the job table use it too."""

from dataclasses import dataclass, replace
from enum import StrEnum
from math import floor

from diffusion.errors import UnusableStrength


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

    Two equal values on the same weights and photo, and camera move where there is one, give the
    same latents. Raises UnusableStrength.
    """

    prompt: str
    negative_prompt: str
    width: int  # px, a multiple of ModelFolder.size_multiple
    height: int  # px, a multiple of ModelFolder.size_multiple
    num_frames: int
    num_inference_steps: int  # 0: nothing is generated
    guidance_scale: float  # 1.0 switches classifier-free guidance off
    motion_fps: int  # a condition of the UNet (diffusers' target_fps), not the playback rate
    seed: int
    sampler: Sampler = Sampler.DDIM
    timestep_spacing: TimestepSpacing = TimestepSpacing.CHECKPOINT
    # Guidance acts on the steps in [start, stop) of all, as fractions; elsewhere a step costs half
    # (arXiv 2404.07724).
    guidance_start: float = 0.0
    guidance_stop: float = 1.0
    # How much of the way from noise is gone, the rest being given by frames of a camera move
    # (SDEdit, arXiv 2108.01073). None: all of it, and no frames; 1: the same latents as None.
    motion_strength: float | None = None

    def __post_init__(self) -> None:
        strength = self.motion_strength
        if strength is not None and not (0 < strength <= 1 and self.unet_steps):
            raise UnusableStrength(strength, self.num_inference_steps)

    @property
    def unet_steps(self) -> int:
        """Steps that are run: the last so many of num_inference_steps.

        diffusers' rule for img2img, int(strength * steps), with the product rounded first to nine
        digits, since in floating point 50 * 0.58 is a little below 29.
        """
        if self.motion_strength is None:
            return self.num_inference_steps
        return floor(round(self.num_inference_steps * self.motion_strength, 9))

    @property
    def first_step(self) -> int:
        """Steps of the schedule that are left out before those that are run."""
        return self.num_inference_steps - self.unet_steps

    @property
    def is_rendered(self) -> bool:
        """Whether no UNet has a part in it: the frames of a camera move are the clip."""
        return self.num_inference_steps == 0

    def rendered(self) -> "SamplingParams":
        """A clip of this size and length of which nothing is generated."""
        return replace(self, num_inference_steps=0, guidance_scale=1.0, motion_strength=None)

    @property
    def starts_from_frames(self) -> bool:
        """Whether the clip begins at the frames of a camera move, not at noise alone."""
        return self.first_step > 0

    def is_guided(self, step: int) -> bool:
        """Whether `step` (of those that are run, from 0) runs the UNet on the negative prompt too.
        Where guidance acts is a matter of the noise, so of all steps, those left out included."""
        begun = (self.first_step + step) / self.num_inference_steps
        return self.guidance_scale > 1 and self.guidance_start <= begun < self.guidance_stop

    @property
    def unet_rows(self) -> int:
        """Rows of all UNet calls together: what the clip costs, in forwards of one row."""
        return sum(1 + self.is_guided(step) for step in range(self.unet_steps))
