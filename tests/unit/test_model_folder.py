"""The checkpoint on disk: found, checked, named by its bytes."""

import shutil
from pathlib import Path

import pytest

from diffusion.errors import UnsupportedSize, WeightsMismatch, WeightsUnusable
from diffusion.model_folder import ModelCard, ModelConfig, ModelFolder, model_revision
from diffusion.tiny import write_tiny_model


@pytest.fixture
def copy(tiny: ModelFolder, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny.path, tmp_path / "copy"))


def test_the_same_seed_writes_the_same_model_and_another_one_does_not(
    tiny: ModelFolder, tmp_path: Path
) -> None:
    write_tiny_model(tmp_path / "same")
    write_tiny_model(tmp_path / "other", seed=1)
    assert ModelFolder(tmp_path / "same").digests() == tiny.digests()
    assert model_revision(ModelFolder(tmp_path / "other").digests()) != model_revision(
        tiny.digests()
    )


@pytest.mark.parametrize(
    "file",
    [
        "unet/diffusion_pytorch_model.safetensors",
        "vae/config.json",
        "tokenizer/tokenizer.json",
        "scheduler/scheduler_config.json",
    ],
)
def test_every_file_that_decides_pixels_is_in_the_revision(
    tiny: ModelFolder, copy: Path, file: str
) -> None:
    with (copy / file).open("ab") as stream:
        stream.write(b" ")
    component = file.partition("/")[0]
    changed = ModelFolder(copy)
    assert model_revision(changed.digests()) != model_revision(tiny.digests())
    with pytest.raises(WeightsMismatch, match=component):
        changed.verify(tiny.digests(), component)  # type: ignore[arg-type]


def test_a_missing_component_is_named(copy: Path) -> None:
    (copy / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(WeightsUnusable, match="vae/diffusion_pytorch_model.safetensors"):
        ModelFolder.open(ModelConfig(source=str(copy)))


def test_pickled_weights_are_no_weights(copy: Path) -> None:
    unet = copy / "unet" / "diffusion_pytorch_model.safetensors"
    unet.rename(unet.with_suffix(".bin"))
    with pytest.raises(WeightsUnusable, match="safetensors"):
        ModelFolder.open(ModelConfig(source=str(copy)))


def test_sharded_weights_are_read_by_their_index(copy: Path) -> None:
    folder = copy / "unet"
    weights = folder / "diffusion_pytorch_model.safetensors"
    weights.rename(folder / "diffusion_pytorch_model-00001-of-00001.safetensors")
    index = folder / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text('{"weight_map": {"a": "diffusion_pytorch_model-00001-of-00001.safetensors"}}')
    opened = ModelFolder.open(ModelConfig(source=str(copy)))
    assert [file.name for file in opened.files("unet")][-1].endswith("-of-00001.safetensors")


@pytest.mark.parametrize("revision", [None, "main", "39e1979"])
def test_a_hub_id_must_be_pinned(revision: str | None) -> None:
    config = ModelConfig(source="ali-vilab/i2vgen-xl", revision=revision)
    with pytest.raises(WeightsUnusable, match="40-digit commit"):
        ModelFolder.open(config)


def test_sizes_are_checked_against_the_model(tiny: ModelFolder) -> None:
    card = ModelCard("tiny", "0", tiny.size_multiple)
    assert tiny.size_multiple == 16
    card.check_size(128, 96)
    for width, height in ((100, 128), (128, 0), (8, 8)):
        with pytest.raises(UnsupportedSize, match="multiples of 16 px; the nearest is"):
            card.check_size(width, height)
