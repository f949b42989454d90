"""A node of the cluster whose whole disk is small, so that it can be filled: Ray's daemons on a
file system of their own, laid over this machine's (overlayfs on a tmpfs, in a mount namespace)."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile

import psutil

_SIZE_BYTES = 1 << 30
_JOINS_S, _ENDS_S = 60.0, 10.0
_SCRIPT = """
set -e
mount -t tmpfs -o size={size} tmpfs {at}
mkdir {at}/upper {at}/work {at}/rootfs
mount -t overlay overlay -o lowerdir=/,upperdir={at}/upper,workdir={at}/work {at}/rootfs
for part in proc dev sys; do mount --rbind /$part {at}/rootfs/$part; done
exec chroot {at}/rootfs "$@"
"""
# `ray start` lets nobody join a cluster that listens on loopback alone, as this one does.
_NODE = """
import signal, sys
from ray._private.node import Node
from ray._private.parameter import RayParams
params = RayParams(
    gcs_address=sys.argv[1], node_ip_address="127.0.0.1", num_cpus=0,
    object_store_memory=80_000_000, min_worker_port=0, max_worker_port=0, node_manager_port=0,
    dashboard_agent_listen_port=0, include_log_monitor=False,
)
Node(params, head=False, shutdown_at_exit=False, spawn_reaper=False)
signal.pause()
"""


class NoSmallRoot(Exception):
    """This machine does not let us: not root, or no overlayfs."""


class SmallNode:
    def __init__(self, process: "subprocess.Popen[bytes]"):
        self._process = process

    def fill(self, leave: float) -> None:
        """Until this share of the disk is free."""
        inside = Path(f"/proc/{self._process.pid}/root")
        state = os.statvfs(inside)
        free_bytes = state.f_bavail * state.f_frsize
        wanted = int(state.f_blocks * state.f_frsize * leave)
        with (inside / "ballast").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, free_bytes - wanted)


@contextmanager
def small_node(ray_address: str) -> Iterator[SmallNode]:
    """Joins the cluster without a CPU to give. Raises NoSmallRoot."""
    start = [sys.executable, "-c", _NODE, ray_address]
    with TemporaryDirectory(prefix="root-") as temp, TemporaryFile() as log:
        script = _SCRIPT.format(size=_SIZE_BYTES, at=temp)
        command = ["unshare", "--mount", "bash", "-c", script, "bash", *start]
        nodes = _alive()
        process = subprocess.Popen(command, stdout=log, stderr=log)
        node = psutil.Process(process.pid)
        try:
            if not _has_joined(process, nodes):
                log.seek(0)
                raise NoSmallRoot(" ".join(log.read().decode().split())[-300:])
            yield SmallNode(process)
        finally:
            family = [node, *node.children(recursive=True)] if node.is_running() else []
            process.terminate()
            _, alive = psutil.wait_procs(family, timeout=_ENDS_S)
            for left in alive:
                left.kill()
            process.wait()


def _has_joined(process: "subprocess.Popen[bytes]", nodes: int) -> bool:
    deadline = time.monotonic() + _JOINS_S
    while time.monotonic() < deadline and process.poll() is None:
        if _alive() > nodes:
            return True
        time.sleep(0.2)
    return False


def _alive() -> int:
    import ray  # late: it reads the environment that a cluster's start makes

    return sum(node["Alive"] for node in ray.nodes())
