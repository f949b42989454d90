"""How many rows of one UNet call a device's memory holds."""

from collections.abc import Callable

import torch

from diffusion.memory import Architecture
from diffusion.trajectory import Bucket


def row_budget(
    architecture: Architecture,
    memory_bytes: float | None,
    dtype: torch.dtype,
    chunk_feed_forward: bool,
) -> Callable[[Bucket], int]:
    """Rows by bucket, at least one: what does not fit after all is the memory ladder's.

    `memory_bytes`: what the process may use of the device; None for a CPU, whose memory is not
    rationed.
    """
    if memory_bytes is None:
        return lambda _: 1 << 16

    def rows(bucket: Bucket) -> int:
        scale = architecture.latent_scale
        size = (bucket.width * scale, bucket.height * scale, bucket.num_frames)

        def needs(count: int) -> int:
            return architecture.denoiser_bytes(*size, count, dtype.itemsize, chunk_feed_forward)

        weights, one = needs(0), needs(1)
        return max(1, int((memory_bytes - weights) // (one - weights)))

    return rows
