"""Catalogue runs as the page asks for them, and what it tells of them. As with videos it keeps
nothing: the name of the list and the settings go into the batch's metadata."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from serve.web.api import Json
from serve.web.words import Words

ENDED = ("completed", "failed", "expired", "cancelled")
ROW_STATUSES = ("pending", "queued", "in_progress", "ok", "failed", "cancelled")

_ID = re.compile(r"batch_[0-9a-f]{1,64}")
_OF_REPORT = re.compile(r"report|errors\.csv|videos/[0-9]{5,8}/[A-Za-z0-9_-]{1,80}\.(mp4|webp)")
_NAME, _SETTINGS, _PHOTOS = "page_name", "page_settings", "page_photos"


@dataclass(frozen=True, slots=True)
class RunWishes:
    """The form. None: left to the rows of the list, and to the service."""

    preset: str | None = None
    category: str | None = None
    max_failures: str | None = None

    def fields(self, file_id: str, name: str, dry_run: bool, photos: bool = False) -> Json:
        """The body of POST /v1/batches. `photos`: they were added beside the list."""
        said = {key: value for key, value in asdict(self).items() if value is not None}
        settings = json.dumps(said, ensure_ascii=False, separators=(",", ":"))
        metadata = {_NAME: name[:512], _SETTINGS: settings}
        if photos:
            metadata[_PHOTOS] = "added"
        return {**said, "input_file_id": file_id, "dry_run": dry_run, "metadata": metadata}


def started(batch: Mapping[str, Any]) -> Json | None:
    """The body that makes the videos of a list that was checked; None where this page has not
    checked it, or nothing in it can be used."""
    counts, settings = batch["request_counts"], batch["metadata"].get(_SETTINGS)
    if not batch["dry_run"] or settings is None or counts["failed"] >= counts["total"]:
        return None
    wishes = RunWishes(**json.loads(settings))
    return wishes.fields(batch["input_file_id"], name_of(batch), False, has_photos(batch))


def retried(batch: Mapping[str, Any]) -> str | None:
    """What it would be called to go on with a run that has ended, as catalogue.{it} of the words;
    None where nothing is left to be made."""
    counts = batch["request_counts"]
    if batch["dry_run"] or batch["status"] not in ENDED:
        return None
    if batch["status"] == "completed":
        return "again" if counts["failed"] else None
    return "go_on" if counts["completed"] < counts["total"] else None


def gone_on_with(batches: Sequence[Mapping[str, Any]]) -> frozenset[str]:
    """Ids of those, the newest first, whose run a later one of them goes on with."""
    last = {one["run_id"]: one["id"] for one in reversed(batches)}
    return frozenset(one["id"] for one in batches) - frozenset(last.values())


def name_of(batch: Mapping[str, Any]) -> str:
    """What a person calls it."""
    given = batch["metadata"].get(_NAME) or (batch["input_uri"] or "").rsplit("/", 1)[-1]
    return str(given or batch["id"])


def has_photos(batch: Mapping[str, Any]) -> bool:
    """Its lines are then products: there is no header."""
    return _PHOTOS in batch["metadata"]


def is_run(text: str) -> bool:
    return _ID.fullmatch(text) is not None


def is_of_report(name: str) -> bool:
    """Whether a report is there, or what one links to."""
    return _OF_REPORT.fullmatch(name) is not None


def state(words: Words, batch: Mapping[str, Any]) -> str:
    """`At work: 3 of 5 ready, 1 failed`."""
    status, counts = batch["status"], batch["request_counts"]
    if batch["dry_run"] and status == "completed":
        told = "checked" if counts["failed"] else "checked_well"
        return words(f"catalogue.{told}", **counts)
    if batch["dry_run"] and status not in ENDED:
        return words("catalogue.checking")
    doing = words(f"catalogue.statuses.{status}")
    if not counts["total"]:
        return doing
    colon = "：" if words.language == "zh" else ": "
    return f"{doing}{colon}{words('catalogue.counts', **counts)}"


def percent(batch: Mapping[str, Any]) -> int:
    counts = batch["request_counts"]
    if batch["status"] in ENDED:
        return 100
    return int(100 * (counts["completed"] + counts["failed"]) / max(1, counts["total"]))
