"""Loading: each stage gets the components it needs and no more, in its dtype, on its device."""

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, I2VGenXLUNet
from transformers import (
    CLIPImageProcessorPil,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionModelWithProjection,
)

from diffusion.model_folder import ModelFolder

CONTEXT_LENGTH = 77
"""Tokens of CLIP's text context; a tokenizer saved without it claims 1e30."""


@dataclass(frozen=True, slots=True)
class TextModel:
    tokenizer: Any
    text_encoder: Any


@dataclass(frozen=True, slots=True)
class ImageModel:
    feature_extractor: Any
    image_encoder: Any
    vae: Any


@dataclass(frozen=True, slots=True)
class DenoisingModel:
    unet: Any
    scheduler: Any  # a template: every request gets its own instance by from_config
    revision: str  # of the checkpoint, see diffusion.model_folder.model_revision

    @property
    def device(self) -> torch.device:
        device: torch.device = self.unet.device
        return device

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = self.unet.dtype
        return dtype


def load_text_model(folder: ModelFolder, device: torch.device, dtype: torch.dtype) -> TextModel:
    tokenizer = CLIPTokenizer.from_pretrained(folder.path, subfolder="tokenizer")
    tokenizer.model_max_length = CONTEXT_LENGTH
    return TextModel(tokenizer, _load(CLIPTextModel, folder, "text_encoder", device, dtype))


def load_image_model(folder: ModelFolder, device: torch.device, dtype: torch.dtype) -> ImageModel:
    vae = _load(AutoencoderKL, folder, "vae", device, dtype)
    vae.decoder = None
    return ImageModel(
        CLIPImageProcessorPil.from_pretrained(folder.path, subfolder="feature_extractor"),
        _load(CLIPVisionModelWithProjection, folder, "image_encoder", device, dtype),
        vae,
    )


def load_denoising_model(
    folder: ModelFolder, device: torch.device, dtype: torch.dtype, revision: str
) -> DenoisingModel:
    return DenoisingModel(
        _load(I2VGenXLUNet, folder, "unet", device, dtype),
        DDIMScheduler.from_pretrained(folder.path, subfolder="scheduler"),
        revision,
    )


def load_vae_decoder(folder: ModelFolder, device: torch.device, dtype: torch.dtype) -> Any:
    vae = load_vae(folder, device, dtype)
    vae.encoder = None
    return vae


def load_vae(folder: ModelFolder, device: torch.device, dtype: torch.dtype) -> Any:
    """Both ways: the encoder adds two thirds to the decoder's weights, 68 MB in half precision."""
    return _load(AutoencoderKL, folder, "vae", device, dtype)


def _load(
    cls: Any, folder: ModelFolder, component: str, device: torch.device, dtype: torch.dtype
) -> Any:
    """accelerate builds the module on meta and reads each tensor straight into `dtype`."""
    # The two libraries name the same option differently.
    option = "torch_dtype" if cls.__module__.startswith("diffusers") else "dtype"
    model = cls.from_pretrained(
        folder.path,
        subfolder=component,
        use_safetensors=True,
        variant=folder.variant,
        low_cpu_mem_usage=True,
        **{option: dtype},
    )
    return model.to(device).eval().requires_grad_(False)
