"""The cluster that catalogue commands talk to: its dashboard for Ray jobs, its object store."""

from dataclasses import dataclass
from pathlib import Path

from ray.exceptions import RayError

from catalog.results.output import RunOutput
from catalog.run.options import RunOptions
from catalog.run.submission import DriverJobs
from cluster.embedded_s3 import EmbeddedS3
from cluster.local import Endpoints
from serve.commands import LOCAL_CONFIG
from serve.config import load
from storage.object_store import ObjectStore, ObjectStoreConfig, S3ObjectStore


class NoCluster(Exception):
    """Nothing to talk to; says what to do."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """The one-machine cluster on `data`, unless `dashboard` names another one's."""

    config: Path | None
    data: Path
    dashboard: str | None

    @property
    def dashboard_url(self) -> str:
        """Raises NoCluster."""
        if self.dashboard is not None:
            return self.dashboard
        try:
            return Endpoints.read(self.data).dashboard_url
        except FileNotFoundError:
            raise NoCluster(
                f"no cluster runs on {self.data}: start one with `shopreel up --data {self.data}`,"
                " or name another's dashboard with --address http://HEAD:8265"
            ) from None

    def drivers(self) -> DriverJobs:
        """Raises NoCluster."""
        url = self.dashboard_url
        try:
            return DriverJobs(url)
        except (ConnectionError, RuntimeError, RayError) as e:
            raise NoCluster(f"no Ray dashboard answers at {url}: {e}") from e

    def bucket(self, name: str) -> ObjectStore:
        """Raises ConfigError and StorageError."""
        return S3ObjectStore(self._store().model_copy(update={"bucket": name}))

    def output(self, output_uri: str) -> RunOutput:
        """Raises pydantic's ValidationError where that is no output."""
        options = RunOptions(manifest_uri="", output_uri=output_uri)
        objects = self.bucket(options.bucket)
        return RunOutput(objects, options.bucket, options.prefix, options.run_id)

    def output_of(self, run: str) -> RunOutput:
        """`run`: where its results are, or its id while Ray knows its job. Raises NoCluster."""
        if run.startswith("s3://"):
            return self.output(run.rstrip("/"))
        found = self.drivers().find(run)
        if found is None:
            raise NoCluster(f"Ray knows no run {run!r}; give its s3://BUCKET/PREFIX instead")
        return self.output(found.output_uri)

    def _store(self) -> ObjectStoreConfig:
        return load(self.config or LOCAL_CONFIG).app.object_store or EmbeddedS3.running(
            self.data.resolve() / "s3"
        )
