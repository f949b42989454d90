"""What one hop through Ray's object store costs, for latents and for frames, on one node."""

import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from cluster.local import prepare_environment

REPEATS = 15
PAYLOADS = {
    "latents 512x512, 16 frames, fp16": ((1, 4, 16, 64, 64), np.float16),
    "latents 768x768, 24 frames, fp16": ((1, 4, 24, 96, 96), np.float16),
    "frames 512x512, 16 frames, uint8": ((16, 512, 512, 3), np.uint8),
    "frames 768x768, 24 frames, uint8": ((24, 768, 768, 3), np.uint8),
    "frames 768x768, 24 frames, float32": ((24, 768, 768, 3), np.float32),
}


def measure() -> dict[str, Any]:
    """Medians of ray.put in a producer and ray.get in a consumer: two processes of one node."""
    with TemporaryDirectory() as data, TemporaryDirectory(prefix="reel-") as temp:
        prepare_environment(Path(data))
        import ray

        ray.init(
            num_cpus=4,
            include_dashboard=False,
            log_to_driver=False,
            object_store_memory=1 << 30,
            _temp_dir=temp,
        )
        try:
            return {"repeats": REPEATS, **_hops(ray)}
        finally:
            ray.shutdown()


def _hops(ray: Any) -> dict[str, Any]:
    class Producer:
        def put(self, shape: tuple[int, ...], dtype: Any) -> tuple[Any, float]:
            value = np.random.default_rng(0).integers(0, 255, shape).astype(dtype)
            begun = time.perf_counter()
            reference = ray.put(value)
            return reference, time.perf_counter() - begun

    class Consumer:
        def get(self, references: list[Any]) -> float:
            begun = time.perf_counter()
            ray.get(references[0])
            return time.perf_counter() - begun

    small = ray.remote(num_cpus=0.1)
    producer, consumer = small(Producer).remote(), small(Consumer).remote()
    figures = {}
    for name, (shape, dtype) in PAYLOADS.items():
        puts, gets = [], []
        for _ in range(REPEATS + 1):
            reference, put = ray.get(producer.put.remote(shape, dtype))
            puts.append(put)
            gets.append(ray.get(consumer.get.remote([reference])))
        megabytes = np.prod(shape) * np.dtype(dtype).itemsize / 1e6
        figures[name] = {
            "megabytes": round(float(megabytes), 2),
            "put_ms": round(statistics.median(puts[1:]) * 1e3, 2),
            "get_ms": round(statistics.median(gets[1:]) * 1e3, 2),
        }
    return figures
