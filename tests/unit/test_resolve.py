"""From a request to a complete job: presets, explicit values, lengths, sizes, what is drawn."""

from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from catalog.presets import MOTION_STRENGTH, NEGATIVE_PROMPT
from cluster.tiers import TierConfig
from diffusion.errors import UnsupportedSize, UnusableStrength
from diffusion.model_folder import ModelCard, ModelConfig
from serve.commands import LOCAL_CONFIG
from serve.config import AppConfig, load
from serve.errors import ApiError, from_validation
from serve.schemas import CreateVideo, Video
from serve.services.camera_move import USUAL_MOVE
from serve.services.resolve import resolve
from storage.jobs import NOTHING_GENERATED, Job, JobEvent, JobRequest, JobStatus
from tests.sample_jobs import VIDEO
from video.camera.move import CameraMove, Ease, Move, Speed
from video.errors import CameraConflict
from video.photo import PhotoFacts

PROMPT = "a mug turns slowly to the left, soft studio light"
CARD = ModelCard("tiny-random", "0" * 64, size_multiple=16)


def resolved(photo_size: tuple[int, int] = (640, 480), **fields: Any) -> JobRequest:
    photo = PhotoFacts(*photo_size, "jpeg", "ab" * 32, ("it is small",))
    config = AppConfig(model=ModelConfig(source="tiny"), tiers=(TierConfig(name="cpu"),))
    return resolve(CreateVideo(**{"prompt": PROMPT, **fields}), photo, "shop", CARD, config)


@pytest.mark.parametrize(
    ("preset", "frames", "fps", "steps", "area"),
    [
        ("preview", 8, 8, 30, 512**2),
        ("standard", 16, 8, 50, 512**2),
        ("high", 24, 12, 80, 768**2),
    ],
)
def test_a_preset_fills_in_what_is_left_out(
    preset: str, frames: int, fps: int, steps: int, area: int
) -> None:
    request = resolved(preset=preset)
    sampling = request.sampling
    assert (sampling.num_frames, request.output.fps) == (frames, fps)
    assert (sampling.num_inference_steps, sampling.guidance_scale) == (steps, 9.0)
    assert 0.9 * area < sampling.width * sampling.height <= area


def test_the_preset_is_standard_unless_said() -> None:
    assert resolved().preset == "standard"


@pytest.mark.parametrize(
    ("category", "area", "frames", "fps", "steps", "guidance"),
    [
        ("apparel", 512**2, 16, 8, 60, 9),
        ("digital", 768**2, 24, 12, 80, 9),
        ("home", 512**2, 16, 8, 50, 9),
        ("food", 512**2, 16, 8, 50, 9),
        ("portrait", 512**2, 16, 8, 50, 10),
        ("watch", 768**2, 24, 12, 60, 11),
        ("art", 512**2, 16, 8, 80, 9),
    ],
)
def test_a_category_fills_in_what_is_left_out(
    category: str, area: int, frames: int, fps: int, steps: int, guidance: float
) -> None:
    request = resolved(category=category, prompt=None)
    sampling = request.sampling
    assert (sampling.num_frames, request.output.fps) == (frames, fps)
    assert (sampling.num_inference_steps, sampling.guidance_scale) == (steps, guidance)
    assert 0.9 * area < sampling.width * sampling.height <= area
    assert request.preset == ("high" if area == 768**2 else "standard")
    assert request.category == category


def test_a_preset_beats_the_category_in_what_the_preset_says() -> None:
    request = resolved(category="watch", preset="preview")
    sampling = request.sampling
    assert (sampling.num_frames, sampling.num_inference_steps) == (8, 30)
    assert sampling.width * sampling.height <= 512**2
    assert sampling.guidance_scale == 11  # of which the preset says nothing
    assert (request.preset, request.category) == ("preview", "watch")


def test_an_explicit_value_beats_the_category() -> None:
    sampling = resolved(category="watch", guidance_scale=3, num_inference_steps=5).sampling
    assert (sampling.guidance_scale, sampling.num_inference_steps) == (3, 5)
    assert sampling.num_frames == 24


def test_a_category_is_as_small_as_the_presets_of_a_small_machine() -> None:
    local = load(LOCAL_CONFIG).app
    create = CreateVideo(category="watch")
    request = resolve(create, PhotoFacts(500, 500, "jpeg", "ab" * 32, ()), "shop", CARD, local)
    assert request.sampling.width * request.sampling.height <= local.presets["high"].area_px
    assert request.sampling.num_inference_steps == 60


def test_a_prompt_is_made_from_category_and_title() -> None:
    request = resolved(prompt=None, category="watch", title="Steel diver's watch")
    assert request.sampling.prompt.startswith("Steel diver's watch rotating slowly")
    assert request.prompt_template is not None
    assert request.prompt_template.startswith("{subject} rotating slowly")
    assert request.warnings == ("it is small",)


def test_a_title_alone_is_enough() -> None:
    request = resolved(prompt=None, title="Wool beanie")
    assert request.sampling.prompt.startswith("Wool beanie turning slowly")
    assert (request.preset, request.category) == ("standard", None)


def test_the_callers_own_prompt_stays_as_it_is() -> None:
    request = resolved(prompt="  a beautiful mug ", category="watch", title="Mug")
    assert request.sampling.prompt == "  a beautiful mug "
    assert request.prompt_template is None
    assert "'beautiful'" in " ".join(request.warnings)


@pytest.mark.parametrize("fields", [{}, {"title": "  "}, {"title": None, "category": None}])
def test_without_prompt_category_and_title_there_is_nothing_to_show(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as refused:
        CreateVideo(**fields)
    answer = from_validation(refused.value)
    assert (answer.code, answer.param) == ("missing_parameter", "prompt")
    assert "unless category or title" in answer.message


def test_how_a_prompt_was_come_by_is_no_part_of_the_result_id() -> None:
    made = resolved(prompt=None, category="home", title="Mug", seed=1)
    said = resolved(prompt=made.sampling.prompt, seed=1)
    assert said.category is None
    assert made.result_id == said.result_id
    reread = JobRequest.from_json(made.to_json())
    assert (reread.category, reread.prompt_template) == ("home", made.prompt_template)


def test_an_explicit_value_beats_the_preset() -> None:
    fields: dict[str, Any] = {
        "num_frames": 12,
        "num_inference_steps": 7,
        "guidance_scale": 2.5,
        "motion_fps": 5,
    }
    request = resolved(preset="high", fps=10, seed=0, negative_prompt="", **fields)
    sampling = request.sampling
    assert {name: getattr(sampling, name) for name in fields} == fields
    assert (request.output.fps, sampling.seed, sampling.negative_prompt) == (10, 0, "")


@pytest.mark.parametrize(
    ("fields", "frames", "fps"),
    [
        ({"seconds": "2"}, 16, 8),  # the preset's rate; frames follow
        ({"seconds": "1"}, 8, 8),
        ({"seconds": "2", "fps": 10}, 20, 10),
        ({"seconds": "2.03", "fps": 10}, 20, 10),  # within half a frame
        ({"seconds": "2", "num_frames": 32}, 32, 16),  # the rate follows
        ({"seconds": "32", "num_frames": 32}, 32, 1),
        ({"seconds": "0.133", "num_frames": 8}, 8, 60),
        ({"seconds": "2", "num_frames": 20, "fps": 10}, 20, 10),  # all three agree
        ({"num_frames": 10, "fps": 5}, 10, 5),
    ],
)
def test_frames_and_rate_follow_from_the_length(
    fields: dict[str, Any], frames: int, fps: int
) -> None:
    request = resolved(**fields)
    assert (request.sampling.num_frames, request.output.fps) == (frames, fps)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"seconds": "9"}, "at 8 fps last 1 to 4 s"),
        ({"seconds": "0"}, "at 8 fps last 1 to 4 s"),
        ({"seconds": "0.001", "num_frames": 8}, r"would play at 8000 fps; .* 0\.133 to 8 s"),
        ({"seconds": "0.13", "num_frames": 8}, "would play at 61.5385 fps"),
        ({"seconds": "100", "num_frames": 8}, r"would play at 0\.08 fps"),
        ({"seconds": "0", "num_frames": 8}, "contradicts 8 frames at 8 fps"),
        ({"seconds": "2", "num_frames": 8, "fps": 8}, "contradicts 8 frames at 8 fps"),
    ],
)
def test_a_length_out_of_reach_says_what_is_possible(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ApiError) as refused:
        resolved(**fields)
    assert (refused.value.status, refused.value.param) == (400, "seconds")
    refused.match(said)


@pytest.mark.parametrize(("width", "height"), [(640, 480), (480, 640), (500, 500), (900, 300)])
def test_the_size_follows_the_ratio_of_the_photo(width: int, height: int) -> None:
    sampling = resolved((width, height)).sampling
    assert sampling.width % 16 == sampling.height % 16 == 0
    assert sampling.width / sampling.height == pytest.approx(width / height, rel=0.05)


def test_a_size_is_taken_as_given_or_refused() -> None:
    sampling = resolved(size="320x256").sampling
    assert (sampling.width, sampling.height) == (320, 256)
    with pytest.raises(UnsupportedSize):
        resolved(width=100, height=100)
    with pytest.raises(ApiError, match="more than 983040 pixels"):
        resolved(width=99984, height=99984)


def test_a_seed_is_drawn_unless_given() -> None:
    drawn = {resolved().sampling.seed for _ in range(5)}
    assert len(drawn) == 5
    assert all(0 <= seed < 2**31 for seed in drawn)


def test_the_negative_prompt_has_a_default() -> None:
    assert resolved().sampling.negative_prompt == NEGATIVE_PROMPT


@pytest.mark.parametrize(
    ("fps", "inbetweens"), [(1, 23), (5, 4), (7, 3), (8, 2), (12, 1), (23, 1), (24, 0), (60, 0)]
)
def test_interpolation_fills_up_to_24_frames_a_second(fps: int, inbetweens: int) -> None:
    assert resolved(fps=fps).output.inbetweens == 0
    smooth = resolved(fps=fps, enable_frame_interpolation=True).output
    assert smooth.inbetweens == inbetweens
    assert smooth.fps * (smooth.inbetweens + 1) >= 24


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": "sora-2"}, "model"),
        ({"preset": "ultra"}, "preset"),
        ({"category": "submarine"}, "category"),
        ({"prompt": "x" * 2001}, "prompt"),
        ({"negative_prompt": "x" * 2001}, "negative_prompt"),
    ],
)
def test_what_this_server_has_not_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(ApiError) as refused:
        resolved(**fields)
    assert refused.value.param == param


def test_warnings_about_the_photo_stay_with_the_job_and_out_of_the_result_id() -> None:
    request = resolved(seed=1)
    assert request.warnings == ("it is small",)
    reread = JobRequest.from_json(request.to_json())
    assert reread == request
    assert reread.result_id == request.result_id
    without = request.to_json().replace(b'"it is small"', b"")
    assert JobRequest.from_json(without).warnings == ()
    assert JobRequest.from_json(without).result_id == request.result_id


# --- candidates


def test_candidates_differ_by_their_seed_alone() -> None:
    request = resolved(n=3, select="all", seed=2**63 - 1)
    assert (request.candidates, request.select) == (3, "all")
    first, second, _ = request.parts
    assert [part.sampling.seed for part in request.parts] == [2**63 - 1, 0, 1]
    assert replace(second.sampling, seed=2**63 - 1) == first.sampling
    assert len({part.result_id for part in request.parts}) == 3
    alone = resolved(seed=5)
    assert alone.parts == (alone,)


def test_more_candidates_than_the_server_makes_are_refused() -> None:
    with pytest.raises(ApiError, match="9 candidates are more than 8") as refused:
        resolved(n=9)
    assert (refused.value.status, refused.value.param) == (400, "n")


# Camera moves.


def test_without_a_camera_motion_there_is_no_strength() -> None:
    request = resolved()
    assert (request.camera_motion, request.sampling.motion_strength) == (None, None)


@pytest.mark.parametrize(
    ("given", "camera"),
    [
        ("pan_left", CameraMove(Move.PAN_LEFT)),
        ({"move": "zoom_in"}, CameraMove(Move.ZOOM_IN)),
        (
            {"move": "orbit_right", "speed": "slow", "ease": "linear"},
            CameraMove(Move.ORBIT_RIGHT, Speed.SLOW, Ease.LINEAR),
        ),
    ],
)
def test_a_camera_motion_is_a_name_or_all_of_it(given: object, camera: CameraMove) -> None:
    request = resolved(camera_motion=given)
    assert request.camera_motion == camera
    assert request.sampling.motion_strength == MOTION_STRENGTH
    assert request.sampling.unet_steps == 20
    assert request.warnings == ("it is small",)


def test_at_full_strength_the_caller_hears_that_nothing_is_moved() -> None:
    request = resolved(camera_motion="pan_left", motion_strength=1)
    assert not request.sampling.starts_from_frames
    assert "camera_motion moves nothing" in request.warnings[-1]


@pytest.mark.parametrize(
    ("fields", "last"),
    [
        ({"downgrade": "auto"}, None),
        ({"downgrade": "camera"}, USUAL_MOVE),
        ({"downgrade": "camera", "prompt": "a mug, pan left"}, CameraMove(Move.PAN_LEFT)),
        ({"downgrade": "camera", "camera_motion": "tilt_up"}, CameraMove(Move.TILT_UP)),
    ],
)
def test_the_camera_move_of_the_last_resort(fields: dict[str, Any], last: CameraMove) -> None:
    request = resolved(**fields)
    assert (request.may_downgrade, request.last_resort) == (True, last)
    assert request.sampling.num_inference_steps == 50
    assert resolved().last_resort is None


def test_two_moves_for_the_last_resort_are_refused() -> None:
    both = "zoom in, then pan left"
    assert resolved(prompt=both).last_resort is None
    with pytest.raises(CameraConflict):
        resolved(prompt=both, downgrade="camera")


def test_the_caller_is_told_that_the_last_resort_was_taken() -> None:
    request = resolved(downgrade="camera", camera_motion="tilt_up", motion_strength=0.5)
    event = JobEvent(0.0, "camera_move", NOTHING_GENERATED)
    job = Job(request=request, status=JobStatus.IN_PROGRESS, created_at=0.0, events=(event,))
    asked = Video.of(job)
    assert (asked.made_by, asked.steps, asked.motion_strength) == (None, 25, 0.5)
    made = replace(VIDEO, camera_layers=1, video_key=f"attempts/{request.id}/1/video.mp4")
    video = Video.of(replace(job, status=JobStatus.COMPLETED, completed_at=1.0, result=made))
    assert (video.made_by, video.camera_layers) == (NOTHING_GENERATED, 1)
    assert (video.step, video.steps, video.motion_strength) == (0, 0, None)
    assert video.usage is not None
    assert video.usage.unet_steps == 0
    assert [step.step for step in video.downgrades] == ["camera_move"]
    assert video.camera_motion is not None
    assert video.camera_motion.move is Move.TILT_UP


def test_a_strength_without_a_motion_is_refused() -> None:
    with pytest.raises(ApiError, match="is of a camera_motion") as refused:
        resolved(motion_strength=0.4)
    assert (refused.value.status, refused.value.param) == (400, "motion_strength")


def test_a_strength_that_runs_no_step_is_refused_with_the_least_that_runs_one() -> None:
    with pytest.raises(UnusableStrength, match=r"of 30 steps 0\.0334 runs one"):
        resolved(preset="preview", camera_motion="pan_left", motion_strength=0.03)
    least = resolved(preset="preview", camera_motion="pan_left", motion_strength=0.0334)
    assert least.sampling.unet_steps == 1


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"camera_motion": "fly"}, "camera_motion.move"),
        ({"camera_motion": {"move": "pan_left", "speed": "warp"}}, "camera_motion.speed"),
        ({"camera_motion": {"move": "pan_left", "colour": "red"}}, "camera_motion.colour"),
        ({"camera_motion": {}}, "camera_motion.move"),
        ({"camera_motion": "pan_left", "motion_strength": 0}, "motion_strength"),
        ({"camera_motion": "pan_left", "motion_strength": 1.01}, "motion_strength"),
    ],
)
def test_what_is_no_camera_motion_is_named(given: dict[str, Any], param: str) -> None:
    with pytest.raises(ValidationError) as invalid:
        CreateVideo(prompt=PROMPT, **given)
    assert from_validation(invalid.value).param == param
