"""What HTTP callers may have done with manifests: which folders they reach, how much at once."""

from collections.abc import Iterable
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

_Prefix = Annotated[str, Field(pattern=r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/(.*/)?$")]


class CatalogConfig(BaseModel):
    """`{tenant}` in a prefix stands for the caller's name. Each ends in `/`, so that no tenant's
    folder begins another's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input_prefixes: tuple[_Prefix, ...] = Field(
        (),
        description="s3://BUCKET/FOLDER/ of which batches may read manifests and photos; none:"
        " only what the tenant has uploaded, and https photos of egress.image_hosts",
    )
    output_prefixes: tuple[_Prefix, ...] = Field(
        (),
        description="where batches may write; none: only batches/TENANT/ID/ of the service's own"
        " bucket",
    )
    max_batches_per_tenant: int = Field(4, ge=1, description="unfinished ones")
    max_upload_bytes: int = Field(
        24 << 20, gt=0, description="of a manifest at /v1/files; limits.max_body_bytes goes first"
    )
    in_flight: int = Field(64, ge=1, le=4096, description="jobs of one batch at once")
    max_starts: int = Field(
        20, ge=1, description="of a batch's driver, in a row without a row done"
    )
    follow_every_s: float = Field(2.0, gt=0)

    def inputs_of(self, tenant: str) -> tuple[str, ...]:
        return _of(tenant, self.input_prefixes)

    def outputs_of(self, tenant: str) -> tuple[str, ...]:
        return _of(tenant, self.output_prefixes)


def is_under(uri: str, prefixes: Iterable[str]) -> bool:
    """No server's reading of `.` and `..` leads out of a folder: such names are under none, nor is
    what has control characters, which urllib would take out first."""
    names = uri.removeprefix("s3://").split("/")
    if "." in names or ".." in names or not uri.isprintable():
        return False
    return any(uri.startswith(prefix) for prefix in prefixes)


def _of(tenant: str, prefixes: Iterable[str]) -> tuple[str, ...]:
    return tuple(prefix.replace("{tenant}", tenant) for prefix in prefixes)
