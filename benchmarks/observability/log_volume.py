"""Lines and bytes that all processes of a cluster add to their log files."""

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_OURS = "replica_shopreel_"
_ID = re.compile(r"video_\w+")
_MOST_EVENTS, _EVENT_CHARS = 15, 40


@dataclass(slots=True)
class Volume:
    """By level in the files of our replicas; by the file's kind in those of Ray's daemons."""

    lines: Counter[str] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)  # of our lines

    def figures(self, share: float) -> dict[str, Any]:
        """Divided by `share`: jobs, or minutes."""
        lines, size = sum(self.lines.values()), sum(self.bytes.values())
        parts = {name: (self.lines[name], self.bytes[name]) for name in sorted(self.lines)}
        return {
            name: {"lines": round(count / share, 2), "bytes": round(length / share)}
            for name, (count, length) in {"all": (lines, size), **parts}.items()
        }

    def lines_of_ours(self, jobs: int) -> dict[str, float]:
        return {event: round(n / jobs, 2) for event, n in self.events.most_common(_MOST_EVENTS)}


def sizes(data: Path) -> dict[Path, int]:
    """Of each log file now."""
    logs = (data / "ray-temp" / "session_latest" / "logs").resolve()
    return {path: path.stat().st_size for path in logs.rglob("*") if path.is_file()}


def added(data: Path, before: Mapping[Path, int]) -> Volume:
    volume = Volume()
    for path, size in sizes(data).items():
        with path.open("rb") as file:
            file.seek(before.get(path, 0))
            new = file.read(size - before.get(path, 0))
        for line in new.splitlines(keepends=True):
            kind = _level(line, volume) if path.name.startswith(_OURS) else _daemon(path)
            volume.lines[kind] += 1
            volume.bytes[kind] += len(line)
    return volume


def _level(line: bytes, volume: Volume) -> str:
    try:
        said: dict[str, Any] = json.loads(line)
    except ValueError:
        return "ours, no JSON"
    level = str(said.get("level") or said.get("levelname", "none")).upper()
    if str(said.get("logger", "ray")).startswith("ray"):
        return f"Serve's in our files, {level}"
    volume.events[_ID.sub("…", str(said["event"]))[:_EVENT_CHARS]] += 1
    return f"ours, {level}"


def _daemon(path: Path) -> str:
    """`python-core-worker-<id>_<pid>.log` and the like by what they begin with."""
    words = path.stem.replace("_", "-").split("-")
    name = "-".join(word for word in words if not any(c.isdigit() for c in word))
    return f"Ray's, {name or path.stem}"
