"""Seconds and bytes of a request per tier."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.capacity import CUDA_CONTEXT_GB
from cluster.cost import GB, NEWEST_WEIGHT, Calibration, CostModel, replica_bytes
from cluster.tiers import CameraTierConfig, TierConfig
from diffusion.model_folder import ModelConfig
from diffusion.params import SamplingParams
from tests.sample_model import ARCHITECTURE

STANDARD = SamplingParams("a bag turns", "", 512, 512, 16, 50, 9.0, 16, seed=1)
LARGE = replace(STANDARD, width=1280, height=704, num_frames=24)


def tier(name: str = "a", vram_gb: float = 0.0, num_gpus: float = 1.0) -> TierConfig:
    return TierConfig(name=name, vram_gb=vram_gb, num_gpus=num_gpus, tflops=40.0)


def cost_model(*tiers: TierConfig, **calibrations: Calibration) -> CostModel:
    return CostModel(ARCHITECTURE, tiers or [tier()], ModelConfig(source="i2vgen-xl"), calibrations)


sides = st.integers(1, 24).map(lambda n: n * 64)
samplings = st.builds(
    SamplingParams,
    prompt=st.just(""),
    negative_prompt=st.just(""),
    width=sides,
    height=sides,
    num_frames=st.integers(2, 32),
    num_inference_steps=st.integers(1, 80),
    guidance_scale=st.sampled_from([1.0, 9.0]),
    motion_fps=st.just(16),
    seed=st.just(1),
    guidance_start=st.floats(0, 0.5),
    guidance_stop=st.floats(0.5, 1),
)


def test_seconds_are_flops_over_the_rate() -> None:
    # 20.935 TFLOP a row, two rows a step; test_memory traces it.
    assert cost_model().seconds(STANDARD, "a") == pytest.approx(50 * 2 * 20.935 / 40, rel=1e-3)


def test_a_step_without_guidance_costs_half() -> None:
    cost = cost_model()
    guided = cost.seconds(STANDARD, "a")
    assert cost.seconds(replace(STANDARD, guidance_scale=1.0), "a") == pytest.approx(guided / 2)
    partly = replace(STANDARD, guidance_stop=0.4)
    assert cost.seconds(partly, "a") == pytest.approx(guided * 0.7)
    assert cost.seconds(partly, "a", steps_done=20) == pytest.approx(guided * 0.3)


def test_only_the_steps_that_are_run_cost() -> None:
    cost = cost_model()
    whole, tail = cost.seconds(STANDARD, "a"), replace(STANDARD, motion_strength=0.4)
    assert cost.seconds(tail, "a") == pytest.approx(whole * 20 / 50)
    assert cost.seconds(tail, "a", steps_done=5) == pytest.approx(whole * 15 / 50)
    assert cost.seconds(tail, "a", steps_done=20) == 0
    early = replace(tail, guidance_stop=0.8)  # ten of its steps are before it, ten after
    assert cost.seconds(early, "a") == pytest.approx(whole * 15 / 50)
    assert cost.seconds(replace(STANDARD, motion_strength=1.0), "a") == whole
    cost.observe("a", tail, 0, cost.seconds(tail, "a"))
    assert cost.tflops("a") == pytest.approx(40)


def test_frames_to_begin_at_take_less_than_half_of_what_decoding_takes() -> None:
    cost, tail = cost_model(), replace(STANDARD, motion_strength=0.4)
    assert cost.encode_share(tail) == pytest.approx(0.444, abs=0.001)
    assert cost.encode_share(STANDARD) == cost.encode_share(replace(tail, motion_strength=1.0)) == 0


@given(samplings, st.data())
def test_steps_done_are_paid(sampling: SamplingParams, data: st.DataObject) -> None:
    cost = cost_model()
    steps = sampling.num_inference_steps
    done = data.draw(st.integers(0, steps - 1))
    left, less = (cost.seconds(sampling, "a", steps_done=n) for n in (done, done + 1))
    one_row = cost.seconds(replace(sampling, guidance_scale=1.0), "a") / steps
    assert left - less == pytest.approx(one_row * (1 + sampling.is_guided(done)))
    assert cost.seconds(sampling, "a", steps_done=steps) == 0


@given(samplings, st.sampled_from(["width", "height", "num_frames", "num_inference_steps"]))
def test_more_of_anything_takes_longer(sampling: SamplingParams, what: str) -> None:
    by = 64 if what in ("width", "height") else 1
    more = replace(sampling, **{what: getattr(sampling, what) + by})
    cost = cost_model()
    # A further step may move one of the others out of the guided ones.
    assert cost.seconds(more, "a") >= cost.seconds(sampling, "a")
    if what == "num_inference_steps":
        assert cost.needs_bytes(more, "a") == cost.needs_bytes(sampling, "a")
    else:
        assert cost.needs_bytes(more, "a") > cost.needs_bytes(sampling, "a")


def test_memory_is_that_of_one_row_in_parts_whatever_the_guidance() -> None:
    cost = cost_model()
    needed = ARCHITECTURE.denoiser_bytes(512, 512, 16, rows=1, dtype_bytes=2, chunked=True)
    assert cost.needs_bytes(STANDARD, "a") == needed
    assert cost.needs_bytes(replace(STANDARD, guidance_scale=1.0), "a") == needed


def test_a_cpu_has_twice_the_bytes_of_half_precision() -> None:
    cost = cost_model(tier("gpu"), tier("cpu", num_gpus=0))
    half, full = (cost.needs_bytes(STANDARD, name) for name in ("gpu", "cpu"))
    assert full == pytest.approx(2 * half, abs=1)


@pytest.mark.parametrize(
    ("vram_gb", "num_gpus", "gigabytes"),
    [
        (24, 0.5, 12),
        (24, 1, 24 - CUDA_CONTEXT_GB),
        (24, 0.99, 24 - CUDA_CONTEXT_GB),
        (24, 2, 24 - CUDA_CONTEXT_GB),  # the UNet runs on one card
        (0, 1, float("inf")),
        (24, 0, float("inf")),
    ],
)
def test_what_a_replica_has(vram_gb: float, num_gpus: float, gigabytes: float) -> None:
    assert replica_bytes(tier("a", vram_gb, num_gpus)) == pytest.approx(gigabytes * GB)


def test_only_tiers_whose_memory_holds_it_fit() -> None:
    cost = cost_model(tier("small", 4), tier("half", 8, 0.5), tier("large", 24), tier("unknown", 0))
    assert [t.name for t in cost.fits(STANDARD)] == ["large", "unknown"]
    assert [t.name for t in cost_model(tier("small", 5), tier("half", 10, 0.5)).fits(STANDARD)] == [
        "small",
        "half",
    ]


def test_measured_bytes_decide_what_fits() -> None:
    calibration = Calibration("a", "NVIDIA L4", 30.0, 0.0, bytes_factor=3.0)
    assert cost_model(tier("a", 8)).fits(STANDARD)
    assert not cost_model(tier("a", 8), a=calibration).fits(STANDARD)


def test_what_fits_is_the_largest_that_fits() -> None:
    assert cost_model(tier("a", 24)).largest_that_fits(STANDARD) == (512, 512, 16)
    assert cost_model(tier("a", 0)).largest_that_fits(LARGE) == (1280, 704, 24)


@given(samplings, st.floats(3.5, 80))
def test_the_largest_that_fits_fits_and_the_next_larger_one_does_not(
    sampling: SamplingParams, vram_gb: float
) -> None:
    cost = cost_model(tier("a", vram_gb), tier("half", vram_gb, 0.5))
    found = cost.largest_that_fits(sampling)
    if found is None:
        assert not cost.fits(replace(sampling, width=64, height=64, num_frames=8))
        return
    width, height, frames = found
    smaller = replace(sampling, width=width, height=height, num_frames=frames)
    assert cost.fits(smaller)
    assert width % 64 == height % 64 == 0
    assert width <= sampling.width
    assert height <= sampling.height
    # Both sides are the same part of what was asked, to half a multiple.
    assert abs(width / sampling.width * sampling.height - height) <= 64 * max(
        1, sampling.height / sampling.width
    )
    if (width, height, frames) == (sampling.width, sampling.height, sampling.num_frames):
        return
    if frames < sampling.num_frames:  # no size had fitted
        assert not cost.fits(replace(sampling, width=64, height=64))
    else:
        scale = (max(width, height) + 64) / max(sampling.width, sampling.height)
        larger = replace(
            smaller,
            width=max(64, round(sampling.width * scale / 64) * 64),
            height=max(64, round(sampling.height * scale / 64) * 64),
        )
        assert not cost.fits(larger)


def test_nothing_fits_where_the_weights_alone_do_not() -> None:
    assert cost_model(tier("a", 2)).largest_that_fits(STANDARD) is None


def test_frames_go_only_when_no_size_fits() -> None:
    needs = cost_model().needs_bytes
    sampling = replace(STANDARD, num_frames=32)
    for frames in (24, 16, 8):
        least = needs(replace(sampling, width=64, height=64, num_frames=frames), "a")
        cost = cost_model(tier("a", least / GB + CUDA_CONTEXT_GB + 1e-6))
        assert cost.largest_that_fits(sampling) == (64, 64, frames)


def test_a_calibrated_tier_goes_by_what_was_measured() -> None:
    cost = cost_model(tier("a"), tier("b"), a=Calibration("a", "NVIDIA H200", 160.0, 1e9))
    assert cost.seconds(STANDARD, "b") == pytest.approx(4 * cost.seconds(STANDARD, "a"))


def test_the_first_measurement_replaces_what_was_configured_and_later_ones_move_it() -> None:
    cost = cost_model()
    half = cost.seconds(STANDARD, "a") / 2
    cost.observe("a", STANDARD, 0, half)
    assert cost.seconds(STANDARD, "a") == pytest.approx(half)
    assert cost.tflops("a") == pytest.approx(80)
    cost.observe("a", STANDARD, 0, 2 * half)
    assert cost.tflops("a") == pytest.approx(80 - NEWEST_WEIGHT * 40)


def test_a_resumed_request_counts_for_the_steps_it_took() -> None:
    cost = cost_model()
    cost.observe("a", STANDARD, 40, cost.seconds(STANDARD, "a", steps_done=40))
    assert cost.tflops("a") == pytest.approx(40)
    cost.observe("a", STANDARD, 50, 0.01)  # resumed after the last one: nothing to learn
    assert cost.tflops("a") == pytest.approx(40)


@given(samplings, st.floats(5, 500))
def test_many_equal_measurements_become_the_rate(sampling: SamplingParams, tflops: float) -> None:
    cost = cost_model(a=Calibration("a", "NVIDIA L4", 40.0, 1e9))
    seconds = cost.seconds(sampling, "a") * 40 / tflops
    for _ in range(60):
        cost.observe("a", sampling, 0, seconds)
    assert cost.seconds(sampling, "a") == pytest.approx(seconds, rel=1e-3)


def test_tiers_are_told_apart() -> None:
    cost = cost_model(tier("a"), tier("b"))
    cost.observe("a", STANDARD, 0, 1.0)
    assert cost.tflops("b") == 40.0
    with pytest.raises(KeyError):
        cost.seconds(STANDARD, "c")


def test_a_calibration_is_stored_as_json() -> None:
    calibration = Calibration("a", "NVIDIA H200", 160.0, 1e9, 1.07)
    assert Calibration.from_json(calibration.to_json()) == calibration


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"tier": "a", "device": "d", "tflops": 0, "measured_at": 1}',
        b'{"tier": "a", "device": "d", "tflops": "fast", "measured_at": 1}',
        b'{"tier": "a", "device": "d", "tflops": 1, "measured_at": 1, "colour": "red"}',
    ],
)
def test_what_is_no_calibration_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="calibration|Expecting"):
        Calibration.from_json(data)


def test_a_rendered_clip_costs_pixels_on_its_own_tier() -> None:
    camera = CameraTierConfig(mpx_per_s=10)
    cost = cost_model(tier("a"), camera)
    rendered = replace(STANDARD, num_inference_steps=0, num_frames=48)
    assert cost.tiers_for(rendered) == ["camera"]
    assert cost.tiers_for(STANDARD) == ["a"]
    assert cost.seconds(rendered, "camera") == pytest.approx(48 * 512**2 / 10e6)
    without = cost_model(tier("a"))
    assert without.tiers_for(rendered) == []
