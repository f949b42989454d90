"""A job table and a Dispatcher that time themselves; all else about them is the product's."""

import asyncio
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, Engine, event

import deployments.dispatcher
from cluster.placement import Plan
from deployments.dispatcher import Dispatcher
from diffusion.params import SamplingParams
from storage.job_store import JobStoreConfig, SqlJobStore
from storage.jobs import Job, JobRequest, OutputParams, VideoFile

VIDEO = VideoFile("r", "v", "p", "s", "m", "0" * 64, 1, 512, 512, 16, 8.0, 2.0, {"denoising": 9.0})


@dataclass(slots=True)
class Spent:
    calls: int = 0
    wall_s: float = 0.0
    longest_s: float = 0.0  # of wall_s, one call
    cpu_s: float = 0.0  # of the calling thread


class Clock:
    """Time by label; several threads may run under one label at once, so their walls add up."""

    def __init__(self) -> None:
        self.spent: dict[str, Spent] = defaultdict(Spent)
        self._lock = threading.Lock()

    @contextmanager
    def running(self, label: str) -> Iterator[None]:
        wall, cpu = time.perf_counter(), time.thread_time()
        try:
            yield
        finally:
            seconds, cpu_s = time.perf_counter() - wall, time.thread_time() - cpu
            with self._lock:
                spent = self.spent[label]
                spent.calls += 1
                spent.wall_s += seconds
                spent.longest_s = max(spent.longest_s, seconds)
                spent.cpu_s += cpu_s

    def timed(self, label: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            with self.running(label):
                return call(*args, **kwargs)

        return run


class TimedJobs(SqlJobStore):
    """`completed` is called in the thread that has just written the end of a job."""

    clock: Clock  # by method
    commits: Clock
    completed: Callable[[], object]
    sync_s: float  # what every commit takes longer, as on a slower disk

    def __init__(self, config: JobStoreConfig) -> None:
        super().__init__(config)
        self.clock, self.commits = Clock(), Clock()
        self.completed = lambda: None
        self.sync_s = 0.0
        for name in ("waiting", "counts", "lease", "record_progress", "expire"):
            vars(self)[name] = self.clock.timed(name, getattr(self, name))
        self._time_commits(self.database._reads)

    def _time_commits(self, engine: Engine) -> None:
        """Of transactions that write; those that only read wait for no disk. Both share `engine`'s
        connections."""
        now, commit = threading.local(), engine.dialect.do_commit

        def note(connection: Connection) -> None:
            now.writes = connection.get_execution_options().get("writes", False)

        def slow_commit(connection: Any) -> None:
            if now.writes:
                with self.commits.running(""):
                    time.sleep(self.sync_s)
                    commit(connection)
            else:
                commit(connection)

        event.listen(engine, "commit", note)
        vars(engine.dialect)["do_commit"] = slow_commit

    def complete(self, *args: Any, **kwargs: Any) -> Job:
        with self.clock.running("complete"):
            job = super().complete(*args, **kwargs)
        self.completed()
        return job


class StopwatchDispatcher(Dispatcher):
    async def __init__(self, *args: Any):  # type: ignore[misc]
        vars(deployments.dispatcher)["SqlJobStore"] = TimedJobs
        await super().__init__(*args)

    async def race(self, jobs: int, sync_s: float) -> dict[str, Any]:
        """Queue so many jobs, then run them: seconds from the wake-up to the last one's end, and
        where they went. Every commit meanwhile takes `sync_s` longer."""
        table = self._jobs
        assert isinstance(table, TimedJobs)
        done, left, loop = asyncio.Event(), jobs, asyncio.get_running_loop()

        def count_down() -> None:
            nonlocal left
            left -= 1
            if left == 0:
                done.set()

        table.completed = lambda: loop.call_soon_threadsafe(count_down)
        async with self._leasing:
            await asyncio.to_thread(_fill, table, jobs)
        table.clock.spent.clear()
        table.commits.spent.clear()
        table.sync_s = sync_s
        plan, placing = self._fleet.plan, Clock()

        def timed_plan(*args: Any) -> tuple[Plan, list[Job]]:
            with placing.running(""):
                return plan(*args)

        vars(self._fleet)["plan"] = timed_plan
        begun, cpu, loop_cpu = time.perf_counter(), time.process_time(), time.thread_time()
        await self.wake()
        await done.wait()
        seconds = time.perf_counter() - begun
        del vars(self._fleet)["plan"]
        table.sync_s = 0.0
        return {
            "seconds": seconds,
            "process_cpu_s": time.process_time() - cpu,
            "loop_cpu_s": time.thread_time() - loop_cpu,
            "placement": asdict(placing.spent[""]),
            "commits": asdict(table.commits.spent[""]),
            "table": {name: asdict(spent) for name, spent in table.clock.spent.items()},
        }


def _fill(table: SqlJobStore, jobs: int) -> None:
    for number in range(jobs):
        table.create(_request(f"bench{time.time_ns()}_{number}"))


def _request(job_id: str) -> JobRequest:
    return JobRequest(
        id=job_id,
        tenant="shop",
        model="i2vgen-xl",
        model_revision="0" * 64,
        photo_key="inputs/shop/0",
        photo_sha256=job_id,  # every one another clip
        sampling=SamplingParams("a watch turns", "blurry", 512, 512, 16, 50, 9.0, 16, seed=1),
        output=OutputParams(fit="crop", fps=8.0, inbetweens=0),
        preset="standard",
    )
