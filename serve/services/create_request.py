"""The body of `POST /v1/videos`, multipart or JSON: parameters, where the photo is, a fingerprint.

FastAPI declares one body type per route, hence by hand.
"""

import base64
import hashlib
import json
import re
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from starlette.datastructures import FormData, UploadFile

from serve.errors import REQUEST, ApiError, unknown_parameter
from serve.schemas import CreateVideo, CreateVideoForm, CreateVideoJson

_DATA_URL = re.compile(r"data:image/[a-z+.-]+;base64,")
_MOST_COMMAS = 20_000
"""In a JSON body: more than any text that is allowed here. Millions of small items would take
gigabytes, and the event loop for seconds, before the first of them is refused."""
_LONGEST_FIELD_BYTES = 128 << 10  # of a form, the file apart


@dataclass(frozen=True, slots=True)
class UploadedFile:
    id: str


@dataclass(frozen=True, slots=True)
class RemoteImage:
    url: str


PhotoSource = bytes | UploadedFile | RemoteImage


@dataclass(frozen=True, slots=True)
class CreateRequest:
    parameters: CreateVideo
    photo: PhotoSource
    fingerprint: str  # sha256 of what was said, for the idempotency key


async def read_create(request: Request) -> CreateRequest:
    """Raises ApiError and pydantic's ValidationError."""
    media_type = _media_type(request)
    if media_type == "multipart/form-data":
        fields, _ = await form_fields(request, "input_reference", CreateVideoForm.model_fields)
        form = CreateVideoForm.model_validate(fields)
        return CreateRequest(form, form.input_reference, _form_fingerprint(fields))
    if media_type == "application/json":
        text = await request.body()
        body = CreateVideoJson.model_validate(_parse_json(text))
        reference = body.input_reference
        photo: PhotoSource
        if reference.file_id is not None:
            photo = UploadedFile(reference.file_id)
        else:
            assert reference.image_url is not None  # its schema: one of the two
            photo = _from_url(reference.image_url)
        return CreateRequest(body, photo, hashlib.sha256(text).hexdigest())
    raise _unsupported("multipart/form-data with a file, or application/json")


async def read_json(request: Request) -> Any:
    """Raises ApiError."""
    if _media_type(request) != "application/json":
        raise _unsupported("application/json")
    return _parse_json(await request.body())


async def form_fields(
    request: Request, file_field: str, known: Collection[str]
) -> tuple[dict[str, Any], str | None]:
    """The fields of a multipart form, text but for the bytes of `file_field`, and what the caller
    named that file. Raises ApiError for what is given twice or as the wrong kind, and for names
    that are not `known`."""
    fields: dict[str, Any] = {}
    filename = None
    async with _form(request) as form:
        for name, value in form.multi_items():
            if name in fields:
                raise ApiError(400, REQUEST, "invalid_parameter", f"{name!r} is given twice", name)
            is_file = isinstance(value, UploadFile)
            if is_file != (name == file_field):
                if name not in known:
                    raise unknown_parameter(name)
                expected = "a text field" if is_file else "a file part"
                raise ApiError(400, REQUEST, "invalid_parameter", f"{name} is {expected}", name)
            if isinstance(value, UploadFile):
                fields[name], filename = await value.read(), value.filename
            else:
                fields[name] = value
    return fields, filename


@asynccontextmanager
async def _form(request: Request) -> AsyncIterator[FormData]:
    try:
        form = await request.form(max_files=10, max_fields=100, max_part_size=_LONGEST_FIELD_BYTES)
    except UnicodeError as e:  # of the charset that the caller names, whichever Python knows
        message = f"the form is not in the charset that it names: {e}"
        raise ApiError(400, REQUEST, "invalid_form", message) from e
    try:
        yield form
    finally:
        await form.close()


def _form_fingerprint(fields: Mapping[str, str | bytes]) -> str:
    """Of what a form says, not of its bytes: every retry draws another boundary."""
    said = {
        name: hashlib.sha256(value).hexdigest() if isinstance(value, bytes) else value
        for name, value in fields.items()
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _from_url(url: str) -> bytes | RemoteImage:
    matched = _DATA_URL.match(url)
    if matched is None:
        return RemoteImage(url)
    try:
        return base64.b64decode(url[matched.end() :], validate=True)
    except ValueError as e:  # binascii.Error is one
        param = "input_reference.image_url"
        raise ApiError(400, REQUEST, "invalid_parameter", f"not base64: {e}", param) from e


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _unsupported(expected: str) -> ApiError:
    return ApiError(415, REQUEST, "unsupported_media_type", f"send {expected}")


def _parse_json(text: bytes) -> Any:
    if text.count(b",") > _MOST_COMMAS:
        message = f"more than {_MOST_COMMAS} commas in a JSON body"
        raise ApiError(400, REQUEST, "invalid_json", message)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as e:
        raise ApiError(400, REQUEST, "invalid_json", f"not valid JSON: {e}") from e
