"""Configuration: every shipped file is valid, mistakes are named, the environment wins."""

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.local_parts import Own, Parts
from cluster.stage import StageConfig
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
    monkeypatch.setenv("SHOPREEL_JOB_STORE__URL", "sqlite:////srv/shopreel/jobs.sqlite")
    app = load(CLUSTER / "production.yaml").app
    app.check_deployable()
    assert [tier.name for tier in app.tiers] == ["a100", "rtx4090"]
    assert app.presets["standard"].area_px == 512**2
    assert app.object_store is not None
    assert "='secret'" not in repr(app)
    assert "**********" in repr(app)


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
        ({"stages": None}, "stages"),
    ],
)
def test_a_mistake_is_named_with_its_place(
    tmp_path: Path, args: dict[str, Any], named: str
) -> None:
    with pytest.raises(ConfigError, match=named):
        load(written(tmp_path, **args))


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("- 1", "no Serve config file"),
        ("{", "cannot be read"),
        ("applications: []", "must hold one application"),
        ("applications: [{import_path: 'a:b', name: shopreel, args: null}]", r"0\.args"),
        ("applications: [{import_path: 'a:b', name: shop}]", "name must be 'shopreel'"),
        ("applications: [{import_path: 'a:b', args: {}}]", "name must be 'shopreel'"),
        ("{applications: [], http_options: null}", "http_options"),
        ("{applications: [], http_options: {port: many}}", r"http_options\.port"),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=named):
        load(path)


def test_the_environment_beats_the_file_and_origins_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOPREEL_MODEL__SOURCE", "/models/other")
    loaded = load(written(tmp_path))
    assert loaded.app.model.source == "/models/other"
    origins = {name: (value, origin) for name, value, origin in loaded.in_force()}
    assert origins["model.source"] == ("/models/other", "environment SHOPREEL_MODEL__SOURCE")
    assert origins["model.name"] == ("embedded", "config.yaml")
    assert origins["model.dtype"] == ("float16", "default")
    assert origins["stages.video_encoder.mp4.crf"][1] == "default"


def test_origins_are_true_however_a_variable_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOPREEL_MODEL", '{"name": "mug", "source": "/models/json"}')
    monkeypatch.setenv("shopreel_model__source", "/models/lower")
    monkeypatch.setenv("SHOPREEL_MODEL__DTYPE", "")
    monkeypatch.setenv("SHOPREEL_TIERS", '[{"name": "small"}]')
    monkeypatch.setenv("SHOPREEL_STAGES__API__LABELS__ROLE", "head")
    loaded = load(written(tmp_path, job_store=None))
    settings = {name: (value, origin) for name, value, origin in loaded.in_force()}
    assert settings["model.name"] == ("mug", "environment SHOPREEL_MODEL")
    assert settings["model.source"] == ("/models/lower", "environment SHOPREEL_MODEL__SOURCE")
    assert settings["model.dtype"][1] == "default"
    assert settings["tiers"][0][0]["name"] == "small"
    assert settings["tiers"][1] == "environment SHOPREEL_TIERS"
    assert settings["stages.api.labels.role"][1] == "environment SHOPREEL_STAGES__API__LABELS__ROLE"
    assert settings["job_store"] == (None, "config.yaml")
    assert settings["object_store"] == (None, "default")


@pytest.mark.parametrize(
    ("variable", "value", "named"),
    [
        ("SHOPREEL_MODLE__SOURCE", "x", "SHOPREEL_MODEL__SOURCE"),
        ("SHOPREEL_MODEL_SOURCE", "x", "the nearest name is SHOPREEL_MODEL"),
        ("SHOPREEL_MODEL__SOURC", "x", r"model\.sourc"),
        ("SHOPREEL_TIERS", "a100", "not valid JSON.*tiers"),
        ("SHOPREEL_STAGES__API__LABELS", "{", "not valid JSON.*stages"),
    ],
)
def test_a_variable_that_cannot_be_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, named: str
) -> None:
    path = written(tmp_path)
    monkeypatch.setenv("SHOPREEL_URL", "http://127.0.0.1:8200")
    load(path)
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match=named):
        load(path)


def test_secrets_are_masked_in_what_is_shown(tmp_path: Path) -> None:
    store = {"endpoint": "s3:9000", "bucket": "clips", "access_key": "k", "secret_key": "hush-hush"}
    loaded = load(written(tmp_path, object_store=store, job_store={"url": "sqlite:///jobs.sqlite"}))
    url = "postgresql+psycopg://me:hush-hush@db/jobs"  # no driver is installed, but it may be
    assert loaded.app.job_store is not None
    jobs = loaded.app.job_store.model_copy(update={"url": url})
    loaded = replace(loaded, app=loaded.app.model_copy(update={"job_store": jobs}))
    shown = {name: value for name, value, _ in loaded.in_force()}
    assert shown["job_store.url"] == "postgresql+psycopg://me:***@db/jobs"
    assert "hush-hush" not in str(shown)


def test_sqlite_is_deployable_only_where_those_who_write_it_share_a_node(tmp_path: Path) -> None:
    def check(**labels: dict[str, str]) -> None:
        stages = {stage: {"labels": value} for stage, value in labels.items()}
        job_store = {"url": "sqlite:///jobs.sqlite"}
        load(written(tmp_path, job_store=job_store, stages=stages)).app.check_deployable()

    head = {"role": "head"}
    check(api=head, dispatcher=head, housekeeper=head)
    for labels in (
        {},
        {"api": head},
        {"api": head, "dispatcher": head},
        {"api": head, "dispatcher": {"a": "2"}, "housekeeper": head},
    ):
        with pytest.raises(ConfigError, match="same labels"):
            check(**labels)


def test_every_deployment_is_counted() -> None:
    assert list(load(CLUSTER / "one_gpu.yaml").app.deployments) == [
        "VideoAPI",
        "Dispatcher",
        "TextEncoder",
        "ImageEncoder",
        "Denoiser-gpu",
        "Decoder",
        "VideoEncoder",
        "CameraRenderer",
        "Housekeeper",
        "WebPage",
    ]


def test_a_stage_becomes_serve_options() -> None:
    stage = StageConfig(min_replicas=0, max_replicas=3, num_gpus=0.5, labels={"tier": "a100"})
    options = stage.options("Decoder")
    assert options["ray_actor_options"] == {
        "num_cpus": 1.0,
        "num_gpus": 0.5,
        "label_selector": {"tier": "a100"},
    }
    assert options["autoscaling_config"]["min_replicas"] == 0
    assert (stage.torch_device, StageConfig().torch_device) == ("cuda", "cpu")
    assert StageConfig(num_gpus=1, device="cpu").torch_device == "cpu"


def test_random_weights_that_have_become_a_folder_are_still_no_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `shopreel up` hands its replicas."""
    shipped = load(CLUSTER / "local.yaml").app
    assert shipped.default_model_name == "camera"
    (folder := tmp_path / "models" / "tiny").mkdir(parents=True)
    (folder / "model_index.json").write_text("{}")  # it is written already
    own = Own(False, False, True, shipped.default_model_name)
    with ExitStack() as ends:
        settings = Parts(tmp_path, own, lambda _: None, ends).settings
    for name, value in settings.items():
        monkeypatch.setenv(f"SHOPREEL_{name}", value)
    app = load(CLUSTER / "local.yaml").app
    assert (app.model.source, app.default_model_name) == (str(folder), "camera")


@pytest.mark.parametrize("source", ["/srv/weights", "ali-vilab/i2vgen-xl"])
def test_a_server_with_weights_uses_them(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `shopreel up --model` does."""
    monkeypatch.setenv("SHOPREEL_MODEL__SOURCE", source)
    monkeypatch.setenv("SHOPREEL_MODEL__NAME", "ours")
    assert load(CLUSTER / "local.yaml").app.default_model_name == "ours"
    assert load(CLUSTER / "one_gpu.yaml").app.default_model_name == "ours"
