"""The embedded model on photos it was never trained on: what its codec and its UNet cost or add.

Two tests. "studio" is the service's own case: the camera moves within the photo, the start is the
truth itself, and the UNet can only lose; what counts is how little. "photo only": the start knows
the first frame alone, mirrored beyond its borders, and the truth comes from the whole photo; a UNet
that knows more of pictures than that could gain.
"""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

from benchmarks.quality.model import EmbeddedModel
from benchmarks.quality.sheet import Sheets
from benchmarks.quality.takes import HELD_OUT, MOVES, Frames, Take, takes
from diffusion.params import SamplingParams
from video.camera.move import CameraMove, Move
from video.camera.scene import render
from video.photo import Fit, PhotoLimits, open_photo

SIDE, NUM_FRAMES, STEPS = 128, 8, 20
STRENGTHS = (0.25, 0.4)
GATE_DB = 2.0
GOAL_S = 20.0

_DEMO_SIDE, _DEMO_FRAMES = 256, 16
_THREADS = 2

Clips = dict[str, Frames]
Scores = dict[str, dict[str, float]]


def measure_embedded(sheets: Path | None = None) -> dict[str, Any]:
    """PSNR and SSIM against the truth, per move, per photo and over all; the gates; seconds.

    With a folder for it, contact sheets of the studio test are written too.
    """
    torch.set_num_threads(_THREADS)
    model = EmbeddedModel()
    studio = compare(model, photo_only=False, sheets=sheets)
    photo_only = compare(model, photo_only=True)
    return {
        "clip": f"{SIDE}x{SIDE}, {NUM_FRAMES} frames, {STEPS} steps, guidance off",
        "held_out": list(HELD_OUT),
        "studio": studio,
        "photo_only": photo_only,
        "gates": gates(studio, photo_only),
        "guided_clip": seconds_of_a_clip(model),
    }


def compare(
    model: EmbeddedModel, *, photo_only: bool, sheets: Path | None = None
) -> dict[str, Any]:
    """One of the two tests."""
    pages = Sheets()
    rows: list[tuple[str, Move, Scores]] = []
    for take in takes(SIDE, NUM_FRAMES, photo_only=photo_only):
        clips = clips_of(model, take)
        scores = {
            name: {"psnr_db": psnr(frames, take.truth), "ssim": ssim(frames, take.truth)}
            for name, frames in clips.items()
        }
        rows.append((take.photo, take.move, scores))
        if sheets is not None:
            pages.add(take, {**clips, "from noise": model.decode(_from_noise(model, take))})
    if sheets is not None:
        pages.write(sheets)
    return {
        "all": _mean([scores for _, _, scores in rows]),
        "by_move": {move: _mean([s for _, m, s in rows if m == move]) for move in MOVES},
        "by_photo": {photo: _mean([s for p, _, s in rows if p == photo]) for photo in HELD_OUT},
    }


def gates(studio: dict[str, Any], photo_only: dict[str, Any]) -> dict[str, Any]:
    """How near the UNet stays to its codec, and whether it adds anything to the decoded warp."""
    loss = studio["all"]["codec"]["psnr_db"] - studio["all"]["guided 0.25"]["psnr_db"]
    guided = (photo_only["all"][f"guided {strength}"]["psnr_db"] for strength in STRENGTHS)
    gain = max(guided) - photo_only["all"]["codec"]["psnr_db"]
    return {
        "below_the_codec_db": round(loss, 2),
        "within_2_db_of_the_codec": loss <= GATE_DB,
        "over_the_decoded_warp_db": round(gain, 2),
        "improves_on_the_decoded_warp": gain > 0,
    }


def clips_of(model: EmbeddedModel, take: Take) -> Clips:
    """What is compared with the truth, by name."""
    start = model.encode(take.known)
    clips = {
        "frozen first frame": np.repeat(take.known[:1], NUM_FRAMES, axis=0),
        "warp": take.known,
        "codec": model.decode(start.latents),
    }
    for strength in STRENGTHS:
        params = sampling(take.prompt, SIDE, strength)
        begin = params, take.known[0], start
        clips[f"noisy start {strength}"] = model.decode(model.noisy_start(*begin))
        clips[f"guided {strength}"] = model.decode(model.denoise(*begin))
    return clips


def sampling(prompt: str, side: int, strength: float | None) -> SamplingParams:
    """Without classifier-free guidance, as the demo runs the embedded model."""
    return SamplingParams(
        prompt=prompt,
        negative_prompt="",
        width=side,
        height=side,
        num_frames=NUM_FRAMES,
        num_inference_steps=STEPS,
        guidance_scale=1.0,
        motion_fps=16,
        seed=0,
        motion_strength=strength,
    )


def seconds_of_a_clip(model: EmbeddedModel) -> dict[str, Any]:
    """From a photo to the frames of a clip of the demo's size, stage by stage, on two threads."""
    photo = open_photo(HELD_OUT["watch"].read_bytes(), PhotoLimits()).rgb
    camera, size = CameraMove(Move.ZOOM_IN), (_DEMO_SIDE, _DEMO_SIDE)
    params = replace(
        sampling("a steel watch, slow zoom in", _DEMO_SIDE, STRENGTHS[0]), num_frames=_DEMO_FRAMES
    )
    times = [time.perf_counter()]
    frames = np.stack(list(render(photo, camera, _DEMO_FRAMES, size, Fit.CROP)))
    times.append(time.perf_counter())
    start = model.encode(frames)
    times.append(time.perf_counter())
    latents = model.denoise(params, frames[0], start)
    times.append(time.perf_counter())
    model.decode(latents)
    times.append(time.perf_counter())
    names = ("rendering", "frames_encoding", "conditions_and_denoising", "decoding")
    return {
        "clip": f"{_DEMO_SIDE}x{_DEMO_SIDE}, {_DEMO_FRAMES} frames, {params.unet_steps} steps",
        "threads": _THREADS,
        "seconds": round(times[-1] - times[0], 2),
        "stages": {n: round(b - a, 2) for n, a, b in zip(names, times, times[1:], strict=False)},
        "goal_s": GOAL_S,
    }


def psnr(frames: Frames, truth: Frames) -> float:
    """Over the whole clip, in dB, at most 99."""
    error = float(((frames.astype(np.float64) - truth) ** 2).mean())
    return min(99.0, 10 * float(np.log10(255**2 / max(error, 1e-9))))


def ssim(frames: Frames, truth: Frames) -> float:
    """The mean over the clip's first, middle and last frame."""
    picked = (0, len(truth) // 2, len(truth) - 1)
    values: list[NDArray[np.float64]] = [
        structural_similarity(frames[i], truth[i], channel_axis=2)  # type: ignore[no-untyped-call]
        for i in picked
    ]
    return float(np.mean(values))


def _from_noise(model: EmbeddedModel, take: Take) -> Any:
    return model.denoise(sampling(take.prompt, SIDE, None), take.known[0], None)


def _mean(rows: list[Scores]) -> Scores:
    return {
        name: {
            key: round(float(np.mean([row[name][key] for row in rows])), 3) for key in rows[0][name]
        }
        for name in rows[0]
    }
