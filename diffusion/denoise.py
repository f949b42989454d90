"""Denoising as explicit steps over a request's own state: begin, advance until done.

One UNet call serves one step of one request here. Every request owns its scheduler instance,
because diffusers' schedulers keep the step count and the history of one trajectory in themselves.
"""

from dataclasses import dataclass
from typing import Any

import torch
from diffusers.utils.torch_utils import randn_tensor

from diffusion.device import within_memory
from diffusion.errors import NonFiniteLatents
from diffusion.image import add_position_planes
from diffusion.params import SamplingParams
from diffusion.state import ImageCondition, Latents, TextCondition, WireTensor
from diffusion.weights import DenoisingModel


@dataclass(slots=True)
class DenoiseState:
    """One clip on its way through the UNet. R is 2 with classifier-free guidance, else 1."""

    params: SamplingParams
    scheduler: Any
    latents: torch.Tensor  # [1, 4, F, h, w]
    encoder_hidden_states: torch.Tensor  # [R, tokens, D], negative first
    image_embeddings: torch.Tensor  # [R, 1, D], zeros for the negative row
    image_latents: torch.Tensor  # [R, 4, F, h, w]
    fps: torch.Tensor  # [R] int64
    step: int = 0

    @property
    def is_done(self) -> bool:
        return self.step >= len(self.scheduler.timesteps)


@within_memory()
@torch.inference_mode()
def begin(
    model: DenoisingModel, params: SamplingParams, text: TextCondition, image: ImageCondition
) -> DenoiseState:
    """Put a request's conditions on the device and draw its noise.

    The noise comes from a CPU generator: a seed means the same clip on every kind of GPU.
    """
    device, dtype = model.device, model.dtype
    scheduler = type(model.scheduler).from_config(model.scheduler.config)
    scheduler.set_timesteps(params.num_inference_steps, device=device)

    prompt = text.prompt.embeds.to(device, dtype)
    embeddings = image.image_embeddings.to(device, dtype)
    first_frame = image.image_latents.to(device, dtype)
    image_latents = add_position_planes(first_frame, params.num_frames)
    if params.guidance_scale > 1:
        negative = text.negative_prompt.embeds.to(device, dtype)
        prompt = torch.cat([negative, prompt])
        embeddings = torch.cat([torch.zeros_like(embeddings), embeddings])
        image_latents = torch.cat([image_latents] * 2)

    channels, height, width = first_frame.shape[1], *first_frame.shape[3:]
    noise = randn_tensor(
        (1, channels, params.num_frames, height, width),
        generator=torch.Generator("cpu").manual_seed(params.seed),
        device=device,
        dtype=dtype,
    )
    return DenoiseState(
        params=params,
        scheduler=scheduler,
        latents=noise * scheduler.init_noise_sigma,
        encoder_hidden_states=prompt,
        image_embeddings=embeddings,
        image_latents=image_latents,
        fps=torch.full((prompt.shape[0],), params.motion_fps, device=device),
    )


@within_memory()
@torch.inference_mode()
def advance(model: DenoisingModel, state: DenoiseState) -> None:
    """One denoising step: UNet, guidance, scheduler.

    Raises NonFiniteLatents as soon as the trajectory is lost (seen with fp16 overflow), and
    OutOfMemory.
    """
    timestep = state.scheduler.timesteps[state.step]
    rows = state.encoder_hidden_states.shape[0]
    sample = state.scheduler.scale_model_input(torch.cat([state.latents] * rows), timestep)
    prediction = model.unet(
        sample,
        timestep,
        encoder_hidden_states=state.encoder_hidden_states,
        fps=state.fps,
        image_latents=state.image_latents,
        image_embeddings=state.image_embeddings,
        return_dict=False,
    )[0]
    if rows == 2:
        negative, positive = prediction.chunk(2)
        prediction = negative + state.params.guidance_scale * (positive - negative)
    state.latents = state.scheduler.step(prediction, timestep, state.latents).prev_sample
    state.step += 1
    if not torch.isfinite(state.latents).all():
        raise NonFiniteLatents(state.step)


def latents_of(state: DenoiseState) -> Latents:
    """The result of a finished trajectory, on the CPU."""
    return Latents(WireTensor.of(state.latents))
