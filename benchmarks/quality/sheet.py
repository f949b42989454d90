"""Contact sheets of the embedded model's clips, to be looked at beside the figures."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from diffusion.training.clips import MOVES

Frames = NDArray[np.uint8]  # [F, H, W, 3]

STAGES = ("truth", "codec", "noisy start 0.25", "guided 0.25", "guided 0.4")
_SHOWN = "guided 0.25"
_THUMBNAIL = 160  # px
_HEAD, _QUALITY = 20, 82


class Sheets:
    """Two of them: every stage of one clip per photo, and the guided last frame of every clip."""

    def __init__(self) -> None:
        self._stages: dict[str, list[Frames]] = {}
        self._moves: dict[str, dict[str, Frames]] = {}

    def add(self, photo: str, move: str, clips: dict[str, Frames]) -> None:
        """The clips of one take, by stage. Each photo shows its stages in another move."""
        turn = MOVES[len(self._moves.setdefault(photo, {}))].name
        if turn == MOVES[list(self._moves).index(photo)].name:
            self._stages[f"{photo}, {move}"] = [clips[stage][-1] for stage in STAGES]
        self._moves[photo][move] = clips[_SHOWN][-1]

    def write(self, folder: Path) -> None:
        rows = [_labelled(cells, name) for name, cells in self._stages.items()]
        head = _heading([f"{stage}, last frame" for stage in STAGES], rows[0].shape[1])
        _write(folder / "embedded-stages.webp", [head, *rows])
        photos = list(self._moves)
        small = [
            _labelled([_thumbnail(self._moves[photo][move.name]) for photo in photos], move.name)
            for move in MOVES
        ]
        head = _heading([f"{photo}: {_SHOWN}" for photo in photos], small[0].shape[1])
        _write(folder / "embedded-moves.webp", [head, *small])


def _labelled(cells: list[Frames], label: str) -> Frames:
    row = np.concatenate(cells, axis=1)
    cv2.putText(row, label, (6, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 3, cv2.LINE_AA)
    cv2.putText(row, label, (6, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (255,) * 3, 1, cv2.LINE_AA)
    return row


def _heading(names: list[str], width: int) -> Frames:
    head = np.full((_HEAD, width, 3), 255, np.uint8)
    for index, name in enumerate(names):
        at = (6 + index * width // len(names), 14)
        cv2.putText(head, name, at, cv2.FONT_HERSHEY_SIMPLEX, 0.38, (0, 0, 0), 1, cv2.LINE_AA)
    return head


def _thumbnail(frame: Frames) -> Frames:
    size = (_THUMBNAIL, _THUMBNAIL)
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8)


def _write(path: Path, rows: list[Frames]) -> None:
    sheet = cv2.cvtColor(np.concatenate(rows), cv2.COLOR_RGB2BGR)
    cv2.imwrite(str(path), sheet, [cv2.IMWRITE_WEBP_QUALITY, _QUALITY])
