"""A clip that does not fit: the card is capped to less than its UNet call takes, for real."""

from dataclasses import replace
from typing import Any

from benchmarks.card import CappedCard
from benchmarks.models import conditions
from benchmarks.torch_variants import ROWS
from diffusion.engine import Engine
from diffusion.engine_config import EngineConfig
from diffusion.errors import DiffusionError
from diffusion.events import Degraded, Failed, Finished
from diffusion.memory import Architecture
from diffusion.params import SamplingParams
from diffusion.weights import DenoisingModel

STEPS = 3


def step_down(
    card: CappedCard,
    model: DenoisingModel,
    architecture: Architecture,
    large: SamplingParams,
    small: SamplingParams,
) -> dict[str, Any]:
    """Under caps between the rungs' predicted peaks: what the engine went through, and whether it
    still makes `small` afterwards, in the same process."""
    size = (large.width, large.height, large.num_frames)

    def needs(rows: int, chunked: bool) -> int:
        return architecture.unet_bytes(*size, rows, card.dtype.itemsize, chunked)

    plain, chunked, solo = needs(ROWS, False), needs(ROWS, True), needs(1, True)
    caps = {
        "less than the plain call": (plain + chunked) // 2,
        "less than with a chunked feed forward": (chunked + solo) // 2,
        "less than one row": solo // 2,
    }
    figures = {}
    for name, activations in caps.items():
        cap = card.taken_bytes() + activations
        with card.cap(cap):
            figures[name] = {"cap_mb": round(cap / 1e6)} | _try(model, large, small)
    return figures


def _try(model: DenoisingModel, large: SamplingParams, small: SamplingParams) -> dict[str, Any]:
    engine = Engine(model, EngineConfig())
    events = _run(engine, model, large)
    report: dict[str, Any] = {
        "rungs": [event.kind for event in events if isinstance(event, Degraded)],
        "large_clip": _end(events),
    }
    try:
        engine.self_test()
        report["self_test_after"] = "passed"
    except DiffusionError as error:
        report["self_test_after"] = repr(error)
    return report | {"small_clip_after": _end(_run(engine, model, small))}


def _run(engine: Engine, model: DenoisingModel, params: SamplingParams) -> list[Any]:
    short = replace(params, num_inference_steps=STEPS)
    events = list(engine.join("clip", short, *conditions(model, short)))
    while engine.live:
        events += engine.tick()
    return events


def _end(events: list[Any]) -> str:
    last = events[-1]
    if isinstance(last, Finished):
        return "finished"
    return repr(last.error) if isinstance(last, Failed) else repr(last)
