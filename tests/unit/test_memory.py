"""The analytic costs against traces of the real classes on the meta device.

FLOPs are those of torch's FlopCounterMode; peak bytes are the storages alive between operations,
attention being flash-style as on a GPU. Both are stated tighter than anyone needs, so that a change
of diffusers' structure shows.
"""

import json
import pickle
import subprocess
import sys
import weakref
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, I2VGenXLUNet
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from diffusion.errors import WeightsUnusable
from diffusion.memory import ALLOCATOR_SLACK, TEXT_TOKENS, Architecture
from diffusion.model_folder import ModelFolder
from diffusion.weights import CONTEXT_LENGTH

FLOPS_TOLERANCE = 1e-6
BYTES_TOLERANCE = 0.01
GIB = 2**30

PUBLISHED: dict[str, Any] = {  # of ali-vilab/i2vgen-xl
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "cross_attention_dim": 1024,
    "attention_head_dim": 64,
    "norm_num_groups": 32,
    "sample_size": 32,
}
COARSE: dict[str, Any] = {  # convolutions only where it is finest: other parts make the peak
    "block_out_channels": (64, 128, 200),
    "layers_per_block": 1,
    "cross_attention_dim": 128,
    "attention_head_dim": 8,
    "norm_num_groups": 8,
    "sample_size": 16,
    "down_block_types": ("DownBlock3D", "CrossAttnDownBlock3D", "CrossAttnDownBlock3D"),
    "up_block_types": ("CrossAttnUpBlock3D", "CrossAttnUpBlock3D", "UpBlock3D"),
}
SD_VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "latent_channels": 4,
}


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """`peak` bytes of the storages that operations made, `given` ones apart."""

    def __init__(self, given: Iterable[torch.Tensor]):
        super().__init__()  # type: ignore[no-untyped-call]
        self._known = {tensor.untyped_storage()._cdata for tensor in given}
        self._live = self.peak = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata not in self._known:
            self._known.add(storage._cdata)
            self._live += storage.nbytes()
            self.peak = max(self.peak, self._live)
            weakref.finalize(storage, self._freed, storage._cdata, storage.nbytes())

    def _freed(self, cdata: int, nbytes: int) -> None:
        self._known.discard(cdata)
        self._live -= nbytes


def unet_on_meta(config: dict[str, Any]) -> Any:
    with torch.device("meta"):
        return I2VGenXLUNet(**config).half().eval()


def vae_on_meta(config: dict[str, Any]) -> Any:
    with torch.device("meta"):
        return AutoencoderKL(**config).half().eval()


def unet_inputs(unet: Any, width: int, height: int, frames: int, rows: int) -> dict[str, Any]:
    latents, context = (rows, 4, frames, height // 8, width // 8), unet.config.cross_attention_dim
    with torch.device("meta"):
        return {
            "sample": torch.empty(latents).half(),
            "timestep": torch.ones(rows, dtype=torch.int64),
            "fps": torch.ones(rows, dtype=torch.int64),
            "image_latents": torch.empty(latents).half(),
            "image_embeddings": torch.empty(rows, 1, context).half(),
            "encoder_hidden_states": torch.empty(rows, CONTEXT_LENGTH, context).half(),
        }


@torch.no_grad()
def traced_flops(module: Any, *args: Any, **kwargs: Any) -> int:
    counter = FlopCounterMode(display=False)
    with counter:
        module(*args, **kwargs)
    return counter.get_total_flops()


@torch.no_grad()
def traced_bytes(module: Any, *args: Any, **kwargs: Any) -> int:
    given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
    live = LiveBytes([*module.parameters(), *given])
    with pytest.MonkeyPatch.context() as patch, live:
        # On meta torch would choose the matrix of scores, as no GPU does.
        patch.setattr(
            torch.nn.functional,
            "scaled_dot_product_attention",
            lambda query, *_args, **_kwargs: torch.empty_like(query),
        )
        module(*args, **kwargs)
    return live.peak


def chunk(unet: Any, chunked: bool) -> None:
    for block in unet.transformer_in.transformer_blocks:
        block.set_chunk_feed_forward(1 if chunked else None, dim=1)


def write_folder(path: Path, unet: Any, vae: Any) -> ModelFolder:
    """What `of` reads of a checkpoint. The weights are holes in their files."""
    for name, module in (("unet", unet), ("vae", vae)):
        (path / name).mkdir()
        (path / name / "config.json").write_text(json.dumps(dict(module.config)))
        header: dict[str, Any] = {}
        end = 0
        for key, tensor in module.state_dict().items():
            begin, end = end, end + 2 * tensor.numel()
            header[key] = {
                "dtype": "F16",
                "shape": list(tensor.shape),
                "data_offsets": [begin, end],
            }
        encoded = json.dumps(header).encode()
        with (path / name / "diffusion_pytorch_model.safetensors").open("wb") as file:
            file.write(len(encoded).to_bytes(8, "little") + encoded)
            file.truncate(file.tell() + end)
    return ModelFolder(path)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Architecture:
    folder = tmp_path_factory.mktemp("published")
    return Architecture.of(write_folder(folder, unet_on_meta(PUBLISHED), vae_on_meta(SD_VAE)))


def check_unet(
    architecture: Architecture, unet: Any, width: int, height: int, frames: int, rows: int
) -> None:
    inputs = unet_inputs(unet, width, height, frames, rows)
    predicted = architecture.unet_flops(width, height, frames) * rows
    assert predicted == pytest.approx(traced_flops(unet, **inputs), rel=FLOPS_TOLERANCE)
    for chunked in (False, True):
        chunk(unet, chunked)
        peak = architecture.unet_bytes(width, height, frames, rows, 2, chunked)
        assert peak == pytest.approx(traced_bytes(unet, **inputs), rel=BYTES_TOLERANCE)


@pytest.mark.parametrize(
    ("width", "height", "frames", "rows"),
    [
        (512, 512, 16, 1),
        (768, 768, 24, 2),
        (1280, 704, 16, 1),
        (256, 256, 8, 4),
        (512, 256, 2, 2),  # two frames: chunks of half the feed forward
    ],
)
def test_the_published_unet(
    published: Architecture, width: int, height: int, frames: int, rows: int
) -> None:
    check_unet(published, unet_on_meta(PUBLISHED), width, height, frames, rows)


@pytest.mark.parametrize(("width", "height", "frames", "rows"), [(128, 64, 8, 2), (64, 64, 16, 1)])
def test_the_tiny_unet(tiny: ModelFolder, width: int, height: int, frames: int, rows: int) -> None:
    unet = I2VGenXLUNet.from_config(tiny.config("unet")).to("meta").half().eval()
    check_unet(Architecture.of(tiny), unet, width, height, frames, rows)


@pytest.mark.parametrize(
    ("width", "height", "frames", "rows"), [(256, 192, 8, 2), (128, 256, 3, 1)]
)
def test_a_unet_that_attends_at_coarse_levels_only(
    tmp_path: Path, width: int, height: int, frames: int, rows: int
) -> None:
    unet = unet_on_meta(COARSE)
    architecture = Architecture.of(write_folder(tmp_path, unet, vae_on_meta(SD_VAE)))
    check_unet(architecture, unet, width, height, frames, rows)


def test_without_wide_attention_the_resnets_make_the_peak(tmp_path: Path) -> None:
    config = COARSE | {
        "attention_head_dim": 1,  # transformer_in is eight channels wide
        "down_block_types": ("DownBlock3D",) * 3,
        "up_block_types": ("UpBlock3D",) * 3,
    }
    unet = unet_on_meta(config)
    architecture = Architecture.of(write_folder(tmp_path, unet, vae_on_meta(SD_VAE)))
    check_unet(architecture, unet, 256, 256, 8, 2)


@pytest.mark.parametrize(
    "config",
    [
        SD_VAE,
        SD_VAE | {"block_out_channels": (32, 64, 96, 128), "mid_block_add_attention": False},
    ],
)
def test_the_decoder(tmp_path: Path, config: dict[str, Any]) -> None:
    vae = vae_on_meta(config)
    architecture = Architecture.of(write_folder(tmp_path, unet_on_meta(COARSE), vae))
    vae.encoder = None
    vae.forward = lambda latents: vae.decode(latents).sample
    latents = torch.empty(3, 4, 64, 96, device="meta", dtype=torch.float16)
    flops, peak = architecture.decode_flops(768, 512, 3), architecture.decode_bytes(768, 512, 3, 2)
    assert flops == pytest.approx(traced_flops(vae, latents), rel=FLOPS_TOLERANCE)
    assert peak == pytest.approx(traced_bytes(vae, latents), rel=BYTES_TOLERANCE)


@pytest.mark.parametrize(
    "config",
    [
        SD_VAE,
        SD_VAE | {"block_out_channels": (32, 64, 96, 128), "mid_block_add_attention": False},
    ],
)
def test_the_encoder(tmp_path: Path, config: dict[str, Any]) -> None:
    vae = vae_on_meta(config)
    architecture = Architecture.of(write_folder(tmp_path, unet_on_meta(COARSE), vae))
    vae.decoder = None
    vae.forward = lambda images: vae.encode(images).latent_dist.mode()
    images = torch.empty(3, 3, 512, 768, device="meta", dtype=torch.float16)
    flops, peak = architecture.encode_flops(768, 512, 3), architecture.encode_bytes(768, 512, 3, 2)
    assert flops == pytest.approx(traced_flops(vae, images), rel=FLOPS_TOLERANCE)
    assert peak == pytest.approx(traced_bytes(vae, images), rel=BYTES_TOLERANCE)
    assert peak <= architecture.decode_bytes(768, 512, 3, 2)


def test_frames_to_begin_at_cost_less_than_half_a_step(published: Architecture) -> None:
    """Why they are encoded on a GPU, where that is little, and not beside the photo on CPUs."""
    frames = published.encode_flops(512, 512, 16)
    assert frames / 1e12 == pytest.approx(17.9, abs=0.1)
    assert frames / (2 * published.unet_flops(512, 512, 16)) == pytest.approx(0.43, abs=0.01)


def test_the_measured_table(published: Architecture) -> None:
    """GiB of activations as traced independently, in half precision."""
    sizes = ((512, 512, 16, 1, False), (768, 768, 24, 2, False), (768, 768, 24, 2, True))
    found = [published.unet_bytes(w, h, f, rows, 2, chunked) for w, h, f, rows, chunked in sizes]
    assert [peak / GIB for peak in found] == pytest.approx([1.29, 8.72, 6.88], abs=0.01)


def test_parameters_are_counted_from_the_files(published: Architecture, tiny: ModelFolder) -> None:
    assert published.unet_parameters == 1_420_469_224
    assert published.decoder_parameters == 49_490_199
    unet = I2VGenXLUNet.from_config(tiny.config("unet"))
    assert Architecture.of(tiny).unet_parameters == sum(p.numel() for p in unet.parameters())


def test_a_denoiser_takes_its_weights_and_slack(published: Architecture) -> None:
    activations = published.unet_bytes(512, 512, 16, 2, 4, chunked=True)
    whole = published.denoiser_bytes(512, 512, 16, 2, 4, chunked=True)
    assert whole == pytest.approx(4 * 1_420_469_224 + ALLOCATOR_SLACK * activations, abs=1)


def test_it_travels_between_processes(published: Architecture) -> None:
    assert pickle.loads(pickle.dumps(published)) == published
    assert len(pickle.dumps(published)) < 1000


def test_a_config_without_what_is_needed_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, unet_on_meta(COARSE), vae_on_meta(SD_VAE))
    config = folder.config("unet")
    del config["cross_attention_dim"]
    (tmp_path / "unet" / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsUnusable, match="cross_attention_dim"):
        Architecture.of(folder)


def test_the_text_context_is_as_long_as_the_text_stage_makes_it() -> None:
    assert TEXT_TOKENS == CONTEXT_LENGTH


def test_costs_are_known_without_torch() -> None:
    code = "import sys, cluster.cost; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_more_of_anything_costs_more(published: Architecture) -> None:
    small = published.unet_flops(512, 512, 16), published.unet_bytes(512, 512, 16, 1, 2, True)
    for width, height, frames in ((576, 512, 16), (512, 576, 16), (512, 512, 17)):
        assert published.unet_flops(width, height, frames) > small[0]
        assert published.unet_bytes(width, height, frames, 1, 2, True) > small[1]
    wider = replace(published, block_channels=(384, 640, 1280, 1280))
    assert wider.unet_flops(512, 512, 16) > small[0]
