"""Denoiser: the UNet on one GPU tier. Requests in flight share it step by step."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ray

from cluster.calibration import save_calibration
from cluster.cost import Calibration
from cluster.tiers import TierConfig
from deployments.checkpoint_shelf import CheckpointShelf
from deployments.handover import Handover
from deployments.health import go_down
from deployments.heartbeat import Heartbeat
from deployments.leaving import LeaveNotice
from deployments.timing import Timed
from deployments.vitals import Vitals
from diffusion.errors import Preempted
from diffusion.memory import Architecture
from diffusion.model_folder import ModelConfig, ModelFolder, model_revision
from diffusion.params import Priority, SamplingParams
from monitoring import metrics
from monitoring.stages import StageCall, StageRecord
from monitoring.store_calls import count_store_call
from storage import keys
from storage.errors import StaleAttempt
from storage.jobs import Attempt, JobEvent
from storage.object_store import ObjectStoreConfig, S3ObjectStore

if TYPE_CHECKING:
    from concurrent.futures import Future

    from deployments.decoder import EncodedStart
    from diffusion.engine import Engine
    from diffusion.events import Event
    from diffusion.state import ImageCondition, StartLatents, TextCondition

log = logging.getLogger(__name__)

REPORT_EVERY_S = 0.25


@dataclass(frozen=True, slots=True)
class DenoiseOrder:
    """One try at one job's denoising."""

    attempt: Attempt
    sampling: SamplingParams
    priority: Priority
    deadline_at: float | None  # Unix seconds
    call: StageCall | None = None


@dataclass(frozen=True, slots=True)
class Waiting:
    """One clip's conditions are here; it waits for its turn at the UNet, `step` steps done."""

    step: int


@dataclass(frozen=True, slots=True)
class StepDone:
    """The UNet is at one clip: `step` of its unet_steps are done."""

    step: int


@dataclass(frozen=True, slots=True)
class Denoised:
    """Where finished latents are: the Dispatcher passes this on, never the latents."""

    latents: "ray.ObjectRef[object]"  # of diffusion.state.Latents
    checkpoint_key: str  # where they are too, soon after, for when this replica is gone
    timings: dict[str, float]  # stage -> seconds
    dropped_prompt: str  # the end of the prompt that the text encoder could not take
    resumed_at: int = 0  # steps that an earlier attempt had done
    peak_vram_bytes: int | None = None  # None: no GPU


class Denoiser:
    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self,
        tier: TierConfig,
        model: ModelConfig,
        digests: dict[str, str],
        store: ObjectStoreConfig,
    ):
        import torch

        from diffusion.device import memory_bytes, open_device
        from diffusion.engine import Engine
        from diffusion.engine_thread import EngineThread
        from diffusion.gauge import Gauge
        from diffusion.row_budget import row_budget
        from diffusion.weights import load_denoising_model

        folder = ModelFolder.open(model)
        folder.verify(digests, "unet", "scheduler")
        device = open_device(tier.torch_device, tier.num_gpus, tier.threads)
        dtype = getattr(torch, model.dtype_on(tier.torch_device))
        self._revision = model_revision(digests)
        architecture, chunked = Architecture.of(folder), tier.engine.torch.chunk_feed_forward
        rows = row_budget(architecture, memory_bytes(device, tier.num_gpus), dtype, chunked)
        unet = load_denoising_model(folder, device, dtype, self._revision)
        self._tier = tier
        self._store = S3ObjectStore(store, count_store_call)
        self._shelf = CheckpointShelf(self._store)
        self._clips: dict[Attempt, asyncio.Queue[Event | Exception]] = {}
        self._loop = asyncio.get_running_loop()
        self._vitals = Vitals(tier.name, device, self._shelf)
        engine = Engine(
            unet, tier.engine, rows, called=self._vitals.note_call, turned=self._deliver
        )
        self._engine = EngineThread(engine, self._deliver, self._tell_broken)
        self._gauge = Gauge(self._engine, architecture, device, dtype, chunked)
        self._heartbeat = Heartbeat(
            lambda: self._clips.keys(), self._disown, self.drain, tier.orphan_s
        )
        self._leaving = False
        self._notice = LeaveNotice(self.drain, self._close)
        self._handover = Handover()
        self._tasks: set[asyncio.Task[None]] = set()  # saves of clips whose call was cancelled
        await asyncio.wrap_future(self._engine.self_test())
        self._tested_at = time.monotonic()

    async def denoise(
        self,
        order: DenoiseOrder,
        text: Timed["TextCondition"],
        image: Timed["ImageCondition"],
        start: "EncodedStart | None" = None,
    ) -> AsyncIterator[Waiting | StepDone | JobEvent | Denoised]:
        """Yield a Waiting at once, another when the clip has joined, and one whenever others go
        first; a StepDone whenever the clip's turn comes, and per step, a few a second at most; what
        went otherwise than planned; and the Denoised at the end.

        Begins where an earlier attempt's checkpoint stands, else at `start`, else at noise.
        Cancelling the stream stops the clip after the step in flight and leaves a checkpoint.
        Raises OutOfMemory, NonFiniteLatents, DeadlineExceeded, EngineBroken, Preempted, and
        StaleAttempt when a newer attempt is known.
        """
        from diffusion.events import Began, Degraded, Failed, Finished, Paused, Stepped

        attempt = order.attempt
        if self._leaving:
            raise Preempted(0)
        self._make_way_for(attempt)
        events: asyncio.Queue[Event | Exception] = asyncio.Queue()
        self._clips[attempt] = events
        with StageRecord("denoising", order.call) as record:
            try:
                yield Waiting(0)
                for told in start.events if start else ():
                    yield told
                begins_at = None if start is None else start.value
                step = resumed_at = await self._join(order, text.value, image.value, begins_at)
                if resumed_at:
                    yield JobEvent(time.time(), "resumed", f"after step {resumed_at}")
                yield Waiting(resumed_at)
                reported = time.monotonic()
                while not isinstance(event := await events.get(), Finished):
                    if isinstance(event, Exception):
                        raise event
                    if isinstance(event, Failed):
                        await self._shelf.flush(attempt)
                        raise event.error
                    if isinstance(event, Degraded):
                        yield JobEvent(time.time(), event.kind, event.detail)
                    if isinstance(event, Paused):
                        yield Waiting(step)
                    if isinstance(event, Stepped):
                        step = event.step
                        record.note(step=step)
                        if step == resumed_at + 1:
                            log.info("first UNet step", extra=record.ids | {"step": step})
                    # A report costs milliseconds of this process, which tiny steps would feel.
                    due = time.monotonic() - reported >= REPORT_EVERY_S
                    if isinstance(event, Began) or (isinstance(event, Stepped) and due):
                        reported = time.monotonic()
                        yield StepDone(step)
            except (asyncio.CancelledError, GeneratorExit):
                handed_out = self._engine.call(lambda engine: engine.hand_out([_id(attempt)]))
                self._go_on_with(self._save_parting(attempt, handed_out))
                raise
            finally:
                del self._clips[attempt]
                self._shelf.forget(attempt)
                self._engine.call(lambda engine: engine.leave(_id(attempt)))
            record.note(
                seconds=event.seconds,
                vram_bytes=event.peak_memory_bytes,
                shapes={"latents": event.latents.latents.data.shape},
                resumed_at=resumed_at,
            )
        metrics.STAGE_SECONDS.observe(event.seconds, tags={"stage": "denoising"})
        yield Denoised(
            await self._handover.offer(event.latents),
            keys.checkpoint_key(attempt),
            {
                "text_encoding": text.seconds,
                "image_encoding": image.seconds,
                **(start.timings if start else {}),
                "denoising": event.seconds,
            },
            text.value.prompt.dropped,
            resumed_at,
            event.peak_memory_bytes,
        )

    async def drain(self) -> None:
        """Hand out every clip after the step in flight: a checkpoint, then Preempted."""
        await asyncio.wrap_future(self._engine.call(lambda engine: self._deliver(engine.drain())))

    async def hand_out(self, attempts: frozenset[Attempt]) -> None:
        """The same for these clips, as far as they are here."""
        ids = [_id(attempt) for attempt in attempts & self._clips.keys()]
        await asyncio.wrap_future(
            self._engine.call(lambda engine: self._deliver(engine.hand_out(ids)))
        )

    def _close(self) -> None:
        """Take no clip from now on."""
        self._leaving = True

    async def steps_done(self) -> int:
        """UNet steps of this replica since it started."""
        return await asyncio.wrap_future(self._engine.call(lambda engine: engine.steps_done))

    async def calibrate(self, clips: Sequence[SamplingParams]) -> Calibration:
        """Measure steps of `clips` between those of the clips in flight, and keep the result for
        the next start. Raises OutOfMemory when none of them fits, EngineBroken, StorageError."""
        measured = await asyncio.to_thread(self._gauge.measure, clips)
        calibration = Calibration(
            self._tier.name,
            measured.device,
            measured.tflops,
            time.time(),
            measured.bytes_factor,
        )
        await asyncio.to_thread(save_calibration, self._store, calibration)
        return calibration

    async def clips_in_flight(self) -> int:
        return len(self._clips)

    async def check_health(self) -> None:
        """Fail when the engine is broken or a tick takes for ever; try a step now and then, when
        nothing else does."""
        if self._engine.broken is not None:
            raise self._engine.broken
        if self._engine.silent_s > self._tier.stall_s:
            raise RuntimeError(f"no UNet step has ended for {self._engine.silent_s:.0f} s")
        if not self._clips and time.monotonic() - self._tested_at > self._tier.self_test_s:
            await asyncio.wrap_future(self._engine.self_test())
            self._tested_at = time.monotonic()

    async def __del__(self) -> None:
        """Serve awaits this at the end: what was handed out must be in the store."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._shelf.flush_all()

    async def _save_parting(self, attempt: Attempt, handed_out: "Future[Sequence[Event]]") -> None:
        """Nobody listens any more: the Dispatcher is gone, or it was a cancel. For the former the
        clip is saved."""
        from diffusion.events import Saved

        for event in await asyncio.wrap_future(handed_out):
            if isinstance(event, Saved):
                self._shelf.save(attempt, event.checkpoint)
        await self._shelf.flush(attempt)

    def _go_on_with(self, work: Coroutine[Any, Any, None]) -> None:
        """Do it in the background, and do not lose it."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _tell_broken(self) -> None:
        """From the engine's thread."""
        self._loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        self._close()
        self._go_on_with(go_down(self._engine.broken, self._shelf.flush_all))

    async def _join(
        self,
        order: DenoiseOrder,
        text: "TextCondition",
        image: "ImageCondition",
        start: "StartLatents | None",
    ) -> int:
        """Let the engine take the clip up. Returns the steps that were done before."""
        from diffusion.events import Degraded

        attempt, sampling = order.attempt, order.sampling
        checkpoint = await self._shelf.furthest(attempt, sampling, self._revision)
        deadline_s = None if order.deadline_at is None else order.deadline_at - time.time()

        def join(engine: "Engine") -> bool:
            if self._leaving:  # since it came in: what is handed out was handed out before this
                raise Preempted(checkpoint.step if checkpoint else 0)
            events = engine.join(
                _id(attempt),
                sampling,
                text,
                image,
                start,
                priority=order.priority,
                deadline_s=deadline_s,
                checkpoint=checkpoint,
            )
            self._deliver(events)
            return not any(isinstance(event, Degraded) for event in events)

        resumed = await asyncio.wrap_future(self._engine.call(join))
        return checkpoint.step if checkpoint and resumed else 0

    def _make_way_for(self, attempt: Attempt) -> None:
        """A newer attempt evicts an older one of its job. Raises StaleAttempt for the older."""
        for other in [other for other in self._clips if other.job_id == attempt.job_id]:
            if other.number >= attempt.number:
                raise StaleAttempt(attempt.job_id, attempt.number, attempt.epoch)
            self._disown(other)

    def _disown(self, attempt: Attempt) -> None:
        """Stop a clip that owns its job no more."""
        if events := self._clips.get(attempt):
            events.put_nowait(StaleAttempt(attempt.job_id, attempt.number, attempt.epoch))

    def _deliver(self, events: Sequence["Event"]) -> None:
        """From the engine's thread to the clips' streams."""
        self._loop.call_soon_threadsafe(self._sort, events)

    def _sort(self, events: Sequence["Event"]) -> None:
        from diffusion.events import Saved, Stepped

        attempts = {_id(attempt): attempt for attempt in self._clips}
        self._vitals.note_steps(sum(isinstance(event, Stepped) for event in events))
        for event in events:
            attempt = attempts.get(event.request_id)
            if attempt is None:
                continue  # it has left
            if isinstance(event, Stepped):
                self._shelf.moved(attempt)
            if isinstance(event, Saved):
                self._shelf.save(attempt, event.checkpoint)
            else:
                self._clips[attempt].put_nowait(event)


def _id(attempt: Attempt) -> str:
    return f"{attempt.job_id}/{attempt.number}"
