"""What a journey tells of its stages, over handles that a test holds in its hand."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import pytest
import ray.exceptions

from deployments.camera import Rendered
from deployments.decoder import Decoded
from deployments.denoiser import Denoised, StepDone, Waiting
from deployments.dispatch.journey import Journey, Stages
from deployments.handover import ReplicaSilent
from monitoring.stages import StageCall
from serve.schemas import Video
from storage.errors import StoreUnavailable
from storage.jobs import Job, JobEvent, JobStatus, Stage, VideoFile
from tests.sample_jobs import VIDEO, make_request
from tests.unit.test_dispatcher import Handle, Response

STEPS = make_request("job").sampling.num_inference_steps
DENOISED = Denoised(cast(Any, None), "checkpoints/x", {"denoising": 1.0}, "")
DEATH = ray.exceptions.ActorDiedError()
SILENCE_S = 60.0

Told = Sequence[tuple[Stage, int]]

ENCODED: Told = [(Stage.ENCODING, 0), (Stage.WAITING_DENOISER, 0), (Stage.DENOISING, 0)]
DECODED: Told = [(Stage.DECODING, STEPS)]
PUBLISHED: Told = [(Stage.ENCODING_VIDEO, STEPS), (Stage.STORING, STEPS)]


class Pause:
    """Says nothing for longer than a denoiser may be silent, by the loop's clock."""

    async def take(self) -> None:
        loop = asyncio.get_running_loop()
        then = loop.time() + 2 * SILENCE_S
        loop.time = lambda: then  # type: ignore[method-assign]
        for _ in range(3):  # turns of the loop: what is due is done
            await asyncio.sleep(0)


class Events(Response):
    """A streamed call that says these, and raises what is an exception."""

    def __init__(self, *events: Any):
        super().__init__(lambda: None)
        self._events = events

    async def __aiter__(self) -> AsyncIterator[Any]:
        for event in self._events:
            await asyncio.sleep(0)
            if isinstance(event, Exception):
                raise event
            if isinstance(event, Pause):
                await event.take()
            else:
                yield event


class Rig:
    """`denoiser` says `denoising`; the video encoder, at each call, what comes next of `storing`;
    `told` is what the journey reported. `rendering`: the worker is a CameraRenderer, and that is
    what it answers."""

    def __init__(
        self, denoising: Sequence[Any], *storing: Sequence[Any], rendering: Rendered | None = None
    ):
        def plain(value: Any) -> Handle:
            return Handle(lambda: Response(lambda: value))

        calls = iter(storing)
        self.told: list[tuple[Stage, int]] = []
        self.on_report: Callable[[Stage], object] = lambda _: None
        self.denoiser = plain(rendering) if rendering else Handle(lambda: Events(*denoising))
        self.video_encoder = Handle(lambda: Events(*next(calls)))
        self.job = Job(
            request=make_request("job"),
            status=JobStatus.IN_PROGRESS,
            created_at=0.0,
            attempt=1,
            epoch=1,
        )
        self.journey = Journey(
            Stages(*cast(Any, (plain(1), plain(1), plain(Decoded(None, 0.1)), self.video_encoder))),
            self.job,
            StageCall("job", 1, "cpu"),
            make_request("job").sampling.rendered() if rendering else make_request("job").sampling,
            self._report,
            lambda _: None,
            lambda _: None,
            SILENCE_S,
        )

    def _report(self, stage: Stage, step: int) -> None:
        self.told.append((stage, step))
        self.on_report(stage)

    async def run(self) -> VideoFile:
        return await self.journey.run(cast(Any, self.denoiser))


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deployments.dispatch.journey._STORAGE_WAITS_S", (0.01, 0.01))


STORED = (Stage.STORING, VIDEO)
ALONE = (Waiting(0), StepDone(0), DENOISED)


def test_every_stage_of_the_contract_is_told_in_its_order() -> None:
    rig = Rig(ALONE, STORED)
    assert asyncio.run(rig.run()) is VIDEO
    assert rig.told == [*ENCODED, *DECODED, *PUBLISHED]
    elsewhere = (Stage.RENDERING, Stage.WAITING_STORAGE)
    assert [stage for stage, _ in rig.told] == [s for s in Stage if s not in elsewhere]


def test_a_rendered_clip_tells_its_three_stages() -> None:
    rig = Rig((), STORED, rendering=Rendered(Decoded(cast(Any, None), 0.2), layers=1))
    assert asyncio.run(rig.run()) is VIDEO
    assert rig.told == [(s, 0) for s in (Stage.RENDERING, Stage.ENCODING_VIDEO, Stage.STORING)]


def test_a_renderer_that_dies_each_time_is_given_up() -> None:
    rig = Rig((), STORED, rendering=Rendered(Decoded(cast(Any, None), 0.2), layers=1))

    def dies() -> None:
        raise DEATH

    rig.denoiser._make = lambda: Response(dies)
    with pytest.raises(ray.exceptions.ActorDiedError):
        asyncio.run(rig.run())
    assert [stage for stage, _ in rig.told] == [Stage.RENDERING]


def test_a_clip_that_others_pass_waits_where_it_stands() -> None:
    resumed = JobEvent(0.0, "resumed", "after step 3")
    turns = [Waiting(0), resumed, Waiting(3), StepDone(3), Waiting(4), StepDone(4), DENOISED]
    rig = Rig(turns, STORED)
    asyncio.run(rig.run())
    assert rig.told[1:6] == [
        (Stage.WAITING_DENOISER, 0),
        (Stage.WAITING_DENOISER, 3),
        (Stage.DENOISING, 3),
        (Stage.WAITING_DENOISER, 4),
        (Stage.DENOISING, 4),
    ]


def test_a_checkpoint_that_is_slow_to_come_is_no_silence() -> None:
    rig = Rig([Waiting(0), Pause(), JobEvent(0.0, "resumed", ""), Waiting(3), DENOISED], STORED)
    assert asyncio.run(rig.run()) is VIDEO


@pytest.mark.parametrize("last", [Waiting(0), StepDone(1)])
def test_a_denoiser_that_has_a_clip_and_falls_silent_is_given_up(last: Waiting | StepDone) -> None:
    rig = Rig([Waiting(0), last, Pause(), DENOISED], STORED)
    with pytest.raises(ReplicaSilent):
        asyncio.run(rig.run())
    assert [call.cancelled for call in rig.denoiser.calls] == [True]


def test_a_video_encoder_that_dies_while_it_stores_encodes_again() -> None:
    rig = Rig(ALONE, (Stage.STORING, DEATH), (DEATH,), STORED)
    assert asyncio.run(rig.run()) is VIDEO
    assert rig.told == [*ENCODED, *DECODED, *PUBLISHED, PUBLISHED[0], *PUBLISHED]
    assert len(rig.denoiser.calls) == 1


def test_a_video_encoder_that_always_dies_ends_the_attempt() -> None:
    rig = Rig(ALONE, *[(Stage.STORING, DEATH)] * 3)
    with pytest.raises(ray.exceptions.ActorDiedError):
        asyncio.run(rig.run())
    assert rig.told == [*ENCODED, *DECODED, *3 * list(PUBLISHED)]


def test_a_store_that_is_away_is_waited_for_between_two_tries_to_store() -> None:
    rig = Rig(ALONE, (Stage.STORING, StoreUnavailable("away")), STORED)
    assert asyncio.run(rig.run()) is VIDEO
    waited = [(Stage.WAITING_STORAGE, STEPS)]
    assert rig.told == [*ENCODED, *DECODED, *PUBLISHED, *waited, *PUBLISHED]


@pytest.mark.parametrize("fault", [StoreUnavailable("away"), DEATH])
def test_a_video_that_is_encoded_again_keeps_its_progress(fault: Exception) -> None:
    rig = Rig(ALONE, (Stage.STORING, fault), STORED)
    asyncio.run(rig.run())
    shown = [Video.of(replace(rig.job, stage=stage, step=step)) for stage, step in rig.told]
    progress = [video.progress for video in shown]
    assert progress == sorted(progress)


@pytest.mark.parametrize("stage", [Stage.ENCODING_VIDEO, Stage.STORING])
def test_a_cancel_reaches_the_video_encoder(stage: Stage) -> None:
    async def scenario() -> None:
        rig = Rig(ALONE, STORED)
        reached = asyncio.Event()
        rig.on_report = lambda told: reached.set() if told is stage else None
        task = asyncio.create_task(rig.run())
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [call.cancelled for call in rig.video_encoder.calls] == [True]
        assert rig.told[-1][0] is stage

    asyncio.run(scenario())
