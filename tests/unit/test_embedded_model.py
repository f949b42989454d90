"""The packaged checkpoint: it loads, here and in diffusers' own pipeline, and takes noise away."""

import tomllib
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import I2VGenXLPipeline
from PIL import Image

from benchmarks.quality.embedded import sampling
from benchmarks.quality.model import EmbeddedModel
from benchmarks.quality.takes import HELD_OUT
from cluster.preflight import check_weights
from cluster.preflight_stores import check_nodes_weights
from diffusion.model_folder import EMBEDDED, ModelConfig, ModelFolder
from diffusion.weights import TextModel, load_image_model, load_text_model
from video.photo import Fit, PhotoLimits, fit_photo, open_photo

CPU, FP32 = torch.device("cpu"), torch.float32
MOST_BYTES = 40_000_000

# As open_clip_torch 3.3.0's tokenizer has them, which is OpenAI's.
CLIP_IDS = {
    "": [],
    "a photo of a cat": [320, 1125, 539, 320, 2368],
    "hello world!": [3306, 1002, 256],
    "The camera zooms in slowly": [518, 3934, 4397, 3770, 530, 9568],
    "a mustard knitted beanie, parallax 35mm": [
        *(320, 15794, 28151, 21534, 267, 15143, 10024, 274, 276, 2848)
    ],
    "Ünïcödé naïve café": [6522, 77, 35689, 66, 7255, 67, 4166, 1097, 35689, 563, 15304],
    "旋转的茶杯": [22265, 233, 164, 121, 105, 163, 248, 226, 164, 234, 114, 27667, 363],
    "don't stop": [847, 713, 1691],
    "GA-2100-1A1ER 100% wool": [
        *(1531, 268, 273, 272, 271, 271, 268, 272, 320, 272, 528, 272, 271, 271, 260, 13283)
    ],
    "  two   spaces\tand a tab ": [1237, 9006, 537, 320, 14724],
    "🙂": [14860],
}


@pytest.fixture(scope="module")
def folder() -> ModelFolder:
    return ModelFolder.open(ModelConfig(name="embedded", source="embedded"))


@pytest.fixture(scope="module")
def text(folder: ModelFolder) -> TextModel:
    return load_text_model(folder, CPU, FP32)


def test_the_package_carries_it_and_it_is_small(folder: ModelFolder) -> None:
    assert folder.path == EMBEDDED
    assert sum(f.stat().st_size for f in EMBEDDED.rglob("*") if f.is_file()) < MOST_BYTES
    assert (folder.latent_scale, folder.size_multiple) == (4, 16)


def test_a_wheel_of_the_project_has_all_of_it() -> None:
    root = EMBEDDED.parents[1]
    settings = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]
    patterns = settings["package-data"]["diffusion"]
    packed = {path for pattern in patterns for path in EMBEDDED.parent.glob(pattern)}
    assert {path for path in EMBEDDED.rglob("*") if path.is_file()} <= packed


@pytest.mark.parametrize("prompt", CLIP_IDS)
def test_it_reads_text_as_clip_does(text: TextModel, prompt: str) -> None:
    assert text.tokenizer(prompt).input_ids == [49406, *CLIP_IDS[prompt], 49407]


def test_a_longer_text_is_cut_at_77_tokens(text: TextModel) -> None:
    ids = text.tokenizer("word " * 200, truncation=True).input_ids
    assert (len(ids), ids[-1], len(text.tokenizer)) == (77, 49407, 49408)


def test_the_stock_pipeline_runs_it() -> None:
    pipeline = I2VGenXLPipeline.from_pretrained(EMBEDDED, torch_dtype=FP32)
    pipeline.set_progress_bar_config(disable=True)
    photo = Image.fromarray(np.full((64, 64, 3), (200, 120, 40), np.uint8))
    video = pipeline(
        prompt="slow zoom in",
        image=photo,
        width=64,
        height=64,
        num_frames=3,
        num_inference_steps=2,
        clip_skip=None,  # its default reads a field that transformers has dropped
        generator=torch.Generator().manual_seed(0),
        output_type="np",
    ).frames
    assert video.shape == (1, 3, 64, 64, 3)
    assert np.isfinite(video).all()


def test_its_encoder_is_four_numbers_of_each_patch_of_four(folder: ModelFolder) -> None:
    """A flat picture has a flat code, and a patch depends on no other."""
    vae = load_image_model(folder, CPU, FP32).vae
    pixels = torch.full((1, 3, 32, 32), 0.25)
    spotted = pixels.clone()
    spotted[:, :, 12:16, 8:12] = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        flat, other = (vae.encode(image).latent_dist.mode() for image in (pixels, spotted))
    assert flat.shape == (1, 4, 8, 8)
    assert flat.std((2, 3)).max().item() < 1e-3
    changed = (flat - other).abs().amax((0, 1)) > 1e-2
    assert changed.nonzero().tolist() == [[3, 2]]


@pytest.mark.parametrize("photo", ["coffee", "perfume"])
def test_a_guided_clip_is_closer_to_the_photo_than_its_noisy_start(photo: str) -> None:
    picture = open_photo(HELD_OUT[photo].read_bytes(), PhotoLimits()).rgb
    frames = np.repeat(fit_photo(picture, 96, 96, Fit.CROP)[None], 8, axis=0)
    model = EmbeddedModel()
    start = model.encode(frames)
    params = replace(sampling("a static shot", 96, 0.25), num_frames=8)
    begin, truth = (params, frames[0], start), start.latents.to(CPU, FP32)
    before, left = (
        (latents.to(CPU, FP32) - truth).pow(2).mean().item()
        for latents in (model.noisy_start(*begin), model.denoise(*begin))
    )
    assert left < before / 2


def test_it_is_found_by_its_name_and_said_to_be_small() -> None:
    config = ModelConfig(name="embedded", source="embedded")
    for check in (check_weights(config), check_nodes_weights(config)):
        assert (check.status, "its videos are soft" in check.found) == ("warn", True)
