"""The log of the run, and the two things that every rig starts from: an S3 server, a model."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import machine
from cluster.embedded_s3 import EmbeddedS3
from diffusion.tiny import write_tiny_model
from tests.faults.report import FaultLog

_LOG = pytest.StashKey[FaultLog]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--fault-table",
        action="store_true",
        help="keep the figures: benchmarks/results/faults.json",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_LOG] = FaultLog()


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config
) -> None:
    log = config.stash[_LOG]
    if not len(log):
        return
    terminalreporter.write_line(log.table())
    if config.getoption("--fault-table"):
        if exitstatus == 0:
            path = machine.write("faults", log.figures())
            terminalreporter.write_line(f"written: {path}")
        else:
            terminalreporter.write_line("not written: figures of a failed run are not kept")


@pytest.fixture(scope="session")
def faults(pytestconfig: pytest.Config) -> FaultLog:
    return pytestconfig.stash[_LOG]


@pytest.fixture
def s3(tmp_path: Path) -> Iterator[EmbeddedS3]:
    """A server of one's own, to be hurt."""
    with EmbeddedS3(tmp_path / "s3") as server:
        yield server


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model's folder."""
    folder = tmp_path_factory.mktemp("model")
    write_tiny_model(folder)
    return folder
