"""Random weights and random conditions of any size: what a UNet computes does not change its time.

No checkpoint is read but the tiny one, and no Ray is needed, so this runs on a bare GPU machine.
"""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, I2VGenXLUNet

from diffusion.memory import Architecture
from diffusion.model_folder import ModelConfig, ModelFolder
from diffusion.params import SamplingParams
from diffusion.state import ImageCondition, PromptEmbeds, TextCondition, WireTensor
from diffusion.tiny import write_tiny_model
from diffusion.weights import CONTEXT_LENGTH, DenoisingModel, load_denoising_model

CPU = torch.device("cpu")
LATENT_SCALE = 8  # px per latent, of every VAE here

UNetConfig = dict[str, Any]

PUBLISHED: UNetConfig = {  # unet/config.json of ali-vilab/i2vgen-xl: 1.42 G parameters
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "cross_attention_dim": 1024,
    "attention_head_dim": 64,
    "norm_num_groups": 32,
    "sample_size": 32,
}
MIDDLE: UNetConfig = {  # 9.9 M parameters: half a second for 2 rows of 16 frames on two cores
    "block_out_channels": (64, 128, 128),
    "layers_per_block": 1,
    "cross_attention_dim": 64,
    "attention_head_dim": 16,
    "norm_num_groups": 16,
    "sample_size": 16,
    "down_block_types": ("CrossAttnDownBlock3D", "CrossAttnDownBlock3D", "DownBlock3D"),
    "up_block_types": ("UpBlock3D", "CrossAttnUpBlock3D", "CrossAttnUpBlock3D"),
}
PUBLISHED_VAE: dict[str, Any] = {  # of Stable Diffusion 2.1
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "latent_channels": 4,
    "sample_size": 768,
}
SCHEDULER: dict[str, Any] = {  # scheduler_config.json of ali-vilab/i2vgen-xl
    "beta_schedule": "squaredcos_cap_v2",
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "leading",
    "steps_offset": 1,
    "clip_sample": False,
    "set_alpha_to_one": True,
}


def random_model(
    config: UNetConfig, device: torch.device, dtype: torch.dtype, cls: Any = I2VGenXLUNet
) -> DenoisingModel:
    """Weights are drawn on the device itself: at full size the CPU would take minutes."""
    torch.manual_seed(0)
    with device:
        unet = torch.nn.Module.to(cls(**config), dtype)  # diffusers' own warns of what is not there
    for parameter in unet.parameters():
        if not parameter.any():  # temporal layers begin at zero; arithmetic on zeros is cheaper
            torch.nn.init.normal_(parameter, std=0.02)
    scheduler = DDIMScheduler(**SCHEDULER)
    return DenoisingModel(unet.eval().requires_grad_(False), scheduler, "random")


def random_vae(config: dict[str, Any], device: torch.device, dtype: torch.dtype) -> Any:
    torch.manual_seed(0)
    with device:
        vae = torch.nn.Module.to(AutoencoderKL(**config), dtype)
    return vae.eval().requires_grad_(False)


def tiny_model() -> DenoisingModel:
    """The model of cluster/local.yaml, on the CPU."""
    with TemporaryDirectory() as temp:
        write_tiny_model(Path(temp))
        folder = ModelFolder.open(ModelConfig(source=temp))
        return load_denoising_model(folder, CPU, torch.float32, "tiny")


def architecture_of(unet: Any, vae: Any) -> Architecture:
    """As Architecture.of, for modules that stand in no folder."""
    config = unet.config
    return Architecture(
        in_channels=config.in_channels,
        block_channels=tuple(config.block_out_channels),
        attends_down=tuple("CrossAttn" in block for block in config.down_block_types),
        attends_up=tuple("CrossAttn" in block for block in config.up_block_types),
        layers_per_block=config.layers_per_block,
        head_dim=config.attention_head_dim,
        context_dim=config.cross_attention_dim,
        unet_parameters=sum(p.numel() for p in unet.parameters()),
        vae_channels=tuple(vae.config.block_out_channels),
        vae_layers_per_block=vae.config.layers_per_block,
        vae_attends=vae.config.mid_block_add_attention,
        decoder_parameters=sum(
            p.numel() for part in (vae.decoder, vae.post_quant_conv) for p in part.parameters()
        ),
        latent_scale=LATENT_SCALE,
        size_multiple=LATENT_SCALE * 2 ** (len(config.block_out_channels) - 1),
    )


@cache
def published_architecture() -> Architecture:
    """I2VGen-XL's sizes, without its weights."""
    with torch.device("meta"):
        return architecture_of(I2VGenXLUNet(**PUBLISHED), AutoencoderKL(**PUBLISHED_VAE))


def clip(width: int, height: int, num_frames: int, steps: int, **changes: Any) -> SamplingParams:
    """A clip with guidance: two rows of every UNet call."""
    values: dict[str, Any] = {"guidance_scale": 9.0, "motion_fps": 16, "seed": 1} | changes
    return SamplingParams(
        prompt="a watch turns",
        negative_prompt="blurry",
        width=width,
        height=height,
        num_frames=num_frames,
        num_inference_steps=steps,
        **values,
    )


def conditions(
    model: DenoisingModel, params: SamplingParams
) -> tuple[TextCondition, ImageCondition]:
    """What the encoders would hand over, drawn at random."""
    generator = torch.Generator().manual_seed(params.seed)
    context, channels = model.unet.config.cross_attention_dim, model.unet.config.in_channels

    def draw(*shape: int) -> WireTensor:
        return WireTensor.of(torch.randn(shape, generator=generator))

    def prompt() -> PromptEmbeds:
        return PromptEmbeds(draw(1, CONTEXT_LENGTH, context))

    sides = (params.height // LATENT_SCALE, params.width // LATENT_SCALE)
    image = ImageCondition(draw(1, 1, context), draw(1, channels, 1, *sides))
    return TextCondition(prompt(), prompt()), image


def unet_inputs(model: DenoisingModel, params: SamplingParams, rows: int) -> dict[str, Any]:
    """Keyword arguments of one UNet call, drawn at random."""
    generator = torch.Generator().manual_seed(params.seed)
    context, channels = model.unet.config.cross_attention_dim, model.unet.config.in_channels
    sides = (params.height // LATENT_SCALE, params.width // LATENT_SCALE)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn((rows, *shape), generator=generator).to(model.device, model.dtype)

    return {
        "sample": draw(channels, params.num_frames, *sides),
        "timestep": torch.full((rows,), 501, device=model.device),
        "fps": torch.full((rows,), params.motion_fps, device=model.device),
        "image_latents": draw(channels, params.num_frames, *sides),
        "image_embeddings": draw(1, context),
        "encoder_hidden_states": draw(CONTEXT_LENGTH, context),
    }
