"""The stores that operator commands open: those of the cluster that runs on a data folder."""

from pathlib import Path

import pytest
import typer

from cluster.embedded_s3 import EmbeddedS3, EmbeddedS3Failed
from serve.commands.stores import open_stores
from storage.sql.database import Database
from tests.sample_jobs import make_request


def test_the_embedded_server_of_a_running_cluster_is_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Database(f"sqlite:///{tmp_path / 'jobs.sqlite'}").close()
    with EmbeddedS3(tmp_path / "s3") as server, open_stores(None, tmp_path) as stores:
        assert EmbeddedS3.running(tmp_path / "s3") == server.config
        stores.objects.put("probe", b"bytes", "text/plain")
        assert stores.objects.get("probe") == b"bytes"
        assert stores.jobs.create(make_request("j1")).id == "j1"
    with pytest.raises(typer.Exit) as ended, open_stores(None, tmp_path):
        pytest.fail("there is no server any more")
    assert ended.value.exit_code == 1
    assert "its cluster is not up" in capsys.readouterr().err


def test_a_folder_that_never_had_a_server_stays_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedS3Failed, match="no embedded S3 server"):
        EmbeddedS3.running(tmp_path / "s3")
    assert not (tmp_path / "s3").exists()
