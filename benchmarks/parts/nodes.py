"""What frames cost when the next stage runs on another node, as a share of the clip.

Two Ray nodes on this machine: each has its own object store, and what one reads of the other's goes
over TCP (loopback) in Ray's chunks, with both ends on the same cores. Threshold: above 2 % of a
clip it would pay to decode and encode in one place.
"""

import os
import statistics
import tempfile
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.machine import spread
from cluster.local import prepare_environment

REPEATS = 15
THRESHOLD = 0.02
FRAMES = {
    "512x512, 16 frames": (16, 512, 512, 3),
    "768x768, 24 frames": (24, 768, 768, 3),
}
CLIP_S = 15.0
"""Of 512x512, 16 frames, 50 steps on an A100: 15 to 19 s are expected."""
CLIP = "512x512, 16 frames"
LINK_GBIT_S = 10


def measure() -> dict[str, Any]:
    with TemporaryDirectory() as data, TemporaryDirectory(prefix="reel-") as temp:
        prepare_environment(Path(data))
        import ray
        from ray.cluster_utils import Cluster

        # Cluster writes a file there, and Ray makes the folder only for its own default.
        os.makedirs(Path(tempfile.gettempdir()) / "ray", exist_ok=True)
        node = {"num_cpus": 2, "object_store_memory": 512 << 20}
        cluster = Cluster(
            initialize_head=True,
            head_node_args={
                **node,
                "labels": {"node": "one"},
                "include_dashboard": False,
                "temp_dir": temp,
            },
        )
        try:
            cluster.add_node(**node, labels={"node": "two"})
            ray.init(cluster.address, log_to_driver=False)
            return _figures(ray)
        finally:
            ray.shutdown()
            cluster.shutdown()


def _figures(ray: Any) -> dict[str, Any]:
    def on(node: str, cls: type) -> Any:
        return ray.remote(num_cpus=0.1, label_selector={"node": node})(cls).remote()

    maker = on("one", _Maker)
    takers = {"same node": on("one", _Taker), "other node": on("two", _Taker)}
    figures: dict[str, Any] = {}
    for name, shape in FRAMES.items():
        megabytes = float(np.prod(shape)) / 1e6
        puts, gets = [], {where: list[float]() for where in takers}
        for repeat in range(REPEATS + 1):
            for where, taker in takers.items():  # a new object each: the second get is local
                reference, put_s = ray.get(maker.put.remote(shape, repeat))
                get_s, value = ray.get(taker.get.remote([reference]))
                if value != repeat:
                    raise RuntimeError(f"read {value}, not {repeat}")
                if repeat:  # the first opens connections and maps memory
                    puts.append(put_s * 1e3)
                    gets[where].append(get_s * 1e3)
        more_ms = statistics.median(gets["other node"]) - statistics.median(gets["same node"])
        figures[name] = {
            "megabytes": round(megabytes, 1),
            "put_ms": spread(puts),
            "get_ms": {where: spread(times) for where, times in gets.items()},
            "crossing_ms": round(more_ms, 2),
            f"wire_ms_at_{LINK_GBIT_S}_gbit_s": round(megabytes * 8 / LINK_GBIT_S, 2),
        }
    wire_ms = figures[CLIP][f"wire_ms_at_{LINK_GBIT_S}_gbit_s"]
    share = (figures[CLIP]["crossing_ms"] + wire_ms) / 1e3 / CLIP_S
    return {
        "repeats": REPEATS,
        "frames": figures,
        "clip_s": CLIP_S,
        "share_of_a_clip, wire included": round(share, 5),
        "threshold": THRESHOLD,
        "below_threshold": share < THRESHOLD,
    }


class _Maker:
    def put(self, shape: tuple[int, ...], fill: int) -> tuple[Any, float]:
        import ray

        frames = np.full(shape, fill, np.uint8)
        begun = time.perf_counter()
        reference = ray.put(frames)
        return reference, time.perf_counter() - begun


class _Taker:
    def get(self, references: list[Any]) -> tuple[float, int]:
        """Seconds until every byte is at hand, and the value of one."""
        import ray

        begun = time.perf_counter()
        frames = ray.get(references[0])
        seconds = time.perf_counter() - begun
        return seconds, int(frames[-1, -1, -1, -1])
