"""`shopreel status` against a real Prometheus whose past was written by promtool."""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
import yaml
from typer.testing import CliRunner, Result

from serve.cli import app
from tests.integration.live import free_port

_STEP_S, _LENGTH_S = 15, 3600
_SHARED = {"NodeAddress": "127.0.0.1"}


def samples(now: float) -> Iterator[str]:
    """An hour of a service that makes a video every 15 s, and begins to fail every other half an
    hour ago. OpenMetrics; counters grow, gauges stand."""

    def line(name: str, value: float, at: float, **labels: str) -> str:
        said = ",".join(f'{key}="{text}"' for key, text in {**_SHARED, **labels}.items())
        return f"{name}{{{said}}} {value} {at:.0f}"

    moments = [now - _LENGTH_S + _STEP_S * n for n in range(_LENGTH_S // _STEP_S + 1)]
    counts = [(at, n, max(0, n - len(moments) // 2) // 2) for n, at in enumerate(moments)]
    for family, kind in (("jobs", "counter"), ("job_failures", "counter")):
        yield f"# TYPE ray_shopreel_{family} {kind}"
        for at, made, failed in counts:
            if family == "jobs":
                name = "ray_shopreel_jobs_total"
                yield line(name, made - failed, at, outcome="completed", tier="a100")
                yield line(name, failed, at, outcome="failed", tier="a100")
            else:
                yield line("ray_shopreel_job_failures_total", failed, at, code="worker_lost")
    for gauge, value, labels in (
        ("queue_depth", 7.0, {"priority": "interactive"}),
        ("queue_oldest_age_seconds", 95.0, {"priority": "interactive"}),
        ("tier_replicas", 2.0, {"tier": "a100"}),
        ("lost_results", 0.0, {}),
        ("build_info", 1.0, {"version": "9.8.7"}),
    ):
        yield f"# TYPE ray_shopreel_{gauge} gauge"
        for at, _, _ in counts:
            yield line(f"ray_shopreel_{gauge}", value, at, **labels)
    yield "# EOF"


RULES = {
    "groups": [
        {
            "name": "test",
            "interval": "1s",
            "rules": [
                {
                    "alert": "QueueOld",
                    "expr": "max_over_time(ray_shopreel_queue_oldest_age_seconds[1h]) > 60",
                    "labels": {"severity": "page"},
                    "annotations": {
                        "summary": "An interactive job has waited {{ $value }} s",
                        "runbook": "docs/operations.md#queueold",
                    },
                }
            ],
        }
    ]
}


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("prometheus")
    port, dead = free_port(), free_port()
    (folder / "past.txt").write_text("\n".join(samples(time.time() // 15 * 15)) + "\n")
    make_past = ["promtool", "tsdb", "create-blocks-from", "openmetrics"]
    subprocess.run([*make_past, folder / "past.txt", folder], check=True, capture_output=True)
    (folder / "rules.yaml").write_text(yaml.safe_dump(RULES))
    config = {
        "global": {"scrape_interval": "1s"},
        "rule_files": ["rules.yaml"],
        "scrape_configs": [
            {"job_name": "shopreel", "static_configs": [{"targets": [f"127.0.0.1:{dead}"]}]}
        ],
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    options = {
        "config.file": folder / "prometheus.yaml",
        "storage.tsdb.path": folder,
        "web.listen-address": f"127.0.0.1:{port}",
    }
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            ["prometheus", *(f"--{name}={value}" for name, value in options.items())],
            stdout=log,
            stderr=log,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 30
        while not fires(url):
            assert time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.2)
        yield url
    finally:
        server.terminate()
        server.wait(20)


def fires(url: str) -> bool:
    """Also that its one target was tried."""
    try:
        alerts = httpx2.get(f"{url}/api/v1/alerts").json()["data"]["alerts"]
        targets = httpx2.get(f"{url}/api/v1/targets").json()["data"]["activeTargets"]
    except httpx2.TransportError:
        return False
    return bool(alerts) and [target["health"] for target in targets] == ["down"]


def status(url: str, *words: str) -> Result:
    return CliRunner().invoke(
        app, ["status", "--prometheus", url, "--hours", "1", *words], env={"COLUMNS": "160"}
    )


def test_status_says_what_fires_and_how_much_waits(prometheus: str) -> None:
    ran = status(prometheus)
    assert ran.exit_code == 3, ran.output
    said = " ".join(ran.stdout.split())
    assert "1 alert fires" in said
    assert "firing QueueOld page, since 2" in said
    assert "An interactive job has waited 95 s docs/operations.md#queueold" in said
    assert "0 of 1 targets up, 1 alert rules" in said
    assert "queued interactive 7" in said
    assert "replicas a100 2" in said
    assert "failed for worker_lost" in said
    assert "duplicate results –" in said  # nobody has measured it, which is not 0


def test_the_page_shows_every_panel_of_every_dashboard(prometheus: str, tmp_path: Path) -> None:
    from monitoring.dashboards import DASHBOARDS

    page = tmp_path / "status.html"
    ran = status(prometheus, "--html", str(page))
    assert ran.exit_code == 3, ran.output
    html = page.read_text()
    panels = [panel for dashboard in DASHBOARDS for panel in dashboard.panels]
    assert html.count("<article") == len(panels)
    assert "bad_data" not in html  # every expression was understood
    assert html.count('class="none"') < len(panels)
    assert html.count("<svg") >= 2
    assert "9.8.7" in html
    assert "1 alert fires" in html
    assert "connection refused" in html
    for outside in ("<script", 'http-equiv="refresh', "<link", "src=", "url("):
        assert outside not in html
