"""The values that pass between stages, as numpy so that the object store maps them without a copy.

torch tensors cost three to ten times as much there. bfloat16 has no numpy type and travels as its
bits in uint16.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class WireTensor:
    """A CPU tensor on its way between processes."""

    data: NDArray[Any]
    dtype: str  # torch's name: float32 | float16 | bfloat16

    @classmethod
    def of(cls, tensor: torch.Tensor) -> "WireTensor":
        tensor = tensor.detach().cpu().contiguous()
        dtype = str(tensor.dtype).removeprefix("torch.")
        if tensor.dtype == torch.bfloat16:
            tensor = tensor.view(torch.uint16)
        return cls(tensor.numpy(), dtype)

    def to(self, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
        """A tensor of its own: what arrives from the object store is mapped read-only."""
        tensor = torch.from_numpy(np.array(self.data))
        if self.dtype == "bfloat16":
            tensor = tensor.view(torch.bfloat16)
        return tensor.to(device=device, dtype=dtype)


@dataclass(frozen=True, slots=True)
class PromptEmbeds:
    embeds: WireTensor  # [1, tokens, D]
    dropped: str = ""  # the end of the text that did not fit the encoder's context


@dataclass(frozen=True, slots=True)
class TextCondition:
    prompt: PromptEmbeds
    negative_prompt: PromptEmbeds


@dataclass(frozen=True, slots=True)
class ImageCondition:
    image_embeddings: WireTensor  # [1, 1, D]
    image_latents: WireTensor  # [1, 4, 1, h, w]: frame 0 only, the receiver adds position planes


@dataclass(frozen=True, slots=True)
class StartLatents:
    """Where a clip with a motion strength begins, before noise: the frames of its camera move."""

    latents: WireTensor  # [1, 4, F, h, w]


@dataclass(frozen=True, slots=True)
class Latents:
    latents: WireTensor  # [1, 4, F, h, w]
