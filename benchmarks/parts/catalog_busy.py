"""How much of a run its denoiser computes, and videos per hour beside a naive loop.

Goal: UNet calls fill at least 95 % of the time from the first to the last. The naive loop calls the
same stages one after the other, one row at a time, in one process; it neither measures quality nor
stores anything, and takes its turn before and after the run. Once with a paced UNet, which sleeps
an A100's step at 512x512 and leaves the cores to the rest; its clips have three steps, so the rest
has a second per clip to keep up, where a real one gives it sixteen. Once with the tiny model, which
computes: 96 % of its clip is denoising, and everything shares two cores.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from benchmarks.catalogue.call_log import between, busy
from benchmarks.catalogue.cluster import Running, apart, config_file, cores_used, running
from benchmarks.catalogue.command import following, output_of
from benchmarks.catalogue.products import Products, write_products
from benchmarks.catalogue.table import read_table, wrong_rows
from benchmarks.processes import cpu_seconds

if TYPE_CHECKING:
    from diffusion.weights import DenoisingModel

GOAL = 0.95
OUTPUT = "s3://shopreel/catalog/busy"
HOUR_S = 3600.0
_PATIENCE_S = 600.0


@dataclass(frozen=True, slots=True)
class Case:
    unet: str
    rows: int
    naive_rows: int  # in each of its two turns
    clip: Mapping[str, int]
    application: str
    paced: bool


CASES = (
    Case(
        "sleeps an A100's step at 512x512, 16 frames, at an assumed 125 TFLOP/s",
        rows=200,
        naive_rows=12,
        clip={"area_px": 64 * 64, "num_frames": 16, "fps": 8, "num_inference_steps": 3},
        application="benchmarks.catalogue.denoisers:build_paced",
        paced=True,
    ),
    Case(
        "tiny model, 128x128, 16 frames, 50 steps",
        rows=20,
        naive_rows=4,
        clip={"area_px": 128 * 128, "num_frames": 16, "fps": 8, "num_inference_steps": 50},
        application="benchmarks.catalogue.denoisers:build_timed",
        paced=False,
    ),
)


def measure() -> dict[str, Any]:
    return {"goal": GOAL, "cases": [apart(_measured, case) for case in CASES]}


def _measured(case: Case) -> dict[str, Any]:
    with TemporaryDirectory(prefix="reel-") as temp:
        folder = Path(temp).resolve()
        products = write_products(folder / "products", case.rows)
        with running(config_file(folder, case.clip, case.application)) as cluster:
            naive = _naive(case)
            before = naive()
            ours = _run(cluster, products, case)
            seconds, denoising = zip(*before, *naive(), strict=True)
    naive_per_hour = HOUR_S * len(seconds) / sum(seconds)
    return {
        "unet": case.unet,
        "rows": case.rows,
        "run": ours,
        "naive loop": {
            "rows": len(seconds),
            "videos_per_hour": round(naive_per_hour, 1),
            "denoising_share": round(sum(denoising) / sum(seconds), 4),
        },
        "videos per hour over the naive loop's": round(ours["videos_per_hour"] / naive_per_hour, 3),
        "goal_reached": ours["denoiser_busy"]["share"] >= GOAL,
    }


def _naive(case: Case) -> Callable[[], list[tuple[float, float]]]:
    """Runs a turn: of each clip its seconds, and those of its denoising."""
    from benchmarks.catalogue.denoisers import paced
    from benchmarks.clip import BareClip, sampling

    def adapt(loaded: "DenoisingModel") -> "DenoisingModel":
        return paced(loaded) if case.paced else loaded

    bare, side = BareClip(adapt), round(case.clip["area_px"] ** 0.5)
    wanted = {name: case.clip[name] for name in ("num_frames", "num_inference_steps")}
    params = sampling(width=side, height=side, **wanted)
    bare.run(params, inbetweens=0)

    def turn() -> list[tuple[float, float]]:
        clips = []
        for _ in range(case.naive_rows):
            begun = time.perf_counter()
            stages = bare.run(params, inbetweens=0)
            clips.append((time.perf_counter() - begun, stages["denoising"]))
        return clips

    return turn


def _run(cluster: Running, products: Products, case: Case) -> dict[str, Any]:
    output = output_of(cluster.objects, OUTPUT)
    begun, before, wall = time.time(), cpu_seconds(), time.perf_counter()
    with following(cluster.data, products.manifest, OUTPUT) as run:
        run.wait(_PATIENCE_S)
    wall_s, after = time.perf_counter() - wall, cpu_seconds()
    table = read_table(output)
    if wrong := wrong_rows(table, products, output):
        raise RuntimeError(f"not what was asked for: {wrong[:3]}")
    first = min(row["started_at"] for row in table)
    last = max(row["finished_at"] for row in table)
    return {
        "denoiser_busy": busy(between(cluster.unet_calls(), begun)),
        "videos_per_hour": round(HOUR_S * case.rows / (last - first).total_seconds(), 1),
        "first_row_to_last_s": round((last - first).total_seconds(), 1),
        "whole_command_s": round(wall_s, 1),
        "cores_used": cores_used(before, after, wall_s),
    }
