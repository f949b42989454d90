"""What one scrape of a target takes, gives and costs."""

import json
import re
import statistics
import time
from pathlib import Path
from typing import Any

import httpx2
import psutil

from benchmarks.machine import spread
from benchmarks.processes import name_of

_PART = re.compile(r"_(bucket|sum|count)$")  # of a histogram
_SCRAPES = 40
_REST_S = 5.0
_ACCEPT = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.4"
"""What Prometheus asks for, in this order, of exporters without its protobuf form."""


def targets(data: Path) -> list[str]:
    """host:port of all that Prometheus would scrape of the cluster over this data folder."""
    found = json.loads((data / "ray-temp" / "prom_metrics_service_discovery.json").read_text())
    return [target for group in found for target in group["targets"]]


def scraped(target: str) -> dict[str, Any]:
    """Medians of one scrape after the other; CPU of its process, less what it takes at rest."""
    process = _listener(int(target.rpartition(":")[2]))
    rest = _cpu(process)
    time.sleep(_REST_S)
    rest = (_cpu(process) - rest) / _REST_S
    seconds, sizes, text = [], [], ""
    before, begun = _cpu(process), time.perf_counter()
    with httpx2.Client(headers={"Accept": _ACCEPT}, trust_env=False, timeout=30) as http:
        for _ in range(_SCRAPES):
            asked = time.perf_counter()
            answer = http.get(f"http://{target}/metrics").raise_for_status()
            seconds.append(time.perf_counter() - asked)
            sizes.append(answer.num_bytes_downloaded)
            text = answer.text
    wall = time.perf_counter() - begun
    series = [line for line in text.splitlines() if line and not line.startswith("#")]
    ours = [line for line in series if line.startswith("ray_shopreel_")]
    return {
        "process": name_of(process),
        "seconds": spread(seconds),
        "bytes": len(text.encode()),
        "bytes_on_the_wire": round(statistics.median(sizes)),
        "cpu_s": round((_cpu(process) - before - rest * wall) / _SCRAPES, 4),
        "cpu_share_at_rest": round(rest, 4),
        "series": len(series),
        "series_of_ours": len(ours),
        "of_ours_buckets": sum("_bucket{" in line for line in ours),
        "families_of_ours": len({_PART.sub("", line.partition("{")[0]) for line in ours}),
    }


def _listener(port: int) -> psutil.Process:
    for found in psutil.net_connections("tcp"):
        here = found.status == psutil.CONN_LISTEN and found.laddr[1:2] == (port,)
        if here and found.pid:
            return psutil.Process(found.pid)
    raise RuntimeError(f"nobody listens on port {port}")


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
