"""The parts of the page that are HTML: every value is escaped by Jinja's rules."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from serve.web.api import NO_KEY, Json, Refused
from serve.web.telling import state
from serve.web.wishes import again, name_of, wished
from serve.web.words import LANGUAGES, Language, Words, words_of

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
    return _fragment("heading", words, *_other(words))


def beginning(words: Words) -> str:
    """Of the document's <head>."""
    return _fragment("beginning", words)


def first_paint(words: Words) -> str:
    """What stands there until Gradio has drawn the page."""
    return _fragment("first_paint", words, *_other(words))


def _other(words: Words) -> tuple[Language, Words]:
    (other,) = (language for language in LANGUAGES if language != words.language)
    return other, words_of(other)


def alert(words: Words, refused: Refused, name: str = "") -> str:
    message = "" if refused.code in _SAID_ALL else refused.message
    return _fragment("alert", words.trouble(refused.code), message, name)


def key_form(words: Words, back: str, wrong: bool) -> str:
    return _fragment("key_form", words, back, wrong)


def forget_form(words: Words, back: str) -> str:
    return _fragment("forget_form", words, back)


def nothing(words: Words) -> str:
    return _fragment("nothing", words)


def warnings(words: Words, found: Sequence[str]) -> str:
    return _fragment("warnings", words, found)


def previews(words: Words, shown: Sequence[Preview], told: str, is_exact: bool) -> str:
    """`told`: the name of the words above them. `is_exact`: the video will have that size."""
    return _fragment("previews", words, shown, words(told), is_exact)


def progress(words: Words, video: Json) -> str:
    return _fragment("progress", words, video, name_of(video), state(words, video))


def ended(words: Words, video: Json) -> str:
    trouble = words.trouble(video["error"]["code"]) if video["error"] else None
    return _fragment(
        "ended",
        words,
        video,
        name_of(video),
        state(words, video),
        list(_facts(words, video)),
        trouble,
        again(video) is not None,
        wished(video) is not None,
    )


def earlier_photo(words: Words, name: str) -> str:
    return _fragment("earlier_photo", words, name)


def shelf(words: Words, videos: Sequence[Json]) -> str:
    shown = [(one, name_of(one), again(one) is not None, wished(one) is not None) for one in videos]
    return _fragment("shelf", words, shown)


def _facts(words: Words, video: Mapping[str, Any]) -> list[tuple[str, str]]:
    usage, camera = video["usage"] or {}, video["camera_motion"]
    values = {
        "prompt": video["prompt"],
        "size": video["size"].replace("x", " × "),
        "seconds": words("job.second", seconds=video["seconds"]),
        "camera": camera and words.get(f"create.moves.{camera['move']}", camera["move"]),
        "preset": words.get(f"create.presets.{video['preset']}", video["preset"]),
        "seed": None if video["made_by"] else video["seed"],
        "sku": video["sku"],
        "tier": video["tier"],
        "gpu_seconds": usage and words("job.second", seconds=f"{usage['gpu_seconds']:.1f}"),
        "id": video["id"],
    }
    told = {name: str(value) for name, value in values.items() if value not in (None, {})}
    return [(words(f"job.facts.{name}"), value) for name, value in told.items()]


def hint(text: str) -> str:
    return _fragment("hint", text)


def draw(template: str, name: str, *values: object) -> str:
    """The macro `name` of a template of this package."""
    return str(getattr(_environment().get_template(template).module, name)(*values))


def _fragment(name: str, *values: object) -> str:
    return draw("fragments.html", name, *values)


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("serve.web", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
