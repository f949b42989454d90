"""Categories and prompts over HTTP: discovery, preview, and what a create makes of them."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from storage import keys
from storage.object_store import ObjectStoreConfig
from tests.integration.service import Service, error_of, jpeg

PREVIEW = "/v1/prompts:preview"
FROM_TITLE = {"category": "watch", "title": "精工 机械表"}


@pytest.fixture
def service(s3: ObjectStoreConfig, tmp_path: Path) -> Iterator[Service]:
    service = Service(s3, tmp_path)
    with service.http:
        yield service


def create(service: Service, **fields: str) -> Any:
    return service.http.post("/v1/videos", data=fields, files={"input_reference": jpeg(800, 600)})


def test_a_preview_says_what_a_create_would_make(service: Service) -> None:
    preview = service.http.post(PREVIEW, json=FROM_TITLE).json()
    assert preview["object"] == "prompt.preview"
    assert preview["prompt"].startswith("mechanical watch rotating slowly clockwise")
    assert "'精工'" in preview["warnings"][0]
    assert service.is_untouched()
    video = create(service, **FROM_TITLE).json()
    assert (video["prompt"], video["warnings"]) == (preview["prompt"], preview["warnings"])
    assert (video["category"], video["preset"], video["steps"]) == ("watch", "high", 60)
    record = json.loads(service.objects.get(keys.request_key(video["id"])))["request"]
    assert record["prompt_template"] == preview["template"]


def test_a_json_create_needs_no_prompt_either(service: Service) -> None:
    reference = {"image_url": "data:image/jpeg;base64," + base64.b64encode(jpeg()).decode()}
    body = {"title": "Oak clock", "input_reference": reference}
    response = service.http.post("/v1/videos", json=body)
    assert response.status_code == 202
    assert response.json()["prompt"].startswith("Oak clock turning slowly to the left")
    assert response.json()["preset"] == "standard"


def test_a_preview_checks_a_prompt(service: Service) -> None:
    preview = service.http.post(PREVIEW, json={"prompt": "a beautiful mug"}).json()
    assert (preview["prompt"], preview["template"]) == ("a beautiful mug", None)
    assert len(preview["warnings"]) == 2


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({}, "missing_parameter", "prompt"),
        ({"title": " "}, "missing_parameter", "prompt"),
        ({"category": None}, "missing_parameter", "prompt"),
        ({"category": "submarine"}, "invalid_parameter", "category"),
        ({"category": ""}, "invalid_parameter", "category"),
        ({"title": "x" * 501}, "invalid_parameter", "title"),
        ({"title": "a\x00b"}, "invalid_parameter", "title"),
        ({"prompt": "x" * 2001}, "invalid_parameter", "prompt"),
        ({"prompt": " "}, "invalid_parameter", "prompt"),
        ({"prompt": "x", "stylle": "noir"}, "unknown_parameter", "stylle"),
        ([], "invalid_parameter", None),
    ],
)
def test_what_gives_no_prompt_is_refused_alike(
    service: Service, body: Any, code: str, param: str | None
) -> None:
    response = service.http.post(PREVIEW, json=body)
    assert response.status_code == 400
    assert (error_of(response)["code"], error_of(response)["param"]) == (code, param)
    if param in ("prompt", "category", "title") and None not in body.values():
        refused = create(service, **body)
        assert (refused.status_code, error_of(refused)["param"]) == (400, param)
    assert service.is_untouched()


def test_other_bodies_than_json_are_415(service: Service) -> None:
    response = service.http.post(PREVIEW, data={"prompt": "a mug"})
    assert (response.status_code, error_of(response)["code"]) == (415, "unsupported_media_type")


def test_categories_say_what_they_do(service: Service) -> None:
    answer = service.http.get("/v1/presets").json()
    categories = {category["id"]: category for category in answer["categories"]}
    assert {"apparel", "digital", "home", "food", "portrait", "watch", "art"} <= set(categories)
    watch = categories["watch"]
    assert (watch["preset"], watch["defaults"]["num_inference_steps"]) == ("high", 60)
    assert watch["defaults"]["guidance_scale"] == 11
    assert watch["prompt"].startswith("a wristwatch rotating slowly clockwise")
    assert set(watch["template"]) == {"subject", "action", "direction", "ambience"}
