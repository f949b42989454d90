"""A run of 200 products, one in eight of them bad, during which whatever it needs is killed.

Its driver twice, the S3 server and the denoiser once, each with SIGKILL. What must hold: a row of
results for every row of the manifest, every bad one typed, and nothing finished made again.
"""

import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.catalogue.cluster import Running, config_file, running
from benchmarks.catalogue.command import following, output_of
from benchmarks.catalogue.kills import Killer, all_jobs
from benchmarks.catalogue.products import WAYS, Products, write_products
from benchmarks.catalogue.table import (
    attempts,
    changed_shards,
    done_twice,
    read_table,
    wrong_rows,
)

ROWS, TWIN_EVERY = 200, 12
BAD_EVERY = ROWS // WAYS  # every way once, and a tenth of the rows at least
SMALLEST = {"area_px": 64 * 64, "num_frames": 8, "fps": 8, "num_inference_steps": 12}
OUTPUT = "s3://shopreel/catalog/kills"
_OPTIONS = ("--shard-rows", "20", "--in-flight", "16")
_PATIENCE_S = 300.0


def measure() -> dict[str, Any]:
    with TemporaryDirectory(prefix="reel-") as temp:
        folder = Path(temp).resolve()
        products = write_products(folder / "products", ROWS, BAD_EVERY, TWIN_EVERY)
        with running(config_file(folder, SMALLEST)) as cluster:
            return _killed(cluster, products)


def _killed(cluster: Running, products: Products) -> dict[str, Any]:
    output = output_of(cluster.objects, OUTPUT)
    begun = time.perf_counter()
    with following(cluster.data, products.manifest, OUTPUT, *_OPTIONS) as run:
        kills = Killer(cluster.pid, cluster.jobs, output, run).run(products.jobs)
        run.wait(_PATIENCE_S)
    seconds = time.perf_counter() - begun
    table, jobs = read_table(output), all_jobs(cluster.jobs)
    return {
        "clip": "64x64, 8 frames, 12 steps, tiny model",
        "rows": products.rows,
        "of them bad": dict(Counter(products.problems.values())),
        "of them the same as another": len(products.twins),
        "seconds": round(seconds, 1),
        "kills": [
            {
                "killed": kill.victim,
                "jobs_completed": len(kill.completed),
                "jobs_under_way": kill.under_way,
                "shards_committed": len(kill.shards),
                "replaced_after_s": round(kill.replaced_s, 2),
            }
            for kill in kills
        ],
        "rows_of_results": len(table),
        "statuses": dict(Counter(row["status"] for row in table)),
        "wrong": wrong_rows(table, products, output),
        "finished work made again": done_twice(jobs, products, kills)
        + changed_shards(output, kills),
        "jobs by attempts": attempts(jobs),
    }
