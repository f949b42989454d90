"""The durable record: what a result id depends on, JSON round trips, legal transitions."""

import dataclasses
import itertools
from typing import Any

import pytest

from diffusion.params import SamplingParams
from storage import jobs
from storage.errors import IllegalTransition
from storage.jobs import Job, JobRequest, JobStatus, OutputParams, VideoFile, check_transition
from video.camera.move import CameraMove, Ease, Move, Speed

SAMPLING = SamplingParams(
    prompt="a red bag turns slowly",
    negative_prompt="blurry",
    width=512,
    height=512,
    num_frames=16,
    num_inference_steps=50,
    guidance_scale=9.0,
    motion_fps=16,
    seed=7,
)
OUTPUT = OutputParams(fit="crop", fps=8.0, inbetweens=0)
REQUEST = JobRequest(
    id="video_1",
    tenant="shop",
    model="i2vgen-xl",
    model_revision="abc",
    photo_key="inputs/shop/123",
    photo_sha256="123",
    sampling=SAMPLING,
    output=OUTPUT,
    preset="standard",
    sku="BAG-1",
    title="Sac à main",
    metadata={"season": "夏"},
)
VIDEO = VideoFile(
    result_id="r",
    video_key="attempts/video_1/1/video.mp4",
    poster_key="p",
    spritesheet_key="s",
    manifest_key="m",
    sha256="0" * 64,
    size_bytes=1,
    width=512,
    height=512,
    frames=16,
    fps=8.0,
    seconds=2.0,
    timings={"denoising": 1.5},
)


def change(record: Any, name: str) -> Any:
    value = getattr(record, name)
    if name == "motion_strength":
        other: object = 0.4
    else:
        other = f"{value}x" if isinstance(value, str) else value + 1
    return dataclasses.replace(record, **{name: other})


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(SamplingParams)])
def test_every_sampling_parameter_changes_the_result_id(name: str) -> None:
    changed = dataclasses.replace(REQUEST, sampling=change(SAMPLING, name))
    assert changed.result_id != REQUEST.result_id


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(OutputParams)])
def test_every_output_parameter_changes_the_result_id(name: str) -> None:
    changed = dataclasses.replace(REQUEST, output=change(OUTPUT, name))
    assert changed.result_id != REQUEST.result_id


@pytest.mark.parametrize("name", ["tenant", "model_revision", "photo_sha256"])
def test_tenant_weights_and_photo_change_the_result_id(name: str) -> None:
    assert change(REQUEST, name).result_id != REQUEST.result_id


@pytest.mark.parametrize("name", ["id", "model", "photo_key", "preset", "sku", "title"])
def test_what_does_not_change_the_pixels_keeps_the_result_id(name: str) -> None:
    assert change(REQUEST, name).result_id == REQUEST.result_id


def test_the_pipeline_version_is_part_of_the_result_id(monkeypatch: pytest.MonkeyPatch) -> None:
    before = REQUEST.result_id
    monkeypatch.setattr(jobs, "PIPELINE_VERSION", "next")
    assert REQUEST.result_id != before


def test_result_ids_are_the_same_in_every_release() -> None:
    """Stored results are found by them. A change here throws every stored result away: raise
    PIPELINE_VERSION on purpose instead, and then this value."""
    assert REQUEST.result_id == "f17b2bc1d0285bbff2234feceb8c89f49ffbd5f7f9d767e0c8000bae5692608e"


PANNED = dataclasses.replace(
    REQUEST,
    sampling=dataclasses.replace(SAMPLING, motion_strength=0.4),
    camera_motion=CameraMove(Move.PAN_LEFT, Speed.SLOW, Ease.LINEAR),
)


def test_a_camera_move_is_part_of_the_result_id_and_comes_back_from_json() -> None:
    others = [
        CameraMove(Move.PAN_RIGHT, Speed.SLOW, Ease.LINEAR),
        CameraMove(Move.PAN_LEFT, Speed.FAST, Ease.LINEAR),
        CameraMove(Move.PAN_LEFT, Speed.SLOW, Ease.EASE_IN),
        None,
    ]
    ids = {dataclasses.replace(PANNED, camera_motion=other).result_id for other in others}
    assert len(ids | {PANNED.result_id, REQUEST.result_id}) == 6
    reread = JobRequest.from_json(PANNED.to_json())
    assert reread == PANNED
    assert reread.camera_motion is not None
    assert isinstance(reread.camera_motion.move, Move)
    assert reread.result_id == PANNED.result_id


def test_what_is_made_as_a_last_resort_is_part_of_the_result_id_and_comes_back_from_json() -> None:
    last = CameraMove(Move.TILT_UP, Speed.SLOW, Ease.LINEAR)
    request = dataclasses.replace(PANNED, last_resort=last)
    ids = {r.result_id for r in (request, PANNED, dataclasses.replace(PANNED, camera_motion=last))}
    assert len(ids) == 3
    reread = JobRequest.from_json(request.to_json())
    assert (reread, reread.result_id) == (request, request.result_id)
    assert (request.camera(False), request.camera(True)) == (PANNED.camera_motion, last)
    assert PANNED.camera(True) == PANNED.camera_motion
    assert request.last_clip is not None
    assert (request.last_clip.is_rendered, request.last_clip.width) == (True, SAMPLING.width)
    assert PANNED.last_clip is None


def test_candidates_share_the_camera_move() -> None:
    parts = dataclasses.replace(PANNED, candidates=3).parts
    assert {part.camera_motion for part in parts} == {PANNED.camera_motion}


def test_requests_and_videos_come_back_from_json() -> None:
    assert JobRequest.from_json(REQUEST.to_json()) == REQUEST
    assert VideoFile.from_json(VIDEO.to_json()) == VIDEO


def test_a_reread_request_has_the_same_result_id() -> None:
    assert JobRequest.from_json(REQUEST.to_json()).result_id == REQUEST.result_id


LEGAL = {
    ("queued", "in_progress"),
    ("queued", "failed"),
    ("queued", "cancelled"),
    ("in_progress", "queued"),
    ("in_progress", "completed"),
    ("in_progress", "failed"),
    ("in_progress", "cancelled"),
}


@pytest.mark.parametrize(("current", "target"), [*itertools.product(JobStatus, JobStatus)])
def test_only_the_legal_transitions_pass(current: JobStatus, target: JobStatus) -> None:
    if (current, target) in LEGAL:
        check_transition("j", current, target)
    else:
        with pytest.raises(IllegalTransition, match=f"video j is {current}"):
            check_transition("j", current, target)


def test_terminal_statuses_lead_nowhere() -> None:
    assert {status for status in JobStatus if status.is_terminal} == {
        JobStatus.COMPLETED,
        JobStatus.FAILED,
        JobStatus.CANCELLED,
    }


def test_a_job_knows_its_attempt() -> None:
    job = Job(request=REQUEST, status=JobStatus.IN_PROGRESS, created_at=0.0, attempt=2, epoch=5)
    assert job.id == "video_1"
    assert job.current_attempt == jobs.Attempt("video_1", 2, 5)
