"""A Prometheus of the test's own over monitoring/prometheus.yaml, in a hurry."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import yaml

from tests.integration.live import ROOT, free_port
from tests.promtool import program

CONFIG = ROOT / "monitoring" / "prometheus.yaml"
_READY_S = 20.0


@dataclass(frozen=True, slots=True)
class Prometheus:
    url: str

    def query(self, expr: str) -> list[dict[str, Any]]:
        """Series with their labels and value now. Raises httpx2.HTTPStatusError for bad PromQL."""
        answer = httpx2.post(f"{self.url}/api/v1/query", data={"query": expr})
        answer.raise_for_status()
        found: list[dict[str, Any]] = answer.json()["data"]["result"]
        return found

    def value(self, expr: str) -> float:
        (series,) = self.query(expr)
        return float(series["value"][1])

    def get(self, path: str) -> Any:
        return httpx2.get(f"{self.url}/api/v1/{path}").raise_for_status().json()["data"]


@contextmanager
def prometheus(folder: Path, targets_file: Path) -> Iterator[Prometheus]:
    """Scrapes every second what stands in `targets_file`."""
    document = yaml.safe_load(CONFIG.read_text())
    document["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    document["rule_files"] = [str(CONFIG.with_name(name)) for name in document["rule_files"]]
    (scrape,) = document["scrape_configs"]
    (discovery,) = scrape["file_sd_configs"]
    discovery.update(files=[str(targets_file)], refresh_interval="1s")
    config = folder / "prometheus.yaml"
    config.write_text(yaml.safe_dump(document))
    url = f"127.0.0.1:{free_port()}"
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                program("prometheus"),
                f"--config.file={config}",
                f"--storage.tsdb.path={folder / 'tsdb'}",
                f"--web.listen-address={url}",
            ],
            stdout=log,
            stderr=log,
        )
        try:
            _wait_ready(f"http://{url}", process)
            yield Prometheus(f"http://{url}")
        finally:
            process.terminate()
            process.wait(20)


def _wait_ready(url: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline:
        assert process.poll() is None, "prometheus has ended; see prometheus.log"
        try:
            if httpx2.get(f"{url}/-/ready").is_success:
                return
        except httpx2.TransportError:
            pass
        time.sleep(0.1)
    raise TimeoutError("prometheus did not get ready")
