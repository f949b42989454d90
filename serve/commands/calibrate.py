"""`shopreel calibrate`: measure the tiers of a running cluster, for the seconds it predicts."""

import json
import logging
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from catalog.presets import Preset
from cluster.cost import Calibration, CostModel
from cluster.local import APP_NAME, Endpoints, prepare_environment
from cluster.tiers import TierConfig
from diffusion.memory import Architecture
from diffusion.model_folder import ModelConfig, ModelFolder
from diffusion.params import SamplingParams
from serve.commands.up import console, teller
from video.photo import target_size

_CONNECT_S = 5.0
_SETUP_S = 120.0  # a worker starts and reads the headers of the weights
_MEASURE_S = 1800.0  # a dozen UNet calls; on a CPU with published weights each is most of a minute


class NotCalibrated(Exception):
    """Says what is wrong and what to do about it.

    NotCalibrated
    ├── NoCluster    there is nothing to measure
    ├── UnknownTier
    └── TierFailed   the tier is at rest, or its replica did not measure
    """


class NoCluster(NotCalibrated):
    pass


class UnknownTier(NotCalibrated):
    pass


class TierFailed(NotCalibrated):
    pass


@dataclass(frozen=True)
class Setup:
    """What the running application was started with, as far as it says what a clip costs."""

    tiers: tuple[TierConfig, ...]
    model: ModelConfig
    architecture: Architecture
    clips: tuple[SamplingParams, ...]  # to be timed; the last one is the standard preset

    def choose(self, names: Sequence[str]) -> list[TierConfig]:
        """The tiers of these names, all of them where there is none. Raises UnknownTier."""
        known = {tier.name: tier for tier in self.tiers}
        for name in names:
            if name not in known:
                raise UnknownTier(f"no tier {name!r} here; this cluster has {', '.join(known)}")
        return [known[name] for name in names] or list(self.tiers)

    def clips_of(self, tier: TierConfig) -> list[SamplingParams]:
        """Those that the tier's memory holds. Raises TierFailed."""
        cost = self.cost_model({})
        if clips := [clip for clip in self.clips if tier.name in cost.tiers_for(clip)]:
            return clips
        raise TierFailed(f"tier {tier.name} has the memory for no preset: lower their area_px")

    def standard_s(self, calibration: Calibration) -> float | None:
        """Seconds that a standard clip's denoising takes of a replica of the calibrated tier; None
        where it does not fit."""
        cost, standard = self.cost_model({calibration.tier: calibration}), self.clips[-1]
        if calibration.tier not in cost.tiers_for(standard):
            return None
        return cost.seconds(standard, calibration.tier)

    def cost_model(self, calibrations: Mapping[str, Calibration]) -> CostModel:
        return CostModel(self.architecture, self.tiers, self.model, calibrations)


def run_calibrate(data: Path, address: str | None, names: Sequence[str], as_json: bool) -> None:
    found: list[Calibration] = []
    failed: list[TierFailed] = []
    try:
        with console.status("connecting") as status, _connected(data, address) as application:
            tell = teller(status)
            setup = _setup_in_force(application)
            tiers = setup.choose(names)
            for number, tier in enumerate(tiers, 1):  # one at a time: tiers may share a card
                tell(f"measuring tier {tier.name} ({number} of {len(tiers)})")
                try:
                    found.append(_measure(tier, setup, application))
                except TierFailed as e:
                    failed.append(e)
    except NotCalibrated as e:
        console.print(f"[red]not calibrated:[/] {escape(str(e))}", highlight=False)
        raise typer.Exit(1) from e
    rows = [{**asdict(c), "standard_s": setup.standard_s(c)} for c in found]
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
    elif rows:
        Console().print(_table(rows, setup.clips[-1]))
        console.print("stored in the bucket; it counts from the next start on", highlight=False)
    for failure in failed:
        console.print(f"[red]not calibrated:[/] {escape(str(failure))}", highlight=False)
    if failed:
        raise typer.Exit(1)


def setup_of(args: Mapping[str, Any]) -> Setup:
    """Runs in a worker of the cluster: only there is the environment that completes `args`."""
    from serve.config import parse

    config = parse(args, "args of the running application")
    architecture = Architecture.of(ModelFolder.open(config.model))
    clips = clips_to_time(config.presets, architecture.size_multiple)
    return Setup(config.tiers, config.model, architecture, clips)


def clips_to_time(presets: Mapping[str, Preset], multiple: int) -> tuple[SamplingParams, ...]:
    """Square clips of the smallest preset and of the standard one: small calls run below the rate
    that large ones sustain."""
    standard = presets["standard"]
    smallest = min(presets.values(), key=lambda preset: preset.area_px * preset.num_frames)
    clips = []
    for preset in (standard,) if smallest == standard else (smallest, standard):
        width, height = target_size(1, 1, preset.area_px, multiple)
        clips.append(
            SamplingParams(
                prompt="",
                negative_prompt="",
                width=width,
                height=height,
                num_frames=preset.num_frames,
                num_inference_steps=preset.num_inference_steps,
                guidance_scale=preset.guidance_scale,
                motion_fps=preset.motion_fps,
                seed=0,
                guidance_start=preset.guidance_start,
                guidance_stop=preset.guidance_stop,
            )
        )
    return tuple(clips)


@contextmanager
def _connected(data: Path, address: str | None) -> Iterator[dict[str, Any]]:
    """The application in Serve's own words, while this process is a driver of its cluster.

    Raises NoCluster. Ray itself would try a dead address for minutes.
    """
    found = address or _local_address(data)
    host, _, port = found.rpartition(":")
    try:
        socket.create_connection((host, int(port)), _CONNECT_S).close()
    except (ValueError, OSError) as e:
        raise NoCluster(f"no Ray cluster answers at {found!r} ({e})") from e
    if address is None:
        prepare_environment(data)
    # Serve's router polls on after ray.shutdown(), and Ray would start a cluster for its call.
    os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"
    import ray
    from ray.dashboard.modules.serve.sdk import ServeSubmissionClient

    try:
        try:
            context = ray.init(found, log_to_driver=False, logging_level=logging.ERROR)
            client = ServeSubmissionClient(f"http://{context.dashboard_url}")
            applications = client.get_serve_details()["applications"]
        except (OSError, RuntimeError, ray.exceptions.RayError) as e:
            raise NoCluster(f"the cluster at {found} cannot be asked: {e}") from e
        if APP_NAME not in applications:
            raise NoCluster(f"no application {APP_NAME!r} runs on the cluster at {found}")
        yield applications[APP_NAME]
    finally:
        ray.shutdown()


def _local_address(data: Path) -> str:
    try:
        return Endpoints.read(data).ray_address
    except FileNotFoundError:
        raise NoCluster(
            f"no cluster runs on {data}: start one with `shopreel up --data {data}`, or name"
            " another's with --address"
        ) from None


def _setup_in_force(application: Mapping[str, Any]) -> Setup:
    import ray

    args = application["deployed_app_config"]["args"]
    try:
        answer = ray.remote(num_cpus=0)(setup_of).remote(args)
        setup: Setup = ray.get(answer, timeout=_SETUP_S)
    except ray.exceptions.RayError as e:
        raise NoCluster(f"the application's settings cannot be read: {_said(e)}") from e
    return setup


def _measure(tier: TierConfig, setup: Setup, application: Mapping[str, Any]) -> Calibration:
    """By one replica of the tier. Raises TierFailed."""
    import ray
    from ray import serve
    from ray.serve.exceptions import RayServeException

    deployment = application["deployments"].get(tier.deployment_name, {"replicas": []})
    if not any(replica["state"] == "RUNNING" for replica in deployment["replicas"]):
        raise TierFailed(
            f"tier {tier.name} is at rest: no replica runs. Wake it with a video that it takes, or"
            " give it min_replicas: 1, and calibrate again"
        )
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    denoiser = serve.get_deployment_handle(tier.deployment_name, APP_NAME)
    response = denoiser.calibrate.remote(setup.clips_of(tier))
    try:
        calibration: Calibration = response.result(timeout_s=_MEASURE_S)
    except TimeoutError as e:
        response.cancel()
        raise TierFailed(f"tier {tier.name}: no answer in {_MEASURE_S:.0f} s") from e
    except (ray.exceptions.RayError, RayServeException) as e:
        raise TierFailed(f"tier {tier.name}: {_said(e)}") from e
    finally:
        denoiser.shutdown()  # of the handle: its router would report its load on after we left
    return calibration


def _said(error: Exception) -> str:
    """What was raised over there, without Ray's traceback."""
    cause = getattr(error, "cause", error)
    return f"{type(cause).__name__}: {str(cause).splitlines()[0]}"


def _table(rows: Sequence[Mapping[str, Any]], standard: SamplingParams) -> Table:
    size = f"{standard.width}x{standard.height}, {standard.num_frames} frames"
    title = f"standard clip: {size}, {standard.num_inference_steps} steps"
    numbers = ("TFLOP/s", "bytes factor", "standard clip, s")
    columns = (Column(name, justify="right") for name in numbers)
    table = Table(Column("tier", no_wrap=True), "device", *columns, title=title, box=None)
    for row in rows:
        seconds = row["standard_s"]
        table.add_row(
            row["tier"],
            row["device"],
            f"{row['tflops']:.4g}",
            f"{row['bytes_factor']:.3f}",
            "does not fit" if seconds is None else f"{seconds:.2f}",
        )
    return table
