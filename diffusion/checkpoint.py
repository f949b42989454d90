"""A trajectory as bytes: one safetensors file, its JSON in the header.

Half a megabyte to a few at the published sizes. The conditions are not in it: they are computed
again from the photo and the prompt, which costs less than storing them would.
"""

import json
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Any

import safetensors.torch
import torch

from diffusion.errors import CheckpointMismatch
from diffusion.params import SamplingParams
from diffusion.state import Latents, WireTensor

ENGINE_VERSION = "1"
"""Raised when a step of the engine begins to compute something else."""

_HEADER = "shopreel"


def code_version() -> str:
    """What must be equal for a trajectory to go on as it began."""
    return f"{ENGINE_VERSION}+diffusers-{version('diffusers')}"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    params: SamplingParams
    model_revision: str  # sha256 of the weights
    step: int  # steps done
    safe_precision: bool
    latents: torch.Tensor  # [1, 4, F, h, w] float32, on the CPU
    generator_state: torch.Tensor  # [N] uint8
    scheduler_state: Any  # samplers.State
    code: str = field(default_factory=code_version)

    def to_bytes(self) -> bytes:
        tensors = {"latents": self.latents, "generator_state": self.generator_state}
        header = {
            "params": asdict(self.params),
            "model_revision": self.model_revision,
            "step": self.step,
            "safe_precision": self.safe_precision,
            "scheduler_state": _flatten(dict(self.scheduler_state), "scheduler", tensors),
            "code": self.code,
        }
        contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
        return safetensors.torch.save(contiguous, {_HEADER: json.dumps(header)})

    @classmethod
    def from_bytes(cls, data: bytes) -> "Checkpoint":
        """Raises CheckpointMismatch for what is no checkpoint of ours."""
        try:
            length = int.from_bytes(data[:8], "little")
            header = json.loads(json.loads(data[8 : 8 + length])["__metadata__"][_HEADER])
            tensors = safetensors.torch.load(data)
            return cls(
                params=SamplingParams(**header["params"]),
                model_revision=header["model_revision"],
                step=header["step"],
                safe_precision=header["safe_precision"],
                latents=tensors["latents"],
                generator_state=tensors["generator_state"],
                scheduler_state=_unflatten(header["scheduler_state"], tensors),
                code=header["code"],
            )
        except (ValueError, KeyError, TypeError, safetensors.SafetensorError) as e:
            raise CheckpointMismatch(f"it cannot be read: {e!r}") from e

    def result(self) -> Latents:
        """The latents of a checkpoint of the last step. Raises CheckpointMismatch for another."""
        if self.step < self.params.unet_steps:
            raise CheckpointMismatch(f"it is of step {self.step}")
        return Latents(WireTensor.of(self.latents))

    def check(self, params: SamplingParams, model_revision: str) -> None:
        """Raises CheckpointMismatch unless this is of the same request, weights and code."""
        if self.code != code_version():
            raise CheckpointMismatch(f"it was made by {self.code}; this is {code_version()}")
        if self.model_revision != model_revision:
            raise CheckpointMismatch("it was made with other weights")
        if self.params != params:
            raise CheckpointMismatch("it is of another request")


_TENSOR = "tensor:"


def _flatten(value: Any, name: str, tensors: dict[str, torch.Tensor]) -> Any:
    """JSON for `value`; its tensors go into `tensors`, named by their place."""
    if isinstance(value, dict):
        return {key: _flatten(part, f"{name}.{key}", tensors) for key, part in value.items()}
    if isinstance(value, list):
        return [_flatten(part, f"{name}.{i}", tensors) for i, part in enumerate(value)]
    if isinstance(value, torch.Tensor):
        tensors[name] = value
        return _TENSOR + name
    return value


def _unflatten(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, dict):
        return {key: _unflatten(part, tensors) for key, part in value.items()}
    if isinstance(value, list):
        return [_unflatten(part, tensors) for part in value]
    if isinstance(value, str) and value.startswith(_TENSOR):
        return tensors[value.removeprefix(_TENSOR)]
    return value
