"""How a step engine works: rows, fairness, checkpoints, options of torch. No torch here."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator


class TorchOptions(BaseModel):
    """What may make the UNet faster on a card. Measured by `make bench PART=torch`; off unless it
    helped."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels_last: bool = Field(False, description="memory format of the 2-D convolutions")
    compile: bool = Field(False, description="torch.compile; set row_counts too")
    sdpa_backend: Literal["auto", "flash", "efficient", "cudnn", "math"] = "auto"
    chunk_feed_forward: bool = Field(
        False, description="transformer_in's feed forward in parts: a fifth less memory, exact"
    )


class EngineConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    max_rows: int = Field(
        8, ge=1, description="of one UNet call; a request with guidance takes two"
    )
    row_counts: tuple[int, ...] = Field(
        (),
        description="row counts that calls are padded to. One makes a clip's bits independent of"
        " its company, a few spare torch.compile a graph for each; rows of padding are paid for."
        " Counts too large for a shape do not apply to it",
    )
    mixed_calls: bool = Field(
        False,
        description="batch rows join calls of interactive ones: more clips an hour where one clip"
        " does not fill the card, slower for the people",
    )
    patience_s: float = Field(10.0, gt=0, description="whoever waited so long gets the next step")
    checkpoint_steps: int = Field(10, ge=1, description="a checkpoint after so many steps")
    checkpoint_s: float = Field(20.0, gt=0, description="or so many seconds")
    torch: TorchOptions = TorchOptions()

    @field_validator("row_counts")
    @classmethod
    def _ascending(cls, counts: tuple[int, ...]) -> tuple[int, ...]:
        if any(count < 1 for count in counts) or list(counts) != sorted(set(counts)):
            raise ValueError(f"must be different, ascending and at least 1, got {counts}")
        return counts
