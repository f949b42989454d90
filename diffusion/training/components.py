"""The embedded model's networks, all of I2VGen-XL's own classes, small."""

import gzip
import zipfile
from pathlib import Path

import torch
from diffusers import DDIMScheduler, I2VGenXLUNet
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

WIDTH = 64
"""Of the text and image embeddings: cross_attention_dim."""

_MERGES = 49_152 - 256 - 2
_VOCABULARY = "open_clip/bpe_simple_vocab_16e6.txt.gz"


def make_unet() -> I2VGenXLUNet:
    """2.4 M parameters: attention at the lowest of three resolutions only."""
    unet = I2VGenXLUNet(
        block_out_channels=(32, 64, 64),
        layers_per_block=1,
        norm_num_groups=8,
        cross_attention_dim=WIDTH,
        attention_head_dim=8,
        down_block_types=("DownBlock3D", "DownBlock3D", "CrossAttnDownBlock3D"),
        up_block_types=("CrossAttnUpBlock3D", "UpBlock3D", "UpBlock3D"),
        sample_size=64,
    )
    for module in unet.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0  # there is more data than such a network can hold
    return unet


def make_tokenizer(wheel: Path) -> CLIPTokenizer:
    """CLIP's tokenizer, of the vocabulary in open_clip_torch's wheel (MIT; OpenAI's CLIP)."""
    with zipfile.ZipFile(wheel) as archive, archive.open(_VOCABULARY) as packed:
        lines = gzip.decompress(packed.read()).decode().split("\n")
    pairs = [tuple(line.split()) for line in lines[1 : _MERGES + 1]]
    letters = list(bytes_to_unicode().values())
    tokens = [*letters, *(f"{letter}</w>" for letter in letters)]
    tokens += ["".join(pair) for pair in pairs] + ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        vocab={token: index for index, token in enumerate(tokens)},
        merges=pairs,
        model_max_length=CONTEXT_LENGTH,
    )


def make_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            num_attention_heads=4,
            num_hidden_layers=2,
            max_position_embeddings=CONTEXT_LENGTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def make_image_encoder() -> CLIPVisionModelWithProjection:
    """Never trained: the UNet learns to read its random features."""
    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            num_attention_heads=4,
            num_hidden_layers=2,
            image_size=32,
            patch_size=8,
            projection_dim=WIDTH,
        )
    )


def make_feature_extractor() -> CLIPImageProcessorPil:
    return CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=32)


def make_scheduler() -> DDIMScheduler:
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
