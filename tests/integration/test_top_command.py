"""`shopreel top` on a terminal, until Ctrl-C."""

import os
import pty
import signal
import subprocess
import time
from pathlib import Path

from storage.job_store import JobStoreConfig, SqlJobStore
from tests.integration.live import ROOT, SHOPREEL
from tests.sample_jobs import make_request

ENTER_SCREEN, LEAVE_SCREEN = b"\x1b[?1049h", b"\x1b[?1049l"


def read_until(terminal: int, word: bytes, patience_s: float) -> bytes:
    """What was written to it up to and with `word`."""
    written = b""
    os.set_blocking(terminal, False)
    deadline = time.monotonic() + patience_s
    while word not in written:
        assert time.monotonic() < deadline, written
        try:
            written += os.read(terminal, 65536)
        except BlockingIOError:
            time.sleep(0.05)
    return written


def test_top_follows_the_table_and_gives_the_screen_back(tmp_path: Path) -> None:
    jobs = SqlJobStore(JobStoreConfig(url=f"sqlite:///{tmp_path / 'jobs.sqlite'}"))
    terminal, its_side = pty.openpty()
    top = subprocess.Popen(
        [str(SHOPREEL), "top", "--data", str(tmp_path), "--every", "0.2"],
        stdin=its_side,
        stdout=its_side,
        stderr=its_side,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "120"},
    )
    try:
        first = read_until(terminal, b"in flight: 0", 60)
        assert ENTER_SCREEN in first
        jobs.create(make_request("video_1"))
        (job,) = jobs.lease(jobs.next_epoch(), {"video_1": "a100"})
        read_until(terminal, job.id.encode(), 60)
        top.send_signal(signal.SIGINT)
        read_until(terminal, LEAVE_SCREEN, 60)
        assert top.wait(60) == 0
    finally:
        top.kill()
        top.wait()
        os.close(its_side)
        os.close(terminal)
        jobs.close()
