"""A shard's marker: that its part is committed, and what the report needs to know of it."""

from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from catalog.results.errors import MarkerDamaged
from catalog.results.tally import Tally


class ShardMarker(BaseModel):
    model_config = ConfigDict(frozen=True)

    run_id: str
    shard: int
    round: int = 0  # how often its failed rows were tried again
    submission: str = ""  # which asking made it: RunOptions.submission
    first_row: int
    part_key: str
    part_bytes: int
    sha256: str  # of the part
    tally: Tally

    def to_json(self) -> bytes:
        return self.model_dump_json().encode()

    @classmethod
    def read(cls, key: str, data: bytes) -> Self:
        """Raises MarkerDamaged."""
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            raise MarkerDamaged(key) from error
