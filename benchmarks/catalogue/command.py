"""`shopreel catalog run` as a process of its own, the way its user starts it."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from catalog.results.output import RunOutput
from catalog.run.options import RunOptions
from storage.object_store import ObjectStore

SHOPREEL = Path(sys.executable).with_name("shopreel")
_LEAVE_S = 60.0


class RunFailed(Exception):
    """Ends with what the command said last."""


class CatalogRun:
    """The command under way."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path):
        self._process, self._log = process, log

    @property
    def is_over(self) -> bool:
        return self._process.poll() is not None

    def said(self) -> str:
        return self._log.read_text(errors="replace")

    def wait(self, patience_s: float) -> None:
        """Raises RunFailed for one that did not end well, or not in time."""
        try:
            code = self._process.wait(patience_s)
        except subprocess.TimeoutExpired:
            raise RunFailed(f"it still runs after {patience_s:.0f} s\n{self.said()}") from None
        if code != 0:
            raise RunFailed(self.said()[-3000:])

    def end(self) -> None:
        """Whatever becomes of the run: it is the command that ends."""
        if not self.is_over:
            self._process.terminate()
            self._process.wait(_LEAVE_S)


@contextmanager
def following(data: Path, manifest: Path, output_uri: str, *options: str) -> Iterator[CatalogRun]:
    """With --follow: lost drivers are started again."""
    log = data.parent / f"catalog-{time.time_ns()}.log"
    command = [str(SHOPREEL), "catalog", "run", str(manifest), "--output", output_uri]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*command, "--data", str(data), "--follow", *options],
            stdout=out,
            stderr=subprocess.STDOUT,
            env={k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "SHOPR"))},
        )
    run = CatalogRun(process, log)
    try:
        yield run
    finally:
        run.end()


def output_of(objects: ObjectStore, output_uri: str) -> RunOutput:
    options = RunOptions(manifest_uri="", output_uri=output_uri)
    return RunOutput(objects, options.bucket, options.prefix, options.run_id)
