"""Exceptions to HTTP, in one table.

ApiError                 raised by the routes themselves; carries its own row
everything else          looked up in TABLE by class, most special first
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError

from catalog.errors import CatalogError, ManifestRefused
from catalog.results.errors import ResultsError
from cluster.cost import DoesNotFit
from deployments.egress.client import EgressError, UrlNotAllowed
from deployments.egress.webhooks import WebhookNotAllowed
from diffusion.errors import DiffusionError, UnsupportedSize, UnusableStrength
from serve.schemas import ErrorDetail, ErrorEnvelope
from storage.errors import (
    BatchNotFound,
    FileNotFound,
    IdempotencyConflict,
    IllegalTransition,
    JobNotFound,
    ObjectNotFound,
    OutputTaken,
    QueueFull,
    QuotaExceeded,
    StorageError,
    StoreMisconfigured,
    StoreUnavailable,
    TenantNotFound,
    UnknownKey,
)
from video.errors import CameraConflict, PhotoError, PhotoPoolBusy, UnsupportedPhotoType, VideoError

log = logging.getLogger(__name__)

REQUEST, NOT_FOUND, CONFLICT, SERVER = (
    "invalid_request_error",
    "not_found_error",
    "conflict_error",
    "server_error",
)
AUTHENTICATION, RATE_LIMIT = "authentication_error", "rate_limit_error"
PERMISSION = "permission_error"

ERROR_CODE = "error_code"
"""In a request's scope: the code that `respond` has answered with."""

SHED = frozenset({"queue_full", "overloaded", "server_busy"})
"""Codes of a 503 that sends load away on purpose. Any other 503 is a failure of the service."""

_LONGEST_MESSAGE = 2000  # characters

CHALLENGE: Mapping[str, str] = {"WWW-Authenticate": "Bearer"}
"""Goes with every 401 (RFC 9110 §11.6.1)."""


class ApiError(Exception):
    """A refusal with its HTTP status, envelope type, code and the parameter at fault."""

    def __init__(
        self,
        status: int,
        type: str,
        code: str,
        message: str,
        param: str | None = None,
        retry_after_s: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, type, code, message, param, retry_after_s, headers)
        self.status, self.type, self.code = status, type, code
        self.message, self.param, self.retry_after_s = message, param, retry_after_s
        self.headers = dict(headers or {})


@dataclass(frozen=True, slots=True)
class _Row:
    status: int
    type: str
    code: str | None = None  # None: the exception's own `code`
    param: str | None = None
    retry_after_s: int | None = None  # None: the exception's own, if it has one
    message: str | None = None  # None: the exception's own words
    headers: Mapping[str, str] = field(default_factory=dict)


TABLE: dict[type[Exception], _Row] = {
    UnsupportedPhotoType: _Row(415, REQUEST, None, "input_reference"),
    PhotoError: _Row(422, REQUEST, None, "input_reference"),
    PhotoPoolBusy: _Row(503, SERVER, retry_after_s=1),
    WebhookNotAllowed: _Row(400, REQUEST, None, "webhook"),
    UrlNotAllowed: _Row(400, REQUEST, None, "input_reference.image_url"),
    EgressError: _Row(422, REQUEST, None, "input_reference.image_url"),
    UnsupportedSize: _Row(400, REQUEST, "unsupported_size", "size"),
    CameraConflict: _Row(400, REQUEST, "camera_conflict", "prompt"),
    UnusableStrength: _Row(400, REQUEST, "invalid_parameter", "motion_strength"),
    DoesNotFit: _Row(422, REQUEST, "does_not_fit", "size"),
    JobNotFound: _Row(404, NOT_FOUND, "video_not_found"),
    ObjectNotFound: _Row(
        404, NOT_FOUND, "content_not_found", message="the file is not in the object store"
    ),
    IdempotencyConflict: _Row(409, CONFLICT, "idempotency_conflict", "Idempotency-Key"),
    FileNotFound: _Row(404, NOT_FOUND, "file_not_found"),
    TenantNotFound: _Row(  # the holder's of a key that was good seconds ago
        401, AUTHENTICATION, "invalid_api_key", message=str(UnknownKey()), headers=CHALLENGE
    ),
    BatchNotFound: _Row(404, NOT_FOUND, "batch_not_found"),
    OutputTaken: _Row(409, CONFLICT, "output_taken", "output_prefix"),
    ManifestRefused: _Row(400, REQUEST, "manifest_refused"),
    IllegalTransition: _Row(409, CONFLICT, "illegal_state"),
    UnknownKey: _Row(401, AUTHENTICATION, "invalid_api_key", headers=CHALLENGE),
    QuotaExceeded: _Row(429, RATE_LIMIT, "quota_exceeded"),
    QueueFull: _Row(503, SERVER, "queue_full", retry_after_s=5),
    StoreUnavailable: _Row(
        503, SERVER, "store_unavailable", retry_after_s=5, message="a store does not answer"
    ),
    StoreMisconfigured: _Row(
        503, SERVER, "store_misconfigured", retry_after_s=60, message="a store refuses to serve"
    ),
}

ANSWERED = (
    ApiError,
    ValidationError,
    RequestValidationError,
    StorageError,
    VideoError,
    DiffusionError,
    DoesNotFit,
    EgressError,
    CatalogError,
    ResultsError,
)
"""What `respond` is registered for; serve.edge.middleware.RequestId answers anything else."""


def as_api_error(error: Exception) -> ApiError:
    """The answer to `error`: its row in TABLE, or 500 without a word of what went on inside."""
    if isinstance(error, ApiError):
        return error
    for cls in type(error).__mro__:
        if row := TABLE.get(cls):
            code = row.code or str(error.code)  # type: ignore[attr-defined]
            message = row.message or str(error)
            retry_after_s = row.retry_after_s or getattr(error, "retry_after_s", None)
            return ApiError(
                row.status, row.type, code, message, row.param, retry_after_s, row.headers
            )
    return ApiError(500, SERVER, "internal", "the server failed; the log has the reason")


def from_validation(error: ValidationError | RequestValidationError) -> ApiError:
    """The first problem of a request's fields, in the caller's words."""
    problem = error.errors()[0]
    # FastAPI puts query, path or header before the name.
    location = problem["loc"][isinstance(error, RequestValidationError) :]
    param = ".".join(str(part) for part in location) or None
    if problem["type"] == "extra_forbidden":
        return unknown_parameter(param or "")
    message = str(problem["msg"]).removeprefix("Value error, ")
    code = "missing_parameter" if problem["type"] == "missing" else "invalid_parameter"
    return ApiError(400, REQUEST, code, f"{param}: {message}" if param else message, param)


def unknown_parameter(name: str) -> ApiError:
    return ApiError(
        400, REQUEST, "unknown_parameter", f"unknown parameter {name!r}; see /openapi.json", name
    )


async def respond(request: Request, error: Exception) -> JSONResponse:
    """The error envelope as a response. What is the server's own fault is logged, here only."""
    e = (
        from_validation(error)
        if isinstance(error, ValidationError | RequestValidationError)
        else as_api_error(error)
    )
    if e.status == 500:
        where = (request.method, request.url.path, request.scope["request_id"])
        log.error("%s %s failed, request %s", *where, exc_info=error)
    request.scope[ERROR_CODE] = e.code
    # A name that the caller has made up may be as long as a body.
    message, param = e.message[:_LONGEST_MESSAGE], e.param and e.param[:_LONGEST_MESSAGE]
    envelope = ErrorEnvelope(
        error=ErrorDetail(message=message, type=e.type, param=param, code=e.code)
    )
    headers = e.headers
    if e.retry_after_s is not None:
        headers = {**headers, "Retry-After": str(e.retry_after_s)}
    return JSONResponse(envelope.model_dump(), e.status, headers)
