"""How good the videos are: camera moves, and the embedded model beside them.

The contact sheets that docs/embedded-model.md shows are of the same run as the figures.
"""

from pathlib import Path
from typing import Any

from benchmarks.camera import measure_camera
from benchmarks.quality.embedded import measure_embedded

_DOCS = Path(__file__).parents[2] / "docs"


def measure() -> dict[str, Any]:
    return {"camera": measure_camera(), "embedded": measure_embedded(_DOCS)}
