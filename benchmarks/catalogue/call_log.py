"""The UNet calls of a denoiser, and how much of a run they fill."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

Call = tuple[float, float]
"""When a UNet call began and ended, in Unix seconds."""


def between(calls: Sequence[Call], since: float, until: float = math.inf) -> list[Call]:
    """Those that began then."""
    return [call for call in calls if since <= call[0] < until]


def busy(calls: Sequence[Call]) -> dict[str, Any]:
    """Between the first call and the last one's end; a call at a time, as one card makes them."""
    wall_s = calls[-1][1] - calls[0][0]
    busy_s = sum(ended - began for began, ended in calls)
    pauses_s = sorted((later[0] - call[1] for call, later in pairwise(calls)), reverse=True)
    return {
        "share": round(busy_s / wall_s, 4),
        "wall_s": round(wall_s, 1),
        "unet_s": round(busy_s, 1),
        "calls": len(calls),
        "longest_pauses_s": [round(pause, 3) for pause in pauses_s[:5]],
        "median_pause_ms": round(1e3 * pauses_s[len(pauses_s) // 2], 2),
    }
