"""`make bench`: run the parts, print each as JSON and keep it in benchmarks/results/."""

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from rich.console import Console

from benchmarks.machine import write
from benchmarks.parts import hops, memory, overhead, stages, video

PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    "stages": stages.measure,
    "hops": hops.measure,
    "overhead": overhead.measure,
    "video": video.measure,
    "memory": memory.measure,
}


def main(part: str) -> int:
    console = Console(stderr=True)
    if part == "all":
        # A process each: Ray reads its environment once, and memory must start clean.
        codes = []
        for number, name in enumerate(PARTS, 1):
            console.print(f"[{number}/{len(PARTS)}] {name}", highlight=False)
            codes.append(subprocess.run([sys.executable, "-m", "benchmarks.run", name]).returncode)
        return max(codes)
    if part not in PARTS:
        console.print(f"no part {part!r}; have all, {', '.join(PARTS)}")
        return 2
    with console.status(f"measuring {part}"):
        figures = PARTS[part]()
    path = write(part, figures)
    console.print_json(json.dumps(figures))
    console.print(f"kept in {path.relative_to(path.parents[2])}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "all"))
