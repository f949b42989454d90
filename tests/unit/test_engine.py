"""The step engine's manners: who joins, who waits, what is saved, and what it does in distress."""

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from diffusion.checkpoint import Checkpoint
from diffusion.engine import Engine, denoise
from diffusion.engine_config import EngineConfig, TorchOptions
from diffusion.errors import (
    CheckpointMismatch,
    DeadlineExceeded,
    NonFiniteLatents,
    OutOfMemory,
    Preempted,
)
from diffusion.events import Began, Degraded, Event, Finished, Paused, Saved
from diffusion.model_folder import ModelFolder
from diffusion.params import Priority, Sampler
from tests.unit.engine_rig import (
    Clock,
    Models,
    failures,
    params,
    results,
    run,
    saved,
    steps,
)


@pytest.fixture(scope="module")
def models(tiny: ModelFolder) -> Models:
    return Models.load(tiny)


@contextmanager
def before_each_call(models: Models, hook: Callable[[int], None]) -> Iterator[list[int]]:
    """Calls `hook` with the row count before every UNet call; yields the counts of all calls."""
    counts: list[int] = []

    def pre(_module: Any, _args: Any, inputs: dict[str, torch.Tensor]) -> None:
        counts.append(len(inputs["sample"]))
        hook(counts[-1])

    handle = models.unet.unet.register_forward_pre_hook(pre, with_kwargs=True)
    try:
        yield counts
    finally:
        handle.remove()


def nothing(_: int) -> None:
    return None


def test_requests_of_one_shape_share_a_call_and_leave_it_as_they_end(models: Models) -> None:
    engine = Engine(models.unet, EngineConfig(max_rows=8))
    models.join(engine, "short", params(num_inference_steps=2))
    models.join(engine, "long", params(num_inference_steps=4, guidance_scale=1.0))
    models.join(engine, "other shape", params(num_frames=2, num_inference_steps=1))
    with before_each_call(models, nothing) as counts:
        run(engine)
    assert counts == [3, 3, 1, 1, 2]  # the other shape came last, after all of the first


def test_guidance_on_part_of_the_steps_takes_rows_on_those_only(models: Models) -> None:
    engine = Engine(models.unet, EngineConfig())
    wanted = params(num_inference_steps=5, guidance_start=0.2, guidance_stop=0.6)
    models.join(engine, "clip", wanted)
    with before_each_call(models, nothing) as counts:
        run(engine)
    assert counts == [1, 2, 2, 1, 1]
    assert wanted.unet_rows == sum(counts)


def test_a_person_pre_empts_batch_work_at_the_next_tick(models: Models) -> None:
    engine = Engine(models.unet, EngineConfig(max_rows=2), clock=Clock())
    for number in range(3):
        models.join(engine, f"batch{number}", params(), priority=Priority.BATCH)
    events = list(engine.tick())
    models.join(engine, "person", params(num_inference_steps=3))
    for _ in range(3):
        events = list(engine.tick())
    assert [type(e) for e in events if e.request_id == "person"][-1] is Finished
    assert steps(run(engine), "batch0") == [2, 3, 4]  # goes on where it was


def test_batch_work_is_never_starved(models: Models) -> None:
    clock = Clock()
    engine = Engine(models.unet, EngineConfig(max_rows=2, patience_s=5), clock=clock)
    models.join(engine, "batch", params(num_inference_steps=3), priority=Priority.BATCH)
    ticks, done = 0, False
    while not done:
        models.join(engine, f"person{ticks}", params(num_inference_steps=1))
        done = "batch" in results(list(engine.tick()))
        clock.now += 1
        ticks += 1
    assert ticks <= 3 * 6


def test_whose_turn_comes_and_goes_is_told_before_the_call(models: Models) -> None:
    told: list[Event] = []
    engine = Engine(models.unet, EngineConfig(max_rows=2), clock=Clock(), turned=told.extend)
    seen: list[list[Event]] = []

    def tick() -> None:
        engine.tick()
        seen.append(told.copy())
        told.clear()

    models.join(engine, "batch", params(num_inference_steps=3), priority=Priority.BATCH)
    with before_each_call(models, lambda _: seen.append(told.copy())):
        tick()
    assert seen == [[Began("batch")]] * 2  # told before the call, and once
    seen.clear()
    tick()
    models.join(engine, "person", params(num_inference_steps=2))
    models.join(engine, "next", params(num_inference_steps=1))
    for _ in range(4):
        tick()
    assert seen == [
        [],
        [Paused("batch"), Began("person")],
        [],
        [Began("next")],
        [Began("batch")],
    ]
    assert engine.live == ()


def test_who_has_waited_too_long_takes_the_turn_of_others(models: Models) -> None:
    clock, told = Clock(), list[Event]()
    config = EngineConfig(max_rows=2, patience_s=5)
    engine = Engine(models.unet, config, clock=clock, turned=told.extend)
    models.join(engine, "person", params(num_inference_steps=9))
    models.join(engine, "batch", params(num_inference_steps=9), priority=Priority.BATCH)
    for _ in range(2):
        engine.tick()
        clock.now += 3
    assert told == [Began("person")]
    engine.tick()
    assert told[1:] == [Paused("person"), Began("batch")]
    engine.tick()
    assert told[3:] == [Began("person"), Paused("batch")]


def test_deadlines_pauses_and_leaving(models: Models) -> None:
    clock = Clock()
    engine = Engine(models.unet, EngineConfig(), clock=clock)
    models.join(engine, "late", params(num_inference_steps=50), deadline_s=3)
    models.join(engine, "paused", params(num_inference_steps=2))
    models.join(engine, "left", params(num_inference_steps=50))
    engine.pause("paused")
    for _ in range(3):
        assert "paused" not in {e.request_id for e in engine.tick()}
        clock.now += 1
    engine.leave("left")
    clock.now += 1
    late = failures(list(engine.tick()))["late"]
    assert isinstance(late, DeadlineExceeded)
    assert late.step == 3
    assert not engine.has_work
    assert engine.live == ("paused",)
    engine.resume("paused")
    assert list(results(run(engine))) == ["paused"]


def test_a_live_id_cannot_join_again(models: Models) -> None:
    engine = Engine(models.unet, EngineConfig())
    models.join(engine, "clip", params())
    with pytest.raises(ValueError, match="live already"):
        models.join(engine, "clip", params())


def test_checkpoints_come_every_so_many_steps_or_seconds(models: Models) -> None:
    clock = Clock()
    engine = Engine(models.unet, EngineConfig(checkpoint_steps=3, checkpoint_s=10), clock=clock)
    models.join(engine, "clip", params(num_inference_steps=9))
    assert [e.checkpoint.step for e in saved(run(engine), "clip")] == [3, 6, 9]
    models.join(engine, "slow", params(num_inference_steps=4))
    clock.now += 11
    assert [e.checkpoint.step for e in saved(list(engine.tick()), "slow")] == [1]


@pytest.mark.parametrize("sampler", Sampler)
def test_draining_loses_no_step(models: Models, sampler: Sampler) -> None:
    wanted = params(num_inference_steps=7, sampler=sampler)
    engine = Engine(models.unet, EngineConfig())
    models.join(engine, "clip", wanted)
    for _ in range(4):
        engine.tick()
    events = list(engine.drain())
    (preempted,) = failures(events).values()
    assert isinstance(preempted, Preempted)
    assert preempted.step == 4
    assert engine.live == ()
    (left,) = saved(events, "clip")
    fresh = Engine(models.unet, EngineConfig())
    models.join(fresh, "clip", wanted, checkpoint=Checkpoint.from_bytes(left.checkpoint.to_bytes()))
    events = run(fresh)
    assert steps(events, "clip") == [5, 6, 7]
    assert (results(events)["clip"] - models.alone(wanted)).abs().max() <= 5e-5


def _checkpoint(models: Models) -> Checkpoint:
    engine = Engine(models.unet, EngineConfig())
    models.join(engine, "clip", params())
    engine.tick()
    (left,) = (e for e in engine.drain() if isinstance(e, Saved))
    return left.checkpoint


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda data: data[:-1], "cannot be read"),
        (lambda data: b"", "cannot be read"),
        (lambda data: data.replace(b"tiny", b"tino"), "other weights"),
        (lambda data: data.replace(b"1+diff", b"0+diff"), "was made by 0"),
        (lambda data: data.replace(b"a blue", b"a pink"), "another request"),
    ],
)
def test_what_is_not_its_checkpoint_is_refused_and_the_clip_begins_again(
    models: Models, spoil: Callable[[bytes], bytes], says: str
) -> None:
    data = spoil(_checkpoint(models).to_bytes())
    with pytest.raises(CheckpointMismatch, match=says):
        Checkpoint.from_bytes(data).check(params(), "tiny")
    if says == "cannot be read":
        return
    engine = Engine(models.unet, EngineConfig())
    text, image = models.conditions("a blue vase turns", 32, 32)
    events = engine.join("clip", params(), text, image, checkpoint=Checkpoint.from_bytes(data))
    (refused,) = events
    assert isinstance(refused, Degraded)
    assert refused.kind == "checkpoint_refused"
    assert torch.equal(results(run(engine))["clip"], models.alone(params()))


# Distress.


def refuse_more_than(rows: int) -> Callable[[int], None]:
    def hook(count: int) -> None:
        if count > rows:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0")

    return hook


def test_the_memory_ladder_of_the_unet_is_exact_and_remembered(models: Models) -> None:
    alone = models.alone(params())
    engine = Engine(models.unet, EngineConfig())
    models.join(engine, "clip", params())
    with before_each_call(models, refuse_more_than(1)) as counts:
        events = run(engine)
    degraded = [e for e in events if isinstance(e, Degraded)]
    assert [e.kind for e in degraded] == ["chunked_unet", "solo_rows"]
    assert degraded[0].detail == "CUDA out of memory"
    assert counts == [2, 2, *[1] * 8]  # tried twice, then row by row to the end
    assert (results(events)["clip"] - alone).abs().max() <= 5e-5
    assert engine.out_of_memory == 2
    engine.self_test()


def test_one_row_too_large_fails_its_request_and_no_other(models: Models) -> None:
    engine = Engine(models.unet, EngineConfig())
    models.join(engine, "large", params(num_frames=5))
    models.join(engine, "small", params())

    def hook(module: Any, args: Any, inputs: dict[str, torch.Tensor]) -> None:
        if inputs["sample"].shape[2] == 5:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB.")

    handle = models.unet.unet.register_forward_pre_hook(hook, with_kwargs=True)
    events = run(engine)
    handle.remove()
    assert isinstance(failures(events)["large"], OutOfMemory)
    assert (results(events)["small"] - models.alone(params())).abs().max() <= 5e-5


def poison(times: int) -> Callable[..., Any]:
    """A UNet whose first `times` answers are NaN in the last row."""
    left = [times]

    def hook(_module: Any, _args: Any, answer: tuple[torch.Tensor]) -> Any:
        if left[0] == 0:
            return answer
        left[0] -= 1
        spoilt = answer[0].clone()
        spoilt[-1, 0, 0, 0, 0] = float("nan")
        return (spoilt,)

    return hook


def test_a_nan_is_tried_once_more_and_spoils_no_neighbour(models: Models) -> None:
    for times, ends in ((1, Finished), (2, NonFiniteLatents)):
        engine = Engine(models.unet, EngineConfig())
        models.join(engine, "neighbour", params(seed=2))
        models.join(engine, "clip", params())
        hook = models.unet.unet.register_forward_hook(poison(times))
        # The second answer must be the clip's again, on its own bucket, so it runs alone now.
        engine.tick()
        engine.pause("neighbour")
        events = list(engine.tick())
        hook.remove()
        engine.resume("neighbour")
        events += run(engine)
        found = results(events)
        assert (found["neighbour"] - models.alone(params(seed=2))).abs().max() <= 5e-5
        if ends is Finished:
            assert (found["clip"] - models.alone(params())).abs().max() <= 5e-5
        else:
            assert isinstance(failures(events)["clip"], NonFiniteLatents)


def test_half_precision_that_overflows_goes_on_in_bfloat16(tiny: ModelFolder) -> None:
    models = Models.load(tiny, torch.float16)
    seen: list[bool] = []

    def hook(module: Any, _args: Any, answer: tuple[torch.Tensor]) -> Any:
        seen.append(module.dtype == torch.bfloat16)
        return answer if seen[-1] else (torch.full_like(answer[0], float("inf")),)

    handle = models.unet.unet.register_forward_hook(hook)
    wanted = params(num_inference_steps=3)
    text, image = models.conditions(wanted.prompt, 32, 32)
    found = denoise(models.unet, wanted, text, image).latents.to(torch.device("cpu"), torch.float32)
    handle.remove()
    assert seen == [False, True, True, True]  # and stays there
    assert torch.isfinite(found).all()


def test_the_self_test_tells_a_dead_device(models: Models) -> None:
    engine = Engine(models.unet, EngineConfig())
    engine.self_test()
    with before_each_call(models, refuse_more_than(0)), pytest.raises(OutOfMemory):
        engine.self_test()


def test_rows_are_halved_before_they_go_one_by_one(models: Models) -> None:
    engine = Engine(models.unet, EngineConfig())
    for number in range(3):
        models.join(engine, f"clip{number}", params(seed=number, num_inference_steps=2))
    with before_each_call(models, refuse_more_than(3)) as counts:
        events = run(engine)
    kinds = [e.kind for e in events if isinstance(e, Degraded) and e.request_id == "clip0"]
    assert kinds == ["chunked_unet", "fewer_rows"]
    assert counts == [6, 6, 3, 3, 3, 3]
    for number in range(3):
        alone = models.alone(params(seed=number, num_inference_steps=2))
        assert (results(events)[f"clip{number}"] - alone).abs().max() <= 5e-5


def test_running_out_of_memory_keeps_no_tensor_of_the_failed_call(models: Models) -> None:
    alive: list[weakref.ref[torch.Tensor]] = []

    def hook(_module: Any, _args: Any, inputs: dict[str, torch.Tensor]) -> None:
        activation = torch.zeros(10)
        alive.append(weakref.ref(activation))
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0")

    engine = Engine(models.unet, EngineConfig())
    models.join(engine, "clip", params())
    handle = models.unet.unet.register_forward_pre_hook(hook, with_kwargs=True)
    events = run(engine)
    handle.remove()
    assert isinstance(failures(events)["clip"], OutOfMemory)
    assert len(alive) == 3  # plain, chunked, row by row
    assert [ref() for ref in alive] == [None] * 3


def test_patience_takes_at_most_every_second_call(models: Models) -> None:
    """Where a step is longer than the patience, people would get one step in so many clips."""
    clock = Clock()
    engine = Engine(models.unet, EngineConfig(max_rows=2, patience_s=1), clock=clock)
    for number in range(3):
        models.join(engine, f"batch{number}", params(), priority=Priority.BATCH)
    models.join(engine, "person", params(num_inference_steps=4))
    ticks = 0
    while "person" in engine.live:
        clock.now += 5
        engine.tick()
        ticks += 1
    assert ticks <= 8


@pytest.mark.parametrize(
    "options",
    [
        TorchOptions(channels_last=True),
        TorchOptions(chunk_feed_forward=True),
        TorchOptions(sdpa_backend="math"),
    ],
    ids=str,
)
def test_torch_options_change_nothing_but_speed(tiny: ModelFolder, options: TorchOptions) -> None:
    expected = Models.load(tiny).alone(params())
    found = Models.load(tiny).alone(params(), EngineConfig(torch=options))
    assert (found - expected).abs().max() <= 5e-5


@pytest.mark.parametrize(
    ("row_counts", "expected"), [((), [3, 3, 2]), ((8,), [3, 3, 2]), ((2, 8), [2, 2, 2, 2])]
)
def test_rows_are_split_where_attention_kernels_end(
    models: Models,
    monkeypatch: pytest.MonkeyPatch,
    row_counts: tuple[int, ...],
    expected: list[int],
) -> None:
    monkeypatch.setattr("diffusion.unet_call.ATTENTION_BATCH", 3 * 4 * 4)  # latents are 4 x 4
    engine = Engine(models.unet, EngineConfig(row_counts=row_counts))
    for number in range(4):
        models.join(engine, f"clip{number}", params(seed=number, num_inference_steps=1))
    with before_each_call(models, nothing) as counts:
        found = results(run(engine))
    assert counts == expected
    for number in range(4):
        alone = models.alone(params(seed=number, num_inference_steps=1))
        assert (found[f"clip{number}"] - alone).abs().max() <= 5e-5


def test_every_call_is_told_of_once_however_many_share_it(models: Models) -> None:
    told: list[float] = []
    engine = Engine(models.unet, EngineConfig(max_rows=8), called=told.append)
    models.join(engine, "a", params(num_inference_steps=2))
    models.join(engine, "b", params(num_inference_steps=3))
    seconds = {e.request_id: e.seconds for e in run(engine) if isinstance(e, Finished)}
    assert len(told) == 3
    assert sum(told) == pytest.approx(sum(seconds.values()))
