"""A checkpoint on disk: where it is, whether it is one, and which one it is. No torch here."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from diffusion.errors import UnsupportedSize, WeightsMismatch, WeightsUnusable

Component = Literal[
    "tokenizer", "text_encoder", "feature_extractor", "image_encoder", "vae", "unet", "scheduler"
]

_WEIGHTS = {
    "text_encoder": "model",
    "image_encoder": "model",
    "vae": "diffusion_pytorch_model",
    "unet": "diffusion_pytorch_model",
}
_CONFIGS = {
    "tokenizer": "tokenizer_config.json",
    "feature_extractor": "preprocessor_config.json",
    "scheduler": "scheduler_config.json",
    **dict.fromkeys(_WEIGHTS, "config.json"),
}
_READ_SIZE_BYTES = 1 << 22

EMBEDDED = Path(__file__).with_name("embedded")
"""The checkpoint that comes with the package, `source: embedded`: see docs/embedded-model.md."""


class ModelConfig(BaseModel):
    """Which weights to serve, and how."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    name: str = Field("i2vgen-xl", description="the name callers see")
    source: str = Field(
        description="a diffusers folder, or a hub id such as ali-vilab/i2vgen-xl; embedded: the"
        " small checkpoint of this package; tiny: random weights, which `shopreel up` writes"
    )
    revision: str | None = Field(None, description="40-digit commit; required for a hub id")
    variant: Literal["fp16"] | None = Field(None, description="load *.fp16.safetensors files")
    dtype: Literal["float32", "float16", "bfloat16"] = Field("float16", description="on GPUs")
    cpu_dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="on CPUs; bfloat16 is three times as fast where the CPU has AMX"
    )

    @property
    def path(self) -> Path:
        """The folder that `source` means, unless it is a hub id."""
        return EMBEDDED if self.source == "embedded" else Path(self.source).expanduser()

    @property
    def is_random(self) -> bool:
        return self.source == "tiny"

    @property
    def is_stopgap(self) -> bool:
        """Whether nobody named weights that are worth seeing."""
        return self.is_random or self.source == "embedded"

    def dtype_on(self, device: str) -> str:
        return self.cpu_dtype if device == "cpu" else self.dtype


@dataclass(frozen=True)
class ModelFolder:
    """A folder in diffusers' layout with the seven components of I2VGen-XL, safetensors only."""

    path: Path
    variant: str | None = None

    @classmethod
    def open(cls, config: ModelConfig) -> "ModelFolder":
        """Find the checkpoint, downloading a hub id at its pinned revision if it is not cached.

        Raises WeightsUnusable naming what is missing.
        """
        path = config.path
        if not path.is_dir():
            path = _download(config)
        folder = cls(path, config.variant)
        for component in _CONFIGS:
            for file in folder.files(component):
                if not file.is_file():
                    raise WeightsUnusable(
                        f"{file} is missing: expected a diffusers folder of I2VGen-XL with"
                        f" safetensors weights of variant {config.variant or 'none'}"
                    )
        return folder

    def files(self, component: str) -> list[Path]:
        """The files that decide what `component` computes, in a fixed order.

        A sharded checkpoint is named by its index; the shards it lists follow.
        """
        folder = self.path / component
        files = [folder / _CONFIGS[component]]
        if component == "tokenizer":
            files += [folder / n for n in ("tokenizer.json",) if (folder / n).exists()] or [
                folder / "vocab.json",
                folder / "merges.txt",
            ]
        if stem := _WEIGHTS.get(component):
            suffix = f".{self.variant}" if self.variant else ""
            index = folder / f"{stem}.safetensors.index{suffix}.json"
            if index.exists():
                shards = sorted(set(json.loads(index.read_text())["weight_map"].values()))
                files += [index, *(folder / shard for shard in shards)]
            else:
                files.append(folder / f"{stem}{suffix}.safetensors")
        return files

    def digest(self, component: str) -> str:
        """sha256 over the component's files, names included."""
        digest = hashlib.sha256()
        for file in self.files(component):
            digest.update(file.name.encode())
            with file.open("rb") as stream:
                while block := stream.read(_READ_SIZE_BYTES):
                    digest.update(block)
        return digest.hexdigest()

    def digests(self) -> dict[str, str]:
        """Digest of every component, by its name."""
        return {component: self.digest(component) for component in _CONFIGS}

    def verify(self, digests: dict[str, str], *components: Component) -> None:
        """Raises WeightsMismatch if a component here is not the one in `digests`."""
        for component in components:
            found = self.digest(component)
            if found != digests[component]:
                raise WeightsMismatch(component, digests[component], found)

    def config(self, component: Component) -> dict[str, Any]:
        """The component's own JSON configuration."""
        parsed: dict[str, Any] = json.loads(
            (self.path / component / _CONFIGS[component]).read_text()
        )
        return parsed

    @cached_property
    def latent_scale(self) -> int:
        """Pixels per latent, along one side."""
        return int(2 ** (len(self.config("vae")["block_out_channels"]) - 1))

    @cached_property
    def size_multiple(self) -> int:
        """Pixels that both sides of a clip must be multiples of: latents halve once per level."""
        return int(self.latent_scale * 2 ** (len(self.config("unet")["block_out_channels"]) - 1))


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What is said of the served checkpoint to whoever does not load it."""

    name: str
    revision: str  # sha256
    size_multiple: int  # px, of both sides of a clip

    @classmethod
    def of(cls, config: ModelConfig, folder: ModelFolder, digests: dict[str, str]) -> "ModelCard":
        return cls(config.name, model_revision(digests), folder.size_multiple)

    def check_size(self, width: int, height: int) -> None:
        """Raises UnsupportedSize unless the UNet can halve both sides all the way down."""
        multiple = self.size_multiple
        if min(width, height) < multiple or width % multiple or height % multiple:
            raise UnsupportedSize(width, height, multiple)


def model_revision(digests: dict[str, str]) -> str:
    """One sha256 for the whole checkpoint: what results and metadata record."""
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()


def _download(config: ModelConfig) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    if config.revision is None or len(config.revision) != 40:
        raise WeightsUnusable(
            f"{config.source!r} is no folder here, and as a hub id it needs model.revision: the"
            " 40-digit commit to pin"
        )
    suffix = f".{config.variant}" if config.variant else ""
    try:
        path = snapshot_download(
            config.source,
            revision=config.revision,
            allow_patterns=["*.json", "*.txt", f"*/*model{suffix}*.safetensors"],
            ignore_patterns=[] if config.variant else ["*.fp16.*"],
        )
    except (OSError, ValueError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as e:
        raise WeightsUnusable(
            f"{config.source!r} at {config.revision} could not be had from the hub ({e}); give"
            " model.source a local folder where there is no network"
        ) from e
    return Path(path)
