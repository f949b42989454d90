"""The Dispatcher over the real job table, with stages that a test holds in its hand."""

import asyncio
import errno
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Event
from types import MappingProxyType
from typing import Any

import pytest
import ray.exceptions

from cluster.capacity import CUDA_CONTEXT_GB
from cluster.cost import CostModel
from cluster.eta import FACT, Snapshot
from cluster.ladder import Floor
from cluster.tiers import CameraTierConfig, TierConfig
from deployments.camera import ONE_LAYER, Rendered
from deployments.decoder import Decoded
from deployments.denoiser import Denoised, DenoiseOrder, StepDone, Waiting
from deployments.dispatch.attempts import Attempts
from deployments.dispatch.fleet import Replicas
from deployments.dispatch.results import Results
from deployments.dispatch.verdict import Retry, judge
from deployments.dispatcher import Dispatcher, DispatcherConfig
from deployments.handover import HandoverLost
from diffusion.errors import (
    DeadlineExceeded,
    EngineBroken,
    NonFiniteLatents,
    OutOfMemory,
    Preempted,
)
from diffusion.model_folder import ModelConfig
from diffusion.params import Priority, SamplingParams
from storage import keys
from storage.errors import ObjectNotFound, StoreMisconfigured, StoreUnavailable
from storage.facts import SqlFacts
from storage.job_store import JobStoreConfig, SqlJobStore
from storage.jobs import (
    NOTHING_GENERATED,
    Attempt,
    Job,
    JobRequest,
    JobStatus,
    Stage,
    VideoFile,
)
from storage.object_store import S3ObjectStore
from tests import sample_jobs
from tests.sample_jobs import MAX_ATTEMPTS, VIDEO
from tests.sample_model import ARCHITECTURE
from video.camera.move import CameraMove, Move
from video.errors import EncodeFailed

DEATH = ray.exceptions.ActorDiedError()


def make_request(job_id: str) -> JobRequest:
    """Every job another clip: equal ones would wait for each other."""
    return replace(sample_jobs.make_request(job_id), photo_sha256=job_id)


class Bucket(S3ObjectStore):
    """Objects in memory."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.faults: list[Exception] = []

    def get(self, key: str) -> bytes:
        if self.faults:
            raise self.faults.pop(0)
        try:
            return self.objects[key]
        except KeyError:
            raise ObjectNotFound(key) from None

    def commit(self, request: JobRequest) -> VideoFile:
        video = replace(VIDEO, result_id=request.result_id)
        self.objects[keys.result_key(request.tenant, request.result_id)] = video.to_json()
        return video


class Response:
    """What a handle returns: awaitable, and it can be cancelled."""

    def __init__(self, work: Callable[[], Any]):
        self.cancelled = False
        self._work = work

    def __await__(self) -> Generator[Any, None, Any]:
        return self._run().__await__()

    async def _run(self) -> Any:
        await asyncio.sleep(0)
        value = self._work()
        return await value if asyncio.iscoroutine(value) else value

    def cancel(self) -> None:
        self.cancelled = True


class Stream(Response):
    """A streamed call: a turn and a step, then the latents, once the gate is open."""

    def __init__(self, work: Callable[[], Any], gate: asyncio.Event):
        super().__init__(work)
        self._gate = gate

    async def __aiter__(self) -> AsyncIterator[Any]:
        yield Waiting(0)
        yield StepDone(1)
        await self._gate.wait()
        yield await self


class Unanswered(Stream):
    """A call of which an argument failed: the replica never had it."""

    def __init__(self) -> None:
        super().__init__(lambda: None, asyncio.Event())

    async def __aiter__(self) -> AsyncIterator[Any]:
        for _ in range(1):
            raise OutOfMemory("tried 9 GiB")
        yield


class Publication(Response):
    """The video encoder's: it says that it stores, and then the video."""

    async def __aiter__(self) -> AsyncIterator[Any]:
        yield Stage.STORING
        yield await self


class Handle:
    """A deployment handle whose one method does `work`."""

    def __init__(self, make: Callable[[], Any]):
        self.calls: list[Any] = []
        self.args: list[Any] = []  # of each call
        self.told: list[Any] = []  # by broadcast
        self._make = make
        self.encode = self.denoise = self.decode = self
        self.render = self.encode_first = self

    def options(self, **_: Any) -> "Handle":
        return self

    def broadcast(self, *args: Any) -> "Handle":
        """To all replicas, of which there is none."""
        self.told.append(args)
        return self

    def results(self, timeout_s: float) -> list[Any]:
        return []

    def remote(self, *args: Any) -> Any:
        self.args.append(args)
        self.calls.append(self._make())
        return self.calls[-1]


class Watched(Dispatcher):
    counts: dict[str, int] | None = None  # None: the controller does not answer
    leaving: Mapping[str, int] = MappingProxyType({})

    def __del__(self) -> None:  # type: ignore[override]
        """Serve awaits the real one; a test that is over has nothing to drain."""

    async def _replica_counts(self) -> dict[str, Replicas]:
        if self.counts is None:
            await asyncio.sleep(3600)
        assert self.counts is not None
        return {
            name: Replicas(count, self.leaving.get(name, 0)) for name, count in self.counts.items()
        }

    async def has_counted(self, tier: str, replicas: int) -> None:
        """Return once it knows of so many that run."""
        while self._fleet.tiers[tier].replicas != replicas:
            await asyncio.sleep(0.01)


PEAK_BYTES = 5 << 30


class Rig:
    """A Dispatcher with its stages, on a database in `folder`."""

    def __init__(self, folder: Path, lease_s: float = 30.0):
        self.config = JobStoreConfig(url=f"sqlite:///{folder / 'jobs.sqlite'}", lease_s=lease_s)
        self.jobs = SqlJobStore(self.config)
        self.gate = asyncio.Event()
        self.gate.set()
        self.gates: dict[int, asyncio.Event] = {}  # of single tiers
        self.faults: dict[str, list[Exception]] = {}
        self.bucket = Bucket()
        self.tiers: list[TierConfig] = [TierConfig(name="cpu", max_ongoing_requests=2)]
        self.counts: dict[str, int] | None = {"Denoiser-cpu": 1, "Decoder": 1}

    def stage(self, name: str, value: Any) -> Callable[[], Any]:
        def work() -> Any:
            if faults := self.faults.get(name):
                raise faults.pop(0)
            return value

        return work

    async def start(self) -> Watched:
        def plain(name: str, value: Any) -> Handle:
            return Handle(lambda: Response(self.stage(name, value)))

        denoised = Denoised(
            None, "checkpoints/x", {"denoising": 1.0}, "", peak_vram_bytes=PEAK_BYTES
        )
        rendered = Rendered(Decoded(None, 0.2), layers=1)
        self.denoisers = [
            Handle(partial(Stream, self.stage("denoise", denoised), self.gates.get(i, self.gate)))
            if tier.denoises
            else plain("render", rendered)
            for i, tier in enumerate(self.tiers)
        ]
        self.image_encoder = plain("image", 1)
        self.decoder = plain("decode", Decoded(None, 0.1))
        self.video_encoder = Handle(lambda: Publication(self.stage("encode_video", VIDEO)))
        dispatcher = Watched.__new__(Watched)
        dispatcher.counts = self.counts
        await dispatcher.__init__(  # type: ignore[misc]
            DispatcherConfig(poll_s=0.02, beat_s=0.02),
            self.config,
            self.tiers,
            CostModel(ARCHITECTURE, self.tiers, ModelConfig(source="tiny"), {}),
            Floor(area_px=64 * 64, num_frames=8, size_multiple=16),
            self.bucket,
            self.denoisers,
            [plain("text", 1), self.image_encoder, self.decoder, self.video_encoder],
        )
        return dispatcher

    def job(self, job_id: str) -> Job:
        return self.jobs.get("shop", job_id)

    async def until(self, job_id: str, status: JobStatus, patience_s: float = 20) -> Job:
        async def reached() -> Job:
            while (job := self.job(job_id)).status is not status:
                await asyncio.sleep(0.01)
            return job

        return await asyncio.wait_for(reached(), patience_s)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deployments.dispatch.journey._STORAGE_WAITS_S", (0.01, 0.01))
    monkeypatch.setattr("deployments.dispatcher._HAND_OUT_S", 0.01)
    monkeypatch.setattr("deployments.dispatch.ends._WAITS_S", (0.05,) * 4)


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(scenario(), 60)

    asyncio.run(bounded())


def test_jobs_run_to_their_end(tmp_path: Path) -> None:
    async def scenario() -> None:
        rig = Rig(tmp_path)
        dispatcher = await rig.start()
        for number in range(5):
            rig.jobs.create(make_request(f"job{number}"))
        await dispatcher.wake()
        for number in range(5):
            job = await rig.until(f"job{number}", JobStatus.COMPLETED)
            assert (job.attempt, job.result) == (1, VIDEO)
        assert await dispatcher.not_ready() == []

    run(scenario)


def test_no_more_jobs_are_taken_than_there_is_room(tmp_path: Path) -> None:
    async def scenario() -> None:
        rig = Rig(tmp_path)
        rig.gate.clear()
        await rig.start()
        for number in range(5):
            rig.jobs.create(make_request(f"job{number}"))
        await rig.until("job1", JobStatus.IN_PROGRESS)
        await asyncio.sleep(0.2)
        assert rig.jobs.counts()[JobStatus.QUEUED] == 3
        rig.gate.set()
        await rig.until("job4", JobStatus.COMPLETED)

    run(scenario)


@pytest.mark.parametrize("stage", ["decode", "encode_video"])
def test_a_stage_whose_replica_died_is_done_again_without_denoising_again(
    tmp_path: Path, stage: str
) -> None:
    async def scenario() -> None:
        rig = Rig(tmp_path)
        rig.faults[stage] = [DEATH, DEATH]
        await rig.start()
        rig.jobs.create(make_request("job"))
        job = await rig.until("job", JobStatus.COMPLETED)
        assert job.attempt == 1
        assert len(rig.denoisers[0].calls) == 1

    run(scenario)


def test_a_store_that_is_away_while_storing_costs_no_denoising(tmp_path: Path) -> None:
    async def scenario() -> None:
        rig = Rig(tmp_path)
        rig.faults["encode_video"] = [StoreUnavailable("away"), StoreUnavailable("away")]
        await rig.start()
        rig.jobs.create(make_request("job"))
        assert (await rig.until("job", JobStatus.COMPLETED)).attempt == 1
        assert len(rig.denoisers[0].calls) == 1

    run(scenario)


def test_a_video_that_is_being_stored_says_so_and_can_be_cancelled(tmp_path: Path) -> None:
    async def scenario() -> None:
        rig = Rig(tmp_path)
        dispatcher = await rig.start()

        async def for_ever() -> None:
            await asyncio.Event().wait()

        storing = Publication(for_ever)
        rig.video_encoder.remote = lambda *_: storing  # type: ignore[method-assign]
        rig.jobs.create(make_request("job"))
        while rig.job("job").stage is not Stage.STORING:
            await asyncio.sleep(0.01)
        rig.jobs.cancel("shop", "job")
        await dispatcher.stop("job")
        while not storing.cancelled:
            await asyncio.sleep(0.01)
        assert rig.job("job").status is JobStatus.CANCELLED

    run(scenario)


def test_a_dead_denoiser_is_charged_and_a_poison_job_ends(tmp_path: Path) -> None:
    async def scenario() -> None:
        rig = Rig(tmp_path)
        rig.faults["denoise"] = [DEATH] * (MAX_ATTEMPTS + 1)
        dispatcher = await rig.start()
        rig.jobs.create(make_request("job"))
        job = await rig.until("job", JobStatus.FAILED)
        # The first loss is nobody's fault: the clip had got further. Then it gets no further.
        assert (job.error_code, job.attempt) == ("worker_lost", MAX_ATTEMPTS + 1)
        while len(dispatcher._attempts):
            await asyncio.sleep(0.01)
        assert not dispatcher._attempts.suspects.lost("job", 1)  # nothing is kept of it
        rig.jobs.create(make_request("next"))
        await rig.until("next", JobStatus.COMPLETED)

    run(scenario)


def test_the_end_of_an_attempt_that_lost_its_job_costs_the_next_one_no_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lease ran out under it; a suspect stays one, and is kept apart."""

    async def scenario() -> None:
        rig = Rig(tmp_path)
        rig.gate.clear()
        dispatcher = await rig.start()
        attempts = dispatcher._attempts
        rig.jobs.create(make_request("job"))
        while not attempts.progress():
            await asyncio.sleep(0.01)
        for loop in dispatcher._loops:
            loop.cancel()
        for suspect in ("job", "other"):
            attempts.suspects.lost(suspect, 0)
        monkeypatch.setattr(rig.jobs, "_clock", lambda: time.time() + 3600)
        (again,) = rig.jobs.lease(dispatcher._epoch, {"job": "cpu"})
        (first,) = attempts.tasks
        attempts.start(again)
        await asyncio.wait([first])
        assert attempts.jobs == [again]
        rig.jobs.create(make_request("other"))
        assert attempts.suspects.without([rig.job("other")], attempts.jobs) == []

    run(scenario)


def test_an_outage_pauses_the_queue_and_fails_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        rig = Rig(tmp_path)
        rig.faults["denoise"] = [StoreUnavailable("S3 is away")] * 3
        dispatcher = await rig.start()
        for number in range(4):
            rig.jobs.create(make_request(f"job{number}"))
        while not any("S3 is away" in line for line in await dispatcher.not_ready()):
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)
        assert len(rig.denoisers[0].calls) <= 3  # it waits, instead of burning through all
        for number in range(4):
            await rig.until(f"job{number}", JobStatus.COMPLETED)
        assert await dispatcher.not_ready() == []

    run(scenario)


def test_drain_lets_work_end_and_puts_the_rest_back_uncharged(tmp_path: Path) -> None:
    async def scenario() -> None:
        rig = Rig(tmp_path)
        rig.jobs.create(make_request("job"))
        rig.gate.clear()
        for restart in range(1, 2 * MAX_ATTEMPTS):
            dispatcher = await rig.start()
            await rig.until("job", JobStatus.IN_PROGRESS)
            assert await dispatcher.drain(grace_s=0.05) == 1
            assert rig.job("job").status is JobStatus.QUEUED
            assert rig.job("job").attempt == restart
            assert rig.denoisers[0].calls[-1].cancelled
            ((method, attempts),) = rig.denoisers[0].told
            assert (method, len(attempts)) == ("hand_out", 1)
        rig.gate.set()
        dispatcher = await rig.start()
        await rig.until("job", JobStatus.COMPLETED)

    run(scenario)


def test_told_to_end_it_puts_jobs_back_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        rig = Rig(tmp_path)
        rig.jobs.create(make_request("job"))
        rig.gate.clear()
        dispatcher = await rig.start()
        await rig.until("job", JobStatus.IN_PROGRESS)
        told = Event()
        told.set()
        monkeypatch.setattr("deployments.sigterm._told", told)
        await Dispatcher.__del__(dispatcher)
        assert rig.job("job").status is JobStatus.QUEUED

    less_than_when_serve_stops_it = 0.8 * DispatcherConfig().drain_s
    asyncio.run(asyncio.wait_for(scenario(), less_than_when_serve_stops_it))


def test_drain_does_not_miss_a_lease_under_way(tmp_path: Path) -> None:
    async def scenario() -> None:
        for _ in range(10):
            rig = Rig(tmp_path)
            rig.gate.clear()
            dispatcher = await rig.start()
            request = make_request(f"job{id(rig)}")
            rig.jobs.create(request)
            await dispatcher.wake()
            await asyncio.sleep(0)  # the lease is in its thread now
            await dispatcher.drain(grace_s=0)
            assert rig.job(request.id).status is JobStatus.QUEUED
            await asyncio.sleep(0.03)
            assert rig.job(request.id).status is JobStatus.QUEUED
            rig.jobs.cancel("shop", request.id)

    run(scenario)


def test_a_silent_controller_costs_no_lease(tmp_path: Path) -> None:
    async def scenario() -> None:
        rig = Rig(tmp_path, lease_s=0.3)
        rig.counts = None
        rig.gate.clear()
        dispatcher = await rig.start()
        rig.jobs.create(make_request("job"))
        await rig.until("job", JobStatus.IN_PROGRESS)
        await asyncio.sleep(1)
        assert rig.job("job").attempt == 1
        rig.gate.set()
        assert (await rig.until("job", JobStatus.COMPLETED)).attempt == 1
        await dispatcher.check_health()

    run(scenario)


def test_a_job_cancelled_in_the_table_stops_its_denoiser(tmp_path: Path) -> None:
    async def scenario() -> None:
        rig = Rig(tmp_path)
        rig.gate.clear()
        await rig.start()
        rig.jobs.create(make_request("job"))
        await rig.until("job", JobStatus.IN_PROGRESS)
        rig.jobs.cancel("shop", "job")
        while not (rig.denoisers[0].calls and rig.denoisers[0].calls[0].cancelled):
            await asyncio.sleep(0.01)
        assert rig.job("job").status is JobStatus.CANCELLED

    run(scenario)


def test_a_superseded_dispatcher_steps_back_and_stays_well(tmp_path: Path) -> None:
    async def scenario() -> None:
        rig = Rig(tmp_path)
        old = await rig.start()
        rig.jobs.next_epoch()
        rig.jobs.create(make_request("job"))
        await asyncio.sleep(0.3)
        assert rig.job("job").status is JobStatus.QUEUED
        await old.check_health()
        assert await old.not_ready() != []

    run(scenario)


def test_a_tier_that_lost_its_node_gives_its_jobs_to_another(tmp_path: Path) -> None:
    async def scenario() -> None:
        rig = Rig(tmp_path)
        rig.tiers = [
            TierConfig(name="a100", tflops=10),
            TierConfig(name="rtx4090", tflops=20),
        ]
        rig.counts = {"Denoiser-a100": 1, "Denoiser-rtx4090": 1}
        rig.gates[1] = asyncio.Event()  # never set: its card is gone
        dispatcher = await rig.start()
        rig.jobs.create(make_request("job"))
        while not rig.denoisers[1].calls:  # the tier that would be done first
            await asyncio.sleep(0.01)
        dispatcher.counts = {"Denoiser-a100": 1, "Denoiser-rtx4090": 0}
        rig.jobs.create(make_request("other"))
        await rig.until("other", JobStatus.COMPLETED)
        await rig.until("job", JobStatus.COMPLETED)

    run(scenario)


LARGE = SamplingParams("a bag turns", "", 128, 128, 16, 4, 9.0, 16, seed=1)
TWO_TIERS = [TierConfig(name="a100", tflops=20), TierConfig(name="rtx4090", tflops=10)]


def on_two_tiers(rig: Rig) -> None:
    rig.tiers = TWO_TIERS
    rig.counts = {"Denoiser-a100": 1, "Denoiser-rtx4090": 1}


def test_out_of_memory_goes_down_the_whole_ladder(tmp_path: Path) -> None:
    async def scenario() -> None:
        rig = Rig(tmp_path)
        on_two_tiers(rig)
        rig.faults["denoise"] = [OutOfMemory("tried 9 GiB")] * 5
        await rig.start()
        request = replace(make_request("job"), sampling=LARGE, may_downgrade=True)
        rig.jobs.create(request)
        job = await rig.until("job", JobStatus.COMPLETED)
        ladder = ["other_tier", "smaller_size", "other_tier", "fewer_frames", "other_tier"]
        assert [event.kind for event in job.events] == ladder
        made = rig.video_encoder.args[-1][1]
        assert (made.width, made.height, made.num_frames) == (64, 64, 8)
        tried = [args[0].sampling for handle in rig.denoisers for args in handle.args]
        assert len(tried) == 6
        assert {(s.width, s.num_frames) for s in tried} == {(128, 16), (64, 16), (64, 8)}

    run(scenario)


def test_who_wants_this_clip_or_none_is_told_that_there_is_none(tmp_path: Path) -> None:
    async def scenario() -> None:
        rig = Rig(tmp_path)
        on_two_tiers(rig)
        rig.faults["denoise"] = [OutOfMemory("tried 9 GiB")] * 2
        await rig.start()
        rig.jobs.create(replace(make_request("job"), sampling=LARGE))
        job = await rig.until("job", JobStatus.FAILED)
        assert (job.error_code, job.error_message) == ("out_of_memory", "tried 9 GiB")
        assert [event.kind for event in job.events] == ["other_tier"]
        rig.jobs.create(make_request("next"))
        await rig.until("next", JobStatus.COMPLETED)

    run(scenario)


def test_a_decoder_out_of_memory_makes_a_smaller_clip_at_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        rig = Rig(tmp_path)
        on_two_tiers(rig)
        rig.faults["decode"] = [OutOfMemory("tried 9 GiB")]
        await rig.start()
        rig.jobs.create(replace(make_request("job"), sampling=LARGE, may_downgrade=True))
        job = await rig.until("job", JobStatus.COMPLETED)
        assert [event.kind for event in job.events] == ["smaller_size"]

    run(scenario)


def test_a_clip_too_large_for_every_tier_is_made_smaller_where_that_is_allowed(
    tmp_path: Path,
) -> None:
    """As the API accepted it."""

    async def scenario() -> None:
        rig = Rig(tmp_path)
        needs = [
            ARCHITECTURE.denoiser_bytes(side, side, frames, rows=1, dtype_bytes=4, chunked=True)
            for side, frames in ((128, 16), (64, 8))
        ]
        vram_gb = sum(needs) / 2e9  # between the two
        rig.tiers = [
            TierConfig(name="cpu", num_gpus=1, vram_gb=vram_gb + CUDA_CONTEXT_GB, device="cpu")
        ]
        await rig.start()
        rig.jobs.create(replace(make_request("job"), sampling=LARGE, may_downgrade=True))
        job = await rig.until("job", JobStatus.COMPLETED)
        assert [event.kind for event in job.events][0] == "smaller_size"
        made = rig.video_encoder.args[-1][1]
        assert (made.width, made.height) == (64, 64)

    run(scenario)


def test_frames_that_could_not_be_encoded_are_no_denoisers_fault(tmp_path: Path) -> None:
    async def scenario() -> None:
        rig = Rig(tmp_path)
        on_two_tiers(rig)
        await rig.start()
        for handle in rig.denoisers:
            handle._make = Unanswered  # until the next call
        rig.jobs.create(replace(make_request("job"), sampling=LARGE, may_downgrade=True))
        while not any(handle.calls for handle in rig.denoisers):
            await asyncio.sleep(0.01)
        for handle in rig.denoisers:
            handle._make = partial(
                Stream, rig.stage("denoise", Denoised(None, "x", {"denoising": 1.0}, "")), rig.gate
            )
        job = await rig.until("job", JobStatus.COMPLETED)
        assert [event.kind for event in job.events] == ["smaller_size"]

    run(scenario)


def test_a_job_that_fits_no_tier_any_more_is_turned_away(tmp_path: Path) -> None:
    async def scenario() -> None:
        rig = Rig(tmp_path)
        rig.tiers = [TierConfig(name="cpu", num_gpus=1, vram_gb=2, device="cpu")]
        await rig.start()
        rig.jobs.create(make_request("job"))
        job = await rig.until("job", JobStatus.FAILED)
        assert job.error_code == "does_not_fit"

    run(scenario)


def test_moving_a_clip_costs_no_attempt(tmp_path: Path) -> None:
    async def scenario() -> None:
        rig = Rig(tmp_path)
        rig.faults["denoise"] = [Preempted(step) for step in range(2 * MAX_ATTEMPTS)]
        await rig.start()
        rig.jobs.create(make_request("job"))
        job = await rig.until("job", JobStatus.COMPLETED)
        assert job.attempt == 2 * MAX_ATTEMPTS + 1
        assert [event.kind for event in job.events] == ["preempted"] * 2 * MAX_ATTEMPTS

    run(scenario)


def test_a_denoiser_that_falls_silent_is_given_up(tmp_path: Path) -> None:
    async def scenario() -> None:
        rig = Rig(tmp_path)
        rig.tiers = [TierConfig(name="cpu", stall_s=0.2)]
        rig.gate.clear()
        await rig.start()
        rig.jobs.create(make_request("job"))
        while len(rig.denoisers[0].calls) < 2:
            await asyncio.sleep(0.01)
        assert rig.denoisers[0].calls[0].cancelled
        rig.gate.set()
        job = await rig.until("job", JobStatus.COMPLETED)
        assert job.events[0].detail == "no UNet step reported for 0.2 s"

    run(scenario)


def test_a_deadline_ends_a_job_that_still_waits_and_goes_with_one_that_runs(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        rig = Rig(tmp_path)
        rig.gate.clear()
        await rig.start()
        deadline_at = time.time() + 3  # for three to find their slot, on any machine
        for number in range(4):  # three find a slot
            priority = Priority.INTERACTIVE if number < 2 else Priority.BATCH
            rig.jobs.create(
                replace(make_request(f"job{number}"), deadline_at=deadline_at, priority=priority)
            )
        job = await rig.until("job3", JobStatus.FAILED)
        assert job.error_code == "deadline_exceeded"
        orders = [args[0] for args in rig.denoisers[0].args]
        assert {order.deadline_at for order in orders} == {deadline_at}
        assert [order.priority for order in orders].count(Priority.BATCH) <= 1
        rig.gate.set()
        await rig.until("job0", JobStatus.COMPLETED)

    run(scenario)


def test_stop_cancels_the_call_at_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        rig = Rig(tmp_path)
        rig.gate.clear()
        dispatcher = await rig.start()
        rig.jobs.create(make_request("job"))
        while not rig.denoisers[0].calls:
            await asyncio.sleep(0.01)
        rig.jobs.cancel("shop", "job")
        await dispatcher.stop("job")
        while not rig.denoisers[0].calls[0].cancelled:
            await asyncio.sleep(0)
        assert rig.job("job").status is JobStatus.CANCELLED

    run(scenario)


def test_nothing_is_kept_of_a_job_cancelled_between_two_attempts(tmp_path: Path) -> None:
    async def scenario() -> None:
        rig = Rig(tmp_path)
        rig.faults["denoise"] = [StoreUnavailable("away")]
        dispatcher = await rig.start()
        rig.jobs.create(make_request("job"))
        while not (dispatcher._attempts.pause[0] and len(dispatcher._attempts) == 0):
            await asyncio.sleep(0.01)
        assert rig.job("job").status is JobStatus.QUEUED
        assert "job" in dispatcher._attempts._waited
        rig.jobs.cancel("shop", "job")
        await dispatcher.stop("job")
        assert "job" not in dispatcher._attempts._waited

    run(scenario)


def test_a_denoiser_hears_which_clips_nobody_wants(tmp_path: Path) -> None:
    async def scenario() -> None:
        rig = Rig(tmp_path)
        rig.gate.clear()
        dispatcher = await rig.start()
        for name in ("kept", "cancelled"):
            rig.jobs.create(make_request(name))
            await rig.until(name, JobStatus.IN_PROGRESS)
        kept, cancelled = (rig.job(name).current_attempt for name in ("kept", "cancelled"))
        zombie = replace(kept, number=kept.number - 1)
        rig.jobs.cancel("shop", "cancelled")
        asked = frozenset({kept, cancelled, zombie})
        assert await dispatcher.unwanted(asked) == {cancelled, zombie}

    run(scenario)


def test_two_dispatchers_at_once_do_no_harm(tmp_path: Path) -> None:
    """A rolling upgrade: the new one starts while the old one is at work."""

    async def scenario() -> None:
        rig = Rig(tmp_path, lease_s=0.5)
        old = await rig.start()
        for number in range(30):
            rig.jobs.create(make_request(f"job{number}"))
        await rig.until("job2", JobStatus.COMPLETED)
        new = await rig.start()
        await old.wake()
        for number in range(30):
            job = await rig.until(f"job{number}", JobStatus.COMPLETED)
            assert job.attempt <= 2
        assert await old.not_ready() != []
        assert await new.not_ready() == []
        for dispatcher in (old, new):
            await dispatcher.check_health()

    run(scenario)


def test_the_autoscaler_hears_of_work_once_the_queue_was_looked_at(tmp_path: Path) -> None:
    async def scenario() -> None:
        rig = Rig(tmp_path)
        rig.tiers = [TierConfig(name="cpu", min_replicas=0)]
        rig.counts = {"Denoiser-cpu": 0}
        for number in range(20):
            rig.jobs.create(make_request(f"job{number}"))
        dispatcher = await rig.start()
        assert await dispatcher.record_autoscaling_stats() == {}
        while not (stats := await dispatcher.record_autoscaling_stats()):
            await asyncio.sleep(0.01)
        sampling = make_request("job").sampling
        one_s = CostModel(ARCHITECTURE, rig.tiers, ModelConfig(source="tiny"), {}).seconds(
            sampling, "cpu"
        )
        assert stats["backlog_gpu_s/Denoiser-cpu"] == pytest.approx(20 * one_s)
        assert stats["in_flight/Denoiser-cpu"] == 0
        dispatcher.counts = {"Denoiser-cpu": 1}
        await rig.until("job19", JobStatus.COMPLETED)

    run(scenario)


class Outage:
    """The job table is away for every call, while it lasts."""

    def __init__(self, dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch):
        self.lasts = False
        for name in ("waiting", "queued", "lease", "record_progress", "complete", "owned"):
            self._guard(dispatcher._jobs, name, monkeypatch)

    def _guard(self, jobs: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        call = getattr(jobs, name)

        def guarded(*args: Any, **named: Any) -> Any:
            if self.lasts:
                raise StoreUnavailable("the disk is away")
            return call(*args, **named)

        monkeypatch.setattr(jobs, name, guarded)


def test_an_outage_of_the_table_longer_than_a_lease_costs_no_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        rig = Rig(tmp_path, lease_s=0.3)
        rig.gate.clear()
        dispatcher = await rig.start()
        outage = Outage(dispatcher, monkeypatch)
        rig.jobs.create(make_request("job"))
        attempt = (await rig.until("job", JobStatus.IN_PROGRESS)).current_attempt
        outage.lasts = True
        await asyncio.sleep(0.6)
        await dispatcher.check_health()
        assert await dispatcher.unwanted(frozenset({attempt})) == frozenset()
        outage.lasts = False
        await asyncio.sleep(0.2)
        rig.gate.set()
        assert (await rig.until("job", JobStatus.COMPLETED)).attempt == 1
        assert len(rig.denoisers[0].calls) == 1

    run(scenario)


def test_a_clock_that_jumps_past_every_lease_costs_no_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        rig = Rig(tmp_path)
        rig.gate.clear()
        dispatcher = await rig.start()
        rig.jobs.create(make_request("job"))
        await rig.until("job", JobStatus.IN_PROGRESS)
        while not dispatcher._attempts.progress():
            await asyncio.sleep(0.01)
        dispatcher._loops[1].cancel()  # the queue is looked at before the next beat
        monkeypatch.setattr(dispatcher._jobs, "_clock", lambda: time.time() + 3600)
        assert [job.id for job in dispatcher._jobs.waiting(1)] == ["job"]
        await asyncio.sleep(0.2)
        rig.gate.set()
        assert (await rig.until("job", JobStatus.COMPLETED)).attempt == 1

    run(scenario)


def test_a_result_is_recorded_when_the_table_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        rig = Rig(tmp_path)
        await over_in_an_outage(rig, monkeypatch)
        assert (await rig.until("job", JobStatus.COMPLETED)).attempt == 1
        assert len(rig.denoisers[0].calls) == 1

    run(scenario)


def test_a_result_that_was_purged_while_the_table_was_away_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        rig = Rig(tmp_path)
        await over_in_an_outage(rig, monkeypatch, rig.bucket.objects.clear)
        assert (await rig.until("job", JobStatus.COMPLETED)).attempt == 2
        assert len(rig.denoisers[0].calls) == 2
        assert len(rig.bucket.objects) == 1

    run(scenario)


async def over_in_an_outage(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, at_its_end: Callable[[], object] = lambda: None
) -> None:
    """The result of a job is committed while the table is away, for longer than all the waits."""
    rig.gate.clear()
    outage = Outage(await commit_results(rig), monkeypatch)
    rig.jobs.create(make_request("job"))
    await rig.until("job", JobStatus.IN_PROGRESS)
    outage.lasts = True
    rig.gate.set()
    while not rig.bucket.objects:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.5)
    at_its_end()
    outage.lasts = False


@pytest.mark.parametrize("faults", [0, 2])
def test_a_result_that_no_one_recorded_is_adopted_though_its_last_attempt_was_lost(
    tmp_path: Path, faults: int
) -> None:
    """Its Dispatcher was killed while the table was away; and the object store may be away too."""

    async def scenario() -> None:
        rig = Rig(tmp_path, lease_s=0.2)
        request = make_request("job")
        rig.jobs.create(request)
        epoch = rig.jobs.next_epoch()
        for _ in range(MAX_ATTEMPTS - 1):
            rig.jobs.release(sample_jobs.lease_one(rig.jobs, epoch), "worker_lost")
        lost = sample_jobs.lease_one(rig.jobs, epoch)
        video = rig.bucket.commit(request)
        rig.bucket.faults = [StoreUnavailable("S3 is away")] * faults
        await asyncio.sleep(0.3)
        await rig.start()
        job = await rig.until("job", JobStatus.COMPLETED)
        assert (job.result, job.current_attempt) == (video, lost)
        assert rig.denoisers[0].calls == []

    run(scenario)


def test_a_job_whose_last_attempt_was_lost_without_a_result_fails(tmp_path: Path) -> None:
    async def scenario() -> None:
        rig = Rig(tmp_path, lease_s=0.2)
        rig.jobs.create(make_request("job"))
        epoch = rig.jobs.next_epoch()
        for _ in range(MAX_ATTEMPTS - 1):
            rig.jobs.release(sample_jobs.lease_one(rig.jobs, epoch), "worker_lost")
        sample_jobs.lease_one(rig.jobs, epoch)
        await asyncio.sleep(0.3)
        await rig.start()
        assert (await rig.until("job", JobStatus.FAILED)).error_code == "worker_lost"

    run(scenario)


def test_a_job_that_alone_fails_for_the_cluster_ends(tmp_path: Path) -> None:
    async def scenario() -> None:
        rig = Rig(tmp_path)
        await rig.start()
        denoiser = rig.denoisers[0]
        well = denoiser.remote

        def unreadable() -> None:
            raise StoreUnavailable("its photo always gives 500")

        def remote(order: DenoiseOrder, *rest: Any) -> Any:
            bad = order.attempt.job_id == "job"
            return Stream(unreadable, rig.gate) if bad else well(order, *rest)

        denoiser.remote = remote  # type: ignore[method-assign]
        rig.jobs.create(make_request("job"))
        others = 0
        while rig.job("job").status is not JobStatus.FAILED:
            rig.jobs.create(make_request(f"other{others}"))
            await rig.until(f"other{others}", JobStatus.COMPLETED)
            others += 1
        assert rig.job("job").error_code == "store_unavailable"

    run(scenario)


def test_small_jobs_pass_large_ones_that_wait_for_a_full_tier(tmp_path: Path) -> None:
    async def scenario() -> None:
        rig = Rig(tmp_path)
        rig.tiers = [
            TierConfig(name="a100", max_ongoing_requests=2),
            TierConfig(name="small", num_gpus=1, vram_gb=12, device="cpu"),
        ]
        rig.counts = {"Denoiser-a100": 1, "Denoiser-small": 1}
        rig.gates[0] = asyncio.Event()  # the a100 is busy for ever
        await rig.start()
        wide = SamplingParams("a bag turns", "", 1280, 704, 24, 4, 9.0, 16, seed=1)
        for number in range(40):
            request = make_request(f"large{number}")
            rig.jobs.create(replace(request, sampling=wide, priority=Priority.BATCH))
        rig.jobs.create(replace(make_request("small"), priority=Priority.BATCH))
        assert (await rig.until("small", JobStatus.COMPLETED)).tier == "small"

    run(scenario)


async def a_clip_on_spot(rig: Rig) -> Watched:
    """Under way on a tier that may be empty, beside one that runs."""
    rig.tiers = [TierConfig(name="spot", min_replicas=0, tflops=99), TierConfig(name="own")]
    rig.counts = {"Denoiser-spot": 1, "Denoiser-own": 1}
    rig.gates[0] = asyncio.Event()
    dispatcher = await rig.start()
    await dispatcher.has_counted("spot", 1)
    rig.jobs.create(make_request("job"))
    while not rig.denoisers[0].calls:
        await asyncio.sleep(0.01)
    return dispatcher


def test_a_job_leaves_a_tier_at_rest_that_lost_its_replica(tmp_path: Path) -> None:
    async def scenario() -> None:
        rig = Rig(tmp_path)
        dispatcher = await a_clip_on_spot(rig)
        dispatcher.counts = {"Denoiser-spot": 0, "Denoiser-own": 1}
        job = await rig.until("job", JobStatus.COMPLETED)
        assert job.tier == "own"
        assert [event.kind for event in job.events] == ["worker_lost"]

    run(scenario)


def test_a_job_whose_tier_goes_in_the_moment_it_starts_goes_to_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its task had no turn yet: it must still put the job back, not leave it to its lease."""
    started: list[Job] = []
    start = Attempts.start

    def start_and_strand(self: Attempts, job: Job) -> None:
        start(self, job)
        if not started:
            self.strand([job.current_attempt])
        started.append(job)

    monkeypatch.setattr(Attempts, "start", start_and_strand)

    async def scenario() -> None:
        rig = Rig(tmp_path, lease_s=3600)
        await rig.start()
        rig.jobs.create(make_request("job"))
        job = await rig.until("job", JobStatus.COMPLETED)
        assert (job.attempt, [event.kind for event in job.events]) == (2, ["worker_lost"])

    run(scenario)


def test_a_job_whose_tier_goes_while_its_result_is_looked_for_goes_to_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store has answered: its task goes on before the cancel comes, without its slot."""
    find = Results.find
    stranded: list[Attempt] = []

    async def scenario() -> None:
        rig = Rig(tmp_path, lease_s=3600)
        dispatcher = await rig.start()

        async def find_and_strand(self: Results, request: JobRequest) -> VideoFile | None:
            found = await find(self, request)
            if not stranded:
                stranded.append(rig.job("job").current_attempt)
                dispatcher._attempts.strand(stranded)
            return found

        monkeypatch.setattr(Results, "find", find_and_strand)
        rig.jobs.create(make_request("job"))
        job = await rig.until("job", JobStatus.COMPLETED)
        assert (job.attempt, [event.kind for event in job.events]) == (2, ["worker_lost"])

    run(scenario)


def test_a_clip_whose_denoiser_starts_anew_waits_for_it_and_teaches_nothing_of_its_encoding(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        rig = Rig(tmp_path)
        dispatcher = await rig.start()
        starts = asyncio.Event()

        class Starting(Stream):
            async def __aiter__(self) -> AsyncIterator[Any]:
                await starts.wait()
                async for event in super().__aiter__():
                    yield event

        denoised = Denoised(None, "checkpoints/x", {"denoising": 1.0}, "")
        rig.denoisers[0].remote = lambda *_: Starting(lambda: denoised, rig.gate)  # type: ignore[method-assign]
        rig.jobs.create(make_request("job"))
        while rig.job("job").stage is not Stage.ENCODING:
            await asyncio.sleep(0.01)
        dispatcher.counts = {"Denoiser-cpu": 0, "Decoder": 1}
        while rig.job("job").stage is not Stage.WAITING_DENOISER:
            await asyncio.sleep(0.01)
        starts.set()
        assert (await rig.until("job", JobStatus.COMPLETED)).attempt == 1
        learned = dispatcher._foresight.snapshot().stage_s
        assert Stage.ENCODING not in learned
        assert Stage.DECODING in learned

    run(scenario)


def test_a_clip_on_a_node_that_drains_is_left_to_hand_itself_out(tmp_path: Path) -> None:
    """Serve counts its replica no more as running; it still is, and takes no new clip. The same
    where Serve stops it: the clip ends as Preempted, its checkpoint stored."""

    async def scenario() -> None:
        rig = Rig(tmp_path)
        dispatcher = await a_clip_on_spot(rig)
        dispatcher.counts = {"Denoiser-spot": 0, "Denoiser-own": 1}
        dispatcher.leaving = {"Denoiser-spot": 1}
        await dispatcher.has_counted("spot", 0)
        rig.jobs.create(make_request("next"))
        assert (await rig.until("next", JobStatus.COMPLETED)).tier == "own"
        await asyncio.sleep(0.5)  # several counts of the replicas
        rig.gates[0].set()
        job = await rig.until("job", JobStatus.COMPLETED)
        assert (job.tier, job.attempt, job.events) == ("spot", 1, ())

    run(scenario)


def test_replicas_that_are_moved_looked_at_again_updated_or_stopped_are_not_gone() -> None:
    leaving = ("PENDING_MIGRATION", "RECOVERING", "UPDATING", "STOPPING")
    for state in ("RUNNING", *leaving):
        assert not Replicas.of({state: 1, "STARTING": 1}).are_gone
    assert Replicas.of({"STARTING": 1}).are_gone
    assert Replicas.of({"STARTING": 2, "RUNNING": 1}) == Replicas(running=1, starting=2)
    assert Replicas.of(dict.fromkeys(leaving, 1)) == Replicas(running=0, leaving=4)


async def commit_results(rig: Rig) -> Watched:
    """Start, with a video encoder that commits what it makes."""
    dispatcher = await rig.start()

    def remote(request: JobRequest, *_: Any) -> Any:
        return Publication(lambda: rig.bucket.commit(request))

    rig.video_encoder.remote = remote  # type: ignore[method-assign]
    return dispatcher


def test_a_result_that_is_committed_already_costs_no_stage(tmp_path: Path) -> None:
    """The same request again; or the worker died between the commit and its row."""

    async def scenario() -> None:
        rig = Rig(tmp_path)
        request = make_request("job")
        video = rig.bucket.commit(request)
        await rig.start()
        rig.jobs.create(request)
        assert (await rig.until("job", JobStatus.COMPLETED)).result == video
        assert rig.denoisers[0].calls == []
        assert rig.video_encoder.calls == []

    run(scenario)


def test_equal_requests_at_once_cost_one_journey_and_are_no_backlog(tmp_path: Path) -> None:
    async def scenario() -> None:
        rig = Rig(tmp_path)
        rig.gate.clear()
        dispatcher = await commit_results(rig)
        for number in range(30):
            rig.jobs.create(replace(make_request(f"job{number}"), photo_sha256="the same"))
        await rig.until("job0", JobStatus.IN_PROGRESS)
        await asyncio.sleep(0.2)
        assert rig.jobs.counts()[JobStatus.QUEUED] == 29
        stats = await dispatcher.record_autoscaling_stats()
        cost = CostModel(ARCHITECTURE, rig.tiers, ModelConfig(source="tiny"), {})
        left_s = cost.seconds(make_request("job").sampling, "cpu", steps_done=1)
        assert stats["backlog_gpu_s/Denoiser-cpu"] == pytest.approx(left_s)
        rig.gate.set()
        for number in range(30):
            job = await rig.until(f"job{number}", JobStatus.COMPLETED)
            assert job.result
            assert job.result.result_id == job.request.result_id
        assert len(rig.denoisers[0].calls) == 1

    run(scenario)


def test_equal_requests_keep_nobody_behind_them_waiting(tmp_path: Path) -> None:
    async def scenario() -> None:
        rig = Rig(tmp_path)
        rig.gate.clear()
        await commit_results(rig)
        for number in range(40):  # more than are looked at first
            rig.jobs.create(replace(make_request(f"job{number}"), photo_sha256="the same"))
        await rig.until("job0", JobStatus.IN_PROGRESS)
        rig.jobs.create(make_request("other"))
        await rig.until("other", JobStatus.IN_PROGRESS)
        assert rig.jobs.counts()[JobStatus.QUEUED] == 39

    run(scenario)


def test_the_next_of_equal_requests_tries_when_the_first_has_failed(tmp_path: Path) -> None:
    async def scenario() -> None:
        rig = Rig(tmp_path)
        rig.faults["denoise"] = [OutOfMemory("tried 9 GiB")]
        await commit_results(rig)
        for name in ("first", "second"):
            rig.jobs.create(replace(make_request(name), photo_sha256="the same"))
        await rig.until("first", JobStatus.FAILED)
        await rig.until("second", JobStatus.COMPLETED)

    run(scenario)


def test_a_person_does_not_wait_for_an_equal_batch_job(tmp_path: Path) -> None:
    async def scenario() -> None:
        rig = Rig(tmp_path)
        rig.gate.clear()
        await commit_results(rig)
        same = replace(make_request("batch"), photo_sha256="the same", priority=Priority.BATCH)
        rig.jobs.create(same)
        await rig.until("batch", JobStatus.IN_PROGRESS)
        rig.jobs.create(replace(same, id="person", priority=Priority.INTERACTIVE))
        await rig.until("person", JobStatus.IN_PROGRESS)

    run(scenario)


def test_a_store_that_does_not_say_whether_there_is_a_result_costs_no_attempt(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        rig = Rig(tmp_path)
        rig.bucket.faults = [StoreUnavailable("S3 is away")]
        dispatcher = await rig.start()
        rig.jobs.create(make_request("job"))
        while not await dispatcher.not_ready():
            await asyncio.sleep(0.01)
        assert rig.denoisers[0].calls == []
        job = await rig.until("job", JobStatus.COMPLETED)
        assert [event.kind for event in job.events] == ["store_unavailable"]

    run(scenario)


def test_a_result_that_is_being_deleted_is_made_anew(tmp_path: Path) -> None:
    async def scenario() -> None:
        rig = Rig(tmp_path)
        await commit_results(rig)
        request = make_request("job")
        rig.jobs.create(request)
        await rig.until("job", JobStatus.COMPLETED)
        purge = rig.jobs.delete("shop", "job")
        rig.jobs.create(replace(request, id="again"))
        while not rig.job("again").events:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.5)  # the purge takes ten times as long as the first wait
        while rig.job("again").stage is not Stage.WAITING_STORAGE:
            await asyncio.sleep(0.01)
        rig.bucket.objects.clear()
        while rig.job("again").attempt < 2 or not rig.bucket.objects:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.5)
        assert rig.job("again").status is JobStatus.IN_PROGRESS
        rig.jobs.purged(purge)
        job = await rig.until("again", JobStatus.COMPLETED)
        assert [event.kind for event in job.events] == ["result_purged"]
        assert job.attempt == 2  # one that found the old result, and one that made the new one
        assert len(rig.denoisers[0].calls) == 2

    run(scenario)


def test_who_waits_for_a_purge_holds_up_nobody(tmp_path: Path) -> None:
    async def scenario() -> None:
        rig = Rig(tmp_path)
        dispatcher = await commit_results(rig)
        requests = [make_request(f"job{number}") for number in range(6)]  # for two slots
        for request in requests:
            rig.jobs.create(request)
        for request in requests:
            await rig.until(request.id, JobStatus.COMPLETED)
            rig.jobs.delete("shop", request.id)
            rig.jobs.create(replace(request, id=f"{request.id}-again"))
        for request in requests:
            while not rig.job(f"{request.id}-again").events:
                await asyncio.sleep(0.01)
        rig.jobs.create(make_request("other"))
        await rig.until("other", JobStatus.COMPLETED)
        assert await dispatcher.drain(grace_s=0.05) == len(requests)
        counts = rig.jobs.counts()
        assert (counts[JobStatus.IN_PROGRESS], counts[JobStatus.QUEUED]) == (0, len(requests))

    run(scenario)


def test_no_more_wait_for_a_purge_than_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deployments.dispatch.attempts._MOST_LINGERING", 3)

    async def scenario() -> None:
        rig = Rig(tmp_path)
        dispatcher = await commit_results(rig)
        requests = [make_request(f"job{number}") for number in range(20)]
        for request in requests:
            rig.jobs.create(request)
        purges = []
        for request in requests:
            await rig.until(request.id, JobStatus.COMPLETED)
            purges.append(rig.jobs.delete("shop", request.id))
            rig.jobs.create(replace(request, id=f"{request.id}-again"))
        # Two slots: up to four attempts beyond the three are let in, and two with the last of them.
        while len(dispatcher._attempts) <= 4 or rig.jobs.counts()[JobStatus.IN_PROGRESS] < 8:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.5)
        assert rig.jobs.counts()[JobStatus.IN_PROGRESS] <= 9
        for purge in purges:
            rig.jobs.purged(purge)
        for request in requests:
            await rig.until(f"{request.id}-again", JobStatus.COMPLETED)

    run(scenario)


def test_the_api_is_told_what_an_eta_needs_and_how_good_it_was(tmp_path: Path) -> None:
    async def scenario() -> None:
        rig = Rig(tmp_path)
        dispatcher = await rig.start()

        def published() -> Snapshot:
            fact = SqlFacts(rig.jobs.database).get(FACT)
            return Snapshot.from_json(fact.value) if fact else Snapshot({})

        async def until(told: Callable[[Snapshot], bool]) -> Snapshot:
            while not told(published()):
                await asyncio.sleep(0.01)
            return published()

        rig.jobs.create(make_request("first"))  # no stage was measured before
        await rig.until("first", JobStatus.COMPLETED)
        rig.gate.clear()
        rig.jobs.create(make_request("second"))
        snapshot = await until(lambda s: bool(s.stage_s) and s.tiers["cpu"].works[0].clips == 1)
        assert snapshot.median_error is None
        tier = snapshot.tiers["cpu"]
        assert (tier.replicas, tier.starting, tier.is_measured) == (1, 0, True)
        assert tier.peak_vram_bytes == PEAK_BYTES
        (report,) = dispatcher._attempts.progress()
        assert report.predicted_at is not None
        foreseen_s = report.predicted_at - (rig.job("second").started_at or 0)
        while rig.job("second").predicted_at != report.predicted_at:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.5)
        rig.gate.set()
        job = await rig.until("second", JobStatus.COMPLETED)
        assert job.started_at
        assert job.completed_at
        real_s = job.completed_at - job.started_at
        while not dispatcher._foresight.snapshot().median_error:
            await asyncio.sleep(0.01)
        error = dispatcher._foresight.snapshot().median_error
        assert error == pytest.approx(abs(real_s - foreseen_s) / real_s, rel=0.1)
        learned = dispatcher._foresight.snapshot().stage_s
        await until(lambda s: s.stage_s == learned)
        successor = await rig.start()  # goes on with what was learned
        assert successor._foresight.snapshot().stage_s == learned

    run(scenario)


@pytest.mark.parametrize(
    ("error", "code", "retry"),
    [
        (StoreUnavailable("x"), "store_unavailable", Retry.LATER),
        (StoreMisconfigured("x"), "store_unavailable", Retry.LATER),
        (DEATH, "worker_lost", Retry.CHARGED),
        (NonFiniteLatents(3), "internal", Retry.CHARGED),
        (EngineBroken("CUDA error"), "worker_lost", Retry.CHARGED),
        (Preempted(3), "preempted", Retry.AT_ONCE),
        (DeadlineExceeded(3), "deadline_exceeded", Retry.NO),
        (OutOfMemory("tried 2 GiB"), "out_of_memory", Retry.NO),
        (EncodeFailed("odd size"), "encode_failed", Retry.NO),
        (OSError(errno.ENOSPC, "No space left"), "no_space", Retry.NO),
        (OSError(errno.EIO, "disk"), "internal", Retry.NO),
        (ObjectNotFound("inputs/x"), "internal", Retry.NO),
        (KeyError("secret detail"), "internal", Retry.NO),
    ],
)
def test_what_an_error_means(error: Exception, code: str, retry: Retry) -> None:
    verdict = judge(error)
    assert (verdict.code, verdict.retry) == (code, retry)
    assert "secret detail" not in verdict.message
    wrapped = ray.exceptions.RayTaskError("f", "traceback", error).as_instanceof_cause()
    if not isinstance(error, ray.exceptions.RayError):
        assert judge(wrapped) == verdict


# Camera moves.


def a_panned_request(job_id: str, strength: float) -> JobRequest:
    request = make_request(job_id)
    return replace(
        request,
        sampling=replace(request.sampling, motion_strength=strength),
        camera_motion=CameraMove(Move.PAN_LEFT),
    )


def test_the_frames_of_a_camera_move_go_from_stage_to_stage_without_us(tmp_path: Path) -> None:
    async def scenario() -> None:
        rig = Rig(tmp_path)
        await rig.start()
        rig.jobs.create(request := a_panned_request("panned", 0.5))
        await rig.until("panned", JobStatus.COMPLETED)
        size = (request.sampling.num_frames, request.sampling.width, request.sampling.height)
        rendered, first = rig.image_encoder.calls
        start, _ = rig.decoder.calls
        assert rig.image_encoder.args[0][:-1] == (
            request.photo_key,
            request.camera_motion,
            *size,
            "crop",
        )
        assert rig.image_encoder.args[1][0] is rendered
        assert rig.decoder.args[0][0] is rendered
        assert rig.denoisers[0].args[0][2:] == (first, start)

    run(scenario)


def test_at_full_strength_the_photo_goes_the_plain_way(tmp_path: Path) -> None:
    async def scenario() -> None:
        rig = Rig(tmp_path)
        await rig.start()
        rig.jobs.create(a_panned_request("plain", 1.0))
        await rig.until("plain", JobStatus.COMPLETED)
        (photo,) = rig.image_encoder.calls
        assert rig.denoisers[0].args[0][2:] == (photo,)
        assert len(rig.decoder.calls) == 1

    run(scenario)


def test_cancelling_stops_the_camera_too(tmp_path: Path) -> None:
    async def scenario() -> None:
        rig = Rig(tmp_path)
        rig.gate.clear()
        dispatcher = await rig.start()
        rig.jobs.create(a_panned_request("panned", 0.5))
        await rig.until("panned", JobStatus.IN_PROGRESS)
        while not rig.denoisers[0].calls:
            await asyncio.sleep(0.01)
        rig.jobs.cancel("shop", "panned")
        await dispatcher.stop("panned")
        live = [*rig.image_encoder.calls, *rig.decoder.calls, *rig.denoisers[0].calls]
        while not all(response.cancelled for response in live):
            await asyncio.sleep(0.01)
        assert len(live) == 4

    run(scenario)


# The model `camera`.


def a_rendered_request(job_id: str, move: Move = Move.ZOOM_IN) -> JobRequest:
    request = make_request(job_id)
    sampling = replace(request.sampling, num_inference_steps=0)
    return replace(request, model="camera", sampling=sampling, camera_motion=CameraMove(move))


class CameraRig(Rig):
    def __init__(self, folder: Path):
        super().__init__(folder)
        self.tiers = [TierConfig(name="cpu", max_ongoing_requests=2), CameraTierConfig()]
        self.counts = {"Denoiser-cpu": 1, "CameraRenderer": 1, "Decoder": 1}


def test_a_rendered_job_meets_no_model(tmp_path: Path) -> None:
    async def scenario() -> None:
        rig = CameraRig(tmp_path)
        rig.gate.clear()  # the denoiser is stuck with another clip
        await rig.start()
        rig.jobs.create(make_request("generated"))
        rig.jobs.create(request := a_rendered_request("rendered"))
        job = await rig.until("rendered", JobStatus.COMPLETED)
        assert (job.tier, job.attempt) == ("camera", 1)
        denoiser, renderer = rig.denoisers
        assert renderer.args[0][:2] == (request, request.sampling)
        assert len(denoiser.calls) == 1
        assert not rig.decoder.calls
        assert len(rig.image_encoder.calls) == 1  # the generated one's
        provenance = rig.video_encoder.args[0][4]
        assert provenance.timings == {"rendering": 0.2}
        assert provenance.camera_layers == 1
        rig.gate.set()
        assert (await rig.until("generated", JobStatus.COMPLETED)).tier == "cpu"

    run(scenario)


def test_the_last_rung_is_a_camera_move_for_who_allows_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        rig = CameraRig(tmp_path)
        rig.faults["denoise"] = [OutOfMemory("tried 9 GiB")] * 3
        await rig.start()
        last, guided = CameraMove(Move.TILT_UP), replace(LARGE, motion_strength=0.5)
        request = replace(
            make_request("job"),
            sampling=guided,
            camera_motion=last,
            may_downgrade=True,
            last_resort=last,
        )
        rig.jobs.create(request)
        job = await rig.until("job", JobStatus.COMPLETED)
        rungs = [(event.kind, event.detail) for event in job.events]
        assert [kind for kind, _ in rungs] == ["smaller_size", "fewer_frames", "camera_move"]
        assert rungs[-1][1] == NOTHING_GENERATED
        assert job.tier == "camera"
        assert rig.denoisers[1].args[0][:2] == (request, guided.rendered())
        made = rig.video_encoder.args[-1][1]
        assert (made.width, made.num_frames, made.unet_steps) == (128, 16, 0)

        rig.faults["denoise"] = [OutOfMemory("tried 9 GiB")] * 3
        rig.jobs.create(replace(make_request("auto"), sampling=LARGE, may_downgrade=True))
        assert (await rig.until("auto", JobStatus.FAILED)).error_code == "out_of_memory"

    run(scenario)


def test_an_orbit_in_one_layer_is_told(tmp_path: Path) -> None:
    async def scenario() -> None:
        rig = CameraRig(tmp_path)
        await rig.start()
        for move in (Move.ORBIT_LEFT, Move.PAN_LEFT):
            rig.jobs.create(a_rendered_request(move, move))
            await rig.until(move, JobStatus.COMPLETED)
        warnings = [args[4].warnings for args in rig.video_encoder.args]
        assert warnings == [(ONE_LAYER,), ()]

    run(scenario)


@pytest.mark.parametrize("stage", ["render", "encode_video"])
def test_a_renderer_that_died_renders_again(tmp_path: Path, stage: str) -> None:
    async def scenario() -> None:
        rig = CameraRig(tmp_path)
        rig.faults[stage] = [DEATH, DEATH]
        await rig.start()
        rig.jobs.create(a_rendered_request("job"))
        assert (await rig.until("job", JobStatus.COMPLETED)).attempt == 1

    run(scenario)


def test_frames_that_were_lost_are_rendered_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        rig = CameraRig(tmp_path)
        rig.faults["encode_video"] = [HandoverLost("gone")]
        await rig.start()
        rig.jobs.create(a_rendered_request("job"))
        assert (await rig.until("job", JobStatus.COMPLETED)).attempt == 1
        assert len(rig.denoisers[1].calls) == 2

    run(scenario)


def test_a_running_camera_is_no_denoiser(tmp_path: Path) -> None:
    """With every denoiser gone the cluster is not ready, and their clips wait for them."""

    async def scenario() -> None:
        rig = CameraRig(tmp_path)
        rig.gate.clear()
        dispatcher = await rig.start()
        rig.jobs.create(make_request("job"))
        await rig.until("job", JobStatus.IN_PROGRESS)
        dispatcher.counts = {"Denoiser-cpu": 0, "CameraRenderer": 1, "Decoder": 1}
        await dispatcher.has_counted("cpu", 0)
        assert await dispatcher.not_ready() == ["Denoiser-cpu: no replica is running"]
        dispatcher.counts = {"Denoiser-cpu": 1, "CameraRenderer": 0, "Decoder": 1}
        await dispatcher.has_counted("camera", 0)
        assert await dispatcher.not_ready() == ["CameraRenderer: no replica is running"]
        assert rig.job("job").attempt == 1
        rig.gate.set()
        await rig.until("job", JobStatus.COMPLETED)

    run(scenario)


def test_a_rendered_job_behind_a_long_queue_is_found(tmp_path: Path) -> None:
    async def scenario() -> None:
        rig = CameraRig(tmp_path)
        rig.gate.clear()
        for number in range(40):  # more than are looked at first
            rig.jobs.create(make_request(f"job{number}"))
        await rig.start()
        await rig.until("job1", JobStatus.IN_PROGRESS)
        rig.jobs.create(a_rendered_request("rendered"))
        await rig.until("rendered", JobStatus.COMPLETED)
        assert rig.jobs.counts()[JobStatus.QUEUED] == 38

    run(scenario)
