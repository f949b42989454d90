"""AppConfig: one section per package, read once from a Serve config file and the environment.

The file is Ray Serve's own (`serve deploy FILE` takes it); the application's `args` are our part.
An environment variable beats the file: SHOPREEL_<SECTION>__<FIELD>, for secrets above all; lists
are set as a whole, as JSON.
"""

import difflib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)
from ray.serve.schema import ServeDeploySchema
from sqlalchemy import make_url

from catalog.categories import Category, default_categories
from catalog.presets import DEFAULT_PRESET, Preset, default_presets
from catalog.run.config import CatalogConfig
from cluster.kuberay import ManifestUnusable, RayService
from cluster.local import APP_NAME
from cluster.stage import StageConfig
from cluster.tiers import CameraTierConfig, TierConfig
from deployments.decoder import DecoderConfig
from deployments.dispatcher import DispatcherConfig
from deployments.egress.client import EgressConfig
from deployments.egress.webhooks import WebhookConfig
from deployments.housekeeper import HousekeeperConfig
from deployments.text_encoder import TextEncoderConfig
from deployments.video_encoder import VideoEncoderConfig
from diffusion.model_folder import ModelConfig
from monitoring.replicas import ObservabilityConfig
from serve.config_origins import Given, settings_in_force
from serve.edge.auth import AuthConfig
from serve.edge.limits import Limits
from serve.web.config import WebConfig
from storage.job_store import JobStoreConfig
from storage.lifecycle.retention import Retention
from storage.object_store import ObjectStoreConfig
from storage.tenants import Quota

ENVIRONMENT_PREFIX = "SHOPREEL_"
_NO_SETTINGS = ("SHOPREEL_URL", "SHOPREEL_API_KEY", "SHOPREEL_TEST_DATA")
"""Variables of the `shopreel generate` command and of the tests."""


CAMERA = "camera"
"""The model's name for those who want a camera move and nothing generated; also its tier's."""


class ConfigError(Exception):
    """The file or the environment asks for what cannot be; says where and what is allowed."""


class Stages(BaseModel):
    """The deployments other than the denoisers, which are the tiers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    api: StageConfig = Field(
        default_factory=lambda: StageConfig(max_ongoing_requests=1000, target_ongoing_requests=300)
    )
    dispatcher: DispatcherConfig = Field(default_factory=DispatcherConfig)
    text_encoder: TextEncoderConfig = Field(default_factory=TextEncoderConfig)
    image_encoder: StageConfig = Field(default_factory=StageConfig)
    decoder: DecoderConfig = Field(default_factory=DecoderConfig)
    video_encoder: VideoEncoderConfig = Field(default_factory=VideoEncoderConfig)
    camera: CameraTierConfig = Field(default_factory=CameraTierConfig)
    housekeeper: HousekeeperConfig = Field(default_factory=HousekeeperConfig)


class AppConfig(BaseSettings):
    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=ENVIRONMENT_PREFIX,
        env_nested_delimiter="__",
        env_ignore_empty=True,
    )

    model: ModelConfig
    default_model: str | None = Field(
        None,
        description="of requests that name none; left out: the model's own name, or `camera` where"
        " there are none but the package's own (source: embedded, tiny)",
    )
    object_store: ObjectStoreConfig | None = Field(
        None, description="left out: `shopreel up` starts an embedded S3 server"
    )
    job_store: JobStoreConfig | None = Field(
        None, description="left out: `shopreel up` keeps SQLite in its data folder"
    )
    auth: AuthConfig = Field(default_factory=AuthConfig)
    quota: Quota = Field(
        default_factory=Quota, description="of every tenant that `shopreel tenants set` gave none"
    )
    retention: Retention = Field(default_factory=Retention)
    egress: EgressConfig = Field(default_factory=EgressConfig)
    webhooks: WebhookConfig = Field(default_factory=WebhookConfig)
    presets: dict[str, Preset] = Field(default_factory=default_presets)
    categories: dict[str, Category] = Field(default_factory=default_categories)
    catalog: CatalogConfig = Field(default_factory=CatalogConfig)
    limits: Limits = Field(default_factory=Limits)
    tiers: tuple[TierConfig, ...] = Field(min_length=1)
    currency: str | None = Field(
        None, pattern=r"^[A-Z]{3}$", description="of the tiers' cost_per_hour; ISO 4217"
    )
    stages: Stages = Field(default_factory=Stages)
    web: WebConfig = Field(default_factory=WebConfig)
    observability: ObservabilityConfig = Field(default_factory=ObservabilityConfig)
    wait_for_nodes: bool = Field(
        False,
        description="true where nodes join on demand (KubeRay's autoscaler): deploying then does"
        " not refuse what the present nodes have no room for",
    )

    @field_validator("model")
    @classmethod
    def _model_is_no_camera(cls, model: ModelConfig) -> ModelConfig:
        if model.name == CAMERA:
            raise ValueError(f"{CAMERA!r} names the camera moves, which need no weights")
        return model

    @property
    def default_model_name(self) -> str:
        """What a request that names no model gets."""
        return self.default_model or (CAMERA if self.model.is_stopgap else self.model.name)

    @model_validator(mode="after")
    def _default_model_exists(self) -> "AppConfig":
        have = (self.model.name, CAMERA)
        if self.default_model not in (None, *have):
            raise ValueError(f"default_model {self.default_model!r} is none of {', '.join(have)}")
        return self

    @field_validator("presets")
    @classmethod
    def _standard_exists(cls, presets: dict[str, Preset]) -> dict[str, Preset]:
        if DEFAULT_PRESET not in presets:
            raise ValueError(f"a preset named {DEFAULT_PRESET!r} is the default of every request")
        return presets

    @model_validator(mode="after")
    def _categories_start_from_presets(self) -> "AppConfig":
        for name, category in self.categories.items():
            if category.preset not in self.presets:
                raise ValueError(
                    f"categories.{name} starts from the preset {category.preset!r}, which is not"
                    f" among {', '.join(self.presets)}"
                )
        return self

    @field_validator("tiers")
    @classmethod
    def _tiers_have_names_of_their_own(cls, tiers: tuple[TierConfig, ...]) -> Any:
        names = [tier.name for tier in tiers]
        if len(set(names)) < len(names):
            raise ValueError(f"tier names must differ, got {', '.join(names)}")
        if CAMERA in names:
            raise ValueError(f"{CAMERA!r} is the tier that renders camera moves: stages.camera")
        return tiers

    @model_validator(mode="after")
    def _webhooks_are_signed(self) -> "AppConfig":
        if self.egress.webhook_hosts and not self.webhooks.secrets:
            raise ValueError("egress.webhook_hosts needs webhooks.secrets to sign with")
        return self

    @property
    def deployments(self) -> dict[str, StageConfig]:
        """How each deployment is sized and placed, by name."""
        stages = self.stages
        dispatcher = StageConfig(
            num_cpus=stages.dispatcher.num_cpus, labels=stages.dispatcher.labels
        )
        page = StageConfig(num_cpus=self.web.num_cpus, labels=self.web.labels)
        return {
            "VideoAPI": stages.api,
            "Dispatcher": dispatcher,
            "TextEncoder": stages.text_encoder,
            "ImageEncoder": stages.image_encoder,
            **{tier.deployment_name: tier for tier in self.tiers},
            "Decoder": stages.decoder,
            "VideoEncoder": stages.video_encoder,
            stages.camera.deployment_name: stages.camera,
            "Housekeeper": stages.housekeeper,
            **({"WebPage": page} if self.web.enabled else {}),
        }

    def check_deployable(self) -> None:
        """Raises ConfigError where those who write the job table may run on different nodes, each
        with an SQLite file of its own. (`shopreel up` labels its one node and all of them.)"""
        stages = self.stages
        api, others = stages.api.labels, (stages.dispatcher.labels, stages.housekeeper.labels)
        sqlite = self.job_store is not None and self.job_store.url.startswith("sqlite")
        if sqlite and (not api or any(labels != api for labels in others)):
            raise ConfigError(
                "job_store.url is an SQLite file, which only one node has: give stages.api,"
                " stages.dispatcher and stages.housekeeper the same labels, those of that node,"
                " say {role: head}; or use Postgres"
            )

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
    service: RayService | None = None  # the manifest that it stands in

    @property
    def http_address(self) -> tuple[str, int]:
        """Host and port to listen on; loopback unless the file says otherwise."""
        http = self.serve.get("http_options", {})
        return http.get("host", "127.0.0.1"), int(http.get("port", 8200))

    def with_http(self, host: str, port: int) -> dict[str, Any]:
        """The document with the address to listen on."""
        http = {**self.serve.get("http_options", {}), "host": host, "port": port}
        return {**self.serve, "http_options": http}

    def in_force(self) -> Iterator[tuple[str, Any, str]]:
        """(dotted name, value, origin) of every setting; secrets are masked."""
        shown = self.app.model_dump(mode="json")
        if self.app.job_store is not None:
            url = make_url(self.app.job_store.url)
            shown["job_store"]["url"] = url.render_as_string(hide_password=True)
        given = Given(
            EnvSettingsSource(AppConfig)(), _set_variables(), _args(self.serve), self.path.name
        )
        yield from settings_in_force(shown, given, ENVIRONMENT_PREFIX)


def parse(args: Mapping[str, Any], where: str) -> AppConfig:
    """Our part of a Serve config file, plus the environment. Raises ConfigError."""
    _check_variables()
    try:
        return AppConfig(**args)
    except SettingsError as e:
        raise ConfigError(f"a {ENVIRONMENT_PREFIX}* variable is not valid JSON: {e}") from None
    except ValidationError as e:
        # Not `from e`: that one would show the values, secrets among them.
        raise ConfigError(
            f"{where} (with {ENVIRONMENT_PREFIX}* variables) is not valid:\n{_problems(e)}"
        ) from None


def load(path: Path) -> LoadedConfig:
    """Read a Serve config file that holds one application, ours, or KubeRay's manifest with one
    inside. Raises ConfigError."""
    try:
        document = yaml.safe_load(path.read_text())
        service = RayService.read(document)
        if service is not None:
            document = service.serve_config
        ServeDeploySchema.model_validate(document)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ManifestUnusable) as e:
        raise ConfigError(f"{path} cannot be read: {e}") from e
    except ValidationError as e:
        raise ConfigError(
            f"{path} is no Serve config file; start from cluster/local.yaml:\n{_problems(e)}"
        ) from None
    names = [application.get("name") for application in document["applications"]]
    if names != [APP_NAME]:
        raise ConfigError(
            f"{path} must hold one application, whose name must be {APP_NAME!r}; its names: {names}"
        )
    return LoadedConfig(path, document, parse(_args(document), str(path)), service)


def ray_token() -> str | None:
    """Of Ray's own ports, where the environment names it."""
    return os.environ.get("RAY_AUTH_TOKEN")


def _args(document: Mapping[str, Any]) -> dict[str, Any]:
    (application,) = document["applications"]
    args: dict[str, Any] = application.get("args", {})
    return args


def _problems(error: ValidationError) -> str:
    return "\n".join(
        f"  {'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"
        for problem in error.errors(include_url=False, include_input=False)
    )


def _check_variables() -> None:
    """A variable with a misspelt section would have no effect and nobody would know."""
    sections = [f"{ENVIRONMENT_PREFIX}{name}".upper() for name in AppConfig.model_fields]
    for variable in _set_variables():
        section, *rest = variable.split("__")
        if section not in (*sections, *_NO_SETTINGS):
            (nearest,) = difflib.get_close_matches(section, sections, n=1, cutoff=0)
            raise ConfigError(
                f"{variable} sets nothing; the nearest name is {'__'.join((nearest, *rest))}"
            )


def _set_variables() -> set[str]:
    """Ours that are not empty. Their case does not matter, so it is upper here."""
    names = {name.upper() for name, value in os.environ.items() if value}
    return {name for name in names if name.startswith(ENVIRONMENT_PREFIX)}
