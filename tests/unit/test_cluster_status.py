"""How the service stands, as `/v1/cluster` tells it: what is known, and nothing that is not."""

import asyncio
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from cluster.eta import FACT, Snapshot, TierState, Work
from cluster.tiers import CameraTierConfig, TierConfig
from diffusion.params import Priority
from serve.schemas import Cluster
from serve.services.cluster_status import ClusterStatus
from serve.services.foresight import Foresight
from serve.services.readiness import Readiness
from storage.errors import StoreUnavailable
from storage.facts import SqlFacts
from storage.job_store import SqlJobStore
from storage.sql import overview
from tests.sample_jobs import Clock, lease_one, make_request
from tests.unit.test_eta import COST, STAGE_S, a_tier

A100 = TierConfig(name="a100", num_gpus=0.75, vram_gb=80, max_replicas=8, cold_start_s=90)
REHEARSED = TierConfig(name="rehearsed", num_gpus=1, vram_gb=24, device="cpu")
TIERS = (A100, TierConfig(name="unsaid", num_gpus=1), REHEARSED, CameraTierConfig())
SEEN = a_tier(
    Work(2, 3.5), batch=Work(1, 8), starting=1, is_measured=True, peak_vram_bytes=34 << 30
)


class Line:
    """To the Dispatcher and the object store."""

    def __init__(self, *broken: str):
        self._broken = list(broken)

    async def broken(self) -> list[str]:
        return self._broken

    def iter_objects(self, _: str) -> Iterator[Any]:
        return iter(())


def status(store: SqlJobStore, clock: Clock, *broken: str) -> ClusterStatus:
    line = Line(*broken)
    readiness = Readiness(store, line, line.broken)  # type: ignore[arg-type]
    foresight = Foresight(SqlFacts(store.database, clock), COST)
    lines = partial(overview.lines, store.database)
    return ClusterStatus(TIERS, readiness, foresight, lines, clock)


def look(store: SqlJobStore, clock: Clock, *broken: str) -> Cluster:
    return asyncio.run(status(store, clock, *broken).look())


def publish(store: SqlJobStore, clock: Clock, tiers: Mapping[str, TierState]) -> None:
    SqlFacts(store.database, clock).put(FACT, Snapshot(tiers, STAGE_S).to_json())


def test_a_tier_is_told_as_the_dispatcher_sees_it(store: SqlJobStore, clock: Clock) -> None:
    publish(store, clock, {"a100": replace(SEEN, queued=dict.fromkeys(Priority, Work(2.6, 40.5)))})
    cluster = look(store, clock)
    assert (cluster.status, cluster.broken) == ("ready", [])
    assert (cluster.observed_at, cluster.stale) == (1_000, False)
    told = cluster.tiers[0].model_dump()
    now = told.pop("now")
    assert told == {
        "id": "a100",
        "object": "tier",
        "kind": "denoiser",
        "min_replicas": 1,
        "max_replicas": 8,
        "slots": 4,
        "cold_start_seconds": 90.0,
        "vram": {
            "card_gb": 80.0,
            "replica_limit_bytes": 60_000_000_000,
            "peak_bytes": 34 << 30,
        },
    }
    assert now == {
        "replicas": 1,
        "starting": 1,
        "running": {
            "interactive": {"clips": 2, "gpu_seconds": 3.5},
            "batch": {"clips": 1, "gpu_seconds": 8.0},
        },
        "queued": dict.fromkeys(Priority, {"clips": 3, "gpu_seconds": 40.5}),
        "tflops": 40.0,
    }


def test_what_nobody_has_seen_is_null(store: SqlJobStore, clock: Clock) -> None:
    publish(store, clock, {"a100": a_tier(), "camera": a_tier(starting=0)})
    a100, unsaid, rehearsed, camera = look(store, clock).tiers
    assert a100.now is not None
    assert (a100.now.replicas, a100.now.starting, a100.now.tflops) == (None, None, None)
    assert unsaid.now is None  # a tier that the Dispatcher does not have, in the midst of a rollout
    assert unsaid.vram is not None
    assert set(unsaid.vram.model_dump().values()) == {None}
    assert rehearsed.vram is None  # GPU nodes without GPUs
    assert (camera.kind, camera.vram) == ("camera", None)
    assert camera.now is not None
    assert (camera.now.replicas, camera.now.tflops) == (1, None)


def test_a_dispatchers_last_word_grows_stale(store: SqlJobStore, clock: Clock) -> None:
    never = look(store, clock, "Dispatcher: cannot be asked")
    assert (never.observed_at, never.stale) == (None, True)
    assert (never.status, never.broken) == ("not_ready", ["Dispatcher: cannot be asked"])
    publish(store, clock, {"a100": SEEN})
    clock.now += 31
    gone = look(store, clock)
    assert (gone.observed_at, gone.stale) == (1_000, True)
    assert [tier.now for tier in gone.tiers] == [None] * len(TIERS)
    assert gone.tiers[0].vram is not None
    assert (gone.tiers[0].vram.card_gb, gone.tiers[0].vram.peak_bytes) == (80.0, None)
    SqlFacts(store.database, clock).put(FACT, '{"tiers": 3}')  # of another version
    assert (look(store, clock).observed_at, look(store, clock).stale) == (1_031, True)


def test_the_queue_is_of_all_callers_and_names_none(store: SqlJobStore, clock: Clock) -> None:
    store.create(make_request("video_theirs", tenant="rival", sku="SECRET-1"))
    store.create(replace(make_request("video_mine", priority=Priority.BATCH), candidates=3))
    clock.now += 12
    store.create(make_request("video_later", tenant="rival"))
    told = look(store, clock)
    assert told.queue is not None
    assert told.queue.model_dump() == {
        "interactive": {"clips": 2, "oldest_seconds": 12.0},
        "batch": {"clips": 3, "oldest_seconds": 12.0},
    }
    lease_one(store, store.next_epoch())
    text = look(store, clock).model_dump_json()
    for secret in ("rival", "shop", "video_", "SECRET", "a bag turns"):
        assert secret not in text


class _Away:
    def queued(self) -> int:
        raise StoreUnavailable("connection to 10.1.2.3 failed")

    def get(self, _: str) -> None:
        raise StoreUnavailable("connection to 10.1.2.3 failed")


def test_without_its_table_the_service_tells_what_is_broken_and_no_more() -> None:
    away, line = _Away(), Line()
    readiness = Readiness(away, line, line.broken)  # type: ignore[arg-type]
    foresight = Foresight(away, COST)  # type: ignore[arg-type]
    told = asyncio.run(ClusterStatus(TIERS, readiness, foresight, dict).look())
    assert told.broken == ["job table: does not answer"]
    assert (told.observed_at, told.stale, told.queue) == (None, True, None)
    assert [tier.id for tier in told.tiers] == ["a100", "unsaid", "rehearsed", "camera"]


def test_a_table_that_hangs_holds_one_thread_and_nobody(
    store: SqlJobStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve.services.cluster_status.PATIENCE_S", 0.05)
    asked, answers = [], threading.Event()

    def lines() -> dict[Priority, overview.Line]:
        asked.append(threading.current_thread())
        answers.wait(20)
        return overview.lines(store.database)

    async def ask() -> tuple[Cluster, Cluster]:
        hanging = status(store, clock)
        hanging._lines = lines
        told, _ = [await hanging.look(), await hanging.look()]
        answers.set()
        while (later := await hanging.look()).queue is None:
            await asyncio.sleep(0.01)
        return told, later

    told, later = asyncio.run(ask())
    assert told.queue is None
    assert later.queue is not None
    assert len(asked) <= 2  # the one that hung, and perhaps one after it
