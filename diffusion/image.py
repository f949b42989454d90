"""Image conditioning: what the photo looks like (CLIP) and where things are in it (VAE latent)."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from diffusion.state import ImageCondition, WireTensor
from diffusion.weights import ImageModel


@torch.inference_mode()
def encode_image(model: ImageModel, frame: NDArray[np.uint8]) -> ImageCondition:
    """Condition on frame 0.

    frame: uint8 [H, W, 3], already at the clip's size.
    """
    device, dtype = model.vae.device, model.vae.dtype
    pixels = torch.from_numpy(_clip_pixels(model, frame)).to(device, dtype)
    embeddings = model.image_encoder(pixels).image_embeds.unsqueeze(1)  # [1, 1, D]

    return ImageCondition(
        image_embeddings=WireTensor.of(embeddings),
        image_latents=WireTensor.of(vae_latents(model.vae, frame[None]).unsqueeze(2)),
    )


def vae_latents(vae: Any, frames: NDArray[np.uint8]) -> torch.Tensor:
    """[F, H, W, 3] to [F, 4, h, w] on the VAE's device, scaled: the posterior's mode, not a sample
    of it, so that a seed means one video."""
    scaled = torch.from_numpy(frames.astype(np.float32) / 255 * 2 - 1)
    images = scaled.permute(0, 3, 1, 2).to(vae.device, vae.dtype)  # [F, 3, H, W]
    latents: torch.Tensor = vae.encode(images).latent_dist.mode() * vae.config.scaling_factor
    return latents


def _clip_pixels(model: ImageModel, frame: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Centre square of side W, resized to CLIP's input and normalised: [1, 3, S, S].

    Resampling follows the model's training transform: box to the square, then bilinear
    (ali-vilab/i2vgen-xl, utils/transforms.py).
    """
    extractor = model.feature_extractor
    side = frame.shape[1]
    image = Image.fromarray(frame)
    scale = min(image.width / side, image.height / side)
    image = image.resize(
        (round(image.width // scale), round(image.height // scale)), Image.Resampling.BOX
    )
    left, top = (image.width - side) // 2, (image.height - side) // 2
    image = image.crop((left, top, left + side, top + side))
    size = (extractor.crop_size["width"], extractor.crop_size["height"])
    image = image.resize(size, Image.Resampling.BILINEAR)
    values = np.asarray(image, dtype=np.float32) / 255
    mean = np.asarray(extractor.image_mean, dtype=np.float32)
    std = np.asarray(extractor.image_std, dtype=np.float32)
    return ((values - mean) / std).transpose(2, 0, 1)[None].astype(np.float32)


def add_position_planes(image_latents: torch.Tensor, num_frames: int) -> torch.Tensor:
    """[1, 4, 1, h, w] -> [1, 4, F, h, w]: frame 0, then constant planes i / (F - 1).

    The planes say how far into the clip a frame stands; sending them would cost F times the bytes.
    """
    steps = torch.arange(1, num_frames, device=image_latents.device, dtype=torch.float64)
    planes = (steps / (num_frames - 1)).to(image_latents.dtype).view(1, 1, -1, 1, 1)
    shape = (*image_latents.shape[:2], num_frames - 1, *image_latents.shape[3:])
    return torch.cat([image_latents, planes.expand(shape)], dim=2)
