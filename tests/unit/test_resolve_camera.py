"""A request for the model `camera`: which move, how large and long, and what it cannot be given."""

from typing import Any

import pytest

from cluster.tiers import CameraTierConfig, TierConfig
from diffusion.errors import UnsupportedSize
from diffusion.model_folder import ModelConfig
from serve.config import AppConfig
from serve.errors import ApiError
from serve.schemas import CreateVideo, Video
from serve.services.camera_move import USUAL_MOVE
from serve.services.resolve_camera import resolve_camera
from storage.jobs import NOTHING_GENERATED, Job, JobRequest, JobStatus
from video.camera.move import CameraMove, Move, Speed
from video.errors import CameraConflict
from video.photo import PhotoFacts

PROMPT = "a mug on a table"


def resolved(photo_size: tuple[int, int] = (640, 480), **fields: Any) -> JobRequest:
    photo = PhotoFacts(*photo_size, "jpeg", "ab" * 32, ("it is small",))
    config = AppConfig(model=ModelConfig(source="tiny"), tiers=(TierConfig(name="cpu"),))
    create = CreateVideo(**{"prompt": PROMPT, "model": "camera", **fields})
    return resolve_camera(create, photo, "shop", config)


@pytest.mark.parametrize("given", ["pan_left", {"move": "pan_left", "speed": "fast"}])
def test_the_move_that_is_given(given: Any) -> None:
    request = resolved(camera_motion=given, prompt="slow zoom in")
    assert request.camera_motion is not None
    assert request.camera_motion.move is Move.PAN_LEFT
    assert request.camera_words == ()
    assert request.warnings == ("it is small",)


def test_the_move_from_the_prompts_words() -> None:
    request = resolved(prompt="a mug on a table, the camera slowly pans to the right")
    assert request.camera_motion == CameraMove(Move.PAN_RIGHT, Speed.SLOW)
    assert request.camera_words == ("the camera slowly pans to the right",)


@pytest.mark.parametrize("said", [{"prompt": PROMPT}, {"prompt": None, "title": "Pan left 24 cm"}])
def test_the_usual_move_is_told(said: dict[str, Any]) -> None:
    """A title is the product's name, not the caller's wish."""
    request = resolved(**said)
    assert (request.camera_motion, request.camera_words) == (USUAL_MOVE, ())
    assert any("slow zoom in" in warning for warning in request.warnings)


def test_two_moves_are_refused() -> None:
    with pytest.raises(CameraConflict):
        resolved(prompt="zoom in, then pan left")


@pytest.mark.parametrize(("preset", "frames"), [("preview", 24), ("standard", 48), ("high", 48)])
def test_as_long_as_the_presets_clip_at_24_fps(preset: str, frames: int) -> None:
    request = resolved(preset=preset)
    assert (request.sampling.num_frames, request.output.fps) == (frames, 24)
    assert request.output.inbetweens == 0
    area = request.sampling.width * request.sampling.height
    assert 0.9 * 512**2 < area <= (768 if preset == "high" else 512) ** 2


def test_lengths_and_rates_that_are_given() -> None:
    request = resolved(seconds="4", fps=30)
    assert (request.sampling.num_frames, request.output.fps) == (120, 30)
    assert resolved(num_frames=60).sampling.num_frames == 60


@pytest.mark.parametrize("size", ["1080x1920", "1000x1000", "1920x1080", "362x362"])
def test_any_even_size(size: str) -> None:
    sampling = resolved(size=size).sampling
    assert f"{sampling.width}x{sampling.height}" == size


def test_odd_sizes_have_no_video() -> None:
    with pytest.raises(UnsupportedSize):
        resolved(size="361x361")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"size": "4000x4000"}, "size"),
        ({"size": "1080x1920", "num_frames": 300}, "size"),
        ({"seconds": "60"}, "seconds"),
        ({"num_inference_steps": 50}, "num_inference_steps"),
        ({"guidance_scale": 9}, "guidance_scale"),
        ({"negative_prompt": "blurry"}, "negative_prompt"),
        ({"motion_strength": 0.4}, "motion_strength"),
        ({"motion_fps": 8}, "motion_fps"),
        ({"n": 2}, "n"),
        ({"enable_frame_interpolation": True}, "enable_frame_interpolation"),
        ({"downgrade": "auto"}, "downgrade"),
    ],
)
def test_refuses(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(ApiError) as refused:
        resolved(**fields)
    assert (refused.value.status, refused.value.param) == (400, param)


def test_any_seed_is_the_same_clip() -> None:
    """A catalogue run gives one to every row."""
    assert resolved(seed=7).result_id == resolved().result_id


def test_who_named_no_model_is_told_which_one_takes_it() -> None:
    with pytest.raises(ApiError, match="or name the model 'i2vgen-xl'"):
        resolved(model=None, guidance_scale=9)
    with pytest.raises(ApiError, match="generates nothing: leave it out"):
        resolved(guidance_scale=9)


def test_the_result_is_that_of_the_move_not_of_the_words() -> None:
    said, given = resolved(prompt="pan left"), resolved(prompt="pan left", camera_motion="pan_left")
    assert said.camera_words != given.camera_words
    assert said.result_id == given.result_id
    assert said.result_id != resolved(prompt="pan left", camera_motion="pan_right").result_id


def test_the_request_survives_the_table() -> None:
    request = resolved(prompt="镜头缓慢推近")
    assert JobRequest.from_json(request.to_json()) == request


def test_the_caller_is_told_what_it_is() -> None:
    job = Job(request=resolved(prompt="orbit"), status=JobStatus.IN_PROGRESS, created_at=0.0)
    video = Video.of(job)
    assert video.made_by == NOTHING_GENERATED == "camera move, nothing generated"
    assert (video.model, video.steps, video.camera_words) == ("camera", 0, ["orbit"])
    assert video.camera_motion is not None
    assert video.camera_motion.move is Move.ORBIT_LEFT


def test_names_are_reserved() -> None:
    with pytest.raises(ValueError, match="need no weights"):
        AppConfig(model=ModelConfig(name="camera", source="tiny"), tiers=(TierConfig(name="cpu"),))
    with pytest.raises(ValueError, match=r"stages\.camera"):
        AppConfig(model=ModelConfig(source="tiny"), tiers=(TierConfig(name="camera"),))
    assert CameraTierConfig().deployment_name == "CameraRenderer"


def test_the_default_model_must_exist() -> None:
    config: dict[str, Any] = {
        "model": ModelConfig(source="tiny"),
        "tiers": (TierConfig(name="cpu"),),
    }
    for name in (None, "camera", "i2vgen-xl"):
        assert AppConfig(**config, default_model=name).default_model == name
    assert AppConfig(**config).default_model_name == "camera"  # random weights are no weights
    embedded = ModelConfig(name="embedded", source="embedded")
    assert AppConfig(**config | {"model": embedded}).default_model_name == "camera"
    assert AppConfig(**config, default_model="i2vgen-xl").default_model_name == "i2vgen-xl"
    weights = ModelConfig(name="ours", source="/srv/weights")
    assert AppConfig(**config | {"model": weights}).default_model_name == "ours"
    assert AppConfig(**config | {"model": weights}, default_model="camera").default_model_name == (
        "camera"
    )
    with pytest.raises(ValueError, match="none of i2vgen-xl, camera"):
        AppConfig(**config, default_model="wan")
