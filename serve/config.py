"""AppConfig: one section per package, read once from a Serve config file and the environment.

The file is Ray Serve's own (`serve deploy FILE` takes it); the application's `args` are our part.
An environment variable beats the file: SHOPREEL_<SECTION>__<FIELD>, for secrets above all.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from catalog.presets import Preset, default_presets
from cluster.stage import StageConfig
from cluster.tiers import TierConfig
from deployments.decoder import DecoderConfig
from deployments.dispatcher import DispatcherConfig
from deployments.text_encoder import TextEncoderConfig
from deployments.video_encoder import VideoEncoderConfig
from diffusion.model_folder import ModelConfig
from storage.job_store import JobStoreConfig
from storage.object_store import ObjectStoreConfig
from video.photo import PhotoLimits

ENVIRONMENT_PREFIX = "SHOPREEL_"
APP_NAME = "shopreel"


class ConfigError(Exception):
    """The file or the environment asks for what cannot be; says where and what is allowed."""


class Limits(BaseModel):
    """What one request may ask for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    photo: PhotoLimits = Field(default_factory=PhotoLimits)
    max_body_bytes: int = Field(32 << 20, gt=0)
    max_area_px: int = Field(1280 * 768, gt=0, description="width x height of one frame")
    max_prompt_chars: int = Field(2000, gt=0)


class Stages(BaseModel):
    """The deployments other than the denoisers, which are the tiers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    api: StageConfig = Field(
        default_factory=lambda: StageConfig(max_ongoing_requests=100, target_ongoing_requests=50)
    )
    dispatcher: DispatcherConfig = Field(default_factory=DispatcherConfig)
    text_encoder: TextEncoderConfig = Field(default_factory=TextEncoderConfig)
    image_encoder: StageConfig = Field(default_factory=StageConfig)
    decoder: DecoderConfig = Field(default_factory=DecoderConfig)
    video_encoder: VideoEncoderConfig = Field(default_factory=VideoEncoderConfig)


class AppConfig(BaseSettings):
    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=ENVIRONMENT_PREFIX,
        env_nested_delimiter="__",
        env_ignore_empty=True,
    )

    model: ModelConfig
    object_store: ObjectStoreConfig | None = Field(
        None, description="left out: `shopreel up` starts an embedded S3 server"
    )
    job_store: JobStoreConfig | None = Field(
        None, description="left out: `shopreel up` keeps SQLite in its data folder"
    )
    presets: dict[str, Preset] = Field(default_factory=default_presets)
    limits: Limits = Field(default_factory=Limits)
    tiers: tuple[TierConfig, ...] = Field(min_length=1)
    stages: Stages = Field(default_factory=Stages)

    @field_validator("presets")
    @classmethod
    def _standard_exists(cls, presets: dict[str, Preset]) -> dict[str, Preset]:
        if "standard" not in presets:
            raise ValueError("a preset named 'standard' is the default of every request")
        return presets

    @field_validator("tiers")
    @classmethod
    def _tiers_have_names_of_their_own(cls, tiers: tuple[TierConfig, ...]) -> Any:
        names = [tier.name for tier in tiers]
        if len(set(names)) < len(names):
            raise ValueError(f"tier names must differ, got {', '.join(names)}")
        return tiers

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return env_settings, init_settings


@dataclass(frozen=True)
class LoadedConfig:
    """A Serve config file, and our part of it as it is in force."""

    path: Path
    serve: dict[str, Any]  # the whole document
    app: AppConfig

    @property
    def http_address(self) -> tuple[str, int]:
        """Host and port to listen on; loopback unless the file says otherwise."""
        http = self.serve.get("http_options", {})
        return http.get("host", "127.0.0.1"), http.get("port", 8200)

    def with_http(self, host: str, port: int) -> dict[str, Any]:
        """The document with the address to listen on."""
        http = {**self.serve.get("http_options", {}), "host": host, "port": port}
        return {**self.serve, "http_options": http}

    def in_force(self) -> Iterator[tuple[str, Any, str]]:
        """(dotted name, value, origin) of every setting; secrets are masked by their type."""
        yield from _in_force(
            self.app.model_dump(mode="json"), _args(self.serve, self.path), self.path.name
        )


def parse(args: Mapping[str, Any], where: str) -> AppConfig:
    """Our part of a Serve config file, plus the environment. Raises ConfigError."""
    try:
        return AppConfig(**args)
    except ValidationError as e:
        problems = [
            f"  {'.'.join(str(part) for part in error['loc'])}: {error['msg']}"
            for error in e.errors(include_url=False, include_input=False)
        ]
        raise ConfigError(
            f"{where} (with {ENVIRONMENT_PREFIX}* variables) is not valid:\n" + "\n".join(problems)
        ) from e


def load(path: Path) -> LoadedConfig:
    """Read a Serve config file that holds one application, ours. Raises ConfigError."""
    try:
        document = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as e:
        raise ConfigError(f"{path} cannot be read: {e}") from e
    return LoadedConfig(path, document, parse(_args(document, path), str(path)))


def _args(document: Any, path: Path) -> dict[str, Any]:
    try:
        (application,) = document["applications"]
        args: dict[str, Any] = application["args"]
    except (KeyError, TypeError, ValueError) as e:
        raise ConfigError(
            f"{path} is no Serve config file with one application and its `args`; start from"
            " cluster/local.yaml"
        ) from e
    return args


def _in_force(
    value: Any, given: Any, file: str, name: str = "", variable: str = ENVIRONMENT_PREFIX
) -> Iterator[tuple[str, Any, str]]:
    for key, item in value.items():
        dotted = f"{name}.{key}" if name else key
        path = f"{variable}{key.upper()}"
        written = given.get(key) if isinstance(given, Mapping) else None
        if isinstance(item, dict) and item:
            yield from _in_force(item, written, file, dotted, f"{path}__")
        elif path in os.environ:
            yield dotted, item, f"environment {path}"
        else:
            yield dotted, item, file if written is not None else "default"
