"""The shared watcher of the job table, and the event streams on it, over a real server's socket."""

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import httpx2
import pytest
import uvicorn
from fastapi import FastAPI, Header
from sqlalchemy import event
from sse_starlette import EventSourceResponse
from sseclient import SSEClient

from cluster.eta import Eta
from serve.schemas import Video
from serve.services.events import Pace, event_stream
from serve.services.watch import Watch
from storage.errors import StoreUnavailable
from storage.job_contract import Progress
from storage.job_store import JobStoreConfig, SqlJobStore
from storage.jobs import Attempt, Job, JobStatus, Stage
from tests.sample_jobs import VIDEO, lease_next, make_request

POLL_S = 0.05
PACE = Pace(refresh_s=4 * POLL_S, check_s=6 * POLL_S)


class Table:
    """A job table, with one job at work and its queries counted."""

    def __init__(self, folder: Path):
        self.jobs = SqlJobStore(JobStoreConfig(url=f"sqlite:///{folder / 'jobs.sqlite'}"))
        self.queries = 0
        event.listen(self.jobs.database._reads, "before_cursor_execute", self._count)
        self.jobs.create(make_request("job"))
        self.epoch = self.jobs.next_epoch()
        self.attempt: Attempt = lease_next(self.jobs, self.epoch, 1)[0].current_attempt

    def _count(self, _connection: object, _cursor: object, statement: str, *_: object) -> None:
        self.queries += not statement.startswith("BEGIN")

    def step(self, step: int) -> None:
        report = Progress(self.attempt, Stage.DENOISING, step)
        assert self.jobs.record_progress([report], self.epoch) == []

    def complete(self) -> None:
        self.jobs.complete(self.attempt, VIDEO)

    @property
    def job(self) -> Job:
        return self.jobs.get("shop", "job")


@pytest.fixture
def table(tmp_path: Path) -> Iterator[Table]:
    table = Table(tmp_path)
    yield table
    table.jobs.close()


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 20))


async def collect(watch: Watch, job_id: str = "job", after_rev: int | None = None) -> list[Job]:
    return [job async for job in watch.follow(job_id, after_rev)]


def test_a_listener_sees_the_states_and_the_end(table: Table) -> None:
    async def scenario() -> None:
        states = []
        async for job in Watch(table.jobs, POLL_S).follow("job"):
            states.append((job.status, job.step))
            if job.step < 2:
                table.step(job.step + 1)
            elif not job.status.is_terminal:
                table.complete()
        assert states == [
            (JobStatus.IN_PROGRESS, 0),
            (JobStatus.IN_PROGRESS, 1),
            (JobStatus.IN_PROGRESS, 2),
            (JobStatus.COMPLETED, 2),
        ]

    run(scenario)


def test_what_was_seen_is_not_told_again_but_the_end_always_is(table: Table) -> None:
    async def scenario() -> None:
        watch = Watch(table.jobs, POLL_S)
        seen = asyncio.create_task(collect(watch, after_rev=table.job.rev))
        await asyncio.sleep(4 * POLL_S)
        table.complete()
        assert [job.status for job in await seen] == [JobStatus.COMPLETED]
        again = await collect(watch, after_rev=table.job.rev)
        assert [job.status for job in again] == [JobStatus.COMPLETED]

    run(scenario)


def test_a_slow_listener_gets_the_newest_state_only(table: Table) -> None:
    async def scenario() -> None:
        watch = Watch(table.jobs, POLL_S)
        steps = []
        async for job in watch.follow("job"):
            steps.append(job.step)
            if len(steps) == 1:
                for step in range(1, 5):
                    table.step(step)
                    await asyncio.sleep(2 * POLL_S)
                table.complete()
                while (newest := watch._topics["job"].job) and not newest.status.is_terminal:
                    await asyncio.sleep(POLL_S)
        assert steps == [0, 4]

    run(scenario)


def test_who_follows_is_let_go_when_it_is_closed_and_whoever_comes_later(table: Table) -> None:
    async def scenario() -> None:
        watch = Watch(table.jobs, POLL_S)
        silent = asyncio.create_task(collect(watch, after_rev=table.job.rev))
        steps = []
        async for job in watch.follow("job"):
            steps.append(job.step)
            await watch.close()
        assert steps == [0]
        assert await silent == []
        assert await collect(watch) == []

    run(scenario)


def test_who_waits_hears_whether_it_was_as_long_as_asked_for(table: Table) -> None:
    async def scenario() -> None:
        watch = Watch(table.jobs, POLL_S)
        assert await watch.wait("job", 2 * POLL_S)
        waiting = asyncio.create_task(watch.wait("job", 3600))
        await asyncio.sleep(0)
        table.complete()
        assert await waiting

    run(scenario)


def test_who_waits_where_a_replica_leaves_is_told_that_it_was_cut_short(table: Table) -> None:
    async def scenario() -> None:
        watch = Watch(table.jobs, POLL_S)
        waiting = asyncio.create_task(watch.wait("job", 3600))
        while not watch._topics:
            await asyncio.sleep(0)
        await watch.close()
        assert not await waiting
        assert not await watch.wait("job", 3600)

    run(scenario)


def test_a_silent_job_is_told_again(table: Table) -> None:
    async def scenario() -> None:
        watch, revisions = Watch(table.jobs, POLL_S), []
        began = time.monotonic()
        async with contextlib.aclosing(watch.follow("job", silence_s=4 * POLL_S)) as states:
            async for job in states:
                revisions.append(job.rev)
                if len(revisions) == 4:
                    break
        assert set(revisions) == {table.job.rev}
        assert time.monotonic() - began >= 3 * 4 * POLL_S
        assert watch._topics == {}

    run(scenario)


@pytest.mark.parametrize("job_id", ["job", "never there"])
def test_the_stream_of_a_deleted_job_ends(table: Table, job_id: str) -> None:
    async def scenario() -> None:
        watch = Watch(table.jobs, POLL_S)
        seen = asyncio.create_task(collect(watch, job_id))
        await asyncio.sleep(3 * POLL_S)
        table.jobs.delete("shop", "job")
        assert all(job.status is JobStatus.IN_PROGRESS for job in await seen)

    run(scenario)


def test_queries_do_not_grow_with_the_listeners_and_end_with_them(table: Table) -> None:
    async def scenario() -> None:
        watch = Watch(table.jobs, POLL_S)
        table.jobs.create(make_request("other"))

        async def queries_in(polls: int) -> int:
            before = table.queries
            await asyncio.sleep(polls * POLL_S)
            return table.queries - before

        async def listen(count: int) -> float:
            """Queries for each time that there is to poll."""
            tasks = [
                asyncio.create_task(collect(watch, ("job", "other")[n % 2])) for n in range(count)
            ]
            await asyncio.sleep(4 * POLL_S)
            began = time.monotonic()
            while not (queries := await queries_in(20)):
                pass
            polls = (time.monotonic() - began) / POLL_S
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            while watch._polling is not None and not watch._polling.done():
                await asyncio.sleep(POLL_S)
            return queries / (polls + 1)

        assert await queries_in(4) == 0
        assert 0 < await listen(2) <= 1
        assert await listen(500) <= 1
        assert await queries_in(4) == 0
        assert watch._topics == {}

    run(scenario)


def test_streams_outlive_a_table_that_is_away(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        watch = Watch(table.jobs, POLL_S)
        seen = asyncio.create_task(collect(watch))
        await asyncio.sleep(3 * POLL_S)
        with monkeypatch.context() as away:

            def unavailable(_: object) -> None:
                raise StoreUnavailable("the disk is away")

            away.setattr(table.jobs, "revisions", unavailable)
            await asyncio.sleep(4 * POLL_S)
            assert not seen.done()
        table.complete()
        assert (await seen)[-1].status is JobStatus.COMPLETED

    run(scenario)


# Over HTTP.


class Server(uvicorn.Server):
    """In a thread of its own, on a port of the kernel's choice."""

    def __init__(self, table: Table):
        app, watch = FastAPI(), Watch(table.jobs, POLL_S)
        self.eta_s, self.key_holds = 4.5, True
        self.descriptions = 0

        async def describe(job: Job) -> Video:
            self.descriptions += 1
            return Video.of(job, eta=Eta(self.eta_s, None))

        async def may_listen() -> bool:
            return self.key_holds

        @app.get("/events/{job_id}")
        async def events(
            job_id: str,
            last_event_id: Annotated[str | None, Header()] = None,
        ) -> EventSourceResponse:
            job = await asyncio.to_thread(table.jobs.get, "shop", job_id)
            return event_stream(job, watch, describe, last_event_id, may_listen, pace=PACE)

        super().__init__(uvicorn.Config(app, port=0, log_level="warning"))
        self.watch = watch

    @property
    def url(self) -> str:
        host, port = self.servers[0].sockets[0].getsockname()
        return f"http://{host}:{port}/events/job"

    @property
    def queued_url(self) -> str:
        """Of a job that nobody leases."""
        return self.url.removesuffix("job") + "queued"


@pytest.fixture
def server(table: Table) -> Iterator[Server]:
    server = Server(table)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield server
    server.should_exit = True
    thread.join(10)


class Listener:
    """A caller with a connection of its own; `events` may be iterated once."""

    def __init__(self, url: str, last_event_id: str | None = None):
        headers = {} if last_event_id is None else {"Last-Event-ID": last_event_id}
        self._open = contextlib.ExitStack()
        stream = httpx2.stream("GET", url, headers=headers, timeout=20)
        self.response = self._open.enter_context(stream)
        self.events = SSEClient(self.response.iter_bytes()).events()

    def close(self) -> None:
        self._open.close()


def data(event: Any) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(event.data)
    return parsed


def test_fifty_listeners_hear_all_they_need(server: Server, table: Table) -> None:
    listeners = [Listener(server.url) for _ in range(50)]
    firsts = [next(listener.events) for listener in listeners]
    table.queries = 0
    began = time.monotonic()
    heard: list[list[dict[str, Any]]] = [[] for _ in listeners]
    for step in (1, 2, 3):
        table.step(step)
        for listener, events in zip(listeners, heard, strict=True):
            events.append(data(next(listener.events)))
    polls = (time.monotonic() - began) / POLL_S
    assert table.queries <= 2 * polls + 20  # ours to write the steps included
    table.complete()
    for listener, events in zip(listeners, heard, strict=True):
        events += [data(event) for event in listener.events]
    for first, rest in zip(firsts, heard, strict=True):
        assert first.event == "status"
        assert data(first) == {
            "id": "job",
            "status": "in_progress",
            "stage": None,
            "step": 0,
            "steps": 4,
            "progress": 0,
            "queue_position": None,
            "eta_seconds": 4.5,
            "error": None,
        }
        assert [event["step"] for event in rest] == [1, 2, 3, 4]
        assert rest[-1]["status"] == "completed"
        assert rest[-1]["progress"] == 100
    assert listeners[0].response.headers["content-type"].startswith("text/event-stream")


def test_a_caller_is_told_when_to_come_back(server: Server, table: Table) -> None:
    table.complete()
    text = httpx2.get(server.url, timeout=20).text
    assert text.startswith("retry: 2000\r\n\r\nid: ")


def test_who_comes_back_hears_what_is_new_and_the_work_goes_on(
    server: Server, table: Table
) -> None:
    listener = Listener(server.url)
    last = next(listener.events).id
    listener.close()
    deadline = time.monotonic() + 60
    while server.watch._topics and time.monotonic() < deadline:
        time.sleep(0.01)
    assert server.watch._topics == {}
    assert table.job.status is JobStatus.IN_PROGRESS
    assert str(table.job.rev) == last

    back = Listener(server.url, last)
    time.sleep(4 * POLL_S)
    table.step(3)
    assert data(first := next(back.events))["step"] == 3
    assert first.id == str(table.job.rev)
    back.close()
    table.complete()
    late = Listener(server.url, str(table.job.rev))
    assert [data(event)["status"] for event in late.events] == ["completed"]


def test_a_queued_job_tells_its_new_eta_under_the_same_id(server: Server, table: Table) -> None:
    queued = table.jobs.create(make_request("queued"))
    listener = Listener(server.queued_url)
    first = next(listener.events)
    server.eta_s = 3.0
    second = next(listener.events)
    assert [data(event)["eta_seconds"] for event in (first, second)] == [4.5, 3.0]
    assert first.id == second.id == str(queued.rev)
    before, began = server.descriptions, time.monotonic()
    while server.descriptions - before < 5:  # looked at, though there was nothing to tell
        time.sleep(PACE.refresh_s)
    refreshes = (time.monotonic() - began) / PACE.refresh_s
    assert server.descriptions - before <= refreshes + 1
    table.jobs.cancel("shop", "queued")
    assert [data(event)["status"] for event in listener.events] == ["cancelled"]


def test_what_runs_is_not_looked_at_without_news(server: Server, table: Table) -> None:
    listener = Listener(server.url)
    next(listener.events)
    server.eta_s = 3.0
    before = server.descriptions
    time.sleep(5 * PACE.refresh_s)
    assert server.descriptions == before
    table.complete()
    assert [data(event)["status"] for event in listener.events] == ["completed"]


@pytest.mark.parametrize("job_id", ["job", "queued"])
def test_a_stream_ends_with_its_key_and_not_with_the_job(
    server: Server, table: Table, job_id: str
) -> None:
    table.jobs.create(make_request("queued"))
    listener = Listener(server.url if job_id == "job" else server.queued_url)
    next(listener.events)
    server.key_holds = False
    assert list(listener.events) == []
    assert not table.jobs.get("shop", job_id).status.is_terminal
