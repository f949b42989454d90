"""Catalogue runs and their reports as HTML."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from serve.web.api import Json, Refused
from serve.web.catalogue.runs import ENDED, has_photos, name_of, percent, retried, started, state
from serve.web.markup import draw
from serve.web.words import Trouble, Words

_PAGE = "catalogue.html"


@dataclass(frozen=True, slots=True)
class Problem:
    """Something to be mended before a product can have its video."""

    place: str  # row or line, in words
    sku: str
    code: str
    trouble: Trouble
    message: str


@dataclass(frozen=True, slots=True)
class _Card:
    """A run, and what can be done with it."""

    run: Json
    name: str
    told: str
    percent: int
    ended: bool
    startable: bool
    reported: bool
    retried: str | None  # what that is called


def runs(words: Words, batches: Sequence[Json], past: Collection[str] = ()) -> str:
    """`past`: ids of those whose run a later one goes on with."""
    return draw(_PAGE, "runs", words, [_shown(words, one, past) for one in batches])


def card(words: Words, batch: Json, past: Collection[str] = ()) -> str:
    """Of the run that is looked at."""
    return draw(_PAGE, "card", words, _shown(words, batch, past), True)


def problems(words: Words, batch: Json, failed: Mapping[str, Any]) -> str:
    """Of the list itself, and of its rows: `failed` is a page of them."""
    found = [*_of_list(words, batch), *_of_rows(words, failed["data"])]
    counted = batch["request_counts"]["failed"] > len(found) > 0
    return draw(_PAGE, "problems", words, found, counted or failed["has_more"])


def rows(words: Words, items: Sequence[Json]) -> str:
    return draw(_PAGE, "rows", words, items)


def files(words: Words, batch: Json) -> str:
    return draw(_PAGE, "files", words, batch) if batch["output_file_id"] else ""


def no_file(words: Words, refused: Refused) -> str:
    """A whole page in place of a report that cannot be had."""
    return draw(_PAGE, "no_file", words, words.trouble(refused.code), refused.message)


def _shown(words: Words, batch: Json, past: Collection[str]) -> _Card:
    return _Card(
        batch,
        name_of(batch),
        state(words, batch),
        percent(batch),
        ended=batch["status"] in ENDED,
        startable=batch["status"] == "completed" and started(batch) is not None,
        reported=batch["output_file_id"] is not None,
        retried=None if batch["id"] in past else retried(batch),
    )


def _of_list(words: Words, batch: Json) -> Iterator[Problem]:
    for error in (batch["errors"] or {}).get("data", ()):
        place = words("catalogue.whole")
        if error["line"] is not None:
            place = str(error["line"])
            if not has_photos(batch):
                place = words("catalogue.line", line=error["line"])
        trouble = words.trouble(error["code"])
        yield Problem(place, "", error["code"], trouble, error["message"])


def _of_rows(words: Words, items: Sequence[Json]) -> Iterator[Problem]:
    for item in items:
        error = item["error"] or {"code": "internal", "message": ""}
        trouble = words.trouble(error["code"])
        yield Problem(
            str(item["row"] + 1), item["sku"] or "", error["code"], trouble, error["message"]
        )
