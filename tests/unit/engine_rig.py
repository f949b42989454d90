"""Requests for the step engine on the tiny model, and their solo runs to compare with."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from diffusion.engine import Engine, denoise
from diffusion.engine_config import EngineConfig
from diffusion.events import Event, Failed, Finished, Saved, Stepped
from diffusion.image import encode_image
from diffusion.model_folder import ModelFolder
from diffusion.params import SamplingParams
from diffusion.start import encode_start
from diffusion.state import ImageCondition, Latents, StartLatents, TextCondition
from diffusion.text import encode_prompt
from diffusion.weights import (
    DenoisingModel,
    load_denoising_model,
    load_image_model,
    load_text_model,
    load_vae,
)
from tests.warp import pan
from video.camera.move import CameraMove, Move
from video.photo import Fit

CPU = torch.device("cpu")


class Clock:
    """Seconds; stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Models:
    """The tiny model's stages, and conditions made by them."""

    folder: ModelFolder
    unet: DenoisingModel

    @classmethod
    def load(cls, folder: ModelFolder, dtype: torch.dtype = torch.float32) -> "Models":
        return cls(folder, load_denoising_model(folder, CPU, dtype, "tiny"))

    @lru_cache(maxsize=64)  # noqa: B019  # as long as the module's tests run
    def conditions(
        self, prompt: str, width: int, height: int
    ) -> tuple[TextCondition, ImageCondition]:
        text = load_text_model(self.folder, CPU, torch.float32)
        image = load_image_model(self.folder, CPU, torch.float32)
        frame = np.random.default_rng(7).integers(0, 255, (height, width, 3), dtype=np.uint8)
        prompts = TextCondition(encode_prompt(text, prompt), encode_prompt(text, "blurry"))
        return prompts, encode_image(image, frame)

    @lru_cache(maxsize=64)  # noqa: B019
    def start(self, num_frames: int, width: int, height: int) -> StartLatents:
        photo = np.random.default_rng(8).integers(0, 255, (40, 80, 3), dtype=np.uint8)
        frames = pan(photo, CameraMove(Move.PAN_RIGHT), num_frames, (width, height), Fit.CROP)
        vae = load_vae(self.folder, CPU, torch.float32)
        return encode_start(vae, np.stack([*frames]), chunk_frames=2)

    def start_of(self, params: SamplingParams) -> StartLatents | None:
        if not params.starts_from_frames:
            return None
        return self.start(params.num_frames, params.width, params.height)

    def __hash__(self) -> int:
        return id(self)

    def join(self, engine: Engine, request_id: str, params: SamplingParams, **more: Any) -> None:
        text, image = self.conditions(params.prompt, params.width, params.height)
        engine.join(request_id, params, text, image, self.start_of(params), **more)

    def alone(self, params: SamplingParams, config: EngineConfig | None = None) -> torch.Tensor:
        text, image = self.conditions(params.prompt, params.width, params.height)
        return tensor(denoise(self.unet, params, text, image, config, self.start_of(params)))


def params(**changes: Any) -> SamplingParams:
    values: dict[str, Any] = {
        "prompt": "a blue vase turns",
        "negative_prompt": "blurry",
        "width": 32,
        "height": 32,
        "num_frames": 3,
        "num_inference_steps": 4,
        "guidance_scale": 9.0,
        "motion_fps": 8,
        "seed": 1,
    }
    return SamplingParams(**(values | changes))


def tensor(latents: Latents) -> torch.Tensor:
    return latents.latents.to(CPU, torch.float32)


def run(engine: Engine, most_ticks: int = 1000) -> list[Event]:
    """Tick until no request has work left; everything that happened, in order."""
    events: list[Event] = []
    while engine.has_work:
        events += engine.tick()
        most_ticks -= 1
        assert most_ticks, "the engine does not come to an end"
    return events


def results(events: list[Event]) -> dict[str, torch.Tensor]:
    return {e.request_id: tensor(e.latents) for e in events if isinstance(e, Finished)}


def steps(events: list[Event], request_id: str) -> list[int]:
    return [e.step for e in events if isinstance(e, Stepped) and e.request_id == request_id]


def saved(events: list[Event], request_id: str) -> list[Saved]:
    return [e for e in events if isinstance(e, Saved) and e.request_id == request_id]


def failures(events: list[Event]) -> dict[str, Exception]:
    return {e.request_id: e.error for e in events if isinstance(e, Failed)}
