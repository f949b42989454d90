"""`shopreel jobs`: an operator works on jobs straight in the stores, so the API may be down."""

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from serve.commands.stores import open_database, open_jobs, open_stores
from storage import keys
from storage.deliveries import Delivery, SqlDeliveries
from storage.errors import ObjectNotFound
from storage.jobs import Job, JobStatus
from storage.lifecycle.records import JobRecord
from storage.sql import overview


def run_list(
    tenant: str | None,
    status: JobStatus | None,
    limit: int,
    config: Path | None,
    data: Path,
    as_json: bool,
) -> None:
    with open_database(config, data) as database:
        found = overview.newest(database, limit, tenant, status)
    if as_json:
        typer.echo(json.dumps([_summary(job) for job in found], indent=1))
        return
    table = Table("job", "tenant", "status", "stage", "try", "created", "sku", "error", box=None)
    for job in found:
        table.add_row(
            job.id,
            job.request.tenant,
            "expired" if job.expired else job.status,
            _stage(job),
            str(job.attempt),
            _at(job.created_at),
            escape(job.request.sku or ""),
            job.error_code or "",
        )
    Console().print(table)


def run_show(job_id: str, config: Path | None, data: Path, as_json: bool) -> None:
    with open_database(config, data) as database:
        job = overview.one(database, job_id)
        sent = SqlDeliveries(database).of_job(job_id)
    if as_json:
        webhooks = [asdict(delivery) for delivery in sent]
        whole = {"id": job.id, **asdict(job), "keys": _keys(job), "webhooks": webhooks}
        typer.echo(json.dumps(whole, indent=1, sort_keys=True))
        return
    console = Console()
    console.print(f"[bold]{job.id}[/]  {job.request.tenant}  {_state(job)}", highlight=False)
    for title, rows in (
        ("candidates", [(part.id, _state(part)) for part in job.children]),
        ("timeline (UTC)", _timeline(job, sent)),
        ("seconds", [(stage, f"{s:.2f}") for stage, s in job.timings.items()]),
        ("objects", list(_keys(job).items())),
    ):
        table = Table("", "", title=title, title_justify="left", show_header=False, box=None)
        table.columns[1].overflow = "fold"
        for left, right in rows:
            table.add_row(left, escape(right))
        if rows:
            console.print(table)


def run_cancel(job_id: str, config: Path | None, data: Path) -> None:
    with open_jobs(config, data) as jobs:
        before = _whole(overview.one(jobs.database, job_id))
        job = jobs.cancel(before.request.tenant, job_id)
    if before.status.is_terminal:
        typer.echo(f"error: {job_id} has ended already: {job.status}", err=True)
        raise typer.Exit(1)
    typer.echo(f"cancelled {job_id}", err=True)


def run_retry(job_id: str, config: Path | None, data: Path) -> None:
    with open_stores(config, data) as stores:
        _whole(overview.one(stores.jobs.database, job_id))
        job = stores.jobs.retry(job_id)
        # A rebuild must bring back neither its end nor its deadline.
        key = keys.request_key(job_id)
        try:
            stood = JobRecord.from_json(stores.objects.get(key), job.created_at)
        except ObjectNotFound:  # its creation was cut short just before this was written
            stood = JobRecord(job.request, None, job.created_at)
        record = replace(stood, request=job.request)
        stores.objects.put(key, record.to_json(), "application/json")
        for again in (job, *job.children):
            stores.objects.delete(keys.end_key(again.id))
    typer.echo(f"queued {job_id} again", err=True)


def _whole(job: Job) -> Job:
    """As callers know it. Exits for one of several candidates: it ends with the others."""
    if job.parent_id is not None:
        typer.echo(f"error: {job.id} is a candidate of {job.parent_id}: name that", err=True)
        raise typer.Exit(1)
    return job


def _summary(job: Job) -> dict[str, Any]:
    return {
        "id": job.id,
        "tenant": job.request.tenant,
        "status": job.status,
        "expired": job.expired,
        "stage": job.stage,
        "step": job.step,
        "steps": job.unet_steps * job.request.candidates,
        "candidates": job.request.candidates,
        "attempt": job.attempt,
        "tier": job.tier,
        "created_at": job.created_at,
        "completed_at": job.completed_at,
        "sku": job.request.sku,
        "error_code": job.error_code,
    }


def _timeline(job: Job, sent: list[Delivery]) -> list[tuple[str, str]]:
    happened = [(event.at, f"{event.kind}: {event.detail}") for event in job.events]
    happened.append((job.created_at, "created"))
    if job.started_at is not None:
        happened.append((job.started_at, f"try {job.attempt} begun on {job.tier or 'no tier'}"))
    if job.completed_at is not None:
        happened.append((job.completed_at, _state(job)))
    for delivery in sent:
        state = delivery.outcome or f"due {_at(delivery.due_at)}"
        words = f"webhook to {delivery.url}: {state}, {delivery.tries} tries"
        happened.append((delivery.created_at, f"{words} {delivery.detail or ''}".strip()))
    return [(_at(at), words) for at, words in sorted(happened)]


def _keys(job: Job) -> dict[str, str]:
    """Where its objects are, or would be; those of its candidates are shown with these."""
    request = job.request
    found = {"photo": request.photo_key, "request": keys.request_key(job.parent_id or job.id)}
    if not job.children:
        found |= {
            "commit": keys.result_key(request.tenant, request.result_id),
            "attempts": keys.attempts_prefix(job.id),
            "checkpoints": keys.checkpoints_prefix(job.id),
        }
    return found | dict(_result_keys(job))


def _result_keys(job: Job) -> Iterator[tuple[str, str]]:
    if job.result is not None and not job.expired:
        yield "video", job.result.video_key
        yield "poster", job.result.poster_key
        yield "spritesheet", job.result.spritesheet_key
        yield "manifest", job.result.manifest_key


def _state(job: Job) -> str:
    if job.error_code is not None:
        return f"{job.status}: {job.error_code}: {job.error_message}"
    return "completed, expired since" if job.expired else f"{job.status} {_stage(job)}".strip()


def _stage(job: Job) -> str:
    if job.stage is None or job.status is not JobStatus.IN_PROGRESS:
        return ""
    steps = job.request.sampling.unet_steps * job.request.candidates
    return f"{job.stage} {job.step}/{steps}" if steps else job.stage


def _at(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
