"""`shopreel calibrate` on a running cluster."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cluster.calibration import load_calibrations
from cluster.embedded_s3 import EmbeddedS3
from cluster.tiers import TierConfig
from storage.object_store import S3ObjectStore
from tests.integration.live import ROOT, SHOPREEL, LiveCluster, write_config

PHOTO = ROOT / "examples" / "products" / "watch-steel.jpg"
AT_WORK: dict[str, Any] = {"name": "cpu", "num_cpus": 0.1, "threads": 2, "tflops": 0.05}
AT_REST: dict[str, Any] = {**AT_WORK, "name": "spare", "min_replicas": 0}

pytestmark = pytest.mark.timeout(400)


def calibrate(data: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(SHOPREEL), "calibrate", "--data", str(data), *args],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "COLUMNS": "200"},
    )


def rates(data: Path) -> dict[str, float]:
    """By which the Dispatcher started, in TFLOP/s."""
    found: dict[str, float] = json.loads((data / "rates.json").read_text())
    return found


def test_what_a_tier_sustains_is_stored_and_counts_from_the_next_start_on(tmp_path: Path) -> None:
    data = tmp_path / "data"
    config = write_config(
        tmp_path / "config.yaml",
        import_path="tests.integration.rated:build_app",
        tiers=[AT_WORK, AT_REST],
    )
    with LiveCluster(data, config) as cluster:
        assert rates(data) == {"cpu": 0.05, "spare": 0.05}
        all_tiers = calibrate(data)  # first: a video may wake the tier that is at rest
        assert all_tiers.returncode == 1
        assert "tier spare is at rest" in all_tiers.stderr
        assert "standard clip: 128x128, 16 frames, 50 steps" in all_tiers.stdout
        assert "Traceback" not in all_tiers.stderr

        with cluster.client() as client:
            video = client.create(PHOTO, prompt="a watch turns", num_inference_steps=60)
            ran = calibrate(data, "--tier", "cpu", "--json")
            assert ran.returncode == 0, ran.stderr
            finished = client.wait(video["id"], lambda _: None)
        assert (finished["status"], finished["attempt"]) == ("completed", 1)
        (measured,) = json.loads(ran.stdout)
        assert (measured["tier"], measured["bytes_factor"]) == ("cpu", 1.0)
        assert measured["device"]
        assert measured["standard_s"] > 0
    with EmbeddedS3(data / "s3") as s3:
        tiers = [TierConfig(**AT_WORK), TierConfig(**AT_REST)]
        stored = load_calibrations(S3ObjectStore(s3.config), tiers)
    assert list(stored) == ["cpu"]
    assert (stored["cpu"].tflops, stored["cpu"].device) == (measured["tflops"], measured["device"])
    with LiveCluster(data, config):
        assert rates(data) == {"cpu": stored["cpu"].tflops, "spare": 0.05}


def test_an_unknown_tier_is_refused_with_the_names_there_are(live: LiveCluster) -> None:
    ran = calibrate(live.data, "--tier", "h100")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "no tier 'h100' here; this cluster has cpu" in ran.stderr
