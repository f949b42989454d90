"""Camera moves on three products: truth of motion, sharpness kept, seconds of one core."""

import statistics
import time
from typing import Any

import cv2

from benchmarks.clip import PHOTO
from benchmarks.machine import spread
from video.camera.measure import path_error_px, photo_from, sharpness_kept
from video.camera.move import CameraMove, Move
from video.camera.path import CameraPath
from video.camera.scene import open_scene
from video.photo import Fit, PhotoLimits, open_photo

PRODUCTS = ("watch-steel.jpg", "digital-speaker.jpg", "home-vase.webp")
SIDE, FRAMES, REPEATS = 512, 48, 5
PAIRS = ((0, 1), (11, 12), (23, 24), (23, 26), (35, 36))  # at rest, at full speed, and between


def measure_camera() -> dict[str, Any]:
    """By move; `path_error_px` is the mean over photos and pairs of frames, `worst_px` the largest
    of these means. What DIS itself gets wrong on shiny and fine textures is in it."""
    cv2.setNumThreads(1)
    photos = [
        open_photo((PHOTO.parent / name).read_bytes(), PhotoLimits()).rgb for name in PRODUCTS
    ]
    figures: dict[str, Any] = {"photos": PRODUCTS, "side_px": SIDE, "frames": FRAMES, "moves": {}}
    for move in Move:
        path = CameraPath(CameraMove(move), SIDE, SIDE, FRAMES)
        scenes = [open_scene(photo, path) for photo in photos]
        errors, kept = [], []
        for photo, scene in zip(photos, scenes, strict=True):
            frames = list(scene.frames())
            errors += [path_error_px(scene, frames, *pair) for pair in PAIRS]
            if scene.layers == 1:
                for index in (0, FRAMES // 2, FRAMES - 1):
                    still = photo_from(photo, path, path.views()[index], Fit.CROP)
                    kept.append(sharpness_kept(frames[index], still))
        seconds, cpu_seconds = _timed(path, photos[0])
        figures["moves"][move] = {
            "path_error_px": round(statistics.fmean(errors), 3),
            "worst_px": round(max(errors), 3),
            "sharpness_kept": spread(kept) if kept else "two layers: no one view",
            "layers": [scene.layers for scene in scenes],
            "seconds": round(seconds, 3),
            "cpu_seconds": round(cpu_seconds, 3),
        }
    moves = figures["moves"].values()
    figures["path_error_px"] = round(statistics.fmean(m["path_error_px"] for m in moves), 3)
    figures["slowest_cpu_seconds"] = max(m["cpu_seconds"] for m in moves)
    return figures


def _timed(path: CameraPath, photo: Any) -> tuple[float, float]:
    """Median seconds of a clip by the wall and by the CPU, from decoded photo to last frame."""
    walls, cpus = [], []
    for _ in range(REPEATS):
        wall, cpu = time.perf_counter(), time.process_time()
        for _frame in open_scene(photo, path).frames():
            pass
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return statistics.median(walls), statistics.median(cpus)
