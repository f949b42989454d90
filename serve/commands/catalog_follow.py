"""Standing by a run's driver: until it is at work, until the run ends, until it has stopped."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from catalog.results.output import RunOutput
from catalog.run.options import RunOptions
from catalog.run.progress import read_progress
from catalog.run.submission import STOPPED, DriverJob, DriverJobs
from storage.errors import StoreUnavailable

_POLL_S = 1.0
_RESTARTS = 5
"""In a row, of a driver that was killed, while somebody stands by."""
_RAY_PATIENCE_S = 600.0
"""For a dashboard that is away: a head that restarts."""
_SIGN_OF_LIFE_S = 10.0
"""Ray takes some seconds to see that a driver was killed; a living one writes every two."""


class RunEnded(Exception):
    """Before its end; says why. `exit_code` is of the command that stood by."""

    def __init__(self, why: str, exit_code: int = 1):
        super().__init__(why)
        self.exit_code = exit_code


def start(
    options: RunOptions,
    tenant: str,
    command: Sequence[str],
    drivers: DriverJobs,
    output: RunOutput,
) -> bool:
    """Whether a driver was started: False where a living one is at work already. Raises what
    DriverJobs raise."""
    until, seen = time.monotonic() + _SIGN_OF_LIFE_S, _written_at(output)
    while not drivers.start(options, tenant, command):
        if _written_at(output) != seen or time.monotonic() > until:
            return False
        time.sleep(_POLL_S)
    return True


def follow_run(
    options: RunOptions,
    tenant: str,
    command: Sequence[str],
    drivers: DriverJobs,
    output: RunOutput,
    console: Console,
) -> str:
    """Stays until the run ends, and says how. A driver that was killed is started again; the
    service goes on anyway. Raises RunEnded, and ConnectionError once Ray is away for long."""
    restarts = done = 0
    answered = time.monotonic()
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=28),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.fields[words]}"),
        TimeElapsedColumn(),
        console=console,
    ) as bar:
        task = bar.add_task("reading the manifest", total=None, words="")
        while True:
            time.sleep(_POLL_S)
            progress = _known_progress(output) or {"done": 0}
            if progress["done"] > done:
                restarts, done = 0, progress["done"]
            _show(bar, task, progress)
            try:
                job = drivers.find(options.run_id)
                if job is None or job.is_lost:
                    if restarts == _RESTARTS:
                        raise RunEnded(f"its driver was lost {restarts + 1} times in a row")
                    drivers.start(options, tenant, command)
                    restarts += 1
                    told = f"the driver is gone; started again ({restarts} of {_RESTARTS})"
                    console.print(told)
                elif not job.is_at_work:
                    end = _end_of(job, drivers)
                    stopped = job.exit_code == STOPPED
                    break
                answered = time.monotonic()
            except (ConnectionError, RuntimeError):
                if time.monotonic() - answered > _RAY_PATIENCE_S:
                    raise
        _show(bar, task, _known_progress(output) or {"done": 0})
    if end is not None:
        raise RunEnded(end, STOPPED if stopped else 1)
    return words_on(_known_progress(output) or {})


def stop(options: RunOptions, tenant: str, command: Sequence[str], drivers: DriverJobs) -> str:
    """Until a driver of the run, which is cancelled, has heard of that; says what came of it.
    Raises RunEnded where none could, and what DriverJobs raise."""
    for _ in range(1 + _RESTARTS):
        drivers.start(options, tenant, command)  # unless one is at work
        job = wait_for_end(options.run_id, drivers)
        if job is not None and not job.is_lost:
            return _end_of(job, drivers) or "it had ended before"
    raise RunEnded("none of its drivers could cancel its jobs: each was lost")


def wait_for_end(run_id: str, drivers: DriverJobs) -> DriverJob | None:
    """The run's last driver, once it is at work no more. Raises what DriverJobs raise."""
    while (job := drivers.find(run_id)) is not None and job.is_at_work:
        time.sleep(_POLL_S)
    return job


def words_on(progress: Mapping[str, Any]) -> str:
    """One line for people."""
    if not progress:
        return "no row is done yet"
    words = [f"{progress['done']} of {progress['rows']}: {progress['ok']} videos"]
    for what in ("failed", "cancelled", "shared", "skipped"):
        if count := progress.get(what, 0):  # an older driver tells less
            words.append(f"{count} {what}")
    if rate := progress["rows_per_s"]:
        words.append(f"{3600 * rate:.0f}/h")
    if eta_s := progress["eta_s"]:
        words.append(f"{_duration(eta_s)} to go")
    words.append(f"{progress['gpu_seconds']:.0f} GPU-seconds")
    if progress["cost"]:
        words.append(f"cost {progress['cost']:.2f}")
    if reason := progress["waiting_for"]:
        words.append(f"waiting: {reason}")
    return ", ".join(words)


def _end_of(job: DriverJob, drivers: DriverJobs) -> str | None:
    """Why it ended before the run did; None: it did not."""
    if job.has_succeeded:
        return None
    lines = [line for line in drivers.logs(job.run_id).splitlines() if line.strip()]
    return lines[-1].removeprefix("stopped: ") if lines else str(job.status)


def _known_progress(output: RunOutput) -> Mapping[str, Any] | None:
    """None also where the store is away: the run waits for it, and so do its followers."""
    try:
        return read_progress(output)
    except StoreUnavailable:
        return None


def _written_at(output: RunOutput) -> float | None:
    found = _known_progress(output)
    return None if found is None else float(found["written_at"])


def _show(bar: Progress, task: TaskID, progress: Mapping[str, Any]) -> None:
    if progress["done"]:
        bar.update(
            task,
            description="making videos",
            total=progress["rows"],
            completed=progress["done"],
            words=words_on(progress),
        )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes}:{rest:02}"
