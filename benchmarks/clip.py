"""The bare functions composed in one process: what the service is compared with."""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import torch

from diffusion.decode import decode_latents
from diffusion.engine import denoise
from diffusion.image import encode_image
from diffusion.model_folder import ModelConfig, ModelFolder
from diffusion.params import SamplingParams
from diffusion.state import TextCondition
from diffusion.text import encode_prompt
from diffusion.tiny import write_tiny_model
from diffusion.weights import (
    DenoisingModel,
    load_denoising_model,
    load_image_model,
    load_text_model,
    load_vae_decoder,
)
from serve.commands import LOCAL_CONFIG
from serve.config import load
from video.interpolate import interpolate
from video.mp4 import choose_codec, write_mp4
from video.photo import Fit, fit_photo, open_photo
from video.stills import poster, spritesheet

PHOTO = Path(__file__).parents[1] / "examples" / "products" / "watch-steel.jpg"
PROMPT, NEGATIVE = "a steel watch turns slowly to the left", "blurry"


class BareClip:
    """Every stage of one clip as a plain call, set up as cluster/local.yaml does."""

    def __init__(
        self, adapt: Callable[[DenoisingModel], DenoisingModel] = lambda model: model
    ) -> None:
        config = load(LOCAL_CONFIG).app
        self._stages, self._limits = config.stages, config.limits.photo
        self.threads = {
            "text_encoding": self._stages.text_encoder.threads,
            "image_encoding": self._stages.image_encoder.threads,
            "denoising": config.tiers[0].threads,
            "decoding": self._stages.decoder.threads,
            "interpolation": self._stages.video_encoder.threads,
            "video_encoding": self._stages.video_encoder.threads,
        }
        device, dtype = torch.device("cpu"), torch.float32
        with tempfile.TemporaryDirectory() as temp:
            write_tiny_model(Path(temp))
            folder = ModelFolder.open(ModelConfig(source=temp))
            self._text = load_text_model(folder, device, dtype)
            self._image = load_image_model(folder, device, dtype)
            self._unet = adapt(load_denoising_model(folder, device, dtype, "tiny"))
            self._vae = load_vae_decoder(folder, device, dtype)
        self._codec = choose_codec(self._stages.video_encoder.mp4)

    def run(self, params: SamplingParams, inbetweens: int = 2, fps: float = 8) -> dict[str, float]:
        """Make the clip; seconds per stage."""
        seconds: dict[str, float] = {}

        @contextmanager
        def stage(name: str) -> Iterator[None]:
            torch.set_num_threads(self.threads[name])
            cv2.setNumThreads(self.threads[name])
            begun = time.perf_counter()
            yield
            seconds[name] = time.perf_counter() - begun

        with stage("text_encoding"):
            prompts = (encode_prompt(self._text, text) for text in (PROMPT, NEGATIVE))
            text = TextCondition(*prompts)
        with stage("image_encoding"):
            photo = open_photo(PHOTO.read_bytes(), self._limits)
            frame = fit_photo(photo.rgb, params.width, params.height, Fit.CROP)
            image = encode_image(self._image, frame)
        with stage("denoising"):
            latents = denoise(self._unet, params, text, image)
        with stage("decoding"):
            frames = decode_latents(self._vae, latents, self._stages.decoder.chunk_frames)
        encoder = self._stages.video_encoder
        with stage("interpolation"):
            played = interpolate(frames, inbetweens, encoder.interpolation)
        with stage("video_encoding"), tempfile.TemporaryDirectory() as temp:
            path = Path(temp) / "video.mp4"
            write_mp4(path, played, fps * (inbetweens + 1), self._codec, encoder.mp4, {})
            poster(played[0])
            spritesheet(frames)
        return seconds


def sampling(**changes: Any) -> SamplingParams:
    """The `standard` preset of cluster/local.yaml."""
    values: dict[str, Any] = {
        "prompt": PROMPT,
        "negative_prompt": NEGATIVE,
        "width": 128,
        "height": 128,
        "num_frames": 16,
        "num_inference_steps": 50,
        "guidance_scale": 9.0,
        "motion_fps": 16,
        "seed": 1,
    }
    return SamplingParams(**(values | changes))
