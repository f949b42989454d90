"""The rows whose sku another row had before: exact, in 8 bytes a row while none is suspect."""

import sqlite3
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.int64]


class SkuHashes:
    """64-bit hashes of all skus. Python's own are salted per process: nobody can aim at them."""

    def __init__(self) -> None:
        self._hashes = array("q")

    def add(self, skus: Iterable[str | None]) -> None:
        self._hashes.extend(hash(sku) for sku in skus if sku is not None)

    def repeated(self) -> Hashes:
        """Those of more than one row, ascending: every duplicate has one, by chance others too."""
        hashes = np.frombuffer(self._hashes, np.int64)
        hashes.sort()  # in place: a copy is 80 MB for ten million
        return np.unique(hashes[1:][hashes[1:] == hashes[:-1]])


class FirstRows:
    """Which row had a sku first, for the suspects only, in a file: all rows may be suspects."""

    def __init__(self, path: Path, repeated: Hashes) -> None:
        self._repeated = repeated
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=OFF")
        self._db.execute("PRAGMA synchronous=OFF")
        self._db.execute("CREATE TABLE first (sku TEXT PRIMARY KEY, row INTEGER) WITHOUT ROWID")
        self._db.execute("BEGIN")

    def close(self) -> None:
        self._db.close()

    def later_rows(self, skus: Sequence[str | None], first_row: int) -> dict[int, int]:
        """Of these rows the duplicates, by place in `skus`, and the row that had the sku first.
        To be called with all rows, in order."""
        hashes = np.fromiter((hash(sku) for sku in skus), np.int64, len(skus))
        suspects = [int(i) for i in np.flatnonzero(np.isin(hashes, self._repeated))]
        duplicates = {}
        for i in suspects:
            sku = skus[i]
            if sku is None:
                continue
            row = first_row + i
            added = self._db.execute("INSERT OR IGNORE INTO first VALUES (?, ?)", (sku, row))
            if not added.rowcount:
                found = self._db.execute("SELECT row FROM first WHERE sku = ?", (sku,))
                duplicates[i] = int(found.fetchone()[0])
        return duplicates
