"""What a clip costs on one checkpoint: FLOPs and peak bytes, from its configurations alone.

No torch here: the API tells callers what fits before any GPU has started. UNet and VAE are
walked as lists of parts, in the order in which they run. FLOPs are two per multiply-add, as
torch.utils.flop_counter counts them. Nearly all memory is tensors of (frames, points, channels), so
a peak is a number of channels per point of full resolution, whatever the size of the clip.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from safetensors import safe_open

from diffusion.errors import WeightsUnusable
from diffusion.model_folder import ModelFolder

ALLOCATOR_SLACK = 1.15
"""What PyTorch's allocator and cuDNN's workspaces take, over the tensors alive at the peak."""

TEXT_TOKENS = 77
"""As diffusion.weights.CONTEXT_LENGTH, which needs torch."""

_LATENT_TOKENS = 64
"""I2VGenXLUNet pools frame 0 to 8 x 8 tokens, whatever its size."""

_FEED_FORWARD_PEAK = 20
"""Tensors alive in a transformer's GEGLU, over its input, in widths: hidden states before and
after attention, attention's output, its norm; then 8 of the projection, 4 of the gate, 4 out."""

_ATTENTION_PEAK = 9
"""The same in its second attention, flash-style: only its own q, k, v, output and projection are
alive besides the first four."""


@dataclass(frozen=True, slots=True)
class _Part:
    """One module as it runs. A point is one position of one frame at the module's level."""

    level: int  # halvings of the full resolution
    macs: int  # multiply-adds per point
    peak: float = 0.0  # all tensors alive, in channels per point of full resolution
    macs_per_frame: int = 0
    spatial_channels: int = 0  # attending over the points of a frame
    temporal_channels: int = 0  # attending over the frames


@dataclass(frozen=True, slots=True)
class Architecture:
    """The sizes of one checkpoint's UNet and VAE. Small, and pickles.

    Sizes are in pixels and frames of the clip; every method is pure.
    """

    in_channels: int  # of the latents
    block_channels: tuple[int, ...]  # finest level first
    attends_down: tuple[bool, ...]  # finest level first
    attends_up: tuple[bool, ...]  # coarsest level first, as they run
    layers_per_block: int
    head_dim: int
    context_dim: int
    unet_parameters: int
    vae_channels: tuple[int, ...]  # finest level first
    vae_layers_per_block: int
    vae_attends: bool
    decoder_parameters: int
    latent_scale: int  # px per latent, along one side
    size_multiple: int  # px, of both sides

    @classmethod
    def of(cls, folder: ModelFolder) -> "Architecture":
        """Raises WeightsUnusable where a configuration does not say what is needed."""
        unet, vae = folder.config("unet"), folder.config("vae")
        try:
            return cls(
                in_channels=unet["in_channels"],
                block_channels=tuple(unet["block_out_channels"]),
                attends_down=tuple("CrossAttn" in block for block in unet["down_block_types"]),
                attends_up=tuple("CrossAttn" in block for block in unet["up_block_types"]),
                layers_per_block=unet["layers_per_block"],
                # Before the published file named it, diffusers' own default was meant.
                head_dim=unet.get("attention_head_dim", 64),
                context_dim=unet["cross_attention_dim"],
                unet_parameters=_parameters(folder, "unet"),
                vae_channels=tuple(vae["block_out_channels"]),
                vae_layers_per_block=vae["layers_per_block"],
                vae_attends=vae.get("mid_block_add_attention", True),  # older than the key
                decoder_parameters=_parameters(folder, "vae", "decoder.", "post_quant_conv."),
                latent_scale=folder.latent_scale,
                size_multiple=folder.size_multiple,
            )
        except KeyError as e:
            raise WeightsUnusable(
                f"the config.json of unet or vae in {folder.path} lacks {e}"
            ) from e

    def unet_flops(self, width: int, height: int, num_frames: int) -> float:
        """Of one row of one UNet call; a step with guidance has two rows."""
        area = self._latents(width, height)
        return _flops(_unet_parts(self, 1), area, num_frames) + 2.0 * self._row_macs(area)

    def unet_bytes(
        self,
        width: int,
        height: int,
        num_frames: int,
        rows: int,
        dtype_bytes: int,
        chunked: bool,
    ) -> int:
        """Most bytes of tensors alive at once in one UNet call, its weights and inputs apart.

        Attention is flash-style, without a matrix of scores. `chunked`: transformer_in's feed
        forward runs frame by frame (set_chunk_feed_forward(1, dim=1)).
        """
        chunks = num_frames if chunked else 1
        channels = max(part.peak for part in _unet_parts(self, chunks)) + self.in_channels
        frame = channels * self._latents(width, height)
        frame += self.context_tokens * self.context_dim + self.time_channels
        return round(rows * num_frames * frame * dtype_bytes)

    def decode_flops(self, width: int, height: int, num_frames: int) -> float:
        return _flops(_decoder_parts(self), width * height, num_frames)

    def decode_bytes(self, width: int, height: int, chunk_frames: int, dtype_bytes: int) -> int:
        """Most bytes of tensors alive at once while `chunk_frames` are decoded, weights apart."""
        channels = max(part.peak for part in _decoder_parts(self))
        return round(chunk_frames * width * height * channels * dtype_bytes)

    def encode_flops(self, width: int, height: int, num_frames: int) -> float:
        """Of the VAE's encoder: frames that a clip begins at."""
        return _flops(_encoder_parts(self), width * height, num_frames)

    def encode_bytes(self, width: int, height: int, chunk_frames: int, dtype_bytes: int) -> int:
        """As decode_bytes, which it does not exceed."""
        channels = max(part.peak for part in _encoder_parts(self))
        return round(chunk_frames * width * height * channels * dtype_bytes)

    def denoiser_bytes(
        self,
        width: int,
        height: int,
        num_frames: int,
        rows: int,
        dtype_bytes: int,
        chunked: bool,
    ) -> int:
        """Device memory of a Denoiser at work: weights, and activations with ALLOCATOR_SLACK.

        The CUDA context comes on top (cluster.capacity.CUDA_CONTEXT_GB): no cap counts it.
        """
        activations = self.unet_bytes(width, height, num_frames, rows, dtype_bytes, chunked)
        return self.unet_parameters * dtype_bytes + round(activations * ALLOCATOR_SLACK)

    @property
    def context_tokens(self) -> int:
        return TEXT_TOKENS + _LATENT_TOKENS + self.in_channels

    @property
    def time_channels(self) -> int:
        return 4 * self.block_channels[0]

    def _latents(self, width: int, height: int) -> int:
        return (width // self.latent_scale) * (height // self.latent_scale)

    def _row_macs(self, area: int) -> int:
        """What a row computes once for all frames: embeddings, and frame 0 as context tokens."""
        base, time, context = self.block_channels[0], self.time_channels, self.context_dim
        embeddings = 2 * (base * time + time * time) + (1 + self.in_channels) * context * time
        mid, last = 8 * self.in_channels, 16 * self.in_channels  # after pooling to 32 x 32
        tokens = 9 * (area * 4 * mid + 4 * _LATENT_TOKENS * mid * last)
        return embeddings + tokens + 9 * _LATENT_TOKENS * last * context


def _parameters(folder: ModelFolder, component: Literal["unet", "vae"], *prefixes: str) -> int:
    """Elements of the tensors whose names begin with one of `prefixes`, from the files' headers."""
    total = 0
    for file in folder.files(component):
        if file.suffix == ".safetensors":
            with safe_open(file, framework="numpy") as tensors:
                for name in tensors.keys():  # noqa: SIM118
                    if name.startswith(prefixes or ""):
                        total += math.prod(tensors.get_slice(name).get_shape())
    return total


def _flops(parts: Sequence[_Part], area: int, frames: int) -> float:
    total = 0
    for part in parts:
        points = area // 4**part.level
        # Scores, and values weighted by them: two products per query and channel.
        seen = part.spatial_channels * points + part.temporal_channels * frames
        total += points * (part.macs + 2 * seen) + part.macs_per_frame
    return 2.0 * frames * total


@lru_cache
def _unet_parts(a: Architecture, chunks: int) -> tuple[_Part, ...]:
    """I2VGenXLUNet, with transformer_in's feed forward in so many chunks."""
    latent, base, deepest = a.in_channels, a.block_channels[0], len(a.block_channels) - 1
    skips = [(base, 0)]  # (channels, level) of what the way up takes again
    parts = [_image_latents(latent), _Part(0, 9 * 2 * latent * base), _transformer_in(a, chunks)]
    for level, (width, attends) in enumerate(zip(a.block_channels, a.attends_down, strict=True)):
        for _ in range(a.layers_per_block):
            parts += _layer(a, level, skips[-1][0], width, _alive(skips), attends)
            skips.append((width, level))
        if level < deepest:
            parts.append(_Part(level + 1, 9 * width * width))
            skips.append((width, level + 1))
    channels = a.block_channels[-1]
    parts += _layer(a, deepest, channels, channels, _alive(skips), attends=True)
    parts += _layer(a, deepest, channels, channels, _alive(skips), attends=False)
    for up, attends in enumerate(a.attends_up):
        level = deepest - up
        width = a.block_channels[level]
        held = _alive([*skips, (channels, level)])  # its input and skips, until a block returns
        for _ in range(a.layers_per_block + 1):
            parts += _layer(a, level, channels + skips.pop()[0], width, held, attends)
            channels = width
        if level > 0:
            parts.append(_upsampler(level, channels, held))
    return (*parts, _Part(0, 9 * base * latent))


@lru_cache
def _decoder_parts(a: Architecture) -> tuple[_Part, ...]:
    """AutoencoderKL's decoder: a network for images, frame by frame."""
    deepest, channels = len(a.vae_channels) - 1, a.vae_channels[-1]
    parts = [
        _Part(deepest, a.in_channels * (a.in_channels + 9 * channels)),
        _resnet(deepest, channels, channels),
        _Part(deepest, 4 * channels**2 * a.vae_attends, spatial_channels=channels * a.vae_attends),
        _resnet(deepest, channels, channels),
    ]
    for level in range(deepest, -1, -1):
        width, held = a.vae_channels[level], _alive([(channels, level)])
        for layer in range(a.vae_layers_per_block + 1):
            parts.append(_resnet(level, channels, width, held if layer else 0.0))
            channels = width
        if level > 0:
            parts.append(_upsampler(level, channels, held))
    return (*parts, _Part(0, 9 * channels * 3))


@lru_cache
def _encoder_parts(a: Architecture) -> tuple[_Part, ...]:
    """AutoencoderKL's encoder, frame by frame too; mean and variance come out."""
    deepest, channels = len(a.vae_channels) - 1, a.vae_channels[0]
    parts = [_Part(0, 9 * 3 * channels)]
    for level, width in enumerate(a.vae_channels):
        held = _alive([(channels, level)])
        for layer in range(a.vae_layers_per_block):
            parts.append(_resnet(level, channels, width, held if layer else 0.0))
            channels = width
        if level < deepest:  # alive with what it makes are its input and a padded copy of that
            alive = held + _alive([(2 * width, level), (width, level + 1)])
            parts.append(_Part(level + 1, 9 * width * width, alive))
    latent = 2 * a.in_channels
    return (
        *parts,
        _resnet(deepest, channels, channels),
        _Part(deepest, 4 * channels**2 * a.vae_attends, spatial_channels=channels * a.vae_attends),
        _resnet(deepest, channels, channels),
        _Part(deepest, 9 * channels * latent + latent * latent),
    )


def _layer(
    a: Architecture, level: int, c_in: int, c: int, held: float, attends: bool
) -> Iterator[_Part]:
    """A resnet, a temporal convolution and, where the block attends, both transformers."""
    yield _resnet(level, c_in, c, held, a.time_channels)
    alive = held + _alive([(c, level)])
    # Four (3, 1, 1) convolutions; alive are the second one's input, activation and output.
    yield _Part(level, 12 * c * c, alive + _alive([(3 * c, level)]))
    if attends:
        width = c // a.head_dim * a.head_dim
        peak = alive + _alive([(_FEED_FORWARD_PEAK * width, level)])
        feed_forward = 2 * c * width + 12 * width * width  # with the projections in and out
        context = a.context_tokens * 2 * width
        yield _Part(
            level,
            feed_forward + 6 * width * width + context,
            peak,
            macs_per_frame=a.context_dim * context,
            spatial_channels=width,
        )
        yield _Part(level, feed_forward + 8 * width * width, peak, temporal_channels=2 * width)


def _transformer_in(a: Architecture, chunks: int) -> _Part:
    """Always eight heads wide, whatever the channels: the largest tensors, at full resolution."""
    base, width = a.block_channels[0], 8 * a.head_dim
    # Chunked: four tensors as before, the outputs of the chunks done, 16 widths of the last chunk.
    feed_forward = _FEED_FORWARD_PEAK if chunks == 1 else 5 + 15 / chunks
    peak = base + max(_ATTENTION_PEAK, feed_forward) * width
    return _Part(0, 2 * base * width + 20 * width * width, peak, temporal_channels=2 * width)


def _image_latents(c: int) -> _Part:
    """Three convolutions (4, 4c, 4c, c) and a temporal encoder of two heads as wide as c."""
    return _Part(0, 9 * (16 * c + 20 * c * c) + 16 * c * c, temporal_channels=2 * c)


def _resnet(level: int, c_in: int, c: int, held: float = 0.0, time_channels: int = 0) -> _Part:
    shortcut = c_in * c if c_in != c else 0
    # Norm and activation of the input; or input through the shortcut, output, sum, scaled sum.
    alive = _alive([(c_in, level), (max(2 * c_in, (4 if shortcut else 3) * c), level)])
    return _Part(level, 9 * c * (c_in + c) + shortcut, held + alive, time_channels * c)


def _upsampler(level: int, c: int, held: float) -> _Part:
    """Input, nearest neighbours and convolution, the latter two at the next finer level."""
    return _Part(level - 1, 9 * c * c, held + _alive([(c, level), (2 * c, level - 1)]))


def _alive(tensors: list[tuple[int, int]]) -> float:
    """Tensors of (channels, level), in channels per point of full resolution."""
    return sum(channels * 0.25**level for channels, level in tensors)
