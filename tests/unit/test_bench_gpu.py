"""The GPU measurement's own code, on the tiny model and a CPU that can be capped like a card."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from benchmarks.card import Cpu
from benchmarks.full_size import Bench
from benchmarks.models import architecture_of, clip
from benchmarks.parts import gpu
from benchmarks.torch_variants import QUICK
from diffusion.memory import Architecture
from diffusion.model_folder import ModelFolder

SIZES = {"small": clip(32, 32, 3, 2), "large": clip(64, 64, 4, 4)}


class CappedCpu(Cpu):
    """Refuses UNet calls that are predicted to take more than its cap, as CUDA's allocator does."""

    def __init__(self) -> None:
        self._cap: int | None = None
        self._architecture: Architecture | None = None

    def describe(self) -> dict[str, Any]:
        return {"gpu": "No Card 3000 (TM)"}

    def peak_bytes(self, work: Any) -> int:
        work()
        return 1_000_000

    def taken_bytes(self) -> int:
        return 0

    @contextmanager
    def cap(self, most_bytes: int) -> Iterator[None]:
        self._cap = most_bytes
        yield
        self._cap = None

    def watch(self, unet: Any, vae: Any) -> None:
        self._architecture = architecture_of(unet, vae)
        unet.register_forward_pre_hook(self._check, with_kwargs=True)

    def _check(self, unet: Any, _: Any, inputs: dict[str, Any]) -> None:
        if self._cap is None or self._architecture is None:
            return
        rows, _, frames, height, width = inputs["sample"].shape
        chunked = unet.transformer_in.transformer_blocks[0]._chunk_size is not None
        needs = self._architecture.unet_bytes(width * 8, height * 8, frames, rows, 4, chunked)
        if needs > self._cap:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB.")


@pytest.fixture
def scale(tiny: ModelFolder) -> gpu.Scale:
    unet, vae = (
        {key: value for key, value in tiny.config(part).items() if not key.startswith("_")}
        for part in ("unet", "vae")
    )
    return gpu.Scale(unet, vae, SIZES, usual="small", short_steps=1)


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> CappedCpu:
    card = CappedCpu()
    build = Bench.build

    def watched(*args: Any) -> Bench:
        bench = build(*args)
        card.watch(bench.model.unet, bench.vae)
        return bench

    monkeypatch.setattr(Bench, "build", watched)
    monkeypatch.setattr(gpu, "COMPILED", {})
    monkeypatch.setattr(gpu, "ROUNDS", 1)
    return card


def measured(card: CappedCpu, scale: gpu.Scale, path: Path, budget_s: float) -> Any:
    gpu.Session(card, scale, path, Console(quiet=True), budget_s).run()
    return json.loads(path.read_text())["figures"]


def test_every_section_is_measured(card: CappedCpu, scale: gpu.Scale, tmp_path: Path) -> None:
    figures = measured(card, scale, tmp_path / "gpu.json", budget_s=600)
    for size in SIZES:
        assert set(figures["in_flight"][size]["clips"]) == {"1", "2", "4"}
        both = figures["side_by_side"][size]
        assert both["stock"]["clip_s"] > 0
        assert both["ours"]["videos_per_gpu_hour"] > 0
    assert figures["side_by_side"]["small"]["steps_run"] == 2
    options = figures["torch_options"]["small"]
    assert set(options) == {"none", *QUICK}
    assert options["sdpa math"]["difference"] < 1e-3
    assert "failed" in options["sdpa cudnn"]  # as on any CPU


def test_memory_that_runs_out_is_seen_rung_by_rung(
    card: CappedCpu, scale: gpu.Scale, tmp_path: Path
) -> None:
    ends = measured(card, scale, tmp_path / "gpu.json", budget_s=600)["out_of_memory"]["large"]
    assert [end["rungs"] for end in ends.values()] == [
        ["chunked_unet"],
        ["chunked_unet", "solo_rows"],
        [],  # the clip is gone, and its rungs with it
    ]
    clips = [end["large_clip"] for end in ends.values()]
    assert clips == ["finished", "finished", "OutOfMemory('CUDA out of memory')"]
    assert {end["self_test_after"] for end in ends.values()} == {"passed"}
    assert {end["small_clip_after"] for end in ends.values()} == {"finished"}


def test_what_there_is_no_time_for_is_left_out_and_named(
    card: CappedCpu, scale: gpu.Scale, tmp_path: Path
) -> None:
    figures = measured(card, scale, tmp_path / "gpu.json", budget_s=0.0)
    for size in SIZES:
        assert "left_out" in figures["in_flight"][size]
    assert "left_out" in figures["torch_compile"]["small"]


def test_a_section_that_fails_costs_no_other(
    card: CappedCpu, scale: gpu.Scale, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("CUDA error: an illegal instruction was encountered")

    monkeypatch.setattr(gpu, "side_by_side", fail)
    figures = measured(card, scale, tmp_path / "gpu.json", budget_s=600)
    assert "illegal instruction" in figures["side_by_side"]["large"]["failed"]
    assert figures["out_of_memory"]["large"]


def test_each_card_has_its_own_file(card: CappedCpu) -> None:
    assert gpu.path_for(card).name == "gpu-no-card-3000-tm.json"


def test_without_a_card_it_says_so_and_writes_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(gpu, "Session", None)
    gpu.measure()
    assert capsys.readouterr().err == "No CUDA GPU is at hand: nothing was measured.\n"


def test_it_needs_neither_ray_nor_a_store() -> None:
    code = (
        "import sys\n"
        "sys.modules |= dict.fromkeys(('ray', 'minio', 'fastapi', 'av', 'sqlalchemy'))\n"
        "import benchmarks.run, benchmarks.parts.gpu"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
