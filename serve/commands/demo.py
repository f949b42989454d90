"""`shopreel demo`: a cluster, a video of every example photo, sheets to look at, nothing left."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from serve.client import Client, ServiceError
from serve.commands import EXAMPLES, LOCAL_CONFIG
from serve.commands.progress import JobProgress
from serve.commands.up import cluster_up, teller
from video.mp4 import probe_mp4, read_frames
from video.photo import PhotoLimits, open_photo
from video.stills import contact_sheet

_STAGES = {
    "text_encoding": "text",
    "image_encoding": "photo",
    "denoising": "denoise",
    "decoding": "decode",
    "interpolation": "interpolate",
    "video_encoding": "mp4",
    "storing": "store",
}
RANDOM_WEIGHTS = "The model has tiny random weights: the whole path at work, but videos of noise."
console = Console()


@dataclass(frozen=True)
class _Example:
    photo: Path
    category: str
    title: str
    prompt: str


def run_demo(
    out: Path, config: Path | None, model: str | None, revision: str | None, preset: str
) -> None:
    if not EXAMPLES.is_dir():
        console.print(
            "[red]not started:[/] the example photos are in the repository only: clone it"
        )
        raise typer.Exit(1)
    out.mkdir(parents=True, exist_ok=True)
    examples = [
        _Example(EXAMPLES / e["file"], e["category"], e["title"], e["prompt"])
        for e in json.loads((EXAMPLES / "products.json").read_text())
    ]
    with (
        console.status("starting") as status,
        cluster_up(config, None, out / "data", model, revision, teller(status)) as (running, _),
    ):
        status.stop()
        console.print(f"cluster up at {running.base_url}: Ray Serve, S3 and the job table")
        if model is None and config is None:
            console.print(
                f"[yellow]{RANDOM_WEIGHTS}[/]\nWith real weights and a GPU:"
                " shopreel demo --config cluster/one_gpu.yaml"
            )
        from serve.config import load  # Ray reads the environment that the cluster has set

        weights = load(config or LOCAL_CONFIG).app.model.name
        try:
            videos = _make(running.base_url, weights, examples, preset, out)
        except ServiceError as e:
            console.print(f"[red]failed:[/] {escape(str(e))}", highlight=False)
            raise typer.Exit(1) from e
        status.start()
    console.print(_times(examples, videos))
    console.print(f"{len(videos)} videos and contact sheets in {out}/")


def _make(
    base_url: str, model: str, examples: Sequence[_Example], preset: str, out: Path
) -> list[dict[str, Any]]:
    """Submit all, watch all, fetch and check each. Raises ServiceError on the first that failed."""
    with Client(base_url) as client, JobProgress(console) as progress:
        bars = [progress.add(example.title) for example in examples]
        ids = [
            client.create(
                example.photo,
                model=model,
                prompt=example.prompt,
                title=example.title,
                preset=preset,
                seed=number,
                enable_frame_interpolation=True,
            )["id"]
            for number, example in enumerate(examples, 1)
        ]
        videos = []
        for number, (example, video_id) in enumerate(zip(examples, ids, strict=True)):
            # Watching one job to its end, and every other in between, keeps all bars true.
            def show(video: dict[str, Any], first: int = number) -> None:
                progress.show(bars[first], video)
                for other in range(first + 1, len(ids)):
                    progress.show(bars[other], client.get(ids[other]))

            video = client.wait(video_id, show, poll_s=0.5)
            if video["status"] != "completed":
                raise ServiceError(f"{example.title}: {video['error']}")
            videos.append(video)
            _keep(client, example, video, out)
    return videos


def _keep(client: Client, example: _Example, video: dict[str, Any], out: Path) -> None:
    """Write the MP4 and its contact sheet; refuse a file that no shop could publish."""
    path = out / f"{example.photo.stem}.mp4"
    path.write_bytes(client.content(video["id"]))
    width, height = (int(side) for side in video["size"].split("x"))
    info = probe_mp4(path)
    if problems := info.problems(width, height, video["output_fps"], video["output_num_frames"]):
        raise ServiceError(f"{path} is not publishable: {'; '.join(problems)}")
    photo = open_photo(example.photo.read_bytes(), PhotoLimits())
    lines = [
        example.prompt,
        f"{video['model']} · {video['size']} · {info.frames} frames at {info.fps:g}/s ·"
        f" {video['steps']} steps · seed {video['seed']}",
    ]
    if video["model"] == "tiny-random":
        lines.append(RANDOM_WEIGHTS)
    sheet = contact_sheet(photo.rgb, read_frames(path), example.title, lines, fps=info.fps)
    (out / f"{example.photo.stem}.png").write_bytes(sheet)


def _times(examples: Sequence[_Example], videos: Sequence[dict[str, Any]]) -> Table:
    table = Table("video", *_STAGES.values(), "in all", title="seconds of work per stage", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for example, video in zip(examples, videos, strict=True):
        seconds = [video["timings"].get(stage, 0.0) for stage in _STAGES]
        table.add_row(example.photo.stem, *(f"{s:.2f}" for s in seconds), f"{sum(seconds):.2f}")
    return table
