"""What `shopreel demo` asks for is what cluster/local.yaml takes."""

import pytest

from diffusion.model_folder import ModelCard
from serve.commands import LOCAL_CONFIG
from serve.commands.demo import CAMERA, EMBEDDED, Example, examples
from serve.config import load
from serve.schemas import CreateVideo
from serve.services.resolve import resolve
from serve.services.resolve_camera import resolve_camera
from video.photo import PhotoFacts, PhotoLimits, open_photo

CARD = ModelCard(EMBEDDED, "0" * 64, size_multiple=16)
APP = load(LOCAL_CONFIG).app


def facts(example: Example) -> PhotoFacts:
    height, width = open_photo(example.photo.read_bytes(), PhotoLimits()).rgb.shape[:2]
    return PhotoFacts(width, height, "jpeg", "ab" * 32, ())


@pytest.mark.parametrize("example", examples(), ids=lambda example: example.name)
def test_every_photo_becomes_a_camera_move_and_a_clip_guided_by_it(example: Example) -> None:
    assert APP.model.source == APP.model.name == EMBEDDED
    requests = example.requests(EMBEDDED, "standard", seed=3)
    assert list(requests) == [CAMERA, EMBEDDED]
    camera, diffused = (CreateVideo(model=m, **fields) for m, fields in requests.items())
    rendered = resolve_camera(camera, facts(example), "shop", APP)
    assert rendered.sampling.is_rendered
    guided = resolve(diffused, facts(example), "shop", CARD, APP)
    assert guided.camera_motion == rendered.camera_motion
    assert (guided.sampling.unet_steps, guided.sampling.unet_rows) == (5, 5)
    assert 0.8 * 256**2 < guided.sampling.width * guided.sampling.height <= 256**2
    assert guided.warnings == ()


def test_other_weights_get_the_preset_and_no_camera_move() -> None:
    example = examples()[0]
    requests = example.requests("i2vgen-xl", "preview", seed=3)
    plain = resolve(
        CreateVideo(model="i2vgen-xl", **requests["i2vgen-xl"]),
        facts(example),
        "shop",
        ModelCard("i2vgen-xl", "0" * 64, size_multiple=64),
        APP,
    )
    assert plain.camera_motion is None
    assert plain.sampling.num_inference_steps == APP.presets["preview"].num_inference_steps
