"""camera_motion and motion_strength on the wire: in forms and in JSON, refused and given back."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from catalog.presets import MOTION_STRENGTH
from storage.object_store import ObjectStoreConfig
from tests.integration.service import Service, error_of, jpeg
from video.camera.move import Move

PAN = {"move": "pan_left", "speed": "normal", "ease": "ease_in_out"}


@pytest.fixture
def service(s3: ObjectStoreConfig, tmp_path: Path) -> Iterator[Service]:
    service = Service(s3, tmp_path)
    with service.http:
        yield service


def post_json(service: Service, **fields: Any) -> Any:
    photo = "data:image/jpeg;base64," + base64.b64encode(jpeg()).decode()
    body = {"prompt": "a mug turns", "input_reference": {"image_url": photo}, **fields}
    return service.http.post("/v1/videos", json=body)


def test_a_form_takes_the_name_of_a_move_or_json(service: Service) -> None:
    named = service.create(camera_motion="pan_left", motion_strength="0.4", seed=1).json()
    assert (named["camera_motion"], named["motion_strength"]) == (PAN, 0.4)
    assert (named["steps"], named["step"]) == (20, 0)  # of the preset's 50
    slow = {"move": "orbit_right", "speed": "slow", "ease": "linear"}
    whole = service.create(camera_motion=json.dumps(slow)).json()
    assert (whole["camera_motion"], whole["motion_strength"]) == (slow, MOTION_STRENGTH)


def test_json_takes_a_name_or_an_object(service: Service) -> None:
    for given in ("pan_left", {"move": "pan_left"}, PAN):
        answer = post_json(service, camera_motion=given, motion_strength=0.25)
        assert answer.status_code == 202, answer.text
        assert answer.json()["camera_motion"] == PAN
        assert answer.json()["steps"] == 12


def test_the_job_and_its_copy_in_the_store_know_of_it(service: Service) -> None:
    video = service.create(camera_motion="pan_left", seed=1).json()
    assert service.http.get(f"/v1/videos/{video['id']}").json()["camera_motion"] == PAN
    plain = service.create(seed=1).json()
    assert (plain["camera_motion"], plain["motion_strength"], plain["steps"]) == (None, None, 50)
    requests = [service.jobs.get("default", v["id"]).request for v in (video, plain)]
    assert requests[0].result_id != requests[1].result_id


def test_the_same_camera_motion_is_the_same_stored_result(service: Service) -> None:
    fields: dict[str, Any] = {"camera_motion": "pan_left", "motion_strength": "0.4", "seed": 1}
    made = service.create(**fields).json()
    service.finish(made["id"], b"video")
    assert service.create(**fields).json()["status"] == "completed"
    assert service.create(**fields | {"motion_strength": "0.5"}).json()["status"] == "queued"
    assert service.create(**fields | {"camera_motion": "pan_right"}).json()["status"] == "queued"
    usage = service.http.get(f"/v1/videos/{made['id']}").json()["usage"]
    assert usage["unet_steps"] == 20


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"camera_motion": "fly"}, "camera_motion.move", "invalid_parameter"),
        ({"camera_motion": "{"}, "camera_motion", "invalid_parameter"),
        ({"camera_motion": "{}"}, "camera_motion.move", "missing_parameter"),
        (
            {"camera_motion": '{"move": "pan_left", "colour": "red"}'},
            "camera_motion.colour",
            "unknown_parameter",
        ),
        ({"motion_strength": "0.4"}, "motion_strength", "invalid_parameter"),
        (
            {"camera_motion": "pan_left", "motion_strength": "0"},
            "motion_strength",
            "invalid_parameter",
        ),
        (
            {"camera_motion": "pan_left", "motion_strength": "1.5"},
            "motion_strength",
            "invalid_parameter",
        ),
        (
            {"camera_motion": "pan_left", "motion_strength": "nan"},
            "motion_strength",
            "invalid_parameter",
        ),
        (
            {"camera_motion": "pan_left", "motion_strength": "0.01"},
            "motion_strength",
            "invalid_parameter",
        ),
    ],
)
def test_what_cannot_be_done_is_refused_and_leaves_nothing(
    service: Service, fields: dict[str, Any], param: str, code: str
) -> None:
    refused = service.create(**fields)
    error = error_of(refused)
    assert (refused.status_code, error["param"], error["code"]) == (400, param, code)
    assert service.is_untouched()


def test_the_limits_name_the_moves(service: Service) -> None:
    model, camera = service.http.get("/v1/models").json()["data"]
    assert camera["id"] == "camera"
    assert camera["limits"]["camera_motions"] == model["limits"]["camera_motions"]
    assert camera["limits"]["default_motion_strength"] is None
    assert model["limits"]["camera_motions"] == [move.value for move in Move]
    assert model["limits"]["default_motion_strength"] == MOTION_STRENGTH


def test_the_model_camera_is_named_or_is_the_default(
    s3: ObjectStoreConfig, tmp_path: Path, service: Service
) -> None:
    video = service.create(model="camera", prompt="slow zoom in").json()
    assert (video["model"], video["made_by"]) == ("camera", "camera move, nothing generated")
    assert (video["steps"], video["camera_words"]) == (0, ["slow zoom in"])
    refused = service.create(model="camera", prompt="zoom in", guidance_scale="9")
    assert (refused.status_code, error_of(refused)["param"]) == (400, "guidance_scale")
    conflict = service.create(model="camera", prompt="zoom in, then pan left")
    assert (conflict.status_code, error_of(conflict)["code"]) == (400, "camera_conflict")
    assert service.create(prompt="zoom in").json()["model"] != "camera"

    (other := tmp_path / "other").mkdir()
    for default in ("camera", None):  # its weights are random: nobody has a use for their clips
        ours = Service(s3, other, default_model=default)
        with ours.http:
            assert ours.create(prompt=f"zoom in, {default}").json()["model"] == "camera"
            cards = ours.http.get("/v1/models").json()["data"]
            assert [card["id"] for card in cards if card["default"]] == ["camera"]
