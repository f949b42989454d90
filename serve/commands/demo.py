"""`shopreel demo`: a cluster, two videos of every example photo side by side, nothing left.

One is a camera move, in which nothing is generated; the other is diffused by the served weights.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from serve.client import Client, ServiceError
from serve.commands import EXAMPLES
from serve.commands.progress import JobProgress
from serve.commands.up import cluster_up, teller
from video.mp4 import probe_mp4, read_frames
from video.photo import PhotoLimits, open_photo, target_size
from video.stills import Clip, contact_sheet

_STAGES = {
    "read": ("text_encoding", "image_encoding"),
    "move": ("rendering", "frames_encoding"),
    "denoise": ("denoising",),
    "decode": ("decoding",),
    "smooth": ("interpolation",),
    "file": ("video_encoding", "storing"),
}
"""Columns of the table, and the timings that add up to each."""
CAMERA, EMBEDDED = "camera", "embedded"
_EMBEDDED_AREA_PX = 256 * 256
_EMBEDDED_STEPS, _EMBEDDED_STRENGTH = 20, 0.25
"""The last five of twenty steps of a camera move: further from it the model only loses."""
_REAL_WEIGHTS = "shopreel demo --config cluster/one_gpu.yaml"
console = Console()


@dataclass(frozen=True)
class Example:
    """A photo of examples/products, and what products.json says of it."""

    photo: Path
    title: str
    prompt: str
    camera_motion: str

    @property
    def name(self) -> str:
        return self.photo.stem

    def requests(self, model: str, preset: str, seed: int) -> dict[str, dict[str, Any]]:
        """By model: what is asked for, the camera move first."""
        said = {"prompt": self.prompt, "title": self.title, "preset": preset}
        move = {"camera_motion": self.camera_motion}
        diffused = {**said, "seed": seed, "enable_frame_interpolation": True}
        if model == EMBEDDED:
            diffused |= move | self._suiting_the_embedded_model()
        return {CAMERA: said | move, model: diffused}

    def _suiting_the_embedded_model(self) -> dict[str, Any]:
        photo = open_photo(self.photo.read_bytes(), PhotoLimits())
        height, width = photo.rgb.shape[:2]
        size = target_size(width, height, _EMBEDDED_AREA_PX, 16)
        return {
            "size": "x".join(map(str, size)),
            "motion_strength": _EMBEDDED_STRENGTH,
            "num_inference_steps": _EMBEDDED_STEPS,
            "guidance_scale": 1,  # it follows no text
        }


def examples() -> list[Example]:
    return [
        Example(EXAMPLES / e["file"], e["title"], e["prompt"], e["camera_motion"])
        for e in json.loads((EXAMPLES / "products.json").read_text())
    ]


def run_demo(
    out: Path, config: Path | None, model: str | None, revision: str | None, preset: str
) -> None:
    if not EXAMPLES.is_dir():
        console.print(
            "[red]not started:[/] the example photos are in the repository only: clone it"
        )
        raise typer.Exit(1)
    out.mkdir(parents=True, exist_ok=True)
    with (
        console.status("starting") as status,
        cluster_up(config, None, out / "data", model, revision, teller(status)) as (running, _),
    ):
        status.stop()
        console.print(f"cluster up at {running.base_url}: Ray Serve, S3 and the job table")
        try:
            with Client(running.base_url) as client:
                (served,) = {card["id"] for card in client.models()} - {CAMERA}
                for name in (CAMERA, served):
                    console.print(f"{name}: {told(name)}", highlight=False)
                videos = _make(client, served, examples(), preset, out)
        except ServiceError as e:
            console.print(f"[red]failed:[/] {escape(str(e))}", highlight=False)
            raise typer.Exit(1) from e
        status.start()
    console.print(_times(videos))
    console.print(f"{len(videos)} videos, and a contact sheet of each photo, in {out}/")
    if served == EMBEDDED:
        console.print(f"With real weights and a GPU: {_REAL_WEIGHTS}", highlight=False)


def told(model: str) -> str:
    """What a video of `model` is."""
    if model == CAMERA:
        return "a camera moves over the photo; nothing is generated, and a shop could publish it"
    if model == EMBEDDED:
        return (
            "diffused from that move by this repository's small model, through every stage of the"
            " cluster; no sample of I2VGen-XL"
        )
    return "diffused by the weights that were named"


Videos = dict[str, dict[str, Any]]
"""The wire's Video objects, by the name of their file."""


def _make(
    client: Client, model: str, examples: Sequence[Example], preset: str, out: Path
) -> Videos:
    """Submit all, watch all, fetch and check each. Raises ServiceError on the first that failed."""
    with JobProgress(console) as progress:
        bars, of_example = {}, []
        for seed, example in enumerate(examples, 1):
            ids = {}
            for name, fields in example.requests(model, preset, seed).items():
                ids[name] = client.create(example.photo, model=name, **fields)["id"]
                bars[ids[name]] = progress.add(f"{example.name} · {name}")
            of_example.append(ids)
        videos: Videos = {}
        for example, ids in zip(examples, of_example, strict=True):
            made = {}
            for name, video_id in ids.items():
                made[name] = _ended(client, progress, bars, video_id)
                videos[f"{example.name}-{name}"] = made[name]
            _keep(client, example, made, out)
    return videos


def _ended(
    client: Client, progress: JobProgress, bars: dict[str, Any], video_id: str
) -> dict[str, Any]:
    """Wait for one; watching every other in between keeps all bars true. Raises ServiceError."""

    def show(video: dict[str, Any]) -> None:
        progress.show(bars[video_id], video)
        for other in bars:
            if other != video_id and not progress.tasks[bars[other]].stop_time:
                progress.show(bars[other], client.get(other))

    video = client.wait(video_id, show, poll_s=1)
    if video["status"] != "completed":
        raise ServiceError(f"{video_id}: {video['error']}")
    return video


def _keep(client: Client, example: Example, made: Mapping[str, dict[str, Any]], out: Path) -> None:
    """Write the MP4 files and their contact sheet; refuse a file that no shop could publish."""
    clips = []
    for name, video in made.items():
        path = out / f"{example.name}-{name}.mp4"
        path.write_bytes(client.content(video["id"]))
        width, height = (int(side) for side in video["size"].split("x"))
        info = probe_mp4(path)
        if problems := info.problems(
            width, height, video["output_fps"], video["output_num_frames"]
        ):
            raise ServiceError(f"{path} is not publishable: {'; '.join(problems)}")
        clips.append(Clip(read_frames(path), _label(name, video), info.fps))
    lines = [f"{name}: {told(name)}" for name in made]
    photo = open_photo(example.photo.read_bytes(), PhotoLimits())
    sheet = contact_sheet(photo.rgb, clips, example.title, lines)
    (out / f"{example.name}.png").write_bytes(sheet)


def _label(name: str, video: Mapping[str, Any]) -> str:
    parts = [
        name,
        video["size"],
        f"{video['output_num_frames']} frames at {video['output_fps']:g}/s",
    ]
    if video["camera_motion"]:
        parts.append(video["camera_motion"]["move"])
    if video["steps"]:
        parts.append(f"{video['steps']} steps, seed {video['seed']}")
    return " · ".join(parts)


def _times(videos: Videos) -> Table:
    table = Table(
        "video", *_STAGES, "in all", title="seconds of work", box=None, padding=(0, 1, 0, 0)
    )
    for column in table.columns[1:]:
        column.justify = "right"
    for name, video in videos.items():
        timings = video["timings"]
        seconds = [sum(timings.get(stage, 0.0) for stage in s) for s in _STAGES.values()]
        table.add_row(name, *(f"{s:.2f}" for s in seconds), f"{sum(seconds):.2f}")
    return table
