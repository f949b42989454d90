"""One UNet call over rows of several requests: batching, padding, and less memory when it ran out.

The ladder on OutOfMemory, remembered per shape: transformer_in's feed forward in parts (the
largest tensors of the UNet), then half as many rows per call, down to one. All of it is exact.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class _Limits:
    """How far a shape has had to step down."""

    chunked: bool  # transformer_in's feed forward
    rows: int | None = None  # of one call; None: as many as are planned

    def within(self, most_rows: int) -> "_Limits":
        """With the plan's own limit; never below one row."""
        rows = most_rows if self.rows is None else min(most_rows, self.rows)
        return _Limits(self.chunked, max(1, rows))

    def lower(self, rows: int) -> "tuple[_Limits, str] | None":
        """The next rung and its name, after a call of `rows` ran out; None after the last."""
        if not self.chunked:
            return _Limits(True, self.rows), "chunked_unet"
        if rows == 1:
            return None
        fewer = rows // 2
        return _Limits(True, fewer), "solo_rows" if fewer == 1 else "fewer_rows"


_SMALLEST = _Limits(True, 1)


class UNetCall:
    def __init__(self, model: DenoisingModel, config: EngineConfig):
        self._model = model
        self._config = config
        self._limits: dict[Bucket, _Limits] = {}
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
        self, trajectories: Sequence[Trajectory], most_rows: int
    ) -> tuple[list[torch.Tensor | None], list[tuple[str, str]]]:
        """The UNet's answers, [rows, 4, F, h, w] for each of the trajectories, None where one is
        not finite; and (kind, detail) of each rung taken because memory ran out on the way.

        All trajectories are of one bucket; at most `most_rows` rows go into one call. Raises
        OutOfMemory when one row alone is too much.
        """
        bucket = trajectories[0].bucket
        most_rows = min(most_rows, ATTENTION_BATCH // bucket.area)
        limits = self._limits.get(bucket) or _Limits(self._config.torch.chunk_feed_forward)
        stepped_down: list[tuple[str, str]] = []
        with within_memory():
            rows = _stack([_rows_of(trajectory) for trajectory in trajectories])
        while True:
            try:
                prediction = self._call(rows, bucket, limits.within(most_rows))
                break
            except OutOfMemory as e:
                count = min(len(rows["sample"]), max(1, most_rows), limits.rows or 1 << 16)
                if (lower := limits.lower(count)) is None:
                    raise
                limits, kind = lower
                self._limits[bucket] = limits
                stepped_down.append((kind, str(e)))
        parts = torch.split(prediction, [trajectory.rows for trajectory in trajectories])
        finite = torch.stack([torch.isfinite(part).all() for part in parts]).tolist()
        return [p if ok else None for p, ok in zip(parts, finite, strict=True)], stepped_down

    @torch.inference_mode()
    def self_test(self) -> None:
        """One row of the smallest shape. Raises OutOfMemory, NonFiniteLatents."""
        side = 2 ** (len(self._model.unet.config.block_out_channels) - 1)
        bucket = Bucket(2, side, side)
        if not torch.isfinite(self._call(self._blank(bucket, 1), bucket, _SMALLEST)).all():
            raise NonFiniteLatents(1)

    @torch.inference_mode()
    def seconds(self, bucket: Bucket, rows: int) -> float:
        """Time of one call over blank rows. Raises OutOfMemory."""
        blank = self._blank(bucket, rows)
        begun = time.perf_counter()
        self._call(blank, bucket, _Limits(False, rows)).cpu()  # waits for the device
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

    def _call(self, rows: Rows, bucket: Bucket, limits: "_Limits") -> torch.Tensor:
        most = limits.rows or 1
        # Counts that are too large for this shape are no help: calls of it are not padded to them.
        counts = [count for count in self._config.row_counts if count <= most]
        at_once = counts[-1] if counts else most
        unet = self._in_bfloat16 if self._needs_bfloat16(bucket) else self._unet
        answers = []
        with self._backend(), within_memory():
            _chunk_feed_forward(self._model.unet, limits.chunked)
            for part in _split(rows, at_once):
                count = len(part["sample"])
                padded = next((n for n in counts if n >= count), count)
                answers.append(unet(**_pad(part, padded), return_dict=False)[0][:count])
            return torch.cat(answers)

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
