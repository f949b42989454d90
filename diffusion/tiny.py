"""A tiny I2VGen-XL with random weights, written as a normal diffusers folder from the real classes.

It computes noise, but through every code path of the real model in milliseconds: tests use it, and
the one-machine demo until it is given trained weights.
"""

from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, I2VGenXLPipeline, I2VGenXLUNet
from transformers import (
    CLIPImageProcessorPil,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)
from transformers.convert_slow_tokenizer import bytes_to_unicode

from diffusion.weights import CONTEXT_LENGTH

_WIDTH = 32
_START, _END = "<|startoftext|>", "<|endoftext|>"


def write_tiny_model(folder: Path, seed: int = 0) -> None:
    """Write all seven components below `folder`; the same seed gives the same weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        pipeline = I2VGenXLPipeline(
            vae=_vae(),
            text_encoder=_text_encoder(),
            tokenizer=_tokenizer(),
            image_encoder=_image_encoder(),
            feature_extractor=CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=32),
            unet=_unet(),
            scheduler=_scheduler(),
        )
    pipeline.save_pretrained(folder, safe_serialization=True)


def _unet() -> I2VGenXLUNet:
    unet = I2VGenXLUNet(
        block_out_channels=(16, _WIDTH),
        layers_per_block=1,
        norm_num_groups=8,
        cross_attention_dim=_WIDTH,
        attention_head_dim=8,
        down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
        sample_size=16,
    )
    # Temporal layers start at zero in training; here they must matter, or tests would not see them.
    for parameter in unet.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)
    return unet


def _vae() -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 16, 16, 16),
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=4,
        sample_size=128,
        scaling_factor=0.18215,
    )


def _text_encoder() -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(_vocabulary()),
            hidden_size=_WIDTH,
            intermediate_size=2 * _WIDTH,
            num_attention_heads=4,
            num_hidden_layers=3,
            max_position_embeddings=CONTEXT_LENGTH,
            bos_token_id=_vocabulary()[_START],
            eos_token_id=_vocabulary()[_END],
            pad_token_id=_vocabulary()[_END],
        )
    )


def _image_encoder() -> CLIPVisionModelWithProjection:
    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=_WIDTH,
            intermediate_size=2 * _WIDTH,
            num_attention_heads=4,
            num_hidden_layers=2,
            image_size=32,
            patch_size=8,
            projection_dim=_WIDTH,
        )
    )


def _vocabulary() -> dict[str, int]:
    """CLIP's byte alphabet without merges: every text has tokens, one per byte."""
    letters = list(bytes_to_unicode().values())
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), _START, _END]
    return {token: index for index, token in enumerate(tokens)}


def _tokenizer() -> CLIPTokenizer:
    return CLIPTokenizer(vocab=_vocabulary(), merges=[], model_max_length=CONTEXT_LENGTH)


def _scheduler() -> DDIMScheduler:
    """The published scheduler_config.json of ali-vilab/i2vgen-xl."""
    return DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="leading",
        steps_offset=1,
        clip_sample=False,
        set_alpha_to_one=True,
    )
