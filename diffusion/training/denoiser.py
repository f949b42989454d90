"""Training the UNet, and the text encoder with it, to predict v (arXiv 2202.00512) of clips."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler
from diffusers.training_utils import compute_snr
from torch.nn.attention import SDPBackend, sdpa_kernel

from diffusion.image import add_position_planes
from diffusion.training.clips import Clips, sample_clips
from diffusion.training.codec import PatchCode
from diffusion.training.loop import Forward, Schedule, Workplace, train
from diffusion.training.pictures import Picture

_LARGEST_SNR = 5.0
"""Where min-SNR weighting (arXiv 2303.09556) stops rewarding small noise."""
_EARLY, _LATE = (1, 450), (450, 1000)
"""Timesteps: those that guided starts of strength 0.45 and less visit, and the others."""


@dataclass(frozen=True, slots=True)
class ClipShape:
    """What a training step sees."""

    rows: int = 4
    num_frames: int = 8
    side: int = 128  # px of the window
    early_share: float = 0.75  # of the rows, at timesteps of guided starts


class Denoiser(torch.nn.Module):
    """The networks that are trained together, and the frozen one between them."""

    def __init__(self, unet: Any, text_encoder: Any, image_encoder: Any):
        super().__init__()
        self.unet = unet
        self.text_encoder = text_encoder
        self.image_encoder = image_encoder.requires_grad_(False)
        # Neither is used: the penultimate layer's output is what conditions the UNet.
        text_encoder.encoder.layers[-1].requires_grad_(False)

    def forward(
        self,
        sample: torch.Tensor,  # [B, 4, F, h, w]
        timesteps: torch.Tensor,  # [B]
        fps: torch.Tensor,  # [B]
        first_frame: torch.Tensor,  # [B, 4, 1, h, w]
        clip_pixels: torch.Tensor,  # [B, 3, 32, 32], as the image encoder wants them
        seen: torch.Tensor,  # [B, 1]: 0 where the image embedding is dropped
        token_ids: torch.Tensor,  # [B, 77]
    ) -> torch.Tensor:
        hidden = self.text_encoder(token_ids, output_hidden_states=True).hidden_states[-2]
        embeddings = self.image_encoder(clip_pixels).image_embeds * seen
        answer: torch.Tensor = self.unet(
            sample,
            timesteps,
            fps=fps,
            image_latents=add_position_planes(first_frame, sample.shape[2]),
            image_embeddings=embeddings.unsqueeze(1),
            encoder_hidden_states=self.text_encoder.final_layer_norm(hidden),
            return_dict=False,
        )[0]
        return answer


def train_denoiser(
    denoiser: Denoiser,
    tokenizer: Any,
    extractor: Any,
    scheduler: DDIMScheduler,
    code: PatchCode,
    pictures: Sequence[Picture],
    schedule: Schedule,
    place: Workplace,
    *,
    seed: int = 0,
    shape: ClipShape = ClipShape(),
    stop_after: int | None = None,
) -> bool:
    """Returns whether it is done; see diffusion.training.loop.train."""

    def loss(predict: Forward, step: int) -> torch.Tensor:
        rng = np.random.default_rng([seed, step])
        # Every fourth step sees half as many clips of twice the length.
        rows, frames = shape.rows, shape.num_frames
        if step % 4 == 3 and rows > 1:
            rows, frames = rows // 2, frames * 2
        clips = sample_clips(pictures, rows, frames, shape.side, rng)
        generator = torch.Generator("cpu").manual_seed(int(rng.integers(2**62)))
        stills = code.encode(clips.pixels.flatten(0, 1))  # [B x F, 4, h, w]
        latents = stills.reshape(rows, frames, *stills.shape[1:]).transpose(1, 2)
        noise = torch.randn(latents.shape, generator=generator)
        spans = [_EARLY if rng.random() < shape.early_share else _LATE for _ in range(rows)]
        timesteps = torch.tensor([int(rng.integers(*span)) for span in spans])
        seen = torch.from_numpy((rng.random((rows, 1)) < 0.9).astype(np.float32))
        ids = tokenizer(
            clips.prompts, padding="max_length", truncation=True, return_tensors="pt"
        ).input_ids
        inputs = (
            scheduler.add_noise(latents, noise, timesteps),
            timesteps,
            clips.fps,
            latents[:, :, :1],
            _clip_pixels(clips, extractor),
            seen,
            ids,
        )
        device = next(denoiser.parameters()).device
        # Sequences are 8 to 16 long: on CPUs the fused kernels cost more than what they save.
        with sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext():
            answer = predict(*(tensor.to(device) for tensor in inputs))
        target = scheduler.get_velocity(latents, noise, timesteps).to(device)
        snr = compute_snr(scheduler, timesteps)
        weight = (snr.clamp(max=_LARGEST_SNR) / (snr + 1)).to(device)
        errors: torch.Tensor = ((answer - target) ** 2).mean((1, 2, 3, 4))
        weighted: torch.Tensor = errors * weight
        return weighted.mean()

    return train(denoiser, loss, schedule, place, stop_after=stop_after)


def _clip_pixels(clips: Clips, extractor: Any) -> torch.Tensor:
    """Frame 0 of every clip at CLIP's size and normalised: [B, 3, S, S]."""
    size = (extractor.crop_size["height"], extractor.crop_size["width"])
    small = torch.nn.functional.interpolate(clips.pixels[:, 0] / 2 + 0.5, size, mode="area")
    mean = torch.tensor(extractor.image_mean).view(1, 3, 1, 1)
    return (small - mean) / torch.tensor(extractor.image_std).view(1, 3, 1, 1)
