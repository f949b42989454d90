"""A cluster that has done a little of everything shows every metric on its node's agent."""

import re
import time
import urllib.request
from collections.abc import Callable

import pytest
import ray
from ray.serve.handle import DeploymentHandle

from monitoring import metrics
from monitoring.instruments import Counter, Histogram, Metric
from serve.client import ServiceError
from tests.integration.live import LiveCluster
from tests.integration.test_cluster import PHOTO, ended, quick

EXPLAINED: dict[Metric, str] = {
    metrics.GPU_UTILIZATION: "no card",
    metrics.GPU_MEMORY_USED: "no card",
    metrics.GPU_MEMORY_TOTAL: "no card",
    metrics.GPU_TEMPERATURE: "no card",
    metrics.GPU_ENERGY: "no card",
    metrics.GPU_MEMORY_RESERVED: "no card",
}

CAME_OF_IT = {  # at the least: other tests use the cluster too
    "shopreel_jobs_total{outcome=completed,tier=cpu}": 2,
    "shopreel_jobs_created_total{priority=interactive}": 3,
    "shopreel_job_attempts_total{outcome=completed}": 2,
    "shopreel_frames_generated_total{tier=cpu}": 16,
    "shopreel_denoise_steps_total{tier=cpu}": 20,
    "shopreel_http_requests_total{code=404,method=GET,route=/v1/videos/{video_id},shed=no}": 1,
    "shopreel_storage_bytes_total{op=put}": 1,
    "shopreel_checkpoints_total{outcome=stored}": 2,
    "shopreel_job_duration_seconds_count{priority=interactive,tier=cpu}": 2,
}

pytestmark = pytest.mark.timeout(400)

Samples = dict[str, float]
"""A series as it stands in the text, without the labels that Ray adds -> the sum of its values."""

_LINE = re.compile(r"(?P<name>\w+)\{(?P<labels>.*)\} (?P<value>\S+)")
_OURS = re.compile(r'(\w+)="([^"]*)"')
_RAYS = {"Component", "NodeAddress", "SessionName", "Version", "WorkerId", "JobId"}


def scrape(port: int) -> Samples:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    samples: Samples = {}
    for line in text.splitlines():
        if (matched := _LINE.fullmatch(line)) and matched["name"].startswith("ray_shopreel_"):
            labels = ",".join(
                f"{name}={value}"
                for name, value in _OURS.findall(matched["labels"])
                if name not in _RAYS and not name.startswith("otel_")
            )
            name = matched["name"].removeprefix("ray_")
            series = f"{name}{{{labels}}}"
            samples[series] = samples.get(series, 0.0) + float(matched["value"])
    return samples


def is_shown(metric: Metric, samples: Samples) -> bool:
    name = f"{metric.name}_bucket" if isinstance(metric, Histogram) else metric.name
    return any(series.startswith(f"{name}{{") for series in samples)


def test_every_declared_metric_is_scraped_from_the_node(
    live: LiveCluster, handles: Callable[[str], DeploymentHandle]
) -> None:
    for seed in (901, 902):  # of the second its end can be foreseen
        assert ended(live, quick(live, seed=seed))["status"] == "completed"
    with live.client() as client:
        doomed = client.create(PHOTO, prompt="a watch turns", num_inference_steps=50, seed=903)
        client.cancel(doomed["id"])
        with pytest.raises(ServiceError):
            client.get("video_unknown")
    (node,) = ray.nodes()
    expected = [metric for metric in metrics.ALL if metric not in EXPLAINED]
    cancelled = [f"shopreel_jobs_total{{outcome=cancelled,tier={t}}}" for t in ("cpu", "none")]
    deadline = time.monotonic() + 90  # every process exports when its own ten seconds are over
    while True:
        samples = scrape(node["MetricsExportPort"])
        missing = [metric.name for metric in expected if not is_shown(metric, samples)]
        short = {
            name: samples.get(name, 0)
            for name in CAME_OF_IT
            if samples.get(name, 0) < CAME_OF_IT[name]
        }
        if not any(samples.get(name) for name in cancelled):  # it may have begun
            short["cancelled"] = 0
        if not (missing or short) or time.monotonic() > deadline:
            break
        time.sleep(2)
    assert (missing, short) == ([], {})
    assert not [metric.name for metric in EXPLAINED if is_shown(metric, samples)]
    assert samples["shopreel_lost_results{}"] == samples["shopreel_duplicate_results{}"] == 0

    # What has not happened is 0, and not absent. (Other tests refuse jobs in this very process.)
    assert "shopreel_jobs_refused_total{reason=queue_full}" in samples
    assert "shopreel_storage_errors_total{kind=misconfigured,op=put}" in samples
    zeros = [metric for metric in metrics.ALL if isinstance(metric, Counter)]
    assert all(is_shown(metric, samples) for metric in zeros if metric not in EXPLAINED)
