"""The step engine: live requests share one UNet, a call at a time.

Each tick chooses requests of one shape, runs the UNet once over their rows, and moves each by its
own scheduler; between ticks they join, leave, pause and resume. Nothing in the UNet mixes rows, so
company changes no clip beyond rounding (Orca's iteration-level scheduling, OSDI 2022, for
diffusion). One thread owns an engine; `diffusion.engine_thread` is that thread.
"""

import math
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import torch

from diffusion.checkpoint import Checkpoint
from diffusion.device import PeakMemory, within_memory
from diffusion.engine_config import EngineConfig
from diffusion.errors import (
    CheckpointMismatch,
    DeadlineExceeded,
    DiffusionError,
    NonFiniteLatents,
    OutOfMemory,
    Preempted,
)
from diffusion.events import Began, Degraded, Event, Failed, Finished, Paused, Saved, Stepped
from diffusion.params import Priority, SamplingParams
from diffusion.state import ImageCondition, Latents, StartLatents, TextCondition
from diffusion.trajectory import Bucket, Trajectory
from diffusion.turns import Turn, choose
from diffusion.unet_call import UNetCall
from diffusion.weights import DenoisingModel


@dataclass(slots=True)
class _Live:
    trajectory: Trajectory
    priority: Priority
    deadline: float | None
    arrived: float
    waits_since: float
    saved_at: float
    saved_step: int
    seconds: float = 0.0
    peak_memory_bytes: int | None = None
    paused: bool = False
    has_turn: bool = False  # it takes part in the call under way, or took part in the last one


class Engine:
    """Requests by id. `max_rows` says how many rows of a bucket the device's memory holds; `called`
    hears of the seconds of every call of the UNet, `turned` before a call whose turn has come
    (Began) or gone (Paused) with it."""

    def __init__(
        self,
        model: DenoisingModel,
        config: EngineConfig,
        max_rows: Callable[[Bucket], int] | None = None,
        clock: Callable[[], float] = time.monotonic,
        called: Callable[[float], object] = lambda _: None,
        turned: Callable[[Sequence[Event]], object] = lambda _: None,
    ):
        self._model = model
        self._config = config
        self._clock = clock
        self._called = called
        self._turned = turned
        self._live: dict[str, _Live] = {}
        self._calls = UNetCall(model, config)
        self._memory = PeakMemory(model.device)
        self._memory_rows = max_rows or (lambda _: config.max_rows)
        self._was_patience = False  # the last call went to who had waited too long
        self.steps_done = 0  # of all requests ever
        self.out_of_memory = 0  # times that the device's memory did not suffice

    @torch.inference_mode()
    def join(
        self,
        request_id: str,
        params: SamplingParams,
        text: TextCondition,
        image: ImageCondition,
        start: StartLatents | None = None,
        *,
        priority: Priority = Priority.INTERACTIVE,
        deadline_s: float | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> Sequence[Event]:
        """Take part from the next tick on, where `checkpoint` stood if it is given and of this
        request, weights and code.

        `start` is given where the params start from frames, and only there. `deadline_s` counts
        from now. A checkpoint of the last step is Finished at once. Raises OutOfMemory, and
        ValueError for an id that is live and for a `start` that does not suit the params.
        """
        if request_id in self._live:
            raise ValueError(f"{request_id} is live already")
        events: list[Event] = []
        with within_memory():
            trajectory = Trajectory.begin(self._model, params, text, image, start)
            if checkpoint is not None:
                try:
                    trajectory.resume(checkpoint)
                except CheckpointMismatch as e:
                    events.append(Degraded(request_id, "checkpoint_refused", str(e)))
        if trajectory.is_done:
            return [Finished(request_id, trajectory.result(), 0.0)]
        now = self._clock()
        self._live[request_id] = _Live(
            trajectory,
            priority,
            None if deadline_s is None else now + deadline_s,
            arrived=now,
            waits_since=now,
            saved_at=now,
            saved_step=trajectory.step,
        )
        return events

    def leave(self, request_id: str) -> None:
        """Forget a request, live or not: it was cancelled, or a newer attempt runs elsewhere."""
        self._live.pop(request_id, None)

    @torch.inference_mode()
    def hand_out(self, request_ids: Collection[str]) -> Sequence[Event]:
        """Forget these requests, as far as they are live: a checkpoint of each, then Preempted."""
        events: list[Event] = []
        for request_id in request_ids:
            if live := self._live.pop(request_id, None):
                events.append(Saved(request_id, live.trajectory.checkpoint()))
                events.append(Failed(request_id, Preempted(live.trajectory.step)))
        return events

    def drain(self) -> Sequence[Event]:
        """Hand out every request."""
        return self.hand_out(self.live)

    def pause(self, request_id: str) -> None:
        """Keep a request without stepping it. Raises KeyError when it is not live."""
        self._live[request_id].paused = True

    def resume(self, request_id: str) -> None:
        """Raises KeyError when it is not live."""
        live = self._live[request_id]
        live.paused, live.waits_since = False, self._clock()

    def abandon(self, error: DiffusionError) -> Sequence[Event]:
        """Fail every request with `error`."""
        events = [Failed(request_id, error) for request_id in self._live]
        self._live.clear()
        return events

    @property
    def live(self) -> Sequence[str]:
        return tuple(self._live)

    @property
    def has_work(self) -> bool:
        return any(not live.paused for live in self._live.values())

    @torch.inference_mode()
    def tick(self) -> Sequence[Event]:
        """One UNet step of as many requests of one shape as fit, and what came of it."""
        events: list[Event] = list(self._drop_late())
        now = self._clock()
        config = self._config
        # Never two such calls in a row: where steps are long, everybody has always waited too long.
        patience_s = math.inf if self._was_patience else config.patience_s
        turns = choose(self._turns(), self._max_rows, now, patience_s, config.mixed_calls)
        if not turns:
            return events
        self._was_patience = now - turns[0].waits_since >= patience_s
        lives = {turn.request_id: self._live[turn.request_id] for turn in turns}
        trajectories = [live.trajectory for live in lives.values()]
        if changes := self._pass_turns(lives):
            self._turned(changes)
        begun = time.perf_counter()
        self._memory.restart()
        try:
            predictions, rungs = self._calls.predict(
                trajectories, self._max_rows(trajectories[0].bucket)
            )
        except OutOfMemory as e:
            # Not even one row at a time: the first has no place here, the others try on.
            self.out_of_memory += 1
            request_id = turns[0].request_id
            self.leave(request_id)
            return [*events, Failed(request_id, e)]
        self.out_of_memory += len(rungs)
        events += [Degraded(request_id, *rung) for request_id in lives for rung in rungs]
        all_rows = sum(trajectory.rows for trajectory in trajectories)
        for (request_id, live), prediction in zip(lives.items(), predictions, strict=True):
            events += self._moved(request_id, live, prediction)
            live.waits_since = self._clock()
        seconds, peak_bytes = time.perf_counter() - begun, self._memory.bytes()
        self._called(seconds)
        for live, turn in zip(lives.values(), turns, strict=True):
            live.seconds += seconds * turn.rows / all_rows
            if peak_bytes is not None:
                live.peak_memory_bytes = max(peak_bytes, live.peak_memory_bytes or 0)
        return [*events, *self._ended(lives)]

    def self_test(self) -> None:
        """One step of the smallest request. Raises OutOfMemory or NonFiniteLatents where the
        device is of no use any more."""
        self._calls.self_test()

    def call_seconds(self, bucket: Bucket, rows: int) -> float:
        """Measured time of one UNet call on blank rows. Raises OutOfMemory."""
        return self._calls.seconds(bucket, rows)

    def _turns(self) -> Iterator[Turn]:
        for request_id, live in self._live.items():
            if not live.paused:
                trajectory = live.trajectory
                yield Turn(
                    request_id,
                    trajectory.bucket,
                    trajectory.rows,
                    live.priority,
                    live.arrived,
                    live.waits_since,
                    live.deadline,
                )

    def _pass_turns(self, lives: Collection[str]) -> Sequence[Event]:
        """The next call is that of `lives`: what is new about that."""
        changes: list[Event] = []
        for request_id, live in self._live.items():
            has_turn = request_id in lives
            if has_turn != live.has_turn:
                live.has_turn = has_turn
                changes.append(Began(request_id) if has_turn else Paused(request_id))
        return changes

    def _max_rows(self, bucket: object) -> int:
        assert isinstance(bucket, Bucket)
        return min(self._config.max_rows, self._memory_rows(bucket))

    def _moved(
        self, request_id: str, live: _Live, prediction: torch.Tensor | None
    ) -> Iterator[Event]:
        """Apply one request's prediction, None where it was not finite."""
        trajectory = live.trajectory
        if prediction is None:
            if trajectory.retreat():
                step, how = trajectory.step + 1, self._calls.safe_precision
                yield Degraded(request_id, "safe_precision", f"NaN or Inf at step {step}: {how}")
            else:
                self.leave(request_id)
                yield Failed(request_id, NonFiniteLatents(trajectory.step + 1))
            return
        trajectory.move(prediction)
        self.steps_done += 1
        yield Stepped(request_id, trajectory.step)

    def _ended(self, lives: dict[str, _Live]) -> Iterator[Event]:
        """Checkpoints that are due and results that are done."""
        now = self._clock()
        for request_id, live in lives.items():
            trajectory = live.trajectory
            if trajectory.is_done:
                self.leave(request_id)
                yield Saved(request_id, trajectory.checkpoint())
                yield Finished(
                    request_id, trajectory.result(), live.seconds, live.peak_memory_bytes
                )
            elif request_id in self._live and (
                trajectory.step - live.saved_step >= self._config.checkpoint_steps
                or (
                    now - live.saved_at >= self._config.checkpoint_s
                    and trajectory.step > live.saved_step
                )
            ):
                live.saved_at, live.saved_step = now, trajectory.step
                yield Saved(request_id, trajectory.checkpoint())

    def _drop_late(self) -> Iterator[Event]:
        now = self._clock()
        for request_id, live in list(self._live.items()):
            if live.deadline is not None and now > live.deadline:
                self.leave(request_id)
                yield Failed(request_id, DeadlineExceeded(live.trajectory.step))


def denoise(
    model: DenoisingModel,
    params: SamplingParams,
    text: TextCondition,
    image: ImageCondition,
    config: EngineConfig | None = None,
    start: StartLatents | None = None,
) -> Latents:
    """One request alone, from noise or `start` to latents. Raises as `join`, and
    NonFiniteLatents."""
    engine = Engine(model, config or EngineConfig())
    engine.join("alone", params, text, image, start)
    while engine.live:
        for event in engine.tick():
            if isinstance(event, Failed):
                raise event.error
            if isinstance(event, Finished):
                return event.latents
    raise AssertionError("unreachable")
