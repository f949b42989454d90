"""The parts of the page that are HTML: every value is escaped by Jinja's rules."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from serve.web.api import NO_KEY, Json, Refused
from serve.web.telling import state
from serve.web.wishes import again, name_of
from serve.web.words import LANGUAGES, Words, words_of

_SAID_ALL = ("unreachable", *NO_KEY)
"""Codes to which the service's own message adds nothing that a buyer could use."""


@dataclass(frozen=True, slots=True)
class Preview:
    """A photo as the model will see it."""

    name: str
    url: str  # data:
    width: int  # px
    height: int


def heading(words: Words) -> str:
    (other,) = (language for language in LANGUAGES if language != words.language)
    return _draw("heading", words, other, words_of(other))


def alert(words: Words, refused: Refused, name: str = "") -> str:
    message = "" if refused.code in _SAID_ALL else refused.message
    return _draw("alert", words.trouble(refused.code), message, name)


def key_form(words: Words, back: str, wrong: bool) -> str:
    return _draw("key_form", words, back, wrong)


def forget_form(words: Words, back: str) -> str:
    return _draw("forget_form", words, back)


def nothing(words: Words) -> str:
    return _draw("nothing", words)


def warnings(words: Words, found: Sequence[str]) -> str:
    return _draw("warnings", words, found)


def previews(words: Words, shown: Sequence[Preview]) -> str:
    return _draw("previews", words, shown)


def progress(words: Words, video: Json) -> str:
    return _draw("progress", words, video, name_of(video), state(words, video))


def ended(words: Words, video: Json) -> str:
    trouble = words.trouble(video["error"]["code"]) if video["error"] else None
    return _draw(
        "ended",
        words,
        video,
        name_of(video),
        state(words, video),
        list(_facts(words, video)),
        trouble,
        again(video) is not None,
    )


def earlier_photo(words: Words, name: str) -> str:
    return _draw("earlier_photo", words, name)


def shelf(words: Words, videos: Sequence[Json]) -> str:
    return _draw("shelf", words, [(one, name_of(one), again(one) is not None) for one in videos])


def _facts(words: Words, video: Mapping[str, Any]) -> list[tuple[str, str]]:
    usage = video["usage"] or {}
    values = {
        "prompt": video["prompt"],
        "size": video["size"].replace("x", " × "),
        "seconds": words("job.second", seconds=video["seconds"]),
        "preset": words.get(f"create.presets.{video['preset']}", video["preset"]),
        "seed": video["seed"],
        "sku": video["sku"],
        "tier": video["tier"],
        "gpu_seconds": usage and words("job.second", seconds=f"{usage['gpu_seconds']:.1f}"),
        "id": video["id"],
    }
    told = {name: str(value) for name, value in values.items() if value not in (None, {})}
    return [(words(f"job.facts.{name}"), value) for name, value in told.items()]


def _draw(name: str, *values: object) -> str:
    return str(getattr(_environment().get_template("fragments.html").module, name)(*values))


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("serve.web", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
