"""`shopreel top`: what goes on now, straight from the job table: it needs no Prometheus, and works
while the API is down."""

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

from cluster.eta import FACT, STALE_S, Snapshot
from diffusion.params import Priority
from serve.commands.stores import open_database
from storage.errors import StoreUnavailable
from storage.facts import Fact, SqlFacts
from storage.jobs import Job, JobStatus, Stage
from storage.sql.database import Database
from storage.sql.overview import Scene, scene

_ROWS_AROUND = 26  # lines of everything but the jobs in flight
_OLD_S = 300.0  # a person who waits longer than this shows in red


def run_top(config: Path | None, data: Path, every_s: float, minutes: float, once: bool) -> None:
    console = Console(highlight=False)
    with open_database(config, data) as database:
        if once:
            console.print(_picture(database, minutes, 100))
            return
        with (
            suppress(KeyboardInterrupt),
            Live(console=console, screen=True, auto_refresh=False) as live,
        ):
            while True:
                room = max(3, console.height - _ROWS_AROUND)
                try:
                    live.update(_picture(database, minutes, room), refresh=True)
                except StoreUnavailable as e:  # what one looks at this for: go on trying
                    live.update(Text(f"{_clock(time.time())}  {e}", style="red"), refresh=True)
                time.sleep(every_s)


def _picture(database: Database, minutes: float, room: int) -> RenderableType:
    now = time.time()
    fact = SqlFacts(database).get(FACT)
    seen = scene(database, now - 60 * minutes)
    return Group(*_parts(seen, fact, minutes, room, now))


def _parts(
    seen: Scene, fact: Fact | None, minutes: float, room: int, now: float
) -> Iterator[RenderableType]:
    yield Text.assemble((f"shopreel {_clock(now)}  ", "bold"), _dispatcher(fact))
    yield ""
    yield _queue(seen, now)
    snapshot = _snapshot(fact)
    if snapshot is not None:
        yield ""
        yield _tiers(snapshot)
        yield ""
        yield _stages(snapshot)
    yield ""
    yield _ended(seen, minutes)
    yield ""
    yield from _in_flight(seen, room, now)
    if seen.failed:
        yield ""
        yield _failed(seen)


def _dispatcher(fact: Fact | None) -> Text:
    if fact is None:
        return Text("no Dispatcher has ever run here", style="red")
    if fact.age_s > STALE_S:
        return Text(f"no word from the Dispatcher for {_span(fact.age_s)}", style="bold red")
    return Text("the Dispatcher runs", style="green")


def _snapshot(fact: Fact | None) -> Snapshot | None:
    """The Dispatcher's last word, stale or not. None: there is none that this version can read."""
    with suppress(ValueError):
        return None if fact is None else Snapshot.from_json(fact.value)
    return None


def _queue(seen: Scene, now: float) -> Table:
    table = _table("queue", right=("waiting", "oldest"))
    for priority, line in seen.lines.items():
        age_s = 0.0 if line.oldest_at is None else now - line.oldest_at
        late = priority is Priority.INTERACTIVE and age_s > _OLD_S
        oldest = Text(_span(age_s) if line.length else "–", style="red" if late else "")
        table.add_row(priority, f"{line.length:,}", oldest)
    return table


def _tiers(snapshot: Snapshot) -> Table:
    loads = ("replicas", "clips / slots", "people", "batch", "to come", "work ahead", "TFLOP/s")
    table = _table("tier", right=loads)
    for name, tier in snapshot.tiers.items():
        running = {priority: work.clips for priority, work in tier.running.items()}
        table.add_row(
            name,
            Text(str(tier.replicas), style="" if tier.replicas or tier.starts_from_zero else "red"),
            f"{sum(running.values()):.0f} / {tier.replicas * tier.slots}",
            *(f"{running[priority]:.0f}" for priority in (Priority.INTERACTIVE, Priority.BATCH)),
            f"{sum(work.clips for work in tier.queued.values()):,.0f}",
            _span(sum(work.seconds for work in tier.works) / max(1, tier.replicas)),
            f"{tier.tflops:.3g}",
        )
    return table


def _stages(snapshot: Snapshot) -> Table:
    """Lately, as the Dispatcher sees them: waiting for a replica included."""
    table = _table("stage", right=("seconds",))
    for stage, seconds in snapshot.stage_s.items():
        table.add_row(stage.replace("_", " "), f"{seconds:.2f}")
    if snapshot.median_error is not None:
        table.add_row("foreseen ends off by", f"{100 * snapshot.median_error:.0f} %")
    return table


def _ended(seen: Scene, minutes: float) -> Text:
    done, failed, cancelled = (
        seen.ended.get(status, 0)
        for status in (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED)
    )
    codes = ", ".join(f"{code} {count:,}" for code, count in seen.failures.items())
    return Text.assemble(
        (f"last {minutes:g} min  ", "bold"),
        f"{done:,} completed ({done / minutes:.3g} a minute), ",
        (f"{failed:,} failed", "red" if failed else ""),
        f" ({codes})" if codes else "",
        f", {cancelled:,} cancelled",
    )


def _in_flight(seen: Scene, room: int, now: float) -> Iterator[RenderableType]:
    title = f"in flight: {seen.running_count:,}"
    table = _table(title, "tenant", "tier", "stage", "", right=("try", "since"))
    for job in seen.running[:room]:
        age_s = now - (job.started_at or job.created_at)
        where = (escape(job.request.tenant), job.tier or "", _stage(job), _bar(job))
        table.add_row(job.id, *where, str(job.attempt), _span(age_s))
    yield table
    if seen.running_count > room:
        yield Text(f"and {seen.running_count - min(room, len(seen.running)):,} more", style="dim")


def _failed(seen: Scene) -> Table:
    table = _table("failed last", "", "why")
    for job in seen.failed:
        why = f"{job.error_code}: {job.error_message}"
        table.add_row(
            _clock(job.completed_at or 0.0), job.id, Text(why, style="red", overflow="ellipsis")
        )
    return table


def _table(*left: str, right: Sequence[str] = ()) -> Table:
    columns = [Column(name, no_wrap=True) for name in left]
    columns += [Column(name, justify="right", no_wrap=True) for name in right]
    return Table(*columns, box=None, padding=(0, 2, 0, 0), header_style="dim")


def _stage(job: Job) -> str:
    if job.stage is None:
        return "starting"
    steps = f" {job.step}/{job.request.sampling.unet_steps}"
    return job.stage.replace("_", " ") + (steps if job.stage is Stage.DENOISING else "")


def _bar(job: Job) -> RenderableType:
    return ProgressBar(max(1, job.request.sampling.unet_steps), job.step, width=20)


def _span(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _clock(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%H:%M:%SZ")
