"""The codec: an AutoencoderKL whose encoder is a matrix written down, not trained.

A latent stands for 4 x 4 pixels and has four numbers: the mean of the patch on the three colour
axes of Ohta, Kanade and Sakai (1980), which are near the principal axes of photos, and the slope of
its brightness along one diagonal. A linear reconstruction from 3 x 3 of these latents measures as
well as one from the patch's four principal components, and those lose a whole colour axis.
"""

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import Decoder, Encoder
from torch import nn

PATCH = 4
"""Pixels of a patch along one side: pixels per latent."""

_CHANNELS = (16, 24, 48)
_GROUPS = 4
_LEVEL = 100.0
"""What keeps a group norm constant: two channels of a group stand at plus and minus this."""
_LOG_VARIANCE = -30.0
"""Of the posterior: the least that diffusers allows, so that a sample of it is its mode."""


@dataclass(frozen=True)
class PatchCode:
    """latent = scale * (axes @ patch - offset), the patch being [3 * 4 * 4] of values in -1..1."""

    axes: torch.Tensor  # [4, 3, 4, 4], orthonormal rows
    offset: torch.Tensor  # [4]
    scale: torch.Tensor  # [4]

    @classmethod
    def fit(cls, pixels: torch.Tensor) -> "PatchCode":
        """Offset and scale from pictures, [N, 3, H, W] in -1..1.

        Latents get a mean square of 1 over all channels, and within that the scale sd^-1/2: of all
        scales the one at which noise on the latents costs the fewest pixels (Cauchy-Schwarz).
        """
        axes = _axes()
        code = cls(axes, torch.zeros(4), torch.ones(4))
        values = code.encode(pixels).transpose(0, 1).flatten(1)
        mean, sd = values.mean(1), values.std(1)
        return cls(axes, mean, (sd * sd.mean()).rsqrt())

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """[N, 3, H, W] in -1..1 to latents [N, 4, H/4, W/4]."""
        values = nn.functional.conv2d(pixels, self.axes, stride=PATCH)
        return (values - self.offset.view(1, 4, 1, 1)) * self.scale.view(1, 4, 1, 1)


def _axes() -> torch.Tensor:
    colours = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [1.0, -2.0, 1.0]])
    colours = colours / colours.norm(dim=1, keepdim=True)
    ramp = torch.linspace(-1, 1, PATCH)
    slope = ramp[:, None] + ramp[None, :]
    flat = torch.full((PATCH, PATCH), 1 / PATCH)
    shapes = torch.stack([flat, flat, flat, slope / slope.norm()])
    return torch.einsum("kc,kyx->kcyx", colours[[0, 1, 2, 0]], shapes)


def make_vae(code: PatchCode) -> AutoencoderKL:
    """The stock class: its encoder computes `code`, its decoder starts as a box per patch.

    Nothing of the decoder is frozen; training it is `diffusion.training.decoder`.
    """
    levels = len(_CHANNELS)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=_CHANNELS,
        layers_per_block=1,
        norm_num_groups=_GROUPS,
        latent_channels=4,
        sample_size=256,
        scaling_factor=1.0,
        force_upcast=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=False,
    )
    with torch.no_grad():
        _write_encoder(vae.encoder, code)
        _write_decoder(vae.decoder, code)
    vae.encoder.requires_grad_(False)
    return vae


def _bias(module: Any) -> torch.Tensor:
    """Every layer here has one, which torch's types do not know."""
    bias: torch.Tensor = module.bias
    return bias


def _write_encoder(encoder: Encoder, code: PatchCode) -> None:
    """Space to depth twice, by the strided convolutions; their kernels look right and down."""
    for parameter in encoder.parameters():
        parameter.zero_()
    for channel in range(3):
        encoder.conv_in.weight[channel, channel, 1, 1] = 1
    first, second = (block.downsamplers[0].conv for block in encoder.down_blocks[:2])
    for channel in range(3):
        for y in range(2):
            for x in range(2):
                plane = 4 * channel + 2 * y + x  # pixel (y, x) of the 2 x 2 cell
                first.weight[plane, channel, y, x] = 1
                # In a patch that pixel comes back every second row and column.
                second.weight[:4, plane, :2, :2] = code.axes[:, channel, y::2, x::2]
    shortcut = encoder.down_blocks[1].resnets[0].conv_shortcut
    for plane in range(12):
        shortcut.weight[plane, plane] = 1
    pairs = _write_pairs(
        encoder.down_blocks[2].resnets[0].conv_shortcut,
        torch.diag(code.scale) @ torch.eye(4, _CHANNELS[1]),
    )
    _write_readout(encoder.conv_norm_out, encoder.conv_out, pairs, torch.eye(4))
    _bias(encoder.conv_out)[:4] = -code.scale * code.offset
    _bias(encoder.conv_out)[4:] = _LOG_VARIANCE


def _write_decoder(decoder: Decoder, code: PatchCode) -> None:
    """Residual branches start at zero, the rest as the identity plus a little of its own noise."""
    for block in [decoder.mid_block, *decoder.up_blocks]:
        for resnet in block.resnets:
            resnet.conv2.weight.zero_()
            resnet.conv2.bias.zero_()
            if resnet.conv_shortcut is not None:
                _write_identity(resnet.conv_shortcut)
        if getattr(block, "upsamplers", None):
            _write_identity(block.upsamplers[0].conv)
    _write_identity(decoder.conv_in)
    # A latent's share of each of its pixels, the slope aside: [3 colours + 1, 4].
    means = torch.zeros(4, _CHANNELS[1])
    means[:3, :4] = (code.axes.mean((2, 3)) / code.scale[:, None]).T
    means[3, 3] = 1
    last = decoder.up_blocks[2].resnets[0].conv_shortcut
    pairs = _write_pairs(last, means)
    rgb = torch.eye(4)[:3]
    _write_readout(decoder.conv_norm_out, decoder.conv_out, pairs, rgb)
    _bias(decoder.conv_out)[:] = code.axes.mean((2, 3)).T @ code.offset


def _write_identity(conv: nn.Conv2d) -> None:
    """Keep a tenth of the random start, so that channels differ, and pass the first through."""
    conv.weight.mul_(0.1)
    _bias(conv).zero_()
    middle = conv.weight.shape[-1] // 2
    for channel in range(min(conv.in_channels, conv.out_channels)):
        conv.weight[channel, channel, middle, middle] += 1


def _write_pairs(shortcut: nn.Conv2d, rows: torch.Tensor) -> list[tuple[int, int]]:
    """Put row i of `rows`, [4, in], and its negative into group i, with the constant pair.

    Returns the channels of each pair. silu(x) - silu(-x) = x makes the way through exact.
    """
    shortcut.weight.zero_()
    _bias(shortcut).zero_()
    width = shortcut.out_channels // _GROUPS
    pairs = []
    for group, row in enumerate(rows):
        start = group * width
        shortcut.weight[start, :, 0, 0], shortcut.weight[start + 1, :, 0, 0] = row, -row
        _bias(shortcut)[start + 2], _bias(shortcut)[start + 3] = _LEVEL, -_LEVEL
        pairs.append((start, start + 1))
    return pairs


def _write_readout(
    norm: nn.GroupNorm, conv: nn.Conv2d, pairs: list[tuple[int, int]], rows: torch.Tensor
) -> None:
    """Undo the norm's constant scale and add each pair up again: out = rows @ pairs."""
    norm.weight.zero_()
    _bias(norm).zero_()
    conv.weight.zero_()
    _bias(conv).zero_()
    deviation = _LEVEL * (2 * _GROUPS / norm.num_channels) ** 0.5
    for column, (plus, minus) in enumerate(pairs):
        norm.weight[[plus, minus]] = deviation
        conv.weight[: len(rows), plus, 1, 1] = rows[:, column]
        conv.weight[: len(rows), minus, 1, 1] = -rows[:, column]
