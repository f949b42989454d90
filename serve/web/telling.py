"""A video's state in words."""

from collections.abc import Mapping
from typing import Any

from serve.web.words import Words

ENDED = ("completed", "failed", "cancelled")
_MINUTE_S = 90.0
"""From here on seconds would claim to know too much."""


def state(words: Words, video: Mapping[str, Any]) -> str:
    """`Making the frames: step 12 of 50, about 30 s left`."""
    comma = "，" if words.language == "zh" else ", "
    return comma.join(part for part in (_doing(words, video), _left(words, video)) if part)


def _doing(words: Words, video: Mapping[str, Any]) -> str:
    status = video["status"]
    if status in ENDED:
        return words(f"job.{status}")
    if status == "queued":
        before = video["queue_position"]
        if before is None:
            return words("job.queued")
        return words("job.waiting", position=before + 1) if before else words("job.waiting_next")
    stage = f"job.stages.{video['stage']}"
    template = words.get(stage, words("job.stages.working"))
    return template.format(step=video["step"], steps=video["steps"])


def _left(words: Words, video: Mapping[str, Any]) -> str:
    eta_s = video["eta_seconds"]
    if video["status"] in ENDED or eta_s is None:
        return ""
    if eta_s < _MINUTE_S:
        return words("job.seconds_left", seconds=max(1, round(eta_s)))
    return words("job.minutes_left", minutes=round(eta_s / 60))
