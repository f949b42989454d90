"""How good the videos are. So far: camera moves against their path and their photo."""

from typing import Any

from benchmarks.camera import measure_camera


def measure() -> dict[str, Any]:
    return {"camera": measure_camera()}
