"""The loss of a run, as numbers and as a picture."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

_BINS = 50
_WIDTH, _HEIGHT, _MARGIN = 420, 260, 48  # px, of one plot


@dataclass(frozen=True, slots=True)
class Curve:
    """Losses of one network, averaged over equal spans of steps."""

    name: str
    steps: tuple[int, ...]  # where each span ends
    loss: tuple[float, ...]
    seconds: float  # of all steps together


def read(work: Path) -> list[Curve]:
    """Of every run below `work` that has a loss.jsonl, in the order in which they were started."""
    curves = []
    for path in sorted(work.glob("*/loss.jsonl"), key=lambda path: path.stat().st_mtime):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        spans = np.array_split(np.array([line["loss"] for line in lines]), min(_BINS, len(lines)))
        ends = np.cumsum([len(span) for span in spans])
        curves.append(
            Curve(
                path.parent.name,
                tuple(int(end) for end in ends),
                tuple(round(float(span.mean()), 5) for span in spans),
                round(sum(line["seconds"] for line in lines)),
            )
        )
    return curves


def write(curves: list[Curve], path: Path) -> None:
    path.write_text(json.dumps([asdict(curve) for curve in curves], indent=1) + "\n")


def draw(curves: list[Curve], path: Path) -> None:
    """One plot beside the other, logarithmic in the loss."""
    cv2.imwrite(str(path), np.concatenate([_plot(curve) for curve in curves], axis=1))


def _plot(curve: Curve) -> np.ndarray:
    image = np.full((_HEIGHT, _WIDTH, 3), 255, np.uint8)
    left, right, top, bottom = _MARGIN, _WIDTH - 12, 30, _HEIGHT - 30
    low, high = np.log(min(curve.loss)), np.log(max(curve.loss))
    steps = np.array(curve.steps) / curve.steps[-1]
    height = (np.log(curve.loss) - low) / max(high - low, 1e-9)
    points = np.stack([left + steps * (right - left), bottom - height * (bottom - top)], axis=1)
    cv2.rectangle(image, (left, top), (right, bottom), (200, 200, 200))
    cv2.polylines(image, [points.round().astype(np.int32)], False, (160, 80, 20), 2, cv2.LINE_AA)
    for text, at in (
        (f"{curve.name}: loss", (left, 20)),
        (f"{np.exp(high):.3g}", (4, top + 8)),
        (f"{np.exp(low):.3g}", (4, bottom)),
        (f"{curve.steps[-1]} steps", (right - 80, _HEIGHT - 10)),
    ):
        cv2.putText(image, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.42, (40, 40, 40), 1, cv2.LINE_AA)
    return image
