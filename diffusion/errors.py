"""What the model can refuse.

DiffusionError
├── WeightsUnusable   folder or hub id is not an I2VGen-XL checkpoint: mend the configuration
├── WeightsMismatch   this node's files differ from the cluster's: mend the node
├── OutOfMemory       the device's memory did not suffice, on every rung: larger card, smaller clip
├── UnsupportedSize   sides are not what this checkpoint can make: change the request
├── UnusableStrength  a motion strength that runs no step, or more than all: change the request
├── NonFiniteLatents  NaN or Inf came out of the UNet, twice: retry
├── CheckpointMismatch  a checkpoint is of another request, weights or code: begin again
├── DeadlineExceeded  nobody wants the clip any more
├── EngineBroken      the device or its driver failed: retry on another replica
└── Preempted         the replica leaves; a checkpoint was handed out: go on elsewhere, retryable

Constructors take positional arguments only: keyword-only ones lose their type over a Ray handle.
"""

import math


class DiffusionError(Exception):
    """Root of what `diffusion` raises. `retryable` says whether the same call may succeed later."""

    retryable = False


class WeightsUnusable(DiffusionError):
    """The message names the file or setting at fault and what is expected there."""


class WeightsMismatch(DiffusionError):
    def __init__(self, component: str, expected: str, found: str) -> None:
        super().__init__(component, expected, found)
        self.component, self.expected, self.found = component, expected, found

    def __str__(self) -> str:
        return (
            f"{self.component!r} has sha256 {self.found[:12]} here but {self.expected[:12]} where"
            " the application was built: give every node the same files"
        )


class OutOfMemory(DiffusionError):
    """The message is the allocator's: how much was asked for and how much was free."""


class UnsupportedSize(DiffusionError):
    def __init__(self, width: int, height: int, multiple: int) -> None:
        super().__init__(width, height, multiple)
        self.width, self.height, self.multiple = width, height, multiple

    def __str__(self) -> str:
        m = self.multiple
        near = f"{max(m, round(self.width / m) * m)}x{max(m, round(self.height / m) * m)}"
        return (
            f"{self.width}x{self.height} cannot be made: this model needs sides that are multiples"
            f" of {m} px; the nearest is {near}"
        )


class UnusableStrength(DiffusionError):
    def __init__(self, strength: float, num_inference_steps: int) -> None:
        super().__init__(strength, num_inference_steps)
        self.strength, self.num_inference_steps = strength, num_inference_steps

    def __str__(self) -> str:
        least = math.ceil(1e4 / self.num_inference_steps) / 1e4
        return (
            f"motion_strength {self.strength:g} cannot be used: of {self.num_inference_steps} steps"
            f" {least:g} runs one, and 1 all of them"
        )


class NonFiniteLatents(DiffusionError):
    retryable = True

    def __init__(self, step: int) -> None:
        super().__init__(step)
        self.step = step

    def __str__(self) -> str:
        return f"the UNet returned NaN or Inf at step {self.step}"


class CheckpointMismatch(DiffusionError):
    """The message says what differs."""


class DeadlineExceeded(DiffusionError):
    def __init__(self, step: int) -> None:
        super().__init__(step)
        self.step = step

    def __str__(self) -> str:
        return f"the deadline passed after step {self.step}"


class EngineBroken(DiffusionError):
    """The message is the error that broke it."""

    retryable = True


class Preempted(DiffusionError):
    retryable = True

    def __init__(self, step: int) -> None:
        super().__init__(step)
        self.step = step

    def __str__(self) -> str:
        return f"the replica left after step {self.step}"
