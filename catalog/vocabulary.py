"""Words that prompts are checked for, and the English of words in Chinese titles."""

import re
import unicodedata
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict

_ZOOM = re.compile(r"\b(?:zoom|push|pull|doll|mov|tilt)\w* (?:in|out|back)\b")


class Vague(BaseModel):
    """Words that no camera can show."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    english: tuple[str, ...]
    chinese: tuple[str, ...]
    instead: str  # what to write in their place

    def found_in(self, text: str) -> list[str]:
        """As they stand in `text`, each once."""
        return list(dict.fromkeys(self._pattern.findall(text)))

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        # No letter next to it: not \b, for which Chinese characters are letters too.
        english = rf"(?<![a-z0-9-])(?:{'|'.join(self.english)})(?![a-z0-9-])"
        return re.compile(f"{english}|{'|'.join(self.chinese)}", re.IGNORECASE)


class Vocabulary(BaseModel):
    """vocabulary.yaml."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    vague: tuple[Vague, ...]
    verbs: tuple[str, ...]
    directions: frozenset[str]
    ambience: frozenset[str]
    attributes: Mapping[str, str]  # Chinese -> English
    products: Mapping[str, str]  # Chinese -> English
    sales_talk: frozenset[str]

    def missing_parts(self, prompt: str) -> list[str]:
        """The parts of the grammar, its subject apart, for which an English prompt has no word."""
        text = prompt.lower()
        words = frozenset(re.findall(r"[a-z]+(?:-[a-z]+)*", text))
        found = {
            "action": words & self._actions,
            "direction/speed": words & self.directions or _ZOOM.search(text),
            "ambience": words & self.ambience,
        }
        return [part for part, word in found.items() if not word]

    def longest_word(self, text: str, start: int) -> str:
        """The longest known Chinese word that stands at `start`, or ""."""
        ends = range(min(start + self._longest, len(text)), start, -1)
        return next((text[start:end] for end in ends if text[start:end] in self._chinese), "")

    @cached_property
    def _actions(self) -> frozenset[str]:
        return frozenset().union(*map(_forms, self.verbs))

    @cached_property
    def _chinese(self) -> frozenset[str]:
        vague = (word for group in self.vague for word in group.chinese)
        return frozenset((*self.attributes, *self.products, *self.sales_talk, *vague))

    @cached_property
    def _longest(self) -> int:
        return max(map(len, self._chinese))


def _forms(verb: str) -> set[str]:
    """Of a regular English verb; the ones that do not exist do no harm."""
    stem, doubled = verb.removesuffix("e"), verb + verb[-1]
    return {
        verb,
        f"{verb}s",
        f"{verb}es",
        f"{stem}ed",
        f"{stem}ing",
        f"{doubled}ed",
        f"{doubled}ing",
    }


def is_latin(text: str) -> bool:
    """Whether CLIP may know its letters; digits and signs are of no script."""
    return all(unicodedata.name(c, "").startswith("LATIN") for c in text if c.isalpha())


def foreign_runs(text: str) -> list[str]:
    """Stretches of letters of other scripts than the Latin one, each once."""
    runs = re.findall(r"[^\W\d_]+", text)
    return list(dict.fromkeys(run for run in runs if not is_latin(run)))


VOCABULARY = Vocabulary.model_validate(
    yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
)
