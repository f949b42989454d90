"""Company changes no clip: any interleaving gives each request the latents of its solo run."""

from dataclasses import dataclass, field

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from diffusion.checkpoint import Checkpoint
from diffusion.engine import Engine
from diffusion.engine_config import EngineConfig
from diffusion.events import Saved
from diffusion.model_folder import ModelFolder
from diffusion.params import Priority, Sampler, SamplingParams, TimestepSpacing
from diffusion.samplers import make_scheduler
from tests.unit.engine_rig import Models, params, results

TOLERANCE = 5e-5


@pytest.fixture(scope="module")
def models(tiny: ModelFolder) -> Models:
    return Models.load(tiny)


sampling = st.builds(
    params,
    width=st.sampled_from([32, 48]),
    num_frames=st.sampled_from([2, 3]),
    num_inference_steps=st.integers(1, 6),
    guidance_scale=st.sampled_from([1.0, 4.0, 9.0]),
    guidance_start=st.sampled_from([0.0, 0.3]),
    guidance_stop=st.sampled_from([0.6, 1.0]),
    motion_fps=st.sampled_from([8, 16]),
    seed=st.integers(0, 3),
    sampler=st.sampled_from(Sampler),
    timestep_spacing=st.sampled_from(TimestepSpacing),
    # A step at least, of whatever count is drawn above.
    motion_strength=st.sampled_from([None, None, 1.0]),
) | st.builds(
    params,
    num_frames=st.sampled_from([2, 3]),
    num_inference_steps=st.integers(4, 8),
    guidance_scale=st.sampled_from([1.0, 9.0]),
    guidance_start=st.sampled_from([0.0, 0.7]),
    seed=st.integers(0, 3),
    sampler=st.sampled_from(Sampler),
    timestep_spacing=st.sampled_from(TimestepSpacing),
    motion_strength=st.sampled_from([0.25, 0.4, 0.8]),
)


@dataclass
class Plan:
    """What happens to one request, by tick."""

    params: SamplingParams
    joins: int
    priority: Priority
    cancelled: int | None = None
    paused: tuple[int, int] | None = None  # from, for how many ticks
    moves: int | None = None  # to another engine, by its checkpoint's bytes
    done: bool = field(default=False, compare=False)


plans = st.builds(
    Plan,
    params=sampling,
    joins=st.integers(0, 6),
    priority=st.sampled_from(Priority),
    cancelled=st.one_of(st.none(), st.none(), st.integers(0, 8)),
    paused=st.one_of(st.none(), st.tuples(st.integers(0, 8), st.integers(1, 4))),
    moves=st.one_of(st.none(), st.integers(0, 8)),
)
configs = st.builds(
    EngineConfig,
    max_rows=st.integers(1, 8),
    row_counts=st.sampled_from([(), (4,), (1, 2, 8)]),
    patience_s=st.sampled_from([0.1, 10.0]),
    checkpoint_steps=st.integers(1, 4),
)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(plans, min_size=1, max_size=5), configs)
def test_any_interleaving_gives_the_solo_latents(
    models: Models, todo: list[Plan], config: EngineConfig
) -> None:
    engines = [Engine(models.unet, config), Engine(models.unet, config)]
    where = dict.fromkeys(map(str, range(len(todo))), 0)
    finished: dict[str, torch.Tensor] = {}
    for tick in range(200):
        for name, plan in zip(where, todo, strict=True):
            engine = engines[where[name]]
            if tick == plan.joins:
                models.join(engine, name, plan.params, priority=plan.priority)
            if name not in engine.live:
                continue
            if tick == plan.cancelled:
                engine.leave(name)
            elif plan.paused and tick == plan.paused[0]:
                engine.pause(name)
            elif plan.paused and tick == sum(plan.paused):
                engine.resume(name)
            elif tick == plan.moves:
                others = [e for e in engine.drain() if isinstance(e, Saved)]
                for moved in others:  # the whole engine leaves
                    where[moved.request_id] = 1 - where[moved.request_id]
                    there = engines[where[moved.request_id]]
                    models.join(
                        there,
                        moved.request_id,
                        todo[int(moved.request_id)].params,
                        checkpoint=Checkpoint.from_bytes(moved.checkpoint.to_bytes()),
                    )
        for engine in engines:
            finished |= results(list(engine.tick()))
    expected = {name for name, plan in zip(where, todo, strict=True) if plan.cancelled is None}
    assert expected <= finished.keys()
    for name, latents in finished.items():
        alone = models.alone(todo[int(name)].params)
        assert (latents - alone).abs().max().item() <= TOLERANCE


def test_padding_to_one_row_count_gives_equal_bits(tiny: ModelFolder) -> None:
    """What `row_counts` promises, in half precision, wherever the request stands in the call."""
    models = Models.load(tiny, torch.bfloat16)
    config = EngineConfig(row_counts=(8,))
    wanted = params(num_inference_steps=5)
    alone = models.alone(wanted, config)
    for company in range(1, 4):
        engine = Engine(models.unet, config)
        for other in range(company):
            models.join(engine, f"other{other}", params(seed=other, num_inference_steps=2 + other))
        models.join(engine, "wanted", wanted)
        found: dict[str, torch.Tensor] = {}
        while engine.has_work:
            found |= results(list(engine.tick()))
        assert torch.equal(found["wanted"], alone)


@pytest.mark.parametrize("sampler", Sampler)
@pytest.mark.parametrize("spacing", TimestepSpacing)
def test_every_sampler_takes_the_steps_asked_for(
    sampler: Sampler, spacing: TimestepSpacing, models: Models
) -> None:
    for steps in range(1, 201):
        wanted = params(sampler=sampler, timestep_spacing=spacing, num_inference_steps=steps)
        scheduler = make_scheduler(models.unet.scheduler.config, wanted)
        assert len(scheduler.timesteps) == steps == len(scheduler.timesteps.unique())
        if spacing is TimestepSpacing.TRAILING:
            assert scheduler.timesteps[0] == 999
        if sampler is not Sampler.DDIM:
            assert (len(scheduler.sigmas), scheduler.sigmas[-1]) == (steps + 1, 0)
