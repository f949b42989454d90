"""Progress bars of jobs: stage, step k of n, time."""

from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

_WORDS = {
    "encoding": "reading photo and prompt",
    "rendering": "moving the camera",
    "waiting_denoiser": "waiting for a turn at the UNet",
    "denoising": "denoising",
    "decoding": "decoding frames",
    "encoding_video": "encoding the video",
    "storing": "storing the video",
    "waiting_storage": "waiting for the object store",
}


class JobProgress(Progress):
    """One bar per job, fed with the wire's Video objects."""

    def __init__(self, console: Console):
        super().__init__(
            TextColumn("{task.fields[label]}", style="bold"),
            BarColumn(bar_width=28),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            console=console,
        )

    def add(self, label: str) -> TaskID:
        return self.add_task("sending", total=100, label=label)

    def show(self, task: TaskID, video: dict[str, Any]) -> None:
        self.update(task, completed=video["progress"], description=describe(video))
        if video["status"] in ("completed", "failed", "cancelled"):
            self.stop_task(task)


def describe(video: dict[str, Any]) -> str:
    """Where a job is, in words."""
    if video["status"] == "queued":
        position = video["queue_position"]
        return "queued" if position is None else f"queued, {position} before it"
    if video["status"] == "in_progress":
        words = _WORDS.get(video["stage"], "starting")
        at_work = video["stage"] == "denoising"
        return f"{words}, step {video['step']} of {video['steps']}" if at_work else words
    return str(video["status"])
