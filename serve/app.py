"""The composition root: every deployment and every arrow between them, on one screen.

                    ┌─ TextEncoder ──┐
HTTP ─ VideoAPI ─ Dispatcher         ├─ Denoiser-<tier> ─ Decoder ─ VideoEncoder ─ S3
          │ │         ├─ ImageEncoder ─┤                           │
          │ │         │    └─ Decoder ─┘ (frames of a camera move) │
          │ │         └─ CameraRenderer ───────────────────────────┘ (model=camera)
          │ WebPage (the page below /ui, a client of the API)
       job table ─ Housekeeper ─ webhooks, retention, batches
"""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

import ray
from fastapi import FastAPI
from ray import serve
from ray.exceptions import RayError
from ray.serve import Application
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from catalog.batches.chore import FollowBatches
from cluster.calibration import load_calibrations
from cluster.capacity import require_room
from cluster.cost import CostModel
from cluster.exposure import require_closed
from cluster.ladder import Floor
from cluster.stage import StageConfig
from deployments.camera import Render
from deployments.camera_renderer import CameraRenderer
from deployments.decoder import Decoder
from deployments.denoiser import Denoiser
from deployments.dispatcher import Dispatcher
from deployments.housekeeper import Housekeeper
from deployments.image_encoder import ImageEncoder
from deployments.sigterm import ends_on_sigterm
from deployments.text_encoder import TextEncoder
from deployments.video_encoder import VideoEncoder
from diffusion.memory import Architecture
from diffusion.model_folder import ModelCard, ModelFolder
from monitoring import metrics
from monitoring.replicas import observed
from monitoring.store_calls import count_store_call
from serve.api import DispatcherLine, open_api
from serve.catalog_driver import driver_command
from serve.config import AppConfig, ConfigError, parse
from serve.http_api import create_app
from serve.services.admission import Admission
from serve.web.hosting.door import open_door
from serve.web.hosting.replica import WebPage
from storage.object_store import S3ObjectStore
from video.camera.scene import render as render_camera_move
from video.photo_pool import PhotoPool

log = logging.getLogger(__name__)


def build_app(args: Mapping[str, Any]) -> Application:
    """The builder that a Serve config file names; `args` are its application's args. Serve allows
    it this one parameter."""
    return compose(args, render_camera_move)


def compose(args: Mapping[str, Any], render: Render) -> Application:
    """The application with a virtual camera for the clips that begin at one's frames."""
    config = parse(args, "args of the Serve config file")
    if config.object_store is None or config.job_store is None:
        raise ConfigError("object_store and job_store may be left out for `shopreel up` only")
    config.check_deployable()
    require_closed(config.auth.enabled)
    if not config.wait_for_nodes:
        require_room(config.deployments, ray.nodes())
    model, store, jobs, stages = config.model, config.object_store, config.job_store, config.stages
    objects = S3ObjectStore(store, count_store_call)
    objects.check()  # one visible result stands on conditional PUT
    folder = ModelFolder.open(model)
    digests = folder.digests()
    card = ModelCard.of(model, folder, digests)
    measured = load_calibrations(objects, config.tiers)
    tiers = (*config.tiers, stages.camera)
    cost = CostModel(Architecture.of(folder), tiers, model, measured)
    standard = config.presets["standard"]
    floor = Floor(standard.area_px, standard.num_frames, card.size_multiple)

    def deployed(cls: Any, options: dict[str, Any]) -> Any:
        replica = observed(cls, config.observability)
        grace_s = options["graceful_shutdown_timeout_s"]
        return serve.deployment(**options)(ends_on_sigterm(replica, grace_s))

    def stage(cls: Any, size: StageConfig, name: str | None = None) -> Any:
        return deployed(cls, size.options(name or cls.__name__))

    text_encoder = stage(TextEncoder, stages.text_encoder).bind(stages.text_encoder, model, digests)
    image_encoder = stage(ImageEncoder, stages.image_encoder).bind(
        stages.image_encoder, model, digests, store, config.limits.photo, render
    )
    denoisers = [
        stage(Denoiser, tier, tier.deployment_name).bind(tier, model, digests, store)
        for tier in config.tiers
    ]
    renderer = stage(CameraRenderer, stages.camera).bind(stages.camera, store, config.limits.photo)
    decoder = stage(Decoder, stages.decoder).bind(stages.decoder, model, digests, store)
    video_encoder = stage(VideoEncoder, stages.video_encoder).bind(
        stages.video_encoder, store, config.limits.photo, render
    )
    dispatcher = deployed(Dispatcher, stages.dispatcher.options()).bind(
        stages.dispatcher,
        jobs,
        tiers,
        cost,
        floor,
        objects,
        [*denoisers, renderer],
        [text_encoder, image_encoder, decoder, video_encoder],
    )
    housekeeper = stage(Housekeeper, stages.housekeeper).bind(
        stages.housekeeper,
        jobs,
        store,
        config.webhooks,
        config.egress,
        config.retention,
        [FollowBatches(config.catalog, store, config.default_model_name, driver_command)],
        [tier.name for tier in tiers],
    )
    page = None
    if config.web.enabled:
        page = deployed(WebPage, config.web.options()).bind(config.web, config.limits.photo)
    api = stage(serve.ingress()(VideoAPI), stages.api, "VideoAPI")
    return api.bind(config, card, Admission(cost, floor), dispatcher, housekeeper, page)


class VideoAPI:
    """The ingress: any replica answers any id, because what it knows is in the stores."""

    def __init__(
        self,
        config: AppConfig,
        model: ModelCard,
        admission: Admission,
        dispatcher: DeploymentHandle,
        _housekeeper: DeploymentHandle,  # bound here so that Serve deploys it; nobody calls it
        page: DeploymentHandle | None,
    ):
        metrics.MODEL.keep(1, tags={"model": model.name, "revision": model.revision})
        self._dispatcher, self._page = dispatcher, page
        self._photos = PhotoPool(config.limits.photo_pool, config.limits.photo)
        line = DispatcherLine(
            wake=lambda: dispatcher.wake.remote(),
            stop=lambda job_id: dispatcher.stop.remote(job_id),
            broken=self._dispatcher_broken,
        )
        self._api = open_api(config, model, admission, line, self._photos)

    def __serve_build_asgi_app__(self) -> FastAPI:  # Serve's name for it
        app = create_app(self._api, echo_request_id=False)
        if self._page is not None:
            open_door(app, self._page)
        return app

    async def begin_to_leave(self) -> None:  # deployments.sigterm's name for it
        await self._api.videos.watch.close()

    def __del__(self) -> None:  # Serve calls it when the replica leaves, after its last request
        self._photos.close()

    async def _dispatcher_broken(self, timeout_s: float = 2.0) -> list[str]:
        try:
            response = self._dispatcher.not_ready.remote()
            broken: list[str] = await asyncio.wait_for(response, timeout_s)
        except (RayError, RayServeException) as e:
            log.warning("the Dispatcher cannot be asked", exc_info=True)
            return [f"Dispatcher: cannot be asked ({type(e).__name__})"]
        except TimeoutError:
            response.cancel()
            return [f"Dispatcher: no answer in {timeout_s:g} s"]
        return broken
