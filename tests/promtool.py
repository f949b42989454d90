"""Prometheus's own programs, from Debian's package: nothing of it runs unless a test starts it."""

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]


def program(name: str) -> str:
    """Path of `prometheus` or `promtool`. Raises RuntimeError where it is not installed."""
    if found := shutil.which(name):
        return found
    raise RuntimeError(
        f"{name} is not installed: apt-get install -y --no-install-recommends prometheus, or unpack"
        " a release of prometheus.io and put it on PATH"
    )


def promtool(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [program("promtool"), *map(str, arguments)], capture_output=True, text=True, timeout=60
    )
