"""What can go wrong with a run's results.

ResultsError
├── PartDamaged     a part is not what its rows, its marker or its size say: an operator must act
├── PartOfAnother   another run's part, or another manifest's, stands under this run's key
├── MarkerDamaged   a shard's marker cannot be read: delete it, and the shard is committed again
└── KeyRefused      an object in the folder has a name that leads out of it: no run writes such

None is retryable. StorageError passes through; a run may be continued after StoreUnavailable.
"""


class ResultsError(Exception):
    """Root of what a run's results raise."""

    retryable = False


class PartDamaged(ResultsError):
    def __init__(self, key: str, reason: str) -> None:
        super().__init__(key, reason)
        self.key, self.reason = key, reason

    def __str__(self) -> str:
        return f"{self.key} is damaged: {self.reason}"


class PartOfAnother(ResultsError):
    def __init__(self, key: str, reason: str) -> None:
        super().__init__(key, reason)
        self.key, self.reason = key, reason

    def __str__(self) -> str:
        return f"{self.key} belongs to another run ({self.reason}): give each run its own output"


class MarkerDamaged(ResultsError):
    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key

    def __str__(self) -> str:
        return f"{self.key} is no shard marker"


class KeyRefused(ResultsError):
    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key

    def __str__(self) -> str:
        return f"{self.key!r} is no name of a file inside a folder: remove it from the bucket"
