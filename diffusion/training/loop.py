"""A resumable training loop: the batch of a step depends on the seed and the step alone.

So a run that was stopped and started again ends with the weights of one that was not.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from diffusers.optimization import get_cosine_schedule_with_warmup
from diffusers.training_utils import EMAModel

_POLL_S = 5.0


@dataclass(frozen=True, slots=True)
class Schedule:
    """How one network is trained."""

    steps: int
    learning_rate: float
    cut_at: int | None = None  # steps; ends there, the learning rate still being that of `steps`
    warmup_steps: int = 30
    ema_decay: float = 0.995
    save_every_steps: int = 100
    clip_norm: float = 1.0
    full_precision: bool = False  # float32, also where the device has bfloat16

    @property
    def end(self) -> int:
        return self.steps if self.cut_at is None else min(self.cut_at, self.steps)


@dataclass(frozen=True, slots=True)
class Workplace:
    """Where a run keeps its state, and when it has to wait."""

    folder: Path
    pause_file: Path | None = None  # while it exists no step is taken

    def wait(self) -> None:
        while self.pause_file is not None and self.pause_file.exists():
            time.sleep(_POLL_S)


Forward = Callable[..., torch.Tensor]
"""The model's, in bfloat16 where the device has it; it answers in float32."""

Loss = Callable[[Forward, int], torch.Tensor]
"""The loss of step n, with whatever data that step has."""


def train(
    model: torch.nn.Module,
    loss: Loss,
    schedule: Schedule,
    place: Workplace,
    *,
    stop_after: int | None = None,
) -> bool:
    """Train what of `model` wants gradients; at the end it holds the moving average of that.

    `loss.jsonl` in the workplace has one line per step. With `stop_after` the run saves its state
    after that step and returns False; called again it goes on from there.
    """
    accelerator = Accelerator(project_dir=place.folder)
    parameters = [p for p in model.parameters() if p.requires_grad]
    ema = EMAModel(parameters, decay=schedule.ema_decay, use_ema_warmup=True, power=0.75)
    optimizer = torch.optim.AdamW(
        parameters, lr=schedule.learning_rate, betas=(0.9, 0.99), weight_decay=0.0
    )
    rates = get_cosine_schedule_with_warmup(optimizer, schedule.warmup_steps, schedule.steps)
    model, optimizer = accelerator.prepare(model, optimizer)
    ema.to(accelerator.device)
    progress = _Progress()
    accelerator.register_for_checkpointing(ema, rates, progress)

    def forward(*inputs: torch.Tensor) -> torch.Tensor:
        # Not accelerate's own autocast: a process has that for all of its models or for none.
        kind = accelerator.device.type
        halved = not schedule.full_precision and _fast(kind)
        with torch.autocast(kind, torch.bfloat16, enabled=halved):
            answer: torch.Tensor = model(*inputs)
        return answer.float()

    state = place.folder / "state"
    if state.exists():
        accelerator.load_state(str(state))
    log = _Log(place.folder / "loss.jsonl", progress.step)
    while progress.step < schedule.end:
        place.wait()
        begun = time.perf_counter()
        value = loss(forward, progress.step)
        accelerator.backward(value)
        norm = accelerator.clip_grad_norm_(parameters, schedule.clip_norm)
        optimizer.step()
        rates.step()
        optimizer.zero_grad()
        ema.step(parameters)
        log.add(progress.step, float(value.detach()), float(norm), time.perf_counter() - begun)
        progress.step += 1
        stop = progress.step == stop_after
        if stop or progress.step % schedule.save_every_steps == 0:
            accelerator.save_state(str(state))
        if stop:
            break
    if progress.step < schedule.end:
        return False
    ema.copy_to(parameters)
    return True


@dataclass(slots=True)
class _Progress:
    """Steps done, in the form that accelerate saves."""

    step: int = 0

    def state_dict(self) -> dict[str, int]:
        return {"step": self.step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.step = state["step"]


class _Log:
    """One JSON line per step; lines after the step that is resumed from are dropped."""

    def __init__(self, path: Path, steps: int):
        kept = path.read_text().splitlines()[:steps] if path.exists() else []
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{line}\n" for line in kept))
        self._path = path

    def add(self, step: int, loss: float, norm: float, seconds: float) -> None:
        entry = {"step": step, "loss": loss, "gradient_norm": norm, "seconds": seconds}
        with self._path.open("a") as stream:
            stream.write(json.dumps(entry) + "\n")


def _fast(device: str) -> bool:
    """Whether the device multiplies bfloat16 faster than float32."""
    if device != "cpu":
        return True
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
