"""`shopreel catalog run` on a live cluster, whose driver, S3 server and denoiser are killed."""

from pathlib import Path

import pytest

from benchmarks.catalogue.command import following, output_of
from benchmarks.catalogue.kills import Killer, all_jobs
from benchmarks.catalogue.products import WAYS, write_products
from benchmarks.catalogue.table import changed_shards, done_twice, read_table, wrong_rows
from cluster.embedded_s3 import EmbeddedS3
from storage.job_store import JobStoreConfig, SqlJobStore
from storage.object_store import S3ObjectStore
from tests.integration.live import LiveCluster, write_config

SMALLEST = {"area_px": 64 * 64, "num_frames": 8, "fps": 8, "num_inference_steps": 12}
OUTPUT = "s3://shopreel/catalog/autumn"


@pytest.mark.timeout(300)
def test_a_run_survives_the_kill_of_whatever_it_needs_and_makes_nothing_twice(
    tmp_path: Path,
) -> None:
    products = write_products(tmp_path / "products", rows=2 * WAYS, bad_every=2, twin_every=6)
    config = write_config(tmp_path / "config.yaml", **{"presets.standard": SMALLEST})
    data = tmp_path / "data"
    with LiveCluster(data, config) as cluster:
        jobs = SqlJobStore(JobStoreConfig(url=f"sqlite:///{data.resolve() / 'jobs.sqlite'}"))
        objects = S3ObjectStore(EmbeddedS3.running(data.resolve() / "s3"))
        output = output_of(objects, OUTPUT)
        options = ("--shard-rows", "10", "--in-flight", "8")
        with following(data, products.manifest, OUTPUT, *options) as run:
            kills = Killer(cluster.endpoints.pid, jobs, output, run).run(products.jobs)
            run.wait(120)
        table = read_table(output)
        assert wrong_rows(table, products, output) == []
        assert done_twice(all_jobs(jobs), products, kills) == []
        assert changed_shards(output, kills) == []
        assert {row["shelf"] for row in table if row["error_code"] is None} == {
            f"S{number}" for number in range(7)
        }
        jobs.close()
