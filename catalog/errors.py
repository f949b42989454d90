"""What can go wrong in catalogue work.

CatalogError
├── ManifestRefused    no table of photos: mend the file or its columns; no row was used
├── ManifestNotFound   nothing lies where the manifest should
├── ManifestChanged    this run is pinned to another manifest, or to another state of this one
└── PinDamaged         the pinned manifest is not what was written: give the run another output

None is worth a retry with the same input. What a single row lacks is no exception but a
catalog.manifest.rows.RowProblem. Stores raise their own (storage.errors).
"""

from collections.abc import Sequence


class CatalogError(Exception):
    """Root of what catalogue work raises. `retryable` says whether the same call may succeed."""

    retryable = False


class ManifestRefused(CatalogError):
    """`problems` are sentences, each naming the column or line that it is about."""

    def __init__(self, uri: str, problems: Sequence[str]) -> None:
        super().__init__(uri, problems)
        self.uri, self.problems = uri, tuple(problems)

    def __str__(self) -> str:
        return f"{self.uri} is not a manifest: {'; '.join(self.problems)}"


class ManifestNotFound(CatalogError):
    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self.uri = uri

    def __str__(self) -> str:
        return f"nothing lies at {self.uri}"


class ManifestChanged(CatalogError):
    def __init__(self, uri: str, reason: str) -> None:
        super().__init__(uri, reason)
        self.uri, self.reason = uri, reason

    def __str__(self) -> str:
        return f"{self.uri}: {self.reason}"


class PinDamaged(CatalogError):
    def __init__(self, key: str, reason: str) -> None:
        super().__init__(key, reason)
        self.key, self.reason = key, reason

    def __str__(self) -> str:
        return f"the pinned manifest {self.key} is damaged: {self.reason}"
