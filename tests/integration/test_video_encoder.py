"""VideoEncoder against a real object store: what it commits is measured, with or without photo."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, cast

import pytest

from deployments.decoder import Decoded
from deployments.provenance import Provenance
from deployments.video_encoder import VideoEncoder
from storage import keys
from storage.errors import ResultDamaged, StoreUnavailable
from storage.jobs import Attempt, Stage, VideoFile
from storage.object_store import ObjectStoreConfig, S3ObjectStore
from tests.unit.test_video_encoder import CONFIG, NOWHERE, PHOTO, REQUEST, clip, png
from video.camera.scene import render
from video.photo import PhotoLimits

if TYPE_CHECKING:
    import ray

ATTEMPT = Attempt(REQUEST.id, 1, 1)
COMMIT = keys.result_key(REQUEST.tenant, REQUEST.result_id)


def stream(
    store: ObjectStoreConfig, attempt: Attempt = ATTEMPT
) -> AsyncGenerator[Stage | VideoFile]:
    """As the Dispatcher calls it; the frames stand behind a future instead of Ray's reference."""
    frames = asyncio.get_running_loop().create_future()
    frames.set_result(clip())
    decoded = Decoded(cast("ray.ObjectRef[object]", frames), 0.1)
    encoder = VideoEncoder(CONFIG, store, PhotoLimits(), render)
    events = encoder.encode(REQUEST, REQUEST.sampling, attempt, decoded, Provenance())
    return cast(AsyncGenerator[Stage | VideoFile], events)


def told(store: ObjectStoreConfig, attempt: Attempt = ATTEMPT) -> list[Stage | VideoFile]:
    """All that it says."""

    async def run() -> list[Stage | VideoFile]:
        return [event async for event in stream(store, attempt)]

    return asyncio.run(run())


def encode(store: ObjectStoreConfig, attempt: Attempt = ATTEMPT) -> VideoFile:
    """What it says last."""
    *_, video = told(store, attempt)
    assert isinstance(video, VideoFile)
    return video


def manifest(objects: S3ObjectStore, video: VideoFile) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(objects.get(video.manifest_key))
    return document


def test_what_is_measured_stands_in_the_commit_and_in_the_manifest(s3: ObjectStoreConfig) -> None:
    objects = S3ObjectStore(s3)
    objects.put(REQUEST.photo_key, png(PHOTO), "image/png")
    video = encode(s3)
    assert video.quality is not None
    assert video.quality.subject_first == pytest.approx(1)
    assert VideoFile.from_json(objects.get(COMMIT)).quality == video.quality
    assert manifest(objects, video)["quality"]["score"] == video.quality.score
    assert 0 < video.timings["quality"] < 60


def test_storing_is_told_and_has_a_time_of_its_own(
    s3: ObjectStoreConfig,
) -> None:
    stage, video = told(s3)
    assert stage is Stage.STORING
    assert isinstance(video, VideoFile)
    assert set(video.timings) == {"quality", "interpolation", "video_encoding", "storing"}


def test_nothing_is_stored_before_storing_is_told(s3: ObjectStoreConfig) -> None:
    async def first() -> Stage | VideoFile:
        async with aclosing(stream(s3)) as events:
            return await anext(events)

    assert asyncio.run(first()) is Stage.STORING
    assert list(S3ObjectStore(s3).iter_objects("")) == []


def test_a_clip_whose_photo_is_gone_is_published_without_likeness(s3: ObjectStoreConfig) -> None:
    video = encode(s3)
    assert video.quality is not None
    assert (video.quality.score, video.quality.subject_first) == (None, None)
    assert video.quality.motion > 0
    objects = S3ObjectStore(s3)
    assert any("photo" in warning for warning in manifest(objects, video)["warnings"])
    assert objects.get(video.video_key)


def test_who_loses_the_commit_shows_what_was_measured_of_the_winner(s3: ObjectStoreConfig) -> None:
    winner = encode(s3)
    S3ObjectStore(s3).put(REQUEST.photo_key, png(PHOTO), "image/png")
    assert encode(s3, Attempt("video_2", 1, 1)).quality == winner.quality


def test_a_commit_that_nobody_can_read_is_told_as_such(s3: ObjectStoreConfig) -> None:
    S3ObjectStore(s3).put(COMMIT, b'{"video_key": 1}', "application/json")
    with pytest.raises(ResultDamaged, match="result_id"):
        encode(s3)


def test_a_store_that_is_away_is_a_reason_to_try_again() -> None:
    with pytest.raises(StoreUnavailable):
        encode(NOWHERE)
