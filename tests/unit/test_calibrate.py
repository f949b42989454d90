"""`shopreel calibrate` without a cluster: what is timed, which tiers, what is said."""

import json
import socket
from dataclasses import replace
from pathlib import Path

import pytest
import typer

from catalog.presets import default_presets
from cluster.cost import Calibration
from cluster.tiers import TierConfig
from diffusion.model_folder import ModelConfig
from serve.commands.calibrate import (
    Setup,
    TierFailed,
    UnknownTier,
    clips_to_time,
    run_calibrate,
)
from tests.sample_model import ARCHITECTURE

TIERS = (
    TierConfig(name="a100", vram_gb=80, num_gpus=0.76),
    TierConfig(name="small", vram_gb=6, num_gpus=1),
    TierConfig(name="tiny", vram_gb=2, num_gpus=1),
)
SETUP = Setup(
    TIERS,
    ModelConfig(source="i2vgen-xl"),
    ARCHITECTURE,
    clips_to_time(default_presets(), ARCHITECTURE.size_multiple),
)


def test_the_smallest_preset_and_the_standard_one_are_timed() -> None:
    small, standard = SETUP.clips
    assert (small.width, small.height, small.num_frames) == (512, 512, 8)
    assert (standard.width, standard.height, standard.num_frames) == (512, 512, 16)
    assert standard.num_inference_steps == 50


def test_one_clip_is_enough_where_the_standard_preset_is_the_smallest() -> None:
    presets = default_presets()
    (only,) = clips_to_time({"standard": presets["preview"], "high": presets["high"]}, 64)
    assert only.num_frames == 8


def test_tiers_are_chosen_by_name_all_by_default() -> None:
    assert SETUP.choose([]) == list(TIERS)
    assert SETUP.choose(["small"]) == [TIERS[1]]
    with pytest.raises(UnknownTier, match=r"no tier 'h100' here; this cluster has a100, small"):
        SETUP.choose(["a100", "h100"])


def test_a_tier_is_timed_on_what_its_memory_holds() -> None:
    assert SETUP.clips_of(TIERS[0]) == list(SETUP.clips)
    with pytest.raises(TierFailed, match="tier tiny has the memory for no preset"):
        SETUP.clips_of(TIERS[2])
    small, standard = SETUP.clips
    larger = replace(SETUP, clips=(small, replace(standard, width=1280, height=768)))
    assert larger.clips_of(TIERS[1]) == [small]


def test_a_standard_clip_takes_its_flops_over_the_measured_rate() -> None:
    calibration = Calibration("a100", "NVIDIA A100-SXM4-80GB", 120.0, 0.0)
    # 20.935 TFLOP a row, two rows a step; test_memory traces it.
    expected = pytest.approx(50 * 2 * 20.935 / 120, rel=1e-3)
    assert SETUP.standard_s(calibration) == expected
    assert SETUP.standard_s(replace(calibration, tier="tiny")) is None
    assert SETUP.standard_s(replace(calibration, bytes_factor=20)) is None


@pytest.mark.parametrize("address", [None, "nonsense", "127.0.0.1:{port}"])
def test_without_a_cluster_it_says_so_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], address: str | None
) -> None:
    with socket.socket() as unused:  # bound, and nobody listens
        unused.bind(("127.0.0.1", 0))
        at = address and address.format(port=unused.getsockname()[1])
        with pytest.raises(typer.Exit) as ended:
            run_calibrate(tmp_path / "data", at, [], as_json=False)
    assert ended.value.exit_code == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "not calibrated: no" in said
    assert not (tmp_path / "data").exists()


def test_a_cluster_that_was_killed_is_no_cluster(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        there = {"ray_address": f"127.0.0.1:{unused.getsockname()[1]}"}
        left_behind = {"base_url": "", "dashboard_url": "", "pid": 0, **there}
        (tmp_path / "cluster.json").write_text(json.dumps(left_behind))
        with pytest.raises(typer.Exit):
            run_calibrate(tmp_path, None, [], as_json=False)
    assert "no Ray cluster answers" in capsys.readouterr().err
