"""One cluster of three nodes for the session; a test that takes it apart puts it together again."""

from collections.abc import Iterator

import pytest

from cluster.embedded_s3 import EmbeddedS3
from diffusion.tiny import write_tiny_model
from tests.multinode.rig import MultiNode, running


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MultiNode]:
    folder = tmp_path_factory.mktemp("fleet")
    write_tiny_model(folder / "model")
    with EmbeddedS3(folder / "s3") as s3, running(folder, s3, folder / "model") as fleet:
        yield fleet
