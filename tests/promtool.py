"""Prometheus's checker, from Debian's package."""

import subprocess
from pathlib import Path

from benchmarks.prometheus import program

ROOT = Path(__file__).parents[1]


def promtool(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [program("promtool"), *map(str, arguments)], capture_output=True, text=True, timeout=60
    )
