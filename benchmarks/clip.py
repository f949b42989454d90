"""The bare functions composed in one process: what the service is compared with."""

import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from diffusion import denoise
from diffusion.decode import decode_latents
from diffusion.image import encode_image
from diffusion.model_folder import ModelConfig, ModelFolder
from diffusion.params import SamplingParams
from diffusion.state import TextCondition
from diffusion.text import encode_prompt
from diffusion.tiny import write_tiny_model
from diffusion.weights import (
    load_denoising_model,
    load_image_model,
    load_text_model,
    load_vae_decoder,
)
from video.interpolate import InterpolationConfig, interpolate
from video.mp4 import Mp4Config, choose_codec, write_mp4
from video.photo import Fit, PhotoLimits, fit_photo, open_photo
from video.stills import poster, spritesheet

PHOTO = Path(__file__).parents[1] / "examples" / "products" / "watch-steel.jpg"
PROMPT, NEGATIVE = "a steel watch turns slowly to the left", "blurry"


class BareClip:
    """Every stage of one clip as a plain call, with the service's threads and dtype."""

    def __init__(self, threads: int = 2):
        torch.set_num_threads(threads)
        device, dtype = torch.device("cpu"), torch.float32
        with tempfile.TemporaryDirectory() as temp:
            write_tiny_model(Path(temp))
            folder = ModelFolder.open(ModelConfig(source=temp))
            self._text = load_text_model(folder, device, dtype)
            self._image = load_image_model(folder, device, dtype)
            self._unet = load_denoising_model(folder, device, dtype)
            self._vae = load_vae_decoder(folder, device, dtype)
        self._mp4 = Mp4Config()
        self._codec = choose_codec(self._mp4)

    def run(self, params: SamplingParams, inbetweens: int = 2, fps: float = 8) -> dict[str, float]:
        """Make the clip; seconds per stage."""
        seconds: dict[str, float] = {}
        last = time.perf_counter()

        def lap(stage: str) -> None:
            nonlocal last
            now = time.perf_counter()
            seconds[stage], last = now - last, now

        prompts = (encode_prompt(self._text, text) for text in (PROMPT, NEGATIVE))
        text = TextCondition(*prompts)
        lap("text_encoding")
        photo = open_photo(PHOTO.read_bytes(), PhotoLimits())
        frame = fit_photo(photo.rgb, params.width, params.height, Fit.CROP)
        image = encode_image(self._image, frame)
        lap("image_encoding")
        state = denoise.begin(self._unet, params, text, image)
        while not state.is_done:
            denoise.advance(self._unet, state)
        latents = denoise.latents_of(state)
        lap("denoising")
        frames = decode_latents(self._vae, latents, chunk_frames=4)
        lap("decoding")
        played = interpolate(frames, inbetweens, InterpolationConfig())
        lap("interpolation")
        with tempfile.TemporaryDirectory() as temp:
            path = Path(temp) / "video.mp4"
            write_mp4(path, played, fps * (inbetweens + 1), self._codec, self._mp4, {})
            poster(played[0])
            spritesheet(frames)
        lap("video_encoding")
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
