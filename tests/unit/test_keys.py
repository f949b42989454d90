"""The bucket's layout: fixed places, and no text of a caller's that could leave them."""

import re
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage import keys
from storage.jobs import Attempt


def test_the_layout() -> None:
    attempt = Attempt("video_1", 2, 9)
    assert [
        keys.input_key("shop", "0f"),
        keys.request_key("video_1"),
        keys.attempts_prefix("video_1"),
        keys.attempt_prefix(attempt),
        keys.video_key(attempt),
        keys.poster_key(attempt),
        keys.spritesheet_key(attempt),
        keys.manifest_key(attempt),
        keys.checkpoints_prefix("video_1"),
        keys.checkpoint_key(attempt),
        keys.result_key("shop", "r1"),
        keys.calibration_key("rtx4090"),
    ] == [
        "inputs/shop/0f",
        "jobs/video_1/request.json",
        "attempts/video_1/",
        "attempts/video_1/2/",
        "attempts/video_1/2/video.mp4",
        "attempts/video_1/2/poster.webp",
        "attempts/video_1/2/spritesheet.webp",
        "attempts/video_1/2/manifest.json",
        "checkpoints/video_1/",
        "checkpoints/video_1/2.safetensors",
        "results/shop/r1.json",
        "calibration/rtx4090.json",
    ]


@pytest.mark.parametrize(
    "part", ["", ".", "..", "a/b", "../../x", "a\0", "a b", "é", "a\n", "a" * 129]
)
def test_parts_that_could_leave_their_place_are_refused(part: str) -> None:
    makers: list[Callable[[], str]] = [
        lambda: keys.input_key(part, "0f"),
        lambda: keys.input_key("shop", part),
        lambda: keys.request_key(part),
        lambda: keys.video_key(Attempt(part, 1, 1)),
        lambda: keys.checkpoint_key(Attempt(part, 1, 1)),
        lambda: keys.calibration_key(part),
        lambda: keys.result_key(part, "r"),
        lambda: keys.result_key("shop", part),
        lambda: keys.download_name(0.0, part, None),
    ]
    for make in makers:
        with pytest.raises(ValueError, match="not usable in an object key"):
            make()


@settings(deadline=None)
@given(st.text())
def test_any_text_is_refused_or_kept_as_it_is(part: str) -> None:
    try:
        key = keys.result_key(part, "r")
    except ValueError:
        return
    assert re.fullmatch(r"results/[A-Za-z0-9_-]+/r\.json", key)
    assert key.split("/")[1] == part


def test_download_names_say_when_what_and_which() -> None:
    at = 1795305599.9  # 2026-11-21T23:59:59.9Z
    job_id = "video_0192f0c1a2b37c3d8e4f0123456789ab"
    assert keys.download_name(at, job_id, "BAG 1/red") == (
        "shopreel_20261121T235959Z_BAG-1-red_0123456789ab.mp4"
    )
    assert keys.download_name(at, job_id, None) == "shopreel_20261121T235959Z_0123456789ab.mp4"


@settings(deadline=None)
@given(st.text())
def test_download_names_are_plain_whatever_the_sku(sku: str) -> None:
    name = keys.download_name(0.0, "job1", sku)
    assert re.fullmatch(r"shopreel_19700101T000000Z_([A-Za-z0-9_-]{1,40}_)?job1\.mp4", name)
