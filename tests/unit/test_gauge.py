"""What a replica sustains and takes, measured by the engine that it is about."""

import statistics
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch

from diffusion.engine import Engine
from diffusion.engine_config import EngineConfig
from diffusion.engine_thread import EngineThread
from diffusion.errors import OutOfMemory
from diffusion.gauge import REPEATS, WARM_UPS, Gauge, Measured, Sample, device_name
from diffusion.memory import Architecture
from diffusion.model_folder import ModelFolder
from diffusion.params import SamplingParams
from diffusion.trajectory import Bucket
from diffusion.weights import load_denoising_model
from tests.unit.engine_rig import CPU, Models, params

SMALL, LARGE = params(), params(width=64, height=48, num_frames=4)


class Timed(Engine):
    """An engine whose calls take what a test says, and which remembers them."""

    takes: Callable[[Bucket, int], float]

    def call_seconds(self, bucket: Bucket, rows: int) -> float:
        self.calls = [*getattr(self, "calls", []), (bucket, rows)]
        return self.takes(bucket, rows)


class Rig:
    def __init__(self, folder: ModelFolder):
        self.models = Models.load(folder)
        self.engine = Timed(self.models.unet, EngineConfig())
        self.thread = EngineThread(self.engine, lambda _: None)
        self.architecture = Architecture.of(folder)
        self.gauge = Gauge(self.thread, self.architecture, CPU, torch.float32, False)

    def flops(self, clip: SamplingParams) -> float:
        return self.architecture.unet_flops(clip.width, clip.height, clip.num_frames)


@pytest.fixture
def rig(tiny: ModelFolder) -> Iterator[Rig]:
    rig = Rig(tiny)
    yield rig
    rig.thread.stop()


def test_the_rate_is_of_all_shapes_together_and_memory_of_the_worst() -> None:
    measured = Measured.of("card", [Sample(1e12, 0.1, 0.9), Sample(9e12, 0.4, 1.2)])
    assert measured == Measured("card", 20.0, 1.2)


def test_guided_steps_are_timed_by_their_median_without_the_first(rig: Rig) -> None:
    rest = iter([0.3, 0.1, 0.2, 0.9, 0.4] * 2)
    shapes: set[Bucket] = set()

    def takes(bucket: Bucket, rows: int) -> float:
        first = bucket not in shapes
        shapes.add(bucket)
        return 100.0 if first else next(rest)

    rig.engine.takes = takes
    measured = rig.gauge.measure([SMALL, LARGE])
    median = statistics.median([0.3, 0.1, 0.2, 0.9, 0.4])
    expected = 2 * (rig.flops(SMALL) + rig.flops(LARGE)) / (2 * median) / 1e12
    assert measured.tflops == pytest.approx(expected)
    assert (measured.device, measured.bytes_factor) == (device_name(CPU), 1.0)
    small, large = Bucket(3, 4, 4), Bucket(4, 6, 8)
    each = WARM_UPS + REPEATS
    assert rig.engine.calls == [(small, 2)] * each + [(large, 2)] * each


def test_a_card_without_room_for_two_rows_is_measured_with_one(rig: Rig) -> None:
    def takes(bucket: Bucket, rows: int) -> float:
        if rows > 1 or bucket.num_frames > 3:
            raise OutOfMemory("tried to allocate 1 GiB")
        return 0.5

    rig.engine.takes = takes
    measured = rig.gauge.measure([SMALL, LARGE])
    assert measured.tflops == pytest.approx(rig.flops(SMALL) / 0.5 / 1e12)
    with pytest.raises(OutOfMemory, match="64x48, 4 frames"):
        rig.gauge.measure([LARGE])


def test_clips_in_flight_go_on_meanwhile(rig: Rig) -> None:
    steps: list[int] = []

    def takes(_bucket: Bucket, _rows: int) -> float:
        steps.append(rig.engine.steps_done)
        return 0.1

    rig.engine.takes = takes
    long = replace(SMALL, num_inference_steps=900)
    rig.thread.call(lambda engine: rig.models.join(engine, "clip", long)).result(20)
    rig.gauge.measure([SMALL])
    assert steps[-1] > steps[0]


def test_the_tiny_model_is_measured_on_this_cpu(tiny: ModelFolder) -> None:
    thread = EngineThread(Engine(Models.load(tiny).unet, EngineConfig()), lambda _: None)
    gauge = Gauge(thread, Architecture.of(tiny), CPU, torch.float32, False)
    assert 0 < gauge.measure([SMALL]).tflops < 100
    thread.stop()


@pytest.mark.gpu
def test_a_card_s_peak_is_near_the_predicted_one(tiny: ModelFolder) -> None:
    device, dtype = torch.device("cuda"), torch.float16
    unet = load_denoising_model(tiny, device, dtype, "tiny")
    thread = EngineThread(Engine(unet, EngineConfig()), lambda _: None)
    gauge = Gauge(thread, Architecture.of(tiny), device, dtype, False)
    measured = gauge.measure([params(width=512, height=512, num_frames=16)])
    assert measured.device == torch.cuda.get_device_name()
    assert 0.5 < measured.bytes_factor < 1.5
    thread.stop()
