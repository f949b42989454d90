"""One clip on its way through the UNet: its latents, its scheduler, its conditions."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from diffusers.utils.torch_utils import randn_tensor

from diffusion.checkpoint import Checkpoint
from diffusion.errors import CheckpointMismatch
from diffusion.image import add_position_planes
from diffusion.params import SamplingParams
from diffusion.samplers import first_latents, make_scheduler, restore, state_of
from diffusion.state import ImageCondition, Latents, StartLatents, TextCondition, WireTensor
from diffusion.weights import DenoisingModel


class Bucket(NamedTuple):
    """What rows of one UNet call must have in common: nothing pads frames or sides."""

    num_frames: int
    height: int  # of the latents
    width: int  # of the latents
    safe_precision: bool = False  # has overflowed once, see Trajectory.retreat

    @property
    def area(self) -> int:
        return self.height * self.width


@dataclass(slots=True)
class Trajectory:
    """The state of one request between two UNet calls.

    Latents and scheduler work in float32 whatever the UNet's dtype; the noise too is drawn so, on
    the CPU, hence a seed means the same clip on every device and in every dtype.
    """

    params: SamplingParams
    model_revision: str
    scheduler: Any
    generator: torch.Generator
    latents: torch.Tensor  # [1, 4, F, h, w] float32
    prompt_embeds: torch.Tensor  # [1, tokens, D]
    negative_prompt_embeds: torch.Tensor  # [1, tokens, D]
    image_embeddings: torch.Tensor  # [1, 1, D]
    image_latents: torch.Tensor  # [1, 4, F, h, w]
    step: int = 0  # steps done, of params.unet_steps
    safe_precision: bool = False

    @classmethod
    def begin(
        cls,
        model: DenoisingModel,
        params: SamplingParams,
        text: TextCondition,
        image: ImageCondition,
        start: StartLatents | None = None,
    ) -> "Trajectory":
        """Put a request's conditions on the device and draw its noise, the same with `start` as
        without. Allocates a few MB. Raises ValueError unless `start` suits `params`."""
        device, dtype = model.device, model.dtype
        scheduler = make_scheduler(model.scheduler.config, params)
        first_frame = image.image_latents.to(device, dtype)
        channels, height, width = first_frame.shape[1], *first_frame.shape[3:]
        generator = torch.Generator("cpu").manual_seed(params.seed)
        noise = randn_tensor(
            (1, channels, params.num_frames, height, width),
            generator=generator,
            dtype=torch.float32,
        )
        given = None if start is None else start.latents.to(noise.device, noise.dtype)
        return cls(
            params=params,
            model_revision=model.revision,
            scheduler=scheduler,
            generator=generator,
            latents=first_latents(scheduler, params, noise, given).to(device),
            prompt_embeds=text.prompt.embeds.to(device, dtype),
            negative_prompt_embeds=text.negative_prompt.embeds.to(device, dtype),
            image_embeddings=image.image_embeddings.to(device, dtype),
            image_latents=add_position_planes(first_frame, params.num_frames),
        )

    @property
    def is_done(self) -> bool:
        return self.step >= self.params.unet_steps

    @property
    def is_guided(self) -> bool:
        """Whether the next step takes two rows, negative prompt first, or one."""
        return self.params.is_guided(self.step)

    @property
    def rows(self) -> int:
        return 2 if self.is_guided else 1

    @property
    def bucket(self) -> Bucket:
        num_frames, height, width = self.latents.shape[2:]
        return Bucket(num_frames, height, width, self.safe_precision)

    @property
    def timestep(self) -> torch.Tensor:
        """Of the next step: a scalar on the CPU."""
        timestep: torch.Tensor = self.scheduler.timesteps[self.params.first_step + self.step]
        return timestep

    def move(self, prediction: torch.Tensor) -> None:
        """Take the UNet's answer, [rows, 4, F, h, w] in any float dtype: guidance, then a step."""
        prediction = prediction.float()
        if self.is_guided:
            negative, positive = prediction.chunk(2)
            prediction = negative + self.params.guidance_scale * (positive - negative)
        moved = self.scheduler.step(prediction, self.timestep, self.latents)
        self.latents = moved.prev_sample
        self.step += 1

    def retreat(self) -> bool:
        """After NaN or Inf: run the rest in a safer precision. False if that was done before."""
        again, self.safe_precision = not self.safe_precision, True
        return again

    def result(self) -> Latents:
        """The latents of a finished trajectory, on the CPU."""
        return Latents(WireTensor.of(self.latents))

    def checkpoint(self) -> Checkpoint:
        """All that another process needs to go on from here, conditions apart."""
        fresh = make_scheduler(self.scheduler.config, self.params)
        return Checkpoint(
            params=self.params,
            model_revision=self.model_revision,
            step=self.step,
            safe_precision=self.safe_precision,
            latents=self.latents.detach().cpu().clone(),
            generator_state=self.generator.get_state(),
            scheduler_state=state_of(self.scheduler, fresh),
        )

    def resume(self, checkpoint: Checkpoint) -> None:
        """Jump to where `checkpoint` stood. Raises CheckpointMismatch unless it is of the same
        request, weights and code."""
        checkpoint.check(self.params, self.model_revision)
        if checkpoint.latents.shape != self.latents.shape:
            raise CheckpointMismatch("its latents have another shape")
        restore(self.scheduler, checkpoint.scheduler_state, self.latents.device)
        self.generator.set_state(checkpoint.generator_state)
        self.latents = checkpoint.latents.to(self.latents.device)
        self.step, self.safe_precision = checkpoint.step, checkpoint.safe_precision
