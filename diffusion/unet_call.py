"""One UNet call over rows of several requests: batching, padding, and less memory when it ran out.

The ladder on OutOfMemory, remembered per shape: transformer_in's feed forward in parts (the
largest tensors of the UNet), then one row per call. Both are exact.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from enum import IntEnum
from typing import Any

import torch
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from diffusion.device import within_memory
from diffusion.engine_config import EngineConfig, TorchOptions
from diffusion.errors import NonFiniteLatents, OutOfMemory
from diffusion.trajectory import Bucket, Trajectory
from diffusion.weights import CONTEXT_LENGTH, DenoisingModel

ATTENTION_BATCH = 65_535
"""SDPA kernels put the batch into a CUDA grid dimension; temporal attention's is rows x h x w
(pytorch#142228)."""

_BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "math": SDPBackend.MATH,
}

Rows = dict[str, torch.Tensor]
"""The UNet's inputs, the first dimension being the row."""


class Rung(IntEnum):
    """How far a shape had to step down."""

    PLAIN = 0
    CHUNKED_UNET = 1
    SOLO_ROWS = 2


class UNetCall:
    def __init__(self, model: DenoisingModel, config: EngineConfig):
        self._model = model
        self._config = config
        self._rungs: dict[Bucket, Rung] = {}
        _apply(model.unet, config.torch)
        self._unet: Callable[..., Any] = model.unet
        if config.torch.compile:
            self._unet = torch.compile(model.unet, dynamic=False)

    @property
    def safe_precision(self) -> str:
        """What a request that overflowed goes on with.

        bfloat16 and float32 reach as far as each other, so there only the call is repeated.
        """
        if self._model.dtype == torch.float16:
            return "goes on in bfloat16"
        return "the step is repeated"

    def predict(
        self, trajectories: Sequence[Trajectory]
    ) -> tuple[list[torch.Tensor | None], list[tuple[str, str]]]:
        """The UNet's answers, [rows, 4, F, h, w] for each of the trajectories, None where one is
        not finite; and (kind, detail) of each rung taken because memory ran out on the way.

        All trajectories are of one bucket. Raises OutOfMemory when one row alone is too much.
        """
        bucket = trajectories[0].bucket
        rows = _stack([_rows_of(trajectory) for trajectory in trajectories])
        stepped_down: list[tuple[str, str]] = []
        while True:
            rung = self._rungs.get(bucket, Rung.PLAIN)
            try:
                prediction = self._call(rows, bucket, rung)
                break
            except OutOfMemory as e:
                if rung is Rung.SOLO_ROWS:
                    raise
                self._rungs[bucket] = rung = Rung(rung + 1)
                stepped_down.append((rung.name.lower(), str(e)))
        parts = torch.split(prediction, [trajectory.rows for trajectory in trajectories])
        finite = torch.stack([torch.isfinite(part).all() for part in parts]).tolist()
        return [p if ok else None for p, ok in zip(parts, finite, strict=True)], stepped_down

    @torch.inference_mode()
    def self_test(self) -> None:
        """One row of the smallest shape. Raises OutOfMemory, NonFiniteLatents."""
        side = 2 ** (len(self._model.unet.config.block_out_channels) - 1)
        bucket = Bucket(2, side, side)
        if not torch.isfinite(self._call(self._blank(bucket, 1), bucket, Rung.SOLO_ROWS)).all():
            raise NonFiniteLatents(1)

    @torch.inference_mode()
    def seconds(self, bucket: Bucket, rows: int) -> float:
        """Time of one call over blank rows. Raises OutOfMemory."""
        blank = self._blank(bucket, rows)
        begun = time.perf_counter()
        self._call(blank, bucket, Rung.PLAIN).cpu()  # waits for the device
        return time.perf_counter() - begun

    def _blank(self, bucket: Bucket, rows: int) -> Rows:
        config, device = self._model.unet.config, self._model.device

        def zeros(*shape: int) -> torch.Tensor:
            return torch.zeros((rows, *shape), device=device, dtype=self._model.dtype)

        latents = (config.in_channels, bucket.num_frames, bucket.height, bucket.width)
        return {
            "sample": zeros(*latents),
            "timestep": torch.ones(rows, dtype=torch.int64, device=device),
            "fps": torch.full((rows,), 8, device=device),
            "image_latents": zeros(*latents),
            "image_embeddings": zeros(1, config.cross_attention_dim),
            "encoder_hidden_states": zeros(CONTEXT_LENGTH, config.cross_attention_dim),
        }

    def _call(self, rows: Rows, bucket: Bucket, rung: Rung) -> torch.Tensor:
        at_once = max(1, ATTENTION_BATCH // bucket.area)
        if rung is Rung.SOLO_ROWS:
            at_once = 1
        elif self._config.row_counts:
            at_once = min(at_once, self._config.row_counts[-1])
        answers = []
        with self._backend(), within_memory():
            _chunk_feed_forward(
                self._model.unet, rung > Rung.PLAIN or self._config.torch.chunk_feed_forward
            )
            for part in _split(rows, at_once):
                count = len(part["sample"])
                padded = part if rung is Rung.SOLO_ROWS else _pad(part, self._padded(count))
                unet = self._in_bfloat16 if self._needs_bfloat16(bucket) else self._unet
                answers.append(unet(**padded, return_dict=False)[0][:count])
        return torch.cat(answers)

    def _padded(self, count: int) -> int:
        return next((n for n in self._config.row_counts if n >= count), count)

    def _backend(self) -> AbstractContextManager[Any]:
        backend = _BACKENDS.get(self._config.torch.sdpa_backend)
        return nullcontext() if backend is None else sdpa_kernel([backend])

    def _needs_bfloat16(self, bucket: Bucket) -> bool:
        return bucket.safe_precision and self._model.dtype == torch.float16

    def _in_bfloat16(self, **inputs: Any) -> Any:
        """The UNet with weights converted for this call, a copy of them for as long.

        Autocast would not do: it refuses float16 weights beside bfloat16.
        """
        weights = {name: p.to(torch.bfloat16) for name, p in self._model.unet.named_parameters()}
        converted = {
            name: value.to(torch.bfloat16)
            if isinstance(value, torch.Tensor) and value.is_floating_point()
            else value
            for name, value in inputs.items()
        }
        return functional_call(self._model.unet, weights, kwargs=converted)


def _rows_of(trajectory: Trajectory) -> Rows:
    """The UNet's inputs for one request's next step: [negative, positive], or the positive row."""
    count = trajectory.rows
    dtype, device = trajectory.image_latents.dtype, trajectory.image_latents.device
    timestep = trajectory.timestep
    sample = trajectory.scheduler.scale_model_input(trajectory.latents, timestep).to(dtype)
    prompt, embeddings = trajectory.prompt_embeds, trajectory.image_embeddings
    if count == 2:
        prompt = torch.cat([trajectory.negative_prompt_embeds, prompt])
        embeddings = torch.cat([torch.zeros_like(embeddings), embeddings])
    return {
        "sample": sample.expand(count, -1, -1, -1, -1),
        "timestep": timestep.to(device).expand(count),
        "fps": torch.full((count,), trajectory.params.motion_fps, device=device),
        "image_latents": trajectory.image_latents.expand(count, -1, -1, -1, -1),
        "image_embeddings": embeddings,
        "encoder_hidden_states": prompt,
    }


def _stack(parts: Sequence[Rows]) -> Rows:
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _split(rows: Rows, at_once: int) -> Iterator[Rows]:
    for start in range(0, len(rows["sample"]), at_once):
        yield {name: tensor[start : start + at_once] for name, tensor in rows.items()}


def _pad(rows: Rows, count: int) -> Rows:
    """`rows` with the first repeated until there are `count`."""
    missing = count - len(rows["sample"])
    if missing <= 0:
        return rows
    return {
        name: torch.cat([tensor, tensor[:1].expand(missing, *tensor.shape[1:])])
        for name, tensor in rows.items()
    }


def _apply(unet: Any, options: TorchOptions) -> None:
    if options.channels_last:
        for module in unet.modules():  # the UNet as a whole refuses: it has 3-D convolutions too
            if isinstance(module, torch.nn.Conv2d):
                module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _chunk_feed_forward(unet: Any, chunked: bool) -> None:
    for block in unet.transformer_in.transformer_blocks:
        block.set_chunk_feed_forward(1 if chunked else None, dim=1)  # frame by frame
