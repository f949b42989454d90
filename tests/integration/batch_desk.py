"""A service with batches, and what its Housekeeper and drivers do with them, a step at a time."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ray.job_submission import JobStatus as RayStatus
from sqlalchemy import update

from catalog.batches.keeper import BatchKeeper
from catalog.batches.preparing import Preparing
from catalog.manifest.pinning import pin
from catalog.manifest.source import open_source
from catalog.report.publish import publish_report
from catalog.results.commit import commit_shard
from catalog.results.output import RunOutput
from catalog.results.row import ResultRow, ResultSchema, RowStatus
from catalog.run.config import CatalogConfig
from catalog.run.options import RunOptions
from catalog.run.plan import adopted_plan
from catalog.run.submission import DriverJob
from deployments.egress.client import EgressConfig
from deployments.egress.webhooks import WebhookConfig
from serve.catalog_driver import driver_command
from storage.batches import SqlBatches
from storage.files import SqlFiles
from storage.object_store import ObjectStoreConfig, S3ObjectStore
from storage.sql.tables import batches
from tests.integration.service import Service
from tests.sample_jobs import Clock


@dataclass
class Drivers:
    """DriverJobs without Ray: it keeps what was started, and tests say how that went."""

    dashboard_url: str = "http://127.0.0.1:8265"
    started: list[RunOptions] = field(default_factory=list)
    commands: list[Sequence[str]] = field(default_factory=list)
    job: DriverJob | None = None
    log: str = ""

    def start(self, options: RunOptions, tenant: str, command: Sequence[str]) -> bool:
        if self.job is not None and self.job.is_at_work:
            return False
        self.started.append(options)
        self.commands.append(command)
        uris = options.manifest_uri, options.output_uri
        self.job = DriverJob(
            options.run_id, RayStatus.RUNNING, "", *uris, tenant, time.time(), None, None
        )
        return True

    def find(self, run_id: str) -> DriverJob | None:
        return self.job if self.job is not None and self.job.run_id == run_id else None

    def logs(self, run_id: str) -> str:
        return self.log

    def end(self, status: RayStatus, exit_code: int | None = None, log: str = "") -> None:
        assert self.job is not None
        self.job, self.log = replace(self.job, status=status, exit_code=exit_code), log


class Desk:
    """A service, and what its Housekeeper does with batches, one look at a time."""

    def __init__(self, s3: ObjectStoreConfig, folder: Path, **catalog: Any):
        prefix = f"s3://{s3.bucket}"
        self.config = CatalogConfig(
            input_prefixes=(f"{prefix}/goods/{{tenant}}/",),
            output_prefixes=(f"{prefix}/made/{{tenant}}/",),
            **catalog,
        )
        self.service = Service(
            s3,
            folder,
            auth=True,
            catalog=self.config,
            egress=EgressConfig(webhook_hosts=("shop.example",)),
            webhooks=WebhookConfig(secrets=("x" * 32,)),
        )
        self.s3, self.objects, self.drivers, self.clock = s3, S3ObjectStore(s3), Drivers(), Clock()
        self.clock.now = time.time()
        database = self.service.jobs.database
        self.batches = SqlBatches(database, self.clock)
        self.keys = {name: self.service.key(name) for name in ("shop", "rival")}
        self.keeper = BatchKeeper(
            self.config,
            self.batches,
            self.service.jobs,
            Preparing(self.bucket, s3.bucket, SqlFiles(database), "tiny-random"),
            self.bucket,
            s3.bucket,
            lambda: self.drivers,  # type: ignore[arg-type, return-value]  # the same methods
            driver_command,
        )

    def bucket(self, name: str) -> S3ObjectStore:
        return S3ObjectStore(self.s3.model_copy(update={"bucket": name}))

    def ask(self, method: str, path: str, tenant: str = "shop", **kwargs: Any) -> Any:
        headers = self.keys[tenant] | kwargs.pop("headers", {})
        return self.service.http.request(method, f"/v1{path}", headers=headers, **kwargs)

    def upload(self, data: bytes, name: str = "goods.csv", purpose: str = "batch") -> str:
        response = self.ask(
            "POST", "/files", data={"purpose": purpose}, files={"file": (name, data)}
        )
        assert response.status_code == 200, response.text
        return str(response.json()["id"])

    def create(self, data: bytes = b"sku,image_uri\na,x.jpg\n", **fields: Any) -> dict[str, Any]:
        response = self.ask("POST", "/batches", json={"input_file_id": self.upload(data), **fields})
        assert response.status_code == 202, response.text
        made: dict[str, Any] = response.json()
        assert response.headers["location"] == f"/v1/batches/{made['id']}"
        return made

    def get(self, batch: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = self.ask("GET", f"/batches/{batch['id']}").json()
        return found

    def look(self, times: int = 1) -> None:
        """As many rounds, each after all waits."""
        for _ in range(times):
            self.clock.now += 61
            self.keeper.round()

    def output(self, batch: dict[str, Any]) -> RunOutput:
        prefix = batch["output_prefix"].removeprefix(f"s3://{self.s3.bucket}/")
        return RunOutput(self.objects, self.s3.bucket, prefix, batch["run_id"])


def drive(
    desk: Desk,
    batch: dict[str, Any],
    done: Sequence[RowStatus],
    rows: int | None = None,
    shard_rows: int | None = None,
    uri: str | None = None,
) -> None:
    """What a driver does with as many first rows, in the real folder: pins, plans, commits. `uri`:
    of the manifest; None: one is written."""
    shard_rows = shard_rows or len(done)
    output = desk.output(batch)
    if uri is None:
        uri = f"s3://{desk.s3.bucket}/goods/shop/b.csv"
        desk.objects.put("goods/shop/b.csv", manifest_of(rows or len(done)), "text/csv")
    options = RunOptions(manifest_uri=uri, output_uri=output.uri, shard_rows=shard_rows)
    manifest = pin(
        open_source(uri, desk.bucket),
        desk.objects,
        output.prefix,
        shard_rows=shard_rows,
        temp=desk.service.folder,
    )
    plan = adopted_plan(output, options, manifest, None)
    for shard in manifest.shards:
        last = shard.first_row + shard.rows
        if last > len(done):
            break
        results = [result(output, row, done[row]) for row in range(shard.first_row, last)]
        commit_shard(output, plan.fingerprint, shard, results, ResultSchema())
    publish_report(output, plan, time.time())


def manifest_of(rows: int) -> bytes:
    goods = "".join(f"p{row},{row}.jpg\n" for row in range(rows))
    return f"sku,image_uri\n{goods}".encode()


def result(output: RunOutput, row: int, status: RowStatus) -> ResultRow:
    if status is RowStatus.OK:
        video = f"{output.uri}/videos/{row}.mp4"
        return ResultRow(row=row, sku=f"p{row}", status=status, video_uri=video, video_id="v")
    code, message = "encode_failed", "it broke"
    return ResultRow(row=row, sku=f"p{row}", status=status, error_code=code, error_message=message)


def put_manifest(desk: Desk) -> None:
    desk.objects.put("goods/shop/a.csv", b"sku,image_uri\na,x.jpg\n", "text/csv")


def expire(desk: Desk, batch_id: str) -> None:
    """Its time is over by the wall clock."""
    with desk.service.jobs.database.writing() as db:
        db.execute(update(batches).where(batches.c.id == batch_id).values(expires_at=1.0))
