"""The commands that need no cluster, or refuse to start one."""

import fcntl
import json
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from tests.integration.live import ROOT, SHOPREEL, free_port, write_config


def shopreel(*args: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(SHOPREEL), *map(str, args)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "COLUMNS": "200", **environment},
    )


def doctor(config: Path, data: Path) -> tuple[int, dict[str, Any]]:
    ran = shopreel("doctor", "--config", config, "--data", data, "--json")
    return ran.returncode, {check["name"]: check for check in json.loads(ran.stdout)}


def with_port(path: Path, port: int, **changes: Any) -> Path:
    write_config(path, **changes)
    document = yaml.safe_load(path.read_text())
    document["http_options"]["port"] = port
    path.write_text(yaml.safe_dump(document))
    return path


def test_doctor_checks_every_precondition(tmp_path: Path) -> None:
    code, checks = doctor(with_port(tmp_path / "c.yaml", free_port()), tmp_path)
    assert code == 0, checks
    assert {"Python", "ray", "torch", "disk", "weights", "GPUs", "tier cpu"} <= set(checks)
    assert checks["conditional PUT"]["status"] == "ok"
    assert checks["weights"]["status"] == "warn"
    assert "noise" in checks["weights"]["found"]


def test_doctor_says_what_is_wrong_and_how_to_mend_it(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        dead = {"endpoint": "127.0.0.1:9", "bucket": "clips", "access_key": "k", "secret_key": "s"}
        config = with_port(
            tmp_path / "c.yaml",
            port,
            **{"model.source": str(tmp_path), "object_store": {**dead, "retries": 0}},
        )
        code, checks = doctor(config, tmp_path)
    assert code == 1
    for name in (f"port {port}", "bucket clips", "weights"):
        assert checks[name]["status"] == "fail", name
        assert checks[name]["fix"], name


def test_config_tells_values_and_origins(tmp_path: Path) -> None:
    config = write_config(tmp_path / "mine.yaml", default_model=None)
    ran = shopreel("config", "--config", config, "--json", SHOPREEL_MODEL__NAME="mug-model")
    settings = json.loads(ran.stdout)
    assert settings["model.name"] == {
        "value": "mug-model",
        "from": "environment SHOPREEL_MODEL__NAME",
    }
    assert settings["model.source"] == {"value": "tiny", "from": "mine.yaml"}
    table = shopreel("config", "--config", config, COLUMNS="80")
    assert {name for name in settings if name not in table.stdout} == set()
    assert "…" not in table.stdout


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"modle": {}}, "modle"),
        ({"tiers.0.num_gpus": 1}, "GPUs"),
        ({"tiers.0.labels": {"tier": "a100"}}, "no node has the labels"),
        ({"model.source": "/nowhere"}, "/nowhere"),
    ],
    ids=["unknown key", "no GPU", "no such node", "no weights"],
)
def test_up_refuses_what_cannot_run_and_leaves_nothing(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    config = write_config(tmp_path / "c.yaml", **changes)
    ran = shopreel("up", "--config", config, "--data", tmp_path / "d", "--port", free_port())
    assert ran.returncode == 1
    assert said in " ".join(ran.stderr.split())
    assert "ready" not in ran.stdout
    assert "Traceback" not in ran.stderr


def test_up_refuses_a_taken_port_and_an_open_address(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ran = shopreel("up", "--data", tmp_path / "d", "--port", port)
    assert (ran.returncode, f"port {port}" in ran.stderr) == (1, True)
    config = write_config(tmp_path / "open.yaml")
    config.write_text(config.read_text().replace("host: 127.0.0.1", "host: 0.0.0.0"))
    ran = shopreel("up", "--config", config, "--data", tmp_path / "d", "--port", free_port())
    said = " ".join(ran.stderr.split())
    assert (ran.returncode, "auth.enabled is false" in said) == (1, True)


@pytest.mark.parametrize("words", ["embedded S3", "starting Ray", "deploying the stages"])
def test_sigterm_during_the_start_ends_everything(tmp_path: Path, words: str) -> None:
    """Once it has told where it is."""
    temp = Path(tempfile.mkdtemp(prefix="t"))  # short: sockets live in it
    up = subprocess.Popen(
        [str(SHOPREEL), "up", "--data", str(tmp_path / "d"), "--port", str(free_port())],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "TMPDIR": str(temp)},
    )
    assert up.stderr is not None
    while words not in (line := up.stderr.readline()):
        assert line, "it has ended"
    family = psutil.Process(up.pid).children(recursive=True)
    up.send_signal(signal.SIGTERM)
    out, err = up.communicate(timeout=120)
    assert (up.returncode, out) == (130, "")
    assert "Traceback" not in err
    assert list(temp.glob("reel-*")) == []
    shutil.rmtree(temp)
    assert not (tmp_path / "d" / "cluster.json").exists()
    _, alive = psutil.wait_procs(family, timeout=30)
    assert alive == []


def test_a_second_cluster_leaves_the_first_ones_folder_alone(tmp_path: Path) -> None:
    (tmp_path / "cluster.json").write_text("{}")
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ran = shopreel("up", "--data", tmp_path, "--port", free_port())
    assert (ran.returncode, "another cluster runs" in " ".join(ran.stderr.split())) == (1, True)
    assert (tmp_path / "cluster.json").read_text() == "{}"


def test_generate_without_a_service_says_how_to_start_one(tmp_path: Path) -> None:
    photo = ROOT / "examples" / "products" / "home-vase.webp"
    url = f"http://127.0.0.1:{free_port()}"
    ran = shopreel("generate", photo, "--prompt", "a vase", "--url", url)
    assert ran.returncode == 1
    assert "shopreel up" in " ".join(ran.stderr.split())
