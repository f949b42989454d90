"""Uploaded files in the shape of OpenAI's Files API."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema

from serve.schemas.prompts import without_nul
from storage.files import StoredFile


class CreateFile(BaseModel):
    """Parameters of `POST /v1/files`."""

    model_config = ConfigDict(extra="forbid")

    file: Annotated[bytes, WithJsonSchema({"type": "string", "format": "binary"})]
    purpose: Literal["vision", "batch"] = Field(
        description="vision: a photo to make videos of; batch: a manifest for POST /v1/batches, its"
        " name ending in .csv, .jsonl, .ndjson or .parquet"
    )
    filename: Annotated[str, AfterValidator(without_nul)] = Field(max_length=512)  # of the part


class File(BaseModel):
    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    filename: str
    purpose: str
    status: Literal["processed"] = "processed"

    @classmethod
    def of(cls, file: StoredFile) -> "File":
        return cls(
            id=file.id,
            bytes=file.size_bytes,
            created_at=int(file.created_at),
            filename=file.filename,
            purpose=file.purpose,
        )


class FileList(BaseModel):
    object: Literal["list"] = "list"
    data: list[File]
    first_id: str | None
    last_id: str | None
    has_more: bool


class FileDeleted(BaseModel):
    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True


def file_body_schema() -> tuple[dict[str, Any], dict[str, Any]]:
    """OpenAPI's requestBody of `POST /v1/files`, and the component schemas that it refers to."""
    schema = CreateFile.model_json_schema()
    del schema["properties"]["filename"]  # it stands in the part's own header
    schema["required"].remove("filename")
    reference = {"$ref": f"#/components/schemas/{CreateFile.__name__}"}
    content = {"multipart/form-data": {"schema": reference}}
    return {"required": True, "content": content}, {CreateFile.__name__: schema}
