"""`make bench`: run the parts, print each as JSON and keep it in benchmarks/results/."""

import importlib
import json
import os
import subprocess
import sys

from rich.console import Console

from benchmarks.machine import write

PARTS = (
    "stages",
    "hops",
    "overhead",
    "video",
    "memory",
    "engine",
    "latency",
    "torch_options",
    "gpu",
    "dispatch",
    "kills",
    "nodes",
    "api",
    "lifecycle",
    "manifest",
    "catalog",
    "catalog_plan",
    "catalog_share",
    "catalog_busy",
    "page",
    "observability",
    "alerts",
    "quality",
)


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
    os.environ |= {
        "TRANSFORMERS_VERBOSITY": "error",
        "DIFFUSERS_VERBOSITY": "error",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        # Clusters of cluster/local.yaml, but of random weights: the figures are of the service, and
        # a model that takes no time shows what else does.
        "SHOPREEL_MODEL__NAME": "tiny-random",
        "SHOPREEL_MODEL__SOURCE": "tiny",
        "SHOPREEL_DEFAULT_MODEL": "tiny-random",
        "SHOPREEL_PRESETS__STANDARD__GUIDANCE_SCALE": "9",
    }
    with console.status(f"measuring {part}"):
        # Imported late: Ray and transformers read the environment when they are imported.
        figures = importlib.import_module(f"benchmarks.parts.{part}").measure()
    if figures is None:
        return 0  # the part has said why, or where it kept them itself
    path = write(part, figures)
    console.print_json(json.dumps(figures))
    console.print(f"kept in {path.relative_to(path.parents[2])}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "all"))
