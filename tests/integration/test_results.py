"""Committed results, found in a real S3 server before any work is done."""

import asyncio
import socket
import time
from dataclasses import replace

import pytest

from deployments.dispatch.results import Results
from storage import keys
from storage.errors import StoreMisconfigured, StoreUnavailable
from storage.object_store import ObjectStoreConfig, S3ObjectStore
from tests.sample_jobs import VIDEO, make_request


def test_a_result_is_found_once_it_is_committed_and_by_its_tenant_only(
    s3: ObjectStoreConfig,
) -> None:
    async def scenario() -> None:
        objects, request = S3ObjectStore(s3), make_request("job")
        results = Results(objects)
        assert await results.find(request) is None
        video = replace(VIDEO, result_id=request.result_id)
        key = keys.result_key(request.tenant, request.result_id)
        assert objects.put_if_absent(key, video.to_json(), "application/json")
        assert await results.find(replace(request, id="again")) == video
        assert await results.find(replace(request, tenant="another")) is None
        assert await results.find(replace(request, photo_sha256="0")) is None

    asyncio.run(scenario())


def test_a_bucket_that_is_missing_is_no_missing_result(s3: ObjectStoreConfig) -> None:
    results = Results(S3ObjectStore(s3.model_copy(update={"bucket": "never-made"})))
    with pytest.raises(StoreMisconfigured):
        asyncio.run(results.find(make_request("job")))


def test_a_store_that_hangs_is_not_waited_for(
    s3: ObjectStoreConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It accepts, and never answers; more callers than there are threads to ask with."""
    monkeypatch.setattr("deployments.dispatch.results._PATIENCE_S", 0.5)

    async def scenario(config: ObjectStoreConfig) -> None:
        results = Results(S3ObjectStore(config))
        calls = [results.find(make_request(f"job{number}")) for number in range(20)]
        began = time.monotonic()
        found = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(error, StoreUnavailable) for error in found)
        assert time.monotonic() - began < 2
        await asyncio.wait_for(asyncio.to_thread(time.sleep, 0), 0.5)  # leases are renewed so

    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"127.0.0.1:{silent.getsockname()[1]}"
        changes = {"endpoint": endpoint, "read_timeout_s": 2.0, "retries": 0}
        asyncio.run(scenario(s3.model_copy(update=changes)))
