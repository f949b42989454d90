"""/openapi.json against what the server does: generated requests, every answer as described."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
from schemathesis.checks import positive_data_acceptance
from schemathesis.core.errors import InvalidSchema
from schemathesis.core.result import Ok, Result
from schemathesis.schemas import APIOperation

from storage.object_store import ObjectStoreConfig
from tests.integration.service import Service

_ROUTES = 27
Operation = APIOperation[Any, Any, Any, Any]


@pytest.fixture
def operations(s3: ObjectStoreConfig, tmp_path: Path) -> Iterator[list[Operation]]:
    service = Service(s3, tmp_path)
    with service.http:
        schema = schemathesis.openapi.from_asgi("/openapi.json", service.app)
        yield [_described(result) for result in schema.get_all_operations()]


def _described(result: Result[Operation, InvalidSchema]) -> Operation:
    assert isinstance(result, Ok), result
    return result.ok()


def answers_as_described(operation: Operation, mode: GenerationMode) -> None:
    # A request that its schema allows may still be refused: no such video, no such photo.
    @settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case: Case[Any]) -> None:
        case.call_and_validate(excluded_checks=[positive_data_acceptance])

    check()


def test_requests_that_the_description_allows(operations: list[Operation]) -> None:
    assert len(operations) == _ROUTES, [operation.label for operation in operations]
    for operation in operations:
        answers_as_described(operation, GenerationMode.POSITIVE)


def test_requests_that_the_description_forbids(operations: list[Operation]) -> None:
    done = set()
    for operation in operations:
        with suppress(Unsatisfiable):  # a route on which every request is of the right form
            answers_as_described(operation, GenerationMode.NEGATIVE)
            done.add(operation.label)
    assert done >= {
        "POST /v1/videos",
        "GET /v1/videos",
        "GET /v1/videos/{video_id}/content",
        "POST /v1/videos/{video_id}/feedback",
        "POST /v1/files",
        "GET /v1/files",
        "POST /v1/prompts:preview",
        "POST /v1/batches",
        "GET /v1/batches",
        "GET /v1/batches/{batch_id}/items",
    }
