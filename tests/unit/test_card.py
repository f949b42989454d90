"""Cards by NVML: a real one where there is one, and what the library may say else."""

from types import SimpleNamespace
from typing import Any

import pynvml
import pytest
import torch

from diffusion.device import card_uuid, open_device, reserved_bytes
from monitoring.gpu import Card, CardError


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that knows one card, third of its node, and not how hot that is."""

    def refuses(*_: Any) -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    said = {
        "nvmlInit": lambda: None,
        "nvmlDeviceGetHandleByUUID": lambda uuid: uuid,
        "nvmlDeviceGetIndex": lambda card: 2,
        "nvmlDeviceGetMemoryInfo": lambda card: SimpleNamespace(used=3 << 30, total=24 << 30),
        "nvmlDeviceGetUtilizationRates": lambda card: SimpleNamespace(gpu=0, memory=5),
        "nvmlDeviceGetTotalEnergyConsumption": lambda card: 5_500,
        "nvmlDeviceGetTemperature": refuses,
    }
    for name, answer in said.items():
        monkeypatch.setattr(pynvml, name, answer)


@pytest.mark.usefixtures("driver")
def test_readings_are_in_base_units_and_none_where_the_card_does_not_tell() -> None:
    card = Card("GPU-1")
    reading = card.read()
    assert card.index == "2"
    assert (reading.memory_used_bytes, reading.memory_total_bytes) == (3 << 30, 24 << 30)
    assert reading.utilization == 0.0
    assert reading.energy_joules == 5.5
    assert reading.temperature_celsius is None


@pytest.mark.usefixtures("driver")
def test_a_card_that_has_fallen_off_the_bus_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    card = Card("GPU-1")

    def lost(_: Any) -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)

    monkeypatch.setattr(pynvml, "nvmlDeviceGetUtilizationRates", lost)
    with pytest.raises(CardError):
        card.read()


def test_no_driver_knows_a_card_that_does_not_exist() -> None:
    with pytest.raises(CardError):
        Card("GPU-00000000-0000-0000-0000-000000000000")


def test_a_cpu_has_no_card() -> None:
    device = torch.device("cpu")
    assert card_uuid(device) is None
    assert reserved_bytes(device) is None


@pytest.mark.gpu
def test_the_card_of_this_process_is_the_one_that_is_read() -> None:
    device = open_device("cuda", 1.0, threads=1)
    held = torch.zeros(256 << 20, dtype=torch.uint8, device=device)
    uuid, reserved = card_uuid(device), reserved_bytes(device)
    assert uuid is not None
    assert reserved is not None
    reading = Card(uuid).read()
    assert reserved >= held.numel()
    assert reading.memory_used_bytes is not None
    assert reading.memory_total_bytes is not None
    total = torch.cuda.get_device_properties(device).total_memory
    assert reserved <= reading.memory_used_bytes <= reading.memory_total_bytes
    assert reading.memory_total_bytes == pytest.approx(total, rel=0.05)
    assert reading.utilization is None or 0 <= reading.utilization <= 1
    assert reading.temperature_celsius is None or 10 < reading.temperature_celsius < 110
