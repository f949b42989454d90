"""Contact sheets of held-out photos and moves, to be looked at beside the figures."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.takes import Frames, Take
from video.camera.move import Move

Picture = NDArray[np.uint8]  # [H, W, 3]

KINDS = {"warp": "camera", "guided 0.25": "guided", "from noise": "embedded"}
"""What has a sheet of its own, and the end of that sheet's name."""
_STAGES = ("warp", "codec", "noisy start 0.25", "guided 0.25", "guided 0.4", "from noise")
_STAGE_SIDE = 192  # px, of a clip's frame on the sheet of stages
_HEAD, _GUTTER = 20, 80  # px, above and left of the pictures
_QUALITY = 80


class Sheets:
    """One per kind: first and last frame of every clip; and one of all stages of a few clips."""

    def __init__(self) -> None:
        self._cells: dict[str, dict[Move, dict[str, Picture]]] = {kind: {} for kind in KINDS}
        self._stages: dict[str, list[Picture]] = {}

    def add(self, take: Take, clips: dict[str, Frames]) -> None:
        for kind, cells in self._cells.items():
            clip = clips[kind]
            pair = np.concatenate([clip[0], clip[-1]], axis=1)
            cells.setdefault(take.move, {})[take.photo] = pair
        if take.photo not in self._stages:
            self._stages[take.photo] = [_enlarged(clips[stage][-1]) for stage in _STAGES]

    def write(self, folder: Path) -> None:
        for kind, name in KINDS.items():
            rows = [
                _labelled(list(cells.values()), move.replace("_", " "))
                for move, cells in self._cells[kind].items()
            ]
            heads = [f"{photo}: first, last frame" for photo in self._stages]
            _write(folder / f"embedded-sheet-{name}.webp", heads, rows)
        stages = [_labelled(cells, photo) for photo, cells in self._stages.items()]
        _write(folder / "embedded-stages.webp", _STAGES, stages)


def _labelled(cells: Sequence[Picture], label: str) -> Picture:
    gutter = np.full((len(cells[0]), _GUTTER, 3), 255, np.uint8)
    _print(gutter, label, (6, len(gutter) // 2))
    return np.concatenate([gutter, *cells], axis=1)


def _enlarged(frame: Picture) -> Picture:
    size = (_STAGE_SIDE, _STAGE_SIDE)
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC), np.uint8)


def _write(path: Path, heads: Sequence[str], rows: Sequence[Picture]) -> None:
    width = rows[0].shape[1]
    head = np.full((_HEAD, width, 3), 255, np.uint8)
    for index, name in enumerate(heads):
        _print(head, name, (_GUTTER + 6 + index * (width - _GUTTER) // len(heads), 14))
    sheet = cv2.cvtColor(np.concatenate([head, *rows]), cv2.COLOR_RGB2BGR)
    cv2.imwrite(str(path), sheet, [cv2.IMWRITE_WEBP_QUALITY, _QUALITY])


def _print(picture: Picture, words: str, at: tuple[int, int]) -> None:
    cv2.putText(picture, words, at, cv2.FONT_HERSHEY_SIMPLEX, 0.38, (0, 0, 0), 1, cv2.LINE_AA)
