"""What a batch was asked for, as it stands in its row, and the run that comes of it."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from catalog.results.output import RunOutput
from catalog.run.config import CatalogConfig
from catalog.run.options import RunOptions
from storage import keys
from storage.batches import Batch
from storage.object_store import ObjectStore


class UploadedManifest(BaseModel):
    """A file at /v1/files, and all that is needed of it: it may be deleted while the batch runs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    sha256: str
    suffix: str  # of catalog.manifest.source.FORMATS


class BatchRequest(BaseModel):
    """One of `file` and `input_uri`."""

    model_config = ConfigDict(frozen=True, extra="ignore")  # of any release

    file: UploadedManifest | None = None
    input_uri: str | None = None
    run: dict[str, Any] = Field(default_factory=dict)  # fields of RunOptions
    dry_run: bool = False
    completion_window: str | None = None
    metadata: dict[str, str] = Field(default_factory=dict)
    origin: str | None = None  # the batch that began the run, where this one goes on with it

    def folder(self, batch: Batch) -> str:
        """The key of the run's own folder in the service's bucket, without a slash behind it."""
        return keys.batch_folder(batch.tenant, self.origin or batch.id)

    def manifest_key(self, batch: Batch) -> str:
        """Where the uploaded manifest lies for as long as the batch that began the run does."""
        assert self.file is not None
        return f"{self.folder(batch)}/input{self.file.suffix}"


def run_options(
    batch: Batch, request: BatchRequest, service_bucket: str, config: CatalogConfig
) -> RunOptions:
    """Photos are read from the tenant's own folders only: whoever writes a manifest must not read
    with the service's keys what his own do not open."""
    own = f"s3://{service_bucket}"
    if request.file is None:
        assert request.input_uri is not None
        manifest_uri = request.input_uri
    else:
        manifest_uri = f"{own}/{request.manifest_key(batch)}"
    return RunOptions(
        **request.run,
        submission=batch.id,
        manifest_uri=manifest_uri,
        output_uri=batch.output_uri,
        in_flight=config.in_flight,
        photo_prefixes=(
            *config.inputs_of(batch.tenant),
            f"{own}/{keys.inputs_prefix(batch.tenant)}",
            f"{own}/{request.folder(batch)}/",
        ),
    )


def output_of(options: RunOptions, objects: ObjectStore) -> RunOutput:
    return RunOutput(objects, options.bucket, options.prefix, options.run_id)
