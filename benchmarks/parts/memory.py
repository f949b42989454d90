"""Proportional set size (PSS) of every process of a one-machine cluster that has made a video.

RSS would count the shared object store once per process.
"""

from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from serve.client import Client
from serve.commands import EXAMPLES
from serve.commands.up import cluster_up


def measure() -> dict[str, Any]:
    with (
        TemporaryDirectory() as data,
        cluster_up(None, None, Path(data), None, None, lambda _: None) as (running, _),
        Client(running.base_url) as client,
    ):
        photo = EXAMPLES / "watch-steel.jpg"
        clip = {"prompt": "a watch turns", "enable_frame_interpolation": True}
        video = client.create(photo, model="tiny-random", **clip)
        client.wait(video["id"], lambda _: None)
        sizes: dict[str, list[int]] = defaultdict(list)
        up = psutil.Process()  # `shopreel up` is cluster_up, so here it is this process
        for process in (up, *up.children(recursive=True)):
            try:
                name = "shopreel up" if process == up else _name(process)
                sizes[name].append(process.memory_full_info().pss)
            except psutil.NoSuchProcess:
                continue
    megabytes = {name: round(sum(values) / 1e6) for name, values in sizes.items()}
    return {
        "pss_mb": dict(sorted(megabytes.items(), key=lambda item: -item[1])),
        "processes": sum(map(len, sizes.values())),
        "in_all_mb": sum(megabytes.values()),
    }


def _name(process: psutil.Process) -> str:
    """Ray renames its workers to what they run; daemons go by their program."""
    line = process.cmdline()
    title = line[0] if line else process.name()
    if title.startswith("ray::"):
        return title.removeprefix("ray::").partition(".")[0].replace("ServeReplica:shopreel:", "")
    if title.startswith("ray-dashboard"):
        return "dashboard modules"
    scripts = [part for part in line if part.endswith(".py")]
    return Path(scripts[0] if scripts else title).name
