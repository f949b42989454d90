"""Each alert of monitoring/alerts.yaml: a fault caused in a running cluster that a real Prometheus
scrapes, and the seconds until the alert fired.

The rules are the project's own with their stretches of time divided (benchmarks.alerts.rules), and
are evaluated each second. What cannot be caused on this machine is named, with the reason.
"""

import os
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console

from benchmarks.alerts.rules import SHORTEST_WINDOW_S, Alert, alerts, write_scaled
from benchmarks.alerts.shop import open_shop, visitors
from benchmarks.alerts.small_root import NoSmallRoot
from benchmarks.alerts.watch import Fired, NotFired, watching
from benchmarks.prometheus import scraping

HEALTHY_S = 60.0
"""Before the first fault."""

NOT_CAUSED: Mapping[str, str] = {
    "GpuHot": "no card here",
    "GpuMemoryFull": "no card here",
    "GpuXidError": "no card here, so no dcgm-exporter either",
    "GpuXidNoted": "no card here, so no dcgm-exporter either",
    "LeasesRunOut": "it takes a Dispatcher that is lost again and again for 20 minutes",
    "ProbeFailed": "no ingress here, and no blackbox-exporter",
    "ReplicasShort": "one node here, which has room for every replica",
    "VolumeAlmostFull": "no kubelet here",
}


def measure() -> dict[str, Any]:
    load_before = os.getloadavg()
    not_caused = dict(NOT_CAUSED)
    with TemporaryDirectory(prefix="reel-") as temp:
        folder = Path(temp).resolve()
        rules = write_scaled(folder / "alerts.yaml")
        fired = _run(folder, rules, not_caused)
    return {
        "machine_load_1_5_15_min_before": [round(load, 2) for load in load_before],
        "scraped and evaluated every s": 1,
        "healthy_before_s": HEALTHY_S,
        "shortest_window_s": SHORTEST_WINDOW_S,
        "alerts": {
            alert.name: _figures(alert, fired.get(alert.name), not_caused.get(alert.name))
            for alert in alerts()
        },
    }


def _run(folder: Path, rules: Path, not_caused: dict[str, str]) -> dict[str, Fired]:
    console = Console(stderr=True, highlight=False)
    with open_shop(folder, "benchmarks.alerts.scarce:build_app") as shop:
        # Late: it imports Ray, which reads the environment that `open_shop` has made.
        from benchmarks.alerts.faults import FAULTS

        shop.visited += [shop.accepted() for _ in range(2)]
        shop.until(lambda: all(shop.job(each).status.is_terminal for each in shop.visited))
        targets = shop.data / "ray-temp" / "prom_metrics_service_discovery.json"
        with scraping(folder, targets, rules) as url, watching(url) as watch, visitors(shop):
            time.sleep(HEALTHY_S)
            for fault in FAULTS:
                begun = time.monotonic()
                try:
                    fault(shop, watch)
                except NotFired as e:
                    console.print(f"{fault.__name__}: {e}")
                    not_caused |= dict.fromkeys(watch.awaited, str(e))
                except NoSmallRoot as e:
                    not_caused["DiskAlmostFull"] = f"no file system of a node's own: {e}"
                console.print(f"{fault.__name__}: {time.monotonic() - begun:.0f} s")
            console.print(f"looks were answered {shop.answers}")
    return watch.fired


def _figures(alert: Alert, fired: Fired | None, reason: str | None) -> dict[str, Any]:
    shipped = {
        "expr": alert.expr,
        "severity": alert.severity,
        "for_s": alert.for_s,
        "windows_s": sorted({*alert.windows_s}),
        "divided_by": alert.divisor,
        "true_after_s_as_shipped": round(alert.true_after_s, 1),
    }
    if fired is None:
        return shipped | {"not_injected": reason}
    seen = {
        name: round(value, 1) if isinstance(value, float) else value
        for name, value in asdict(fired).items()
        if name != "alert"
    }
    return shipped | seen
