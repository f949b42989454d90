"""LPIPS with random weights in the layout that torchvision and lpips publish theirs in."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from diffusion.errors import WeightsUnusable
from diffusion.lpips import PerceptualDistance

FEATURES = {
    "features.0": (64, 3, 11, 11),
    "features.3": (192, 64, 5, 5),
    "features.6": (384, 192, 3, 3),
    "features.8": (256, 384, 3, 3),
    "features.10": (256, 256, 3, 3),
}
HEADS = {f"lin{index}": shape[0] for index, shape in enumerate(FEATURES.values())}


def published(seed: int = 0) -> dict[str, Tensor]:
    """Names and shapes as in alexnet-owt-7be5be79.pth, its classifier included, and alex.pth."""
    random = torch.Generator().manual_seed(seed)
    tensors = {"classifier.1.weight": torch.zeros(4, 4)}
    for name, shape in FEATURES.items():
        fan_in = shape[1] * shape[2] * shape[3]
        tensors[f"{name}.weight"] = torch.randn(shape, generator=random) * (2 / fan_in) ** 0.5
        tensors[f"{name}.bias"] = torch.randn(shape[0], generator=random) * 0.05
    for name, width in HEADS.items():
        tensors[f"{name}.model.1.weight"] = torch.rand((1, width, 1, 1), generator=random)
    return tensors


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "lpips.safetensors"
    save_file(published(), path)
    return path


def images(count: int) -> NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 256, (count, 96, 64, 3), dtype=np.uint8)


def test_equal_images_are_at_no_distance_and_others_farther_the_more_they_differ(
    weights: Path,
) -> None:
    (photo,) = images(1)
    grain = np.random.default_rng(4).normal(0, 1, photo.shape)
    frames = [np.clip(photo + sigma * grain, 0, 255).astype(np.uint8) for sigma in (0, 4, 16, 64)]
    distances = PerceptualDistance(weights)(np.stack(frames), photo)
    assert distances[0] == pytest.approx(0, abs=1e-6)
    assert distances == sorted(distances)
    assert distances[3] > 2 * distances[1] > 0


def test_the_distance_of_two_images_has_no_direction(weights: Path) -> None:
    one, other = images(2)
    distance = PerceptualDistance(weights)
    assert distance(one[None], other) == pytest.approx(distance(other[None], one), rel=1e-5)


def test_a_frame_s_distance_does_not_hang_on_its_neighbours(weights: Path) -> None:
    frames, photo = images(3), images(4)[3]
    distance = PerceptualDistance(weights)
    alone = [distance(frame[None], photo)[0] for frame in frames]
    assert distance(frames, photo) == pytest.approx(alone, rel=1e-5)


def test_each_layer_adds_its_unit_features_squared_difference_weighed_by_its_head(
    tmp_path: Path,
) -> None:
    """With a single head that is not zero, the first: computed here by hand from its layer."""
    tensors = published()
    for index in range(1, 5):
        tensors[f"lin{index}.model.1.weight"].zero_()
    save_file(tensors, path := tmp_path / "first.safetensors")
    one, other = images(2)

    def unit_features(image: NDArray[np.uint8]) -> NDArray[np.float64]:
        rgb = image / 127.5 - 1
        rgb = (rgb - np.array([-0.030, -0.088, -0.188])) / np.array([0.458, 0.448, 0.450])
        padded = np.pad(rgb, ((2, 2), (2, 2), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (11, 11), axis=(0, 1))
        kernel = tensors["features.0.weight"].numpy()
        features = np.einsum("yxcij,ocij->yxo", windows[::4, ::4], kernel)
        features = np.maximum(features + tensors["features.0.bias"].numpy(), 0)
        return np.asarray(features / np.linalg.norm(features, axis=-1, keepdims=True))

    head = tensors["lin0.model.1.weight"].numpy().ravel()
    expected = ((unit_features(one) - unit_features(other)) ** 2 @ head).mean()
    assert PerceptualDistance(path)(one[None], other) == pytest.approx([expected], rel=1e-3)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        pytest.param(lambda tensors: tensors.pop("lin3.model.1.weight"), "lin3", id="no heads"),
        pytest.param(lambda tensors: tensors.pop("features.0.bias"), "features.0", id="no layer"),
        pytest.param(
            lambda tensors: tensors.update({"features.3.weight": torch.zeros(1)}),
            "features.3",
            id="another network",
        ),
        pytest.param(
            lambda tensors: tensors.update({"layer4.weight": torch.zeros(1)}), "layer4", id="more"
        ),
    ],
)
def test_weights_of_another_layout_are_refused(
    tmp_path: Path, damage: Callable[[dict[str, Tensor]], object], told: str
) -> None:
    tensors = published()
    damage(tensors)
    save_file(tensors, path := tmp_path / "other.safetensors")
    with pytest.raises(WeightsUnusable, match=told):
        PerceptualDistance(path)


def test_missing_and_damaged_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsUnusable, match="lpips_weights"):
        PerceptualDistance(tmp_path / "none.safetensors")
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"\x00" * 100)
    with pytest.raises(WeightsUnusable, match="lpips_weights"):
        PerceptualDistance(damaged)
