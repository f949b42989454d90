"""A Prometheus over monitoring/prometheus.yaml, in a hurry: scrapes, evaluates each second."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import yaml

from benchmarks.load.servers import free_port

CONFIG = Path(__file__).parents[1] / "monitoring" / "prometheus.yaml"
_READY_S, _END_S = 20.0, 20.0


def program(name: str) -> str:
    """Path of `prometheus` or `promtool`. Raises RuntimeError where it is not installed."""
    if found := shutil.which(name):
        return found
    raise RuntimeError(
        f"{name} is not installed: apt-get install -y --no-install-recommends prometheus, or unpack"
        " a release of prometheus.io and put it on PATH"
    )


@contextmanager
def scraping(folder: Path, targets_file: Path, rules: Path | None = None) -> Iterator[str]:
    """The URL of one that scrapes what stands in `targets_file`; with `rules` in the place of the
    project's own. Raises RuntimeError where it does not come up."""
    document = yaml.safe_load(CONFIG.read_text())
    document["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    own = [CONFIG.with_name(name) for name in document["rule_files"]]
    document["rule_files"] = [str(path) for path in (own if rules is None else [rules])]
    (scrape,) = document["scrape_configs"]
    (discovery,) = scrape["file_sd_configs"]
    discovery.update(files=[str(targets_file)], refresh_interval="1s")
    config = folder / "prometheus.yaml"
    config.write_text(yaml.safe_dump(document))
    address = f"127.0.0.1:{free_port()}"
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                program("prometheus"),
                f"--config.file={config}",
                f"--storage.tsdb.path={folder / 'tsdb'}",
                f"--web.listen-address={address}",
            ],
            stdout=log,
            stderr=log,
        )
        try:
            _wait_ready(f"http://{address}", process)
            yield f"http://{address}"
        finally:
            process.terminate()
            process.wait(_END_S)


def _wait_ready(url: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError("prometheus has ended; see prometheus.log")
        try:
            if httpx2.get(f"{url}/-/ready", trust_env=False).is_success:
                return
        except httpx2.TransportError:
            pass
        time.sleep(0.1)
    raise RuntimeError(f"prometheus was not ready in {_READY_S:.0f} s")
