"""How the quality of clips is measured: what is held against what, and what is made of it."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.quality.embedded import gates, psnr, ssim
from benchmarks.quality.sheet import KINDS, Sheets
from benchmarks.quality.takes import HELD_OUT, MOVES, Take, takes
from video.camera.move import Move

SIDE, FRAMES = 48, 6


@pytest.fixture(scope="module")
def unknown() -> dict[tuple[str, Move], Take]:
    found = takes(SIDE, FRAMES, photo_only=True)
    return {(take.photo, take.move): take for take in found}


def test_the_studio_knows_the_truth() -> None:
    found = list(takes(SIDE, 2, photo_only=False))
    assert len(found) == len(HELD_OUT) * len(MOVES)
    assert all(np.array_equal(take.known, take.truth) for take in found)


@pytest.mark.parametrize("move", MOVES)
def test_of_a_photo_only_its_first_frame_is_known_and_carried_along(
    unknown: dict[tuple[str, Move], Take], move: Move
) -> None:
    take = unknown["coffee", move]
    assert np.array_equal(take.known[0], take.truth[0])
    middle = np.s_[:, 16:-16, 16:-16]
    frozen = np.repeat(take.known[:1], FRAMES, axis=0)
    assert psnr(take.known[middle], take.truth[middle]) > psnr(frozen[middle], take.truth[middle])


def test_what_a_pan_uncovers_is_not_known(unknown: dict[tuple[str, Move], Take]) -> None:
    take = unknown["motorcycle", Move.PAN_RIGHT]
    last, truth = take.known[-1:], take.truth[-1:]
    assert psnr(last[:, :, : SIDE // 2], truth[:, :, : SIDE // 2]) > 25
    assert psnr(last[:, :, -6:], truth[:, :, -6:]) < 20


def test_scores_know_equal_from_worse() -> None:
    frames = np.random.default_rng(0).integers(0, 255, (4, 32, 32, 3), np.uint8)
    off = np.clip(frames.astype(int) + 10, 0, 255).astype(np.uint8)
    assert psnr(frames, frames) == 99.0
    assert ssim(frames, frames) == pytest.approx(1)
    assert psnr(off, frames) == pytest.approx(28.3, abs=0.4)
    assert ssim(off, frames) < 1


@pytest.mark.parametrize(
    ("guided", "photo_only", "near", "better"),
    [(26.1, 22.4, True, False), (25.9, 22.6, False, True)],
)
def test_the_gates(guided: float, photo_only: float, near: bool, better: bool) -> None:
    def scores(codec: float, at_quarter: float) -> dict[str, dict[str, dict[str, float]]]:
        clips = {"codec": codec, "guided 0.25": at_quarter, "guided 0.4": 20.0}
        return {"all": {name: {"psnr_db": value} for name, value in clips.items()}}

    found = gates(scores(28, guided), scores(22.5, photo_only))
    assert found["within_2_db_of_the_codec"] is near
    assert found["improves_on_the_decoded_warp"] is better
    assert found["below_the_codec_db"] == pytest.approx(28 - guided)


def test_there_is_a_sheet_of_every_kind(
    unknown: dict[tuple[str, Move], Take], tmp_path: Path
) -> None:
    pages = Sheets()
    for take in unknown.values():
        names = (*KINDS, "codec", "noisy start 0.25", "guided 0.4")
        pages.add(take, dict.fromkeys(names, take.truth))
    pages.write(tmp_path)
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {
        *(f"embedded-sheet-{k}.webp" for k in KINDS.values()),
        "embedded-stages.webp",
    }
