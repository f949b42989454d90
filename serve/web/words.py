"""The page's words in both languages, from words.yaml."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal, NamedTuple

import yaml

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = ("en", "zh")


class Trouble(NamedTuple):
    """An error code in a buyer's words."""

    happened: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Words:
    """Those of one language. Called with a dotted name of words.yaml: its text, filled in."""

    language: Language
    texts: Mapping[str, str]
    errors: Mapping[str, Trouble]

    def __call__(self, name: str, /, **fields: object) -> str:
        return self.texts[name].format(**fields)

    def get(self, name: str, otherwise: str) -> str:
        """Of names that a server makes up: presets, stages."""
        return self.texts.get(name, otherwise)

    def trouble(self, code: str) -> Trouble:
        """Codes that a newer service has invented are internal errors here."""
        return self.errors.get(code, self.errors["internal"])


@cache
def words_of(language: Language) -> Words:
    column = LANGUAGES.index(language)
    document = yaml.safe_load(files("serve.web").joinpath("words.yaml").read_text("utf-8"))
    errors = {code: Trouble(*pair[column]) for code, pair in document.pop("errors").items()}
    texts = {name: pair[column] for name, pair in _leaves(document)}
    return Words(language, texts, errors)


def preferred(accept_language: str | None) -> Language:
    """By the first language of an Accept-Language header that is one of ours; English otherwise.

    Browsers name languages in the order of liking, so weights need not be read.
    """
    for wanted in (accept_language or "").split(","):
        name = wanted.strip()[:2].lower()
        for language in LANGUAGES:
            if name == language:
                return language
    return "en"


def _leaves(entries: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, list[str]]]:
    for name, entry in entries.items():
        if isinstance(entry, dict):
            yield from _leaves(entry, f"{above}{name}.")
        else:
            yield f"{above}{name}", entry
