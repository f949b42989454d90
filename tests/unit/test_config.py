"""Configuration: every shipped file is valid, mistakes are named, the environment wins."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.stage import StageConfig
from cluster.tiers import TierConfig, missing_tiers
from serve.config import ConfigError, load

CLUSTER = Path(__file__).parents[2] / "cluster"


def written(folder: Path, **args: Any) -> Path:
    document = yaml.safe_load((CLUSTER / "local.yaml").read_text())
    document["applications"][0]["args"] |= args
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.mark.parametrize("name", ["local.yaml", "one_gpu.yaml"])
def test_one_machine_files_leave_the_stores_to_the_machine(name: str) -> None:
    app = load(CLUSTER / name).app
    assert app.object_store is None
    assert app.job_store is None


def test_the_production_file_needs_its_secrets_from_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ConfigError, match=r"object_store\.access_key"):
        load(CLUSTER / "production.yaml")
    monkeypatch.setenv("SHOPREEL_OBJECT_STORE__ACCESS_KEY", "key")
    monkeypatch.setenv("SHOPREEL_OBJECT_STORE__SECRET_KEY", "secret")
    app = load(CLUSTER / "production.yaml").app
    assert [tier.name for tier in app.tiers] == ["a100", "rtx4090"]
    assert app.presets["standard"].area_px == 512**2
    assert app.object_store is not None
    assert "secret" not in repr(app).replace("secret_key", "")


def test_the_serve_schema_accepts_every_shipped_file() -> None:
    from ray.serve.schema import ServeDeploySchema

    for path in CLUSTER.glob("*.yaml"):
        ServeDeploySchema.model_validate(yaml.safe_load(path.read_text()))


@pytest.mark.parametrize(
    ("args", "named"),
    [
        ({"modle": {}}, "modle"),
        ({"tiers": []}, "tiers"),
        ({"tiers": [{"name": "a"}, {"name": "a"}]}, "must differ"),
        ({"tiers": [{"name": "a", "num_gpus": 1.5}]}, "whole cards"),
        ({"tiers": [{"name": "a", "min_replicas": 3, "max_replicas": 2}]}, "below min_replicas"),
        ({"presets": {"quick": {}}}, "presets.quick"),
        ({"stages": {"decoder": {"chunk_frames": 0}}}, "stages.decoder.chunk_frames"),
    ],
)
def test_a_mistake_is_named_with_its_place(
    tmp_path: Path, args: dict[str, Any], named: str
) -> None:
    with pytest.raises(ConfigError, match=named):
        load(written(tmp_path, **args))


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    for text in ("- 1", "applications: []", "{"):
        path.write_text(text)
        with pytest.raises(ConfigError):
            load(path)


def test_the_environment_beats_the_file_and_origins_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOPREEL_MODEL__SOURCE", "/models/other")
    loaded = load(written(tmp_path))
    assert loaded.app.model.source == "/models/other"
    origins = {name: (value, origin) for name, value, origin in loaded.in_force()}
    assert origins["model.source"] == ("/models/other", "environment SHOPREEL_MODEL__SOURCE")
    assert origins["model.name"] == ("tiny-random", "config.yaml")
    assert origins["model.dtype"] == ("float16", "default")
    assert origins["stages.video_encoder.mp4.crf"][1] == "default"


def test_secrets_are_masked_in_what_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = {"endpoint": "s3:9000", "bucket": "clips", "access_key": "k", "secret_key": "hush-hush"}
    shown = str(list(load(written(tmp_path, object_store=store)).in_force()))
    assert "hush-hush" not in shown


def test_a_stage_becomes_serve_options() -> None:
    stage = StageConfig(min_replicas=0, max_replicas=3, num_gpus=0.5, labels={"tier": "a100"})
    options = stage.options("Decoder")
    assert options["ray_actor_options"] == {
        "num_cpus": 1.0,
        "num_gpus": 0.5,
        "label_selector": {"tier": "a100"},
    }
    assert options["autoscaling_config"]["min_replicas"] == 0
    assert (stage.device, StageConfig().device) == ("cuda", "cpu")


def test_tiers_without_a_node_are_found() -> None:
    tiers = [
        TierConfig(name="a100", labels={"tier": "a100"}),
        TierConfig(name="rtx4090", labels={"tier": "rtx4090"}),
        TierConfig(name="h200", labels={"tier": "h200"}, min_replicas=0),
    ]
    nodes = [{"tier": "a100", "zone": "1"}, {}]
    assert [tier.name for tier in missing_tiers(tiers, nodes)] == ["rtx4090"]
