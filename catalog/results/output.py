"""Where a run's files lie: keys of its output folder, and addresses relative to it."""

from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import quote

from storage.object_store import ObjectStore

MARKERS = "_shards"


@dataclass(frozen=True, slots=True)
class RunOutput:
    """The folder `s3://<bucket>/<prefix>/` of one run. `prefix` has no slash at either end."""

    objects: ObjectStore
    bucket: str
    prefix: str
    run_id: str

    def __post_init__(self) -> None:
        if not self.prefix or self.prefix != self.prefix.strip("/"):
            raise ValueError(f"not the key of a folder: {self.prefix!r}")

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"

    def key(self, name: str) -> str:
        return f"{self.prefix}/{name}"

    def part_key(self, shard: int, round_: int = 0) -> str:
        """`round_`: how often its failed rows were tried again."""
        again = f".r{round_}" if round_ else ""
        return self.key(f"results/part-{shard:05d}{again}.parquet")

    def marker_key(self, shard: int, round_: int = 0) -> str:
        again = f".r{round_}" if round_ else ""
        return self.key(f"{MARKERS}/{shard:05d}{again}.json")

    @property
    def markers_prefix(self) -> str:
        return self.key(f"{MARKERS}/")

    def key_of(self, uri: str) -> str | None:
        """The key in this bucket that `uri` stands for; None where it is not of this folder."""
        inside = uri.removeprefix(f"{self.uri}/")
        if inside == uri or ".." in PurePosixPath(inside).parts:
            return None
        return self.key(inside)

    def link(self, uri: str) -> str | None:
        """`uri` as an address relative to this folder, fit for an href; None: not inside it."""
        if self.key_of(uri) is None:
            return None
        # "./", so that a name with a colon is not taken for a scheme.
        return "./" + quote(uri.removeprefix(f"{self.uri}/"))
