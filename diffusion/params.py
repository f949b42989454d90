"""What one clip is asked to be. No torch here: the API and the job table use it too."""

from dataclasses import dataclass


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
