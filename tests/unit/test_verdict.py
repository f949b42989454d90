"""What is a stage's fault, and what comes of calls between two releases: over Serve's own code."""

import asyncio
import traceback
from collections.abc import AsyncIterator, Iterator

import pytest
from ray.exceptions import RaySystemError, RayTaskError
from ray.serve._private.common import DeploymentID, RequestMetadata
from ray.serve._private.config import DeploymentConfig
from ray.serve._private.replica import UserCallableWrapper

from deployments.dispatch.verdict import Retry, Verdict, judge

UNREADABLE = RaySystemError(AttributeError("Can't get attribute 'Waiting'"), "traceback")


class Stage:
    """Its methods take one value."""

    async def decode(self, value: object) -> object:
        return len(value)  # type: ignore[arg-type]

    def encode(self, value: object) -> object:
        return len(value)  # type: ignore[arg-type]

    async def denoise(self, value: object) -> AsyncIterator[object]:
        yield len(value)  # type: ignore[arg-type]

    def publish(self, value: object) -> Iterator[object]:
        yield len(value)  # type: ignore[arg-type]


def judged(method: str, *args: object, stream: bool) -> Verdict:
    """What a Dispatcher makes of what a replica of Stage raises."""

    async def call() -> None:
        replica = UserCallableWrapper(
            Stage,
            (),
            {},
            deployment_id=DeploymentID("Stage"),
            run_sync_methods_in_threadpool=True,
            run_user_code_in_separate_thread=False,
            local_testing_mode=False,
            deployment_config=DeploymentConfig(),
            actor_id="",
        )
        await replica.initialize_callable()
        request = RequestMetadata("", "", call_method=method, is_streaming=stream)
        if stream:
            async for _ in replica.call_user_generator(request, args, {}):
                pass
        else:
            await replica.call_user_method(request, args, {})

    with pytest.raises(TypeError) as raised:
        asyncio.run(call())
    text = "".join(traceback.format_exception(raised.value))
    return judge(RayTaskError("call", text, raised.value).as_instanceof_cause())


@pytest.mark.parametrize("args", [(), ("a value", "a call")])
@pytest.mark.parametrize(
    ("method", "stream"), [("decode", False), ("encode", False), ("denoise", True)]
)
def test_a_stage_of_another_signature_is_waited_for(
    method: str, stream: bool, args: tuple[object, ...]
) -> None:
    assert judged(method, *args, stream=stream).retry is Retry.LATER


@pytest.mark.parametrize(
    ("method", "stream"),
    [("denoise", False), ("publish", False), ("decode", True)],
)
def test_a_stage_that_answers_in_another_way_is_waited_for(method: str, stream: bool) -> None:
    assert judged(method, "a value", stream=stream).retry is Retry.LATER


@pytest.mark.parametrize(
    ("method", "stream"), [("decode", False), ("encode", False), ("denoise", True)]
)
def test_a_type_error_of_the_stage_itself_fails_the_job(method: str, stream: bool) -> None:
    assert judged(method, 1, stream=stream).retry is Retry.NO


def test_a_type_error_of_our_own_fails_the_job() -> None:
    assert judge(TypeError("a bug")).retry is Retry.NO


@pytest.mark.parametrize(
    "error",
    [UNREADABLE, RayTaskError("call", "traceback", UNREADABLE).as_instanceof_cause()],
    ids=["answer", "request"],
)
def test_what_one_side_cannot_read_is_waited_for(error: Exception) -> None:
    assert judge(error).retry is Retry.LATER
