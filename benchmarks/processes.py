"""What each process of a one-machine cluster is, and the CPU time it has used."""

from collections import defaultdict
from pathlib import Path

import psutil


def name_of(process: psutil.Process) -> str:
    """Ray renames its workers to what they run; daemons go by their program."""
    line = process.cmdline()
    title = line[0] if line else process.name()
    if title.startswith("ray::"):
        return title.removeprefix("ray::").partition(".")[0].rpartition(":")[2]
    if title.startswith("ray-dashboard"):
        return "dashboard modules"
    if "-m" in line:
        return line[line.index("-m") + 1]
    scripts = [part for part in line if part.endswith(".py")]
    return Path(scripts[0] if scripts else title).name


def cpu_seconds() -> dict[str, float]:
    """Of this process's descendants so far, by name."""
    seconds: dict[str, float] = defaultdict(float)
    for process in psutil.Process().children(recursive=True):
        try:
            times = process.cpu_times()
            seconds[name_of(process)] += times.user + times.system
        except psutil.NoSuchProcess:
            continue
    return seconds


def peak_mb(pid: int | str = "self") -> float:
    """Of memory that the process has had at once. Not getrusage's: a child's begins with what its
    parent had."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    (peak,) = (line.split()[1] for line in status if line.startswith("VmHWM"))
    return round(int(peak) * 1024 / 1e6, 1)
