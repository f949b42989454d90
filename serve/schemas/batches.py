"""Batches in the shape of OpenAI's Batch API, with a manifest in place of its request lines."""

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from catalog.batches.items import Item, ItemStatus
from catalog.batches.request import BatchRequest
from catalog.run.options import RunOptions
from serve.schemas.create import Metadata
from serve.schemas.prompts import without_nul
from storage.batches import Batch as StoredBatch
from storage.batches import BatchStatus

_Uri = Annotated[
    str, Field(max_length=1024, pattern=r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/[^\x00]+$")
]
_Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(without_nul)]

INPUTS = ("input_file_id", "input_uri", "retry_of")
"""Of a new batch, which has one of them."""
_OF_A_RETRY = {
    "retry_of",
    "retry_failed",
    "completion_window",
    "max_failures",
    "metadata",
    "webhook",
}


class CreateBatch(BaseModel):
    """Parameters of `POST /v1/batches`."""

    model_config = ConfigDict(extra="forbid")

    endpoint: Literal["/v1/videos"] = "/v1/videos"
    completion_window: Annotated[str, Field(pattern="^[1-9][0-9]{0,2}[hd]$")] | None = Field(
        None, description="24h, 7d: what is not done by then is cancelled; null: no such time"
    )
    input_file_id: Annotated[str, Field(max_length=128), AfterValidator(without_nul)] | None = (
        Field(
            None,
            description="of a file at /v1/files, purpose `batch`: a manifest (CSV, JSONL, Parquet),"
            " or OpenAI's lines {custom_id, method, url, body}",
        )
    )
    input_uri: _Uri | None = Field(
        None,
        description="s3:// address of a manifest, or of a folder of photos that ends in /, where"
        " this server lets the tenant read",
    )
    retry_of: Annotated[str, Field(max_length=128), AfterValidator(without_nul)] | None = Field(
        None,
        description="a batch that has ended: its run goes on in the folder that it has. Rows that"
        " have their videos keep them, those that failed or had not begun are made. Only"
        " completion_window, max_failures, metadata and webhook may be given anew, else they are"
        " that batch's",
    )
    output_prefix: _Uri | None = Field(
        None,
        description="s3:// folder for the results, where this server lets the tenant write; the"
        " same one again continues what was done there; null: one of its own",
    )
    dry_run: bool = Field(False, description="check every row, make nothing")
    max_failures: Annotated[str, Field(pattern=r"^([0-9]{1,12}|(100|[0-9]{1,2})(\.[0-9]+)?%)$")] | (
        None
    ) = Field(None, description="rows, or a share of them as 5%; more of them end the batch")
    retry_failed: bool = Field(
        False, description="what failed in `output_prefix` before is tried again"
    )
    model: _Name | None = Field(
        None, description="of all rows, one of GET /v1/models; null: this server's default"
    )
    preset: _Name | None = Field(None, description="of rows that name none")
    category: _Name | None = Field(None, description="of rows that name none")
    seed: int = Field(0, ge=0, lt=2**63, description="of rows that name none")
    limit: int | None = Field(None, gt=0, lt=2**53, description="rows; the manifest's first ones")
    min_score: float = Field(0.0, ge=0, le=1, description="of quality; below it other seeds follow")
    metadata: Metadata | None = None
    webhook: str | None = Field(
        None, max_length=2048, description="URL of a host that is allowed here; hears of the end"
    )

    @model_validator(mode="after")
    def _one_input(self) -> "CreateBatch":
        given = self.model_dump(exclude_defaults=True).keys()
        if len(given & set(INPUTS)) != 1:
            raise ValueError(f"give one of {', '.join(INPUTS)}")
        if "retry_of" in given and (fixed := given - _OF_A_RETRY):
            raise ValueError(f"with retry_of, {', '.join(sorted(fixed))} stay as that batch has it")
        return self

    @property
    def window(self) -> timedelta | None:
        if self.completion_window is None:
            return None
        number, unit = int(self.completion_window[:-1]), self.completion_window[-1]
        return timedelta(hours=number) if unit == "h" else timedelta(days=number)

    def of_the_run(self) -> dict[str, str | int | float | bool]:
        """Fields of RunOptions that are not at their defaults."""
        names = RunOptions.model_fields.keys()
        return self.model_dump(include=set(names), exclude_defaults=True)


class BatchErrorItem(BaseModel):
    code: str
    message: str
    param: str | None
    line: int | None


class BatchErrors(BaseModel):
    object: Literal["list"] = "list"
    data: list[BatchErrorItem]


class RequestCounts(BaseModel):
    total: int = Field(description="0 until the manifest has been read")
    completed: int
    failed: int


class Batch(BaseModel):
    """OpenAI's Batch, except that results are files in S3: `output_file_id` and `error_file_id`
    are their s3:// addresses and no ids of /v1/files. Times are Unix seconds."""

    id: str
    object: Literal["batch"] = "batch"
    endpoint: Literal["/v1/videos"] = "/v1/videos"
    model: str
    status: BatchStatus
    input_file_id: str | None
    input_uri: str | None
    completion_window: str | None
    output_prefix: str
    output_file_id: str | None = Field(description="s3:// folder of the Parquet parts")
    error_file_id: str | None = Field(description="s3:// address of the table of failed rows")
    run_id: str = Field(
        description="the `batch_id` of its videos at GET /v1/videos; batches that go on with one"
        " run have the same"
    )
    dry_run: bool
    retry_failed: bool = Field(description="it tries again what had failed when it began")
    preset: str | None = Field(description="of rows that name none")
    category: str | None = Field(description="of rows that name none")
    max_failures: str | None
    errors: BatchErrors | None = Field(
        description="why it failed; of a dry run the first rows that cannot be used"
    )
    request_counts: RequestCounts
    created_at: int
    in_progress_at: int | None
    expires_at: int | None
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    metadata: dict[str, str]

    @classmethod
    def of(
        cls, batch: StoredBatch, request: BatchRequest, options: RunOptions, default_model: str
    ) -> "Batch":
        made = batch.status.is_terminal and batch.counts.total > 0 and not request.dry_run
        stamps = {
            f"{status.value}_at": int(batch.moments[status]) if status in batch.moments else None
            for status in BatchStatus
            if status is not BatchStatus.VALIDATING
        }
        errors = [
            BatchErrorItem(code=e.code, message=e.message, param=e.param, line=e.line)
            for e in batch.errors
        ]
        counts = batch.counts
        return cls(
            id=batch.id,
            model=options.model or default_model,
            status=batch.status,
            input_file_id=request.file and request.file.id,
            input_uri=request.input_uri,
            completion_window=request.completion_window,
            output_prefix=batch.output_uri,
            output_file_id=f"{batch.output_uri}/results/" if made else None,
            error_file_id=f"{batch.output_uri}/errors.csv" if made and counts.failed else None,
            run_id=options.run_id,
            dry_run=request.dry_run,
            retry_failed=options.retry_failed,
            preset=options.preset,
            category=options.category,
            max_failures=options.max_failures,
            errors=BatchErrors(data=errors) if errors else None,
            request_counts=RequestCounts(
                total=counts.total, completed=counts.completed, failed=counts.failed
            ),
            created_at=int(batch.created_at),
            expires_at=None if batch.expires_at is None else int(batch.expires_at),
            metadata=request.metadata,
            **stamps,
        )


class BatchList(BaseModel):
    object: Literal["list"] = "list"
    data: list[Batch]
    first_id: str | None
    last_id: str | None
    has_more: bool


class BatchItemError(BaseModel):
    code: str
    message: str


class BatchItem(BaseModel):
    """One row of the manifest."""

    id: str = Field(description="row_<number>, from 0: `after` of the next page")
    object: Literal["batch.item"] = "batch.item"
    row: int
    sku: str | None
    status: ItemStatus
    video_id: str | None
    error: BatchItemError | None
    video_uri: str | None = Field(description="once the rows around it have ended too")
    poster_uri: str | None
    score: float | None
    seconds: float | None
    gpu_seconds: float | None

    @classmethod
    def of(cls, item: Item) -> "BatchItem":
        error = None
        if item.error_code is not None:
            error = BatchItemError(code=item.error_code, message=item.error_message or "")
        return cls(
            id=item_id(item.row),
            row=item.row,
            sku=item.sku,
            status=item.status,
            video_id=item.video_id,
            error=error,
            video_uri=item.video_uri,
            poster_uri=item.poster_uri,
            score=item.score,
            seconds=item.seconds,
            gpu_seconds=item.gpu_seconds,
        )


class BatchItemList(BaseModel):
    object: Literal["list"] = "list"
    data: list[BatchItem]
    first_id: str | None
    last_id: str | None = Field(
        description="the last row that was looked at: where the next page begins, also when"
        " `status` has left out all of this one"
    )
    has_more: bool


def item_id(row: int) -> str:
    return f"row_{row}"
