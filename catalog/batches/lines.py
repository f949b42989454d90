"""OpenAI's batch file, a request a line, translated into a manifest."""

from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import from_json, to_json

from storage.batches import BatchError
from storage.errors import FileNotFound

SHOWN_ERRORS = 20

_Number = Annotated[str, Field(coerce_numbers_to_str=True)]


class LinesRefused(Exception):
    """No line was used; `errors` are the first ones, by line."""

    retryable = False

    def __init__(self, errors: tuple[BatchError, ...]) -> None:
        super().__init__(errors)
        self.errors = errors


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Reference(_Strict):
    image_url: str | None = Field(None, max_length=2048, pattern="^https://")
    file_id: str | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> "_Reference":
        if (self.image_url is None) == (self.file_id is None):
            raise ValueError("give image_url or file_id, one of them")
        return self


class _Body(_Strict):
    """Of POST /v1/videos, as far as a manifest has a column for it."""

    input_reference: _Reference
    model: str | None = None
    prompt: str | None = None
    negative_prompt: str | None = None
    title: str | None = None
    category: str | None = None
    preset: str | None = None
    seconds: _Number | None = None
    seed: _Number | None = None
    n: _Number | None = None
    camera_motion: str | None = None
    motion_strength: _Number | None = None
    metadata: dict[str, str] | None = None


class _Line(_Strict):
    custom_id: str = Field(min_length=1, max_length=200)
    method: Literal["POST"]
    url: Literal["/v1/videos"]
    body: _Body


def are_requests(data: bytes) -> bool:
    """Whether JSON Lines are OpenAI's, by the first one; otherwise they may be a manifest."""
    first = next((line for line in _lines(data)), (1, b""))[1]
    try:
        row = from_json(first)
    except ValueError:
        return False
    return isinstance(row, dict) and {"custom_id", "body"} <= row.keys()


def manifest_of(data: bytes, model: str, uri_of: Callable[[str], str]) -> bytes:
    """JSON Lines of a manifest, all of whose rows `model` makes. `uri_of` gives the address of an
    uploaded photo's bytes by its file's id, and raises FileNotFound. Raises LinesRefused, and what
    `uri_of` raises else."""
    errors: list[BatchError] = []
    rows: list[bytes] = []
    for number, line in _lines(data):
        try:
            rows.append(to_json(_row(_Line.model_validate(_parsed(line)), model, uri_of)))
        except ValidationError as e:
            first = e.errors(include_url=False)[0]
            param = ".".join(map(str, first["loc"])) or None
            errors.append(BatchError("invalid_request", first["msg"], param, number))
        except FileNotFound as e:
            param = "body.input_reference.file_id"
            errors.append(BatchError("file_not_found", str(e), param, number))
        except ValueError as e:
            errors.append(BatchError("invalid_request", str(e), None, number))
        if len(errors) == SHOWN_ERRORS:
            break
    if errors:
        raise LinesRefused(tuple(errors))
    return b"\n".join(rows)


def _lines(data: bytes) -> Iterator[tuple[int, bytes]]:
    """With their numbers; blank ones are none."""
    numbered = enumerate(data.split(b"\n"), 1)
    return ((number, line) for number, line in numbered if line.strip())


def _parsed(line: bytes) -> Any:
    """Raises ValueError."""
    try:
        return from_json(line, allow_inf_nan=False)
    except ValueError as e:
        raise ValueError(f"is not JSON: {e}") from None


def _row(line: _Line, model: str, uri_of: Callable[[str], str]) -> dict[str, Any]:
    body, reference = line.body, line.body.input_reference
    if body.model not in (None, model):
        raise ValueError(
            f"this batch is made by the model {model!r}, not by {body.model!r}: the batch's own"
            " `model` says by which"
        )
    uri = reference.image_url if reference.file_id is None else uri_of(reference.file_id)
    values = body.model_dump(exclude={"input_reference", "model", "metadata"}, exclude_none=True)
    if body.metadata:
        values["metadata_json"] = body.metadata
    return {"sku": line.custom_id, "image_uri": uri, **values}
