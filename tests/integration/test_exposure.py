"""What Serve really listens on decides, not what a configuration says: on a Ray and Serve of the
test's own, for each address."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.live import ROOT, free_port


def deploy(data: Path, host: str, *auth: str) -> list[tuple[str, str]]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "SHOPR"))}
    ran = subprocess.run(
        [sys.executable, "-m", "tests.integration.exposed", data, host, str(free_port()), *auth],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
        env={**environment, "PYTHONPATH": str(ROOT)},
    )
    assert ran.returncode == 0, ran.stderr
    return [tuple(json.loads(line)) for line in ran.stdout.splitlines() if line.startswith("[")]


# All interfaces are open for the seconds of this test, with a greeting behind them.
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_without_keys_an_application_is_built_on_loopback_only(tmp_path: Path, host: str) -> None:
    (open_, message), (closed, _) = deploy(tmp_path, host, "false", "true")
    assert closed == "RUNNING"
    if host == "127.0.0.1":
        assert open_ == "RUNNING", message
    else:
        assert open_ == "DEPLOY_FAILED"
        assert "Exposed: Serve listens on 0.0.0.0 and auth.enabled is false" in message


@pytest.mark.parametrize(("mode", "wanted"), [("token", True), ("disabled", False), (None, False)])
def test_whether_ray_wants_a_token_is_known_inside_the_cluster(
    mode: str | None, wanted: bool
) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    ran = subprocess.run(
        [sys.executable, "-c", "from cluster import exposure; print(exposure._ray_wants_token())"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**environment, "PYTHONPATH": str(ROOT), **({"RAY_AUTH_MODE": mode} if mode else {})},
    )
    assert ran.stdout == f"{wanted}\n", ran.stderr
