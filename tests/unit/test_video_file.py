"""A committed result as it is read again: by this release, of an earlier one, of a later one."""

import json
from dataclasses import asdict, replace
from typing import Any

import pytest

from serve.schemas import Video
from serve.schemas.video import Usage
from storage.errors import ResultDamaged, StorageError
from storage.jobs import Job, JobStatus, VideoFile
from storage.lifecycle.records import JobEnd
from tests.sample_jobs import VIDEO, make_request
from video.quality import Quality

QUALITY = Quality(
    score=0.8,
    subject_first=0.9,
    subject_mean=0.7,
    color_shift=2.5,
    flicker=0.001,
    warp_error=0.02,
    tracked=0.97,
    motion=0.003,
)
MEASURED = replace(VIDEO, quality=QUALITY)


def read(document: dict[str, Any]) -> VideoFile:
    return VideoFile.from_json(json.dumps(document).encode())


def completed(video: VideoFile) -> Job:
    return Job(
        request=make_request("video_1"),
        status=JobStatus.COMPLETED,
        created_at=1.0,
        completed_at=2.0,
        attempt=1,
        result=video,
    )


def test_a_measured_result_comes_back_whole() -> None:
    assert VideoFile.from_json(MEASURED.to_json()) == MEASURED
    assert json.loads(MEASURED.to_json())["quality"]["subject_first"] == 0.9


def test_the_end_of_a_job_keeps_what_was_measured() -> None:
    end = JobEnd.of(completed(MEASURED))
    assert JobEnd.from_json(end.to_json()).result == MEASURED


def test_a_result_of_an_earlier_release_was_not_measured() -> None:
    document = asdict(VIDEO)
    del document["quality"]
    assert read(document) == VIDEO


def test_fields_of_a_later_release_are_left_out() -> None:
    document = asdict(MEASURED) | {"audio_key": "a"}
    document["quality"] |= {"vmaf": 93.0}
    assert read(document) == MEASURED


@pytest.mark.parametrize(
    ("data", "told"),
    [
        pytest.param(b"", "Invalid JSON", id="empty"),
        pytest.param(MEASURED.to_json()[:-40], "Invalid JSON", id="cut off"),
        pytest.param(b"\xff\xfe\x00", "Invalid JSON", id="no text"),
        pytest.param(b"null", "the whole", id="null"),
        pytest.param(b"[]", "the whole", id="a list"),
        pytest.param(b"{}", "result_id", id="nothing in it"),
        pytest.param(
            json.dumps(asdict(VIDEO) | {"frames": "8"}).encode(), "frames", id="another type"
        ),
        pytest.param(
            json.dumps(asdict(VIDEO) | {"quality": {"score": 1.0}}).encode(),
            "quality.flicker",
            id="half a quality",
        ),
    ],
)
def test_what_is_no_result_is_told_apart(data: bytes, told: str) -> None:
    with pytest.raises(ResultDamaged, match=told) as caught:
        VideoFile.from_json(data)
    assert isinstance(caught.value, StorageError)
    assert not caught.value.retryable


def test_the_caller_sees_the_clip_made_and_what_was_measured_of_it() -> None:
    (candidate,) = Video.of(completed(MEASURED)).candidates
    shown = candidate.model_dump()
    said = {
        "candidate": 0,
        "seed": 1,
        "status": "completed",
        "selected": True,
        "kept": True,
        "error_code": None,
    }
    assert {name: shown.pop(name) for name in said} == said
    assert shown == asdict(QUALITY)


def test_the_caller_of_a_result_that_was_not_measured_sees_nulls() -> None:
    (candidate,) = Video.of(completed(VIDEO)).candidates
    assert (candidate.seed, candidate.score, candidate.motion) == (1, None, None)


def test_a_video_under_way_has_no_candidates() -> None:
    under_way = replace(completed(MEASURED), status=JobStatus.IN_PROGRESS, result=None)
    assert Video.of(under_way).candidates == []


def test_a_video_costs_what_its_tier_costs_for_the_seconds_it_took() -> None:
    made = replace(completed(VIDEO), tier="a100")  # 0.5 s of denoising
    priced = Video.of(made, hourly={"a100": 3.6}).usage
    assert priced is not None
    assert priced.cost == pytest.approx(0.0005)
    unpriced = Video.of(made, hourly={"rtx4090": 1.0}).usage
    assert unpriced is not None
    assert unpriced.cost is None
    assert unpriced.gpu_seconds == 0.5


def test_the_usage_names_the_most_memory_that_a_candidate_took() -> None:
    def of(*peaks: int | None) -> int | None:
        parts = [completed(replace(VIDEO, peak_vram_bytes=peak)) for peak in peaks]
        return Usage.of(parts, hourly={}).peak_vram_bytes

    assert of(12 << 30, 14 << 30, None) == 14 << 30
    assert of(None) is None


def test_the_time_in_the_queue_is_told_beside_that_of_the_stages() -> None:
    made = replace(completed(VIDEO), created_at=100.0, started_at=107.5)
    assert Video.of(made).timings == {"queued": 7.5, "denoising": 0.5}


def test_a_job_of_several_candidates_tells_the_times_of_the_chosen_one() -> None:
    first = replace(completed(replace(VIDEO, result_id="other")), request=make_request("a_c0"))
    chosen = replace(VIDEO, video_key="attempts/a_c1/1/video.mp4")
    second = replace(completed(chosen), request=make_request("a_c1"))
    parent = replace(
        completed(chosen), request=make_request("a"), attempt=0, children=(first, second)
    )
    assert parent.made_its_result
    assert parent.timings == {"denoising": 0.5}


def test_a_stored_result_costs_nothing_whoever_has_no_price() -> None:
    theirs = replace(VIDEO, video_key="attempts/video_0/1/video.mp4")
    shown = Video.of(completed(theirs))
    assert shown.timings == {}
    shared = shown.usage
    assert shared is not None
    assert (shared.gpu_seconds, shared.cost) == (0, 0)
