"""One cluster of three nodes for the session; a test that takes it apart puts it together again."""

from collections.abc import Iterator

import pytest

from cluster.embedded_s3 import EmbeddedS3
from diffusion.tiny import write_tiny_model
from tests.multinode.rig import MultiNode, running
from tests.postgres import Postgres


@pytest.fixture(scope="session")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MultiNode]:
    folder = tmp_path_factory.mktemp("fleet")
    write_tiny_model(folder / "model")
    with (
        EmbeddedS3(folder / "s3") as s3,
        Postgres() as postgres,
        running(folder, s3, postgres.new_database(), folder / "model") as fleet,
    ):
        yield fleet


@pytest.fixture
def fleet(nodes: MultiNode) -> MultiNode:
    """At rest: both a100 replicas up and the other tier asleep, so that it is known where a lone
    job goes."""
    rest = {"Denoiser-a100": 2, "Denoiser-rtx4090": 0, "VideoAPI": 2}
    nodes.until(lambda: rest.items() <= nodes.replicas().items(), 90, nodes.replicas)
    return nodes
