"""What a process can do no more after it gave it up; each in a process of its own."""

import platform
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BEFORE = """
    import os, socket, sys
    from pathlib import Path
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    def connect():
        with socket.socket() as caller:
            caller.connect(address)
"""
GIVE_UP = """
    from video.sandbox import give_up_privileges, give_up_surroundings
    give_up_privileges()
    if not give_up_surroundings():
        sys.exit(77)
"""
NO_LANDLOCK = 77


def kernel() -> tuple[int, ...]:
    return tuple(int(part) for part in platform.release().split(".")[:2])


def run(attempt: str, prelude: str) -> subprocess.CompletedProcess[str]:
    script = textwrap.dedent(BEFORE) + textwrap.dedent(prelude) + attempt
    command = [sys.executable, "-c", script]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize(
    "attempt",
    [
        "Path('README.md').read_bytes()",
        "os.listdir('/')",
        "Path(f'/proc/{os.getppid()}/environ').read_bytes()",
        "os.execv('/bin/true', ['true'])",
        "os.kill(os.getppid(), 0)",
        "connect()",
    ],
)
def test_what_was_possible_is_not_any_more(attempt: str) -> None:
    assert run(attempt, "").returncode == 0
    done = run(attempt, GIVE_UP)
    if kernel() < (5, 13):
        assert done.returncode == NO_LANDLOCK
        return
    assert done.returncode == 1
    assert "PermissionError" in done.stderr.splitlines()[-1]


def test_what_is_open_stays_so() -> None:
    done = run("print(sys.stdin.read() == '', len(bytes(1 << 20)))", GIVE_UP)
    assert done.returncode == (0 if kernel() >= (5, 13) else NO_LANDLOCK), done.stderr
