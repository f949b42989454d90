"""A real Prometheus scrapes a cluster at work: dashboards and alerts find what they ask for."""

import importlib.metadata
import json
import math
import re
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from openai import OpenAI

from monitoring.dashboards import DASHBOARDS
from monitoring.grafana.rules import alert_rules
from serve.client import ServiceError
from serve.commands import LOCAL_CONFIG
from serve.config import load
from tests.integration.live import LiveCluster
from tests.integration.prometheus import Prometheus, prometheus
from tests.integration.test_batch_cluster import request_line
from tests.integration.test_cluster import PHOTO, ended, quick

pytestmark = pytest.mark.timeout(500)

EXPLAINED = {
    r"ray_shopreel_gpu_(?!seconds)": "no card",
    r"DCGM_FI_DEV_XID_ERRORS": "no dcgm-exporter",
    r"kubelet_volume_stats_": "no Kubernetes",
    r"probe_success": "no ingress to ask through",
}
_SELECTOR = re.compile(r"\b(?:ray_|DCGM_)?\w+\{[^}]*\}|\b(?:ray|DCGM)_\w+")


@pytest.fixture(scope="module")
def scraped(live: LiveCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    with prometheus(tmp_path_factory.mktemp("prometheus"), _targets(live)) as running:
        _mixed_load(live)
        yield running


def _targets(live: LiveCluster) -> Path:
    return live.data / "ray-temp" / "prom_metrics_service_discovery.json"


def _mixed_load(live: LiveCluster) -> None:
    """Videos, one cancelled and one too late; a batch with a bad row; requests that are refused."""
    with live.client() as client, httpx2.Client(base_url=live.url) as http:
        for seed in (951, 952):  # of the second its end can be foreseen
            assert ended(live, quick(live, seed=seed))["status"] == "completed"
        doomed = client.create(PHOTO, prompt="a watch turns", num_inference_steps=50, seed=953)
        client.cancel(doomed["id"])
        assert ended(live, quick(live, seed=955, deadline_s=0.01))["status"] == "failed"
        with pytest.raises(ServiceError):
            client.get("video_unknown")
        assert http.post("/v1/videos", data={"prompt": "a form"}).status_code == 415
    openai = OpenAI(base_url=f"{live.url}/v1", api_key="none")
    photo = openai.files.create(file=("watch.jpg", PHOTO.read_bytes()), purpose="vision")
    lines = [request_line("watch", photo.id, seed=954), request_line("nowhere", photo.id, n=101)]
    data = "\n".join(map(json.dumps, lines)).encode()
    file = openai.files.create(file=("requests.jsonl", data), purpose="batch")
    batch = openai.batches.create(
        input_file_id=file.id, endpoint="/v1/videos", completion_window="24h"
    )
    deadline = time.monotonic() + 200
    while openai.batches.retrieve(batch.id).status != "completed":
        assert time.monotonic() < deadline
        time.sleep(0.5)


def test_every_expression_of_every_dashboard_finds_data(scraped: Prometheus) -> None:
    exprs = {
        f"{dashboard.title}: {panel.title}: {query.legend}": query.expr
        for dashboard in DASHBOARDS
        for panel in dashboard.panels
        for query in panel.queries
    }
    assert _empty(scraped, exprs) == {}


def test_every_legend_can_be_written(scraped: Prometheus) -> None:
    """What is grouped by a label that nobody has becomes one series without a name."""
    # OpenTelemetry keeps 2,000 series of a metric in a process; this one, whose API other tests
    # flood, may have more, and what is beyond is told as one without any label.
    beyond = {
        series["metric"]["__name__"]
        for series in scraped.query('{__name__=~"ray_shopreel_.+", WorkerId=""}')
    }
    for dashboard in DASHBOARDS:
        for panel in dashboard.panels:
            for query in panel.queries:
                if any(name in query.expr for name in beyond):
                    continue
                for series in scraped.query(_asked(query.expr)):
                    for label in re.findall(r"{{(\w+)}}", query.legend):
                        assert series["metric"].get(label), (dashboard.title, panel.title)


def test_every_series_that_an_alert_looks_at_is_there(scraped: Prometheus) -> None:
    """Not what it asks: that is empty while all is well."""
    selectors = {
        f"{rule['title']}: {found[0]}": f"count_over_time({found[0]}[5m])"
        for rule in alert_rules("folder", "source")
        for found in _SELECTOR.finditer(rule["data"][0]["model"]["expr"])
    }
    assert len(selectors) > 40
    assert _empty(scraped, selectors) == {}


def test_a_misspelt_metric_would_be_noticed(scraped: Prometheus) -> None:
    wrong = {"wrong": "sum(rate(ray_shopreel_job_total[1m]))"}
    assert _empty(scraped, wrong, patience_s=0) == wrong


def test_the_figures_are_those_of_the_load(scraped: Prometheus) -> None:
    least = {  # other tests use the cluster too
        'ray_shopreel_jobs_total{outcome="completed"}': 3,
        'ray_shopreel_jobs_total{outcome="cancelled"}': 1,
        'ray_shopreel_job_failures_total{code="deadline_exceeded"}': 1,
        'ray_shopreel_batch_rows_total{outcome="failed"}': 1,
        'ray_shopreel_http_requests_total{code="404"}': 1,
        'ray_shopreel_cost_total{tier="cpu"}': 1e-9,
    }
    asked = {series: f"sum({series}) >= {value}" for series, value in least.items()}
    assert _empty(scraped, asked) == {}
    p95 = "histogram_quantile(0.95, sum by (le) (ray_shopreel_job_duration_seconds_bucket))"
    assert 0 < scraped.value(p95) < 300
    assert math.isfinite(scraped.value("max(ray_shopreel_lost_results)"))
    assert scraped.value("max(ray_shopreel_lost_results)") == 0
    assert scraped.value("max(ray_shopreel_duplicate_results)") == 0
    audited = "time() - max(ray_shopreel_audit_last_success_timestamp_seconds)"
    assert 0 <= scraped.value(audited) < 1800


def test_the_node_is_up_and_every_target_bears_the_name_that_alerts_look_for(
    live: LiveCluster, scraped: Prometheus
) -> None:
    (group,) = json.loads(_targets(live).read_text())
    agent, *_of_the_head = group["targets"]  # whose ports are the same for all clusters here
    assert scraped.value(f'up{{job="shopreel", instance="{agent}"}}') == 1
    assert {series["metric"]["job"] for series in scraped.query("up")} == {"shopreel"}


def test_every_replica_tells_its_release(scraped: Prometheus) -> None:
    """One at the least of each deployment; this cluster goes without the page."""
    deployments = load(LOCAL_CONFIG).app.deployments.keys() - {"WebPage"}
    replicas = "count(count by (WorkerId) (ray_shopreel_build_info))"
    assert _empty(scraped, {"replicas": f"{replicas} >= {len(deployments)}"}) == {}
    (version,) = scraped.query("count by (version) (ray_shopreel_build_info)")
    assert version["metric"]["version"] == importlib.metadata.version("shopreel")


def test_every_rule_is_evaluated_and_no_promise_is_broken(scraped: Prometheus) -> None:
    rules = [rule for group in scraped.get("rules")["groups"] for rule in group["rules"]]
    assert len(rules) == len(alert_rules("folder", "source"))
    assert {rule["health"] for rule in rules} <= {"ok", "unknown"}  # unknown: not its turn yet
    firing = {
        alert["labels"]["alertname"]
        for alert in scraped.get("alerts")["alerts"]
        if alert["state"] == "firing"
    }
    assert firing <= {"DiskAlmostFull"}  # of this machine


def _empty(source: Prometheus, exprs: dict[str, str], patience_s: float = 60) -> dict[str, str]:
    """Those without an answer that nothing explains; Ray's agent tells a replica's figures late."""
    asked = {
        where: _asked(expr)
        for where, expr in exprs.items()
        if not any(re.search(pattern, expr) for pattern in EXPLAINED)
    }
    deadline = time.monotonic() + patience_s
    while True:
        asked = {where: expr for where, expr in asked.items() if not source.query(expr)}
        if not asked or time.monotonic() >= deadline:
            return asked
        time.sleep(2)


def _asked(expr: str) -> str:
    return expr.replace("$__rate_interval", "1m").replace("$__range", "1h")
