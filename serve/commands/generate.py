"""`shopreel generate`: one video through the running service."""

import json
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape

from serve.client import TERMINAL, Client, ServiceError
from serve.commands.progress import JobProgress
from storage.keys import download_name

console = Console(stderr=True)


def run_generate(
    photo: Path,
    fields: dict[str, Any],
    out: Path | None,
    url: str,
    api_key: str | None,
    as_json: bool,
) -> None:
    if out is not None and not out.parent.is_dir():
        console.print(f"[red]failed:[/] there is no folder {out.parent}", highlight=False)
        raise typer.Exit(1)
    video: dict[str, Any] = {}
    try:
        with Client(url, api_key) as client, JobProgress(console) as progress:
            bar = progress.add(photo.name)
            video = client.create(photo, **fields)
            for warning in video["warnings"]:
                console.print(f"[yellow]warning:[/] {escape(warning)}", highlight=False)
            video = client.wait(video["id"], lambda v: progress.show(bar, v))
            if video["status"] != "completed":
                error = video["error"] or {"code": video["status"], "message": ""}
                raise ServiceError(f"{error['message']} ({error['code']})")
            path = out or Path(download_name(video["created_at"], video["id"], photo.stem))
            files = {path: client.content(video["id"])}
            if video["n"] > 1 and video["select"] == "all":
                for k in (c["candidate"] for c in video["candidates"] if c["kept"]):
                    name = path.with_stem(f"{path.stem}_c{k}")
                    files[name] = client.content(video["id"], candidate=k)
    except (ServiceError, KeyboardInterrupt) as e:
        if video and video["status"] not in TERMINAL:
            console.print(f"{video['id']} goes on at {url}/v1/videos/{video['id']}")
        if isinstance(e, KeyboardInterrupt):
            raise
        console.print(f"[red]failed:[/] {escape(str(e))}", highlight=False)
        raise typer.Exit(1) from e
    for name, content in files.items():
        name.write_bytes(content)
    if as_json:
        typer.echo(json.dumps({**video, "file": str(path)}))
        return
    made = next(c for c in video["candidates"] if c["selected"])
    typer.echo(
        f"{path}  {video['size']}, {video['output_num_frames']} frames at"
        f" {video['output_fps']:g}/s, seed {made['seed']}"
    )
    if video["n"] > 1:
        for candidate in video["candidates"]:
            console.print(_candidate(candidate), highlight=False)


def _candidate(candidate: dict[str, Any]) -> str:
    score = candidate["score"]
    if candidate["status"] != "completed":
        told = candidate["error_code"] or candidate["status"]
    else:
        told = "not measured" if score is None else f"score {score:.3f}"
    chosen = "  <- selected" if candidate["selected"] else ""
    return f"  candidate {candidate['candidate']}, seed {candidate['seed']}: {told}{chosen}"
