"""The embedded model on pictures it was never trained on: what its codec and its UNet cost or add.

Two tests. "studio": the camera moves inside the photo, so the rendered clip is the truth itself,
and the UNet can only lose; what counts is how little. "photo only": the rendered clip knows one
frame and nothing around it, the truth comes from the whole picture; here a UNet that knows more
than the warp could gain.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import skimage.data
import torch
from diffusers import DDIMScheduler
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

from benchmarks.quality.sheet import Sheets
from diffusion.decode import decode_latents
from diffusion.image import add_position_planes, encode_image
from diffusion.model_folder import ModelConfig, ModelFolder
from diffusion.state import Latents, WireTensor
from diffusion.text import encode_prompt
from diffusion.training.clips import MOVES, Move, Window, film
from diffusion.weights import (
    load_denoising_model,
    load_image_model,
    load_text_model,
    load_vae_decoder,
)

Frames = NDArray[np.uint8]  # [F, H, W, 3]

CPU = torch.device("cpu")
SIDE, NUM_FRAMES, STEPS = 128, 16, 20
STRENGTHS = (0.25, 0.4)
SPEED = 0.4
"""Of the moves at full speed: a pan crosses 30 of 128 px in 16 frames, a zoom adds a fifth."""
GATE_DB = 2.0

_PRODUCTS = Path(__file__).parents[2] / "examples" / "products"
_PHOTOGRAPHS = Path(skimage.data.__file__).parent
HELD_OUT = {
    "coffee": _PHOTOGRAPHS / "coffee.png",
    "motorcycle": _PHOTOGRAPHS / "motorcycle_left.png",
    "perfume": _PRODUCTS / "beauty-perfume.jpg",
    "macarons": _PRODUCTS / "food-macarons.jpg",
    "vase": _PRODUCTS / "home-vase.webp",
    "watch": _PRODUCTS / "watch-steel.jpg",
}


@dataclass(frozen=True, slots=True)
class Take:
    """One move over one photo."""

    photo: str
    move: Move
    truth: Frames
    warp: Frames  # what the guided start is made of


def takes(*, photo_only: bool) -> Iterator[Take]:
    """Every held-out photo with every move."""
    for name, path in HELD_OUT.items():
        picture = np.asarray(cv2.imread(str(path), cv2.IMREAD_COLOR_RGB), np.uint8)
        side = min(picture.shape[:2])
        # The largest view that leaves a margin for every move.
        scale = 0.78 * side / SIDE
        whole = _shrunk(picture, scale)
        centre = (whole.shape[1] / 2, whole.shape[0] / 2)
        for move in MOVES:
            pivot = (SIDE / 2, SIDE / 2)
            truth = film(whole, move, SPEED, NUM_FRAMES, Window(SIDE, 1.0, centre, pivot))
            warp = truth
            if photo_only:
                left, top = (int(c - SIDE / 2) for c in centre)
                known = whole[top : top + SIDE, left : left + SIDE]
                window = Window(SIDE, 1.0, (centre[0] - left, centre[1] - top), pivot)
                warp = film(known, move, SPEED, NUM_FRAMES, window)
            yield Take(name, move, truth, warp)


def _shrunk(picture: Frames, scale: float) -> Frames:
    """Divided by `scale` with area sampling, so that no frame of it aliases."""
    size = (round(picture.shape[1] / scale), round(picture.shape[0] / scale))
    method = cv2.INTER_AREA if scale > 1 else cv2.INTER_LANCZOS4
    return np.asarray(cv2.resize(picture, size, interpolation=method), np.uint8)


class Model:
    """The stages of the embedded model in one process, started from frames."""

    def __init__(self) -> None:
        folder = ModelFolder.open(ModelConfig(name="embedded", source="embedded"))
        kind = torch.float32
        self.text = load_text_model(folder, CPU, kind)
        self.image = load_image_model(folder, CPU, kind)
        self.denoising = load_denoising_model(folder, CPU, kind, "embedded")
        self.decoder = load_vae_decoder(folder, CPU, kind)

    @torch.inference_mode()
    def encode(self, frames: Frames) -> torch.Tensor:
        """uint8 [F, H, W, 3] to latents [1, 4, F, h, w]."""
        vae = self.image.vae
        pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 127.5 - 1
        parts = torch.split(pixels, 4)
        latents = torch.cat([vae.encode(part).latent_dist.mode() for part in parts])
        scaled: torch.Tensor = latents * vae.config.scaling_factor
        return scaled.transpose(0, 1).unsqueeze(0)

    def decode(self, latents: torch.Tensor) -> Frames:
        return decode_latents(self.decoder, Latents(WireTensor.of(latents)), 4)

    @torch.inference_mode()
    def guided(
        self, start: torch.Tensor, photo: Frames, prompt: str, strength: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The noised start, and what the UNet makes of it in the last `strength` of STEPS steps.

        The start is scaled as its signal is, so that it can be decoded.
        """
        config = self.denoising.scheduler.config
        scheduler = DDIMScheduler.from_config(config, timestep_spacing="trailing")
        scheduler.set_timesteps(STEPS)
        timesteps = scheduler.timesteps[-int(round(STEPS * strength, 9)) :]
        noise = torch.randn(start.shape, generator=torch.Generator().manual_seed(0))
        noisy = latents = scheduler.add_noise(start, noise, timesteps[:1])
        condition = encode_image(self.image, photo)
        first = condition.image_latents.to(CPU, torch.float32)
        for timestep in timesteps:
            velocity = self.denoising.unet(
                latents,
                timestep,
                fps=torch.tensor([16]),
                image_latents=add_position_planes(first, start.shape[2]),
                image_embeddings=condition.image_embeddings.to(CPU, torch.float32),
                encoder_hidden_states=encode_prompt(self.text, prompt).embeds.to(
                    CPU, torch.float32
                ),
                return_dict=False,
            )[0]
            latents = scheduler.step(velocity, timestep, latents).prev_sample
        signal = scheduler.alphas_cumprod[timesteps[0]].sqrt()
        return noisy / signal, latents


def measure(sheets: Path | None = None) -> dict[str, Any]:
    """PSNR and SSIM against the truth, per move, per photo and over all; and the gates.

    With a folder for it, contact sheets of the studio test are written too.
    """
    studio, photo_only = compare(photo_only=False, sheets=sheets), compare(photo_only=True)
    return {
        "clip": f"{SIDE}x{SIDE}, {NUM_FRAMES} frames, {STEPS} steps",
        "held_out": list(HELD_OUT),
        "studio": studio,
        "photo only": photo_only,
        "gates": gates(studio, photo_only),
    }


def compare(*, photo_only: bool, sheets: Path | None = None) -> dict[str, Any]:
    """One of the two tests."""
    model, pages = Model(), Sheets()
    rows = []
    for take in takes(photo_only=photo_only):
        clips, seconds = _clips(model, take)
        rows.append((take.photo, take.move.name, _scores(clips, seconds, take.truth)))
        pages.add(take.photo, take.move.name, {"truth": take.truth, **clips})
    if sheets is not None:
        pages.write(sheets)
    return {
        "all": _mean([scores for _, _, scores in rows]),
        "by_move": {
            move.name: _mean([s for _, name, s in rows if name == move.name]) for move in MOVES
        },
        "by_photo": {
            photo: _mean([s for name, _, s in rows if name == photo]) for photo in HELD_OUT
        },
    }


def gates(studio: dict[str, Any], photo_only: dict[str, Any]) -> dict[str, Any]:
    """How near the UNet stays to its codec, and whether it adds anything to the warp."""
    loss = studio["all"]["codec"]["psnr_db"] - studio["all"]["guided 0.25"]["psnr_db"]
    guided = (photo_only["all"][f"guided {strength}"]["psnr_db"] for strength in STRENGTHS)
    gain = max(guided) - photo_only["all"]["codec"]["psnr_db"]
    return {
        "below_the_codec_db": round(loss, 2),
        "within_2_db_of_the_codec": loss <= GATE_DB,
        "over_the_decoded_warp_db": round(gain, 2),
        "improves_on_the_decoded_warp": gain > 0,
    }


Scores = dict[str, dict[str, float]]


def _clips(model: Model, take: Take) -> tuple[dict[str, Frames], dict[str, float]]:
    """What is compared with the truth, by name, and how long the guided ones took."""
    start = model.encode(take.warp)
    candidates = {
        "frozen first frame": np.repeat(take.warp[:1], NUM_FRAMES, axis=0),
        "warp": take.warp,
        "codec": model.decode(start),
    }
    seconds = {}
    for strength in STRENGTHS:
        begun = time.perf_counter()
        noisy, latents = model.guided(start, take.warp[0], take.move.words[0], strength)
        candidates[f"guided {strength}"] = model.decode(latents)
        seconds[f"guided {strength}"] = time.perf_counter() - begun
        candidates[f"noisy start {strength}"] = model.decode(noisy)
    return candidates, seconds


def _scores(clips: dict[str, Frames], seconds: dict[str, float], truth: Frames) -> Scores:
    scores = {}
    for name, frames in clips.items():
        scores[name] = {"psnr_db": psnr(frames, truth), "ssim": ssim(frames, truth)}
        if name in seconds:
            scores[name]["seconds"] = seconds[name]
    return scores


def psnr(frames: Frames, truth: Frames) -> float:
    """Over the whole clip, in dB, at most 99."""
    error = float(((frames.astype(np.float64) - truth) ** 2).mean())
    return min(99.0, 10 * float(np.log10(255**2 / max(error, 1e-9))))


def ssim(frames: Frames, truth: Frames) -> float:
    """The mean over the clip's first, middle and last frame."""
    picked = (0, len(truth) // 2, len(truth) - 1)
    values = [
        structural_similarity(frames[i], truth[i], channel_axis=2)  # type: ignore[no-untyped-call]
        for i in picked
    ]
    return float(np.mean(values))


def _mean(rows: list[Scores]) -> Scores:
    return {
        name: {
            key: round(float(np.mean([row[name][key] for row in rows])), 3) for key in rows[0][name]
        }
        for name in rows[0]
    }
