"""The embedded S3 server: private keys, same folder same bucket, and no orphan left behind."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from cluster.embedded_s3 import EmbeddedS3, EmbeddedS3Failed
from storage.object_store import S3ObjectStore

ROOT = Path(__file__).parents[2]


def test_keys_stay_private(s3_server: EmbeddedS3) -> None:
    identities = s3_server.log.parent / "identities.json"
    secret = s3_server.config.secret_key.get_secret_value()
    assert identities.stat().st_mode & 0o777 == 0o600
    assert secret in identities.read_text()
    assert secret not in s3_server.log.read_text()
    assert secret.encode() not in Path(f"/proc/{s3_server.pid}/cmdline").read_bytes()


def test_every_port_is_on_loopback(s3_server: EmbeddedS3) -> None:
    inodes = {
        link.readlink().name.removeprefix("socket:[").removesuffix("]")
        for link in Path(f"/proc/{s3_server.pid}/fd").iterdir()
        if link.is_symlink() and str(link.readlink()).startswith("socket:")
    }
    listening = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{s3_server.pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[9] in inodes and fields[3] == "0A":  # LISTEN
                listening.append(fields[1].split(":"))
    assert len(listening) >= 8
    assert {address for address, _ in listening} == {"0100007F"}  # 127.0.0.1, little-endian
    assert all(int(port, 16) >= 20_000 for _, port in listening)


def test_the_environment_of_the_caller_is_not_inherited(s3_server: EmbeddedS3) -> None:
    environment = Path(f"/proc/{s3_server.pid}/environ").read_bytes().split(b"\0")
    names = {entry.split(b"=")[0] for entry in environment if entry}
    assert names <= {b"PATH", b"HOME", b"GOMEMLIMIT", b"GOGC", b"LC_CTYPE"}


def test_a_folder_outlives_its_server(tmp_path: Path) -> None:
    with EmbeddedS3(tmp_path / "s3") as server:
        first = server.config
        S3ObjectStore(first).put("a", b"kept", "text/plain")
        with pytest.raises(RuntimeError, match="running already"):
            server.start()
        with pytest.raises(EmbeddedS3Failed, match="another server runs over"):
            EmbeddedS3(tmp_path / "s3").start()
        assert S3ObjectStore(first).get("a") == b"kept"
    with EmbeddedS3(tmp_path / "s3") as again:
        assert again.config == first
        assert S3ObjectStore(first).get("a") == b"kept"


def test_a_server_that_does_not_come_up_says_why(tmp_path: Path) -> None:
    (tmp_path / "filerldb2").write_text("not a folder")
    with pytest.raises(EmbeddedS3Failed, match=r"(?s)ended while starting.*filerldb2"):
        EmbeddedS3(tmp_path).start()


def test_unstarted_it_has_no_address(tmp_path: Path) -> None:
    server = EmbeddedS3(tmp_path)
    server.stop()
    for read in (lambda: server.config, lambda: server.pid):
        with pytest.raises(RuntimeError, match="was not started"):
            read()


# Starts the server in a thread that ends at once: that must not count as the parent's death.
PARENT = """
import sys, threading
from pathlib import Path
from cluster.embedded_s3 import EmbeddedS3
server = EmbeddedS3(Path(sys.argv[1]))
thread = threading.Thread(target=server.start)
thread.start()
thread.join()
print(server.pid, flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("killed", [True, False], ids=["killed", "exits"])
def test_it_ends_with_its_parent(tmp_path: Path, killed: bool) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert is_running(pid)
    if killed:
        parent.kill()
    parent.communicate("\n" if not killed else None, timeout=60)
    deadline = time.monotonic() + 60
    while is_running(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"  # a zombie waits for an init that may not care
