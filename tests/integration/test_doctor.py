"""`shopreel doctor --address`: a rollout to a cluster that runs, judged from outside."""

import json
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import monotonic, time
from typing import Any
from urllib.parse import urlsplit

import pytest
import ray
import yaml

from cluster.dashboard import ClusterUnreachable, RayDashboard
from storage.object_store import ObjectStoreConfig
from tests.integration import RAY_TOKEN
from tests.integration.live import ROOT, SHOPREEL, LiveCluster, free_port, write_config

HEAD = {"role": "head"}


@pytest.fixture
def config(tmp_path: Path, live: LiveCluster, s3: ObjectStoreConfig) -> dict[str, Any]:
    """Of a rollout that would go well on the cluster of these tests: dotted names to values."""
    return {
        "object_store": {"endpoint": s3.endpoint, "bucket": s3.bucket},
        "job_store": {"url": f"sqlite:///{tmp_path}/jobs.sqlite"},
        **{f"stages.{stage}.labels": HEAD for stage in ("api", "dispatcher", "housekeeper")},
    }


def doctor(
    folder: Path, changes: dict[str, Any], live: LiveCluster, s3: ObjectStoreConfig, **how: Any
) -> tuple[int, dict[str, dict[str, str]]]:
    path = write_config(folder / "config.yaml", **changes)
    document = yaml.safe_load(path.read_text())
    port = urlsplit(live.url).port
    document["http_options"] = {"host": "127.0.0.1", "port": how.get("port", port)}
    path.write_text(yaml.safe_dump(document))
    address = how.get("address", live.endpoints.dashboard_url)
    ran = subprocess.run(
        [str(SHOPREEL), "doctor", "--config", str(path), "--address", address, "--json"],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
        env={
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": str(ROOT),
            "HOME": "/nonexistent",
            # Ray's own client would go there: every pod has the variable.
            "RAY_ADDRESS": "127.0.0.1:9",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": how.get("token", RAY_TOKEN.read_text()),  # "": none
            "SHOPREEL_OBJECT_STORE__ACCESS_KEY": s3.access_key,
            "SHOPREEL_OBJECT_STORE__SECRET_KEY": s3.secret_key.get_secret_value(),
        },
    )
    assert ran.stdout, ran.stderr
    return ran.returncode, {check["name"]: check for check in json.loads(ran.stdout)}


def failed(checks: dict[str, dict[str, str]]) -> set[str]:
    return {name for name, check in checks.items() if check["status"] == "fail"}


def test_a_rollout_that_would_go_well_is_let_through(
    tmp_path: Path, live: LiveCluster, s3: ObjectStoreConfig, config: dict[str, Any]
) -> None:
    code, checks = doctor(tmp_path, config, live, s3)
    assert failed(checks) == set()
    assert code == 0
    assert f"Ray {ray.__version__}" in checks["Ray cluster"]["found"]
    for name in ("Ray token", "Serve", "nodes", "clock of the head", "clock of the object store"):
        assert checks[name]["status"] == "ok", checks[name]
    assert "1 nodes with 0 GPUs and 16 CPUs" in checks["nodes"]["found"]
    assert {"port", "disk", "GPUs"}.isdisjoint(checks)  # of this machine, which serves nothing


def test_rollouts_that_would_hang_or_be_refused_are_named(
    tmp_path: Path, live: LiveCluster, s3: ObjectStoreConfig, config: dict[str, Any]
) -> None:
    a100 = {"tiers.0.labels": {"tier": "a100"}, "tiers.0.num_gpus": 1}
    code, checks = doctor(tmp_path, config | a100, live, s3)
    assert (code, failed(checks)) == (1, {"nodes"})
    assert "no node has the labels {'tier': 'a100'}" in checks["nodes"]["found"]

    on_demand = config | a100 | {"wait_for_nodes": True}
    code, checks = doctor(tmp_path, on_demand, live, s3)
    assert (code, checks["nodes"]["status"]) == (0, "warn")

    apart = config | {"stages.api.labels": {}}
    code, checks = doctor(tmp_path, apart, live, s3, port=free_port())
    assert (code, failed(checks)) == (1, {"labels", "Serve"})


def test_without_the_clusters_token_nothing_is_let_through(
    tmp_path: Path, live: LiveCluster, s3: ObjectStoreConfig, config: dict[str, Any]
) -> None:
    code, checks = doctor(tmp_path, config, live, s3, token="another-token")
    assert (code, failed(checks)) == (1, {"Ray cluster"})
    assert "another token" in checks["Ray cluster"]["found"]
    assert "RAY_AUTH_TOKEN" in checks["Ray cluster"]["fix"]
    code, checks = doctor(tmp_path, config, live, s3, token="")
    assert (code, failed(checks)) == (1, {"Ray cluster"})
    assert "here is none" in checks["Ray cluster"]["found"]


def test_a_host_that_does_not_answer_costs_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.dashboard._TIMEOUT_S", 0.5)
    with silent_port() as port, RayDashboard(f"http://127.0.0.1:{port}/") as dashboard:
        begun = monotonic()
        with pytest.raises(ClusterUnreachable, match="no Ray dashboard answers"):
            dashboard.nodes()
        assert monotonic() - begun < 60


def test_a_cluster_that_wants_no_token_and_has_another_clock_is_seen() -> None:
    old = b'{"ray_version": "2.0.0"}'
    with answering(old, ahead_s=-120) as url, RayDashboard(url) as dashboard:
        assert not dashboard.wants_token()
        assert dashboard.clock_ahead_s() == pytest.approx(-120, abs=2)
        assert dashboard.ray_version() == "2.0.0"


@contextmanager
def silent_port() -> Iterator[int]:
    """Accepts, and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@contextmanager
def answering(body: bytes, ahead_s: float) -> Iterator[str]:
    """A server whose clock is wrong."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response_only(200)
            self.send_header("Date", formatdate(time() + ahead_s, usegmt=True))
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
