"""Prompts: [subject] + [action] + [direction/speed] + [ambience], made from titles and checked."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints

from catalog.titles import MAX_SUBJECT_CHARS, Subject, subject_of
from catalog.vocabulary import VOCABULARY, foreign_runs

_MOST_NAMED = 8
_Part = Annotated[str, StringConstraints(min_length=1, max_length=80, pattern=r"^[ -~]+$")]


class PromptTemplate(BaseModel):
    """English, for the text encoder knows no other language; participles fit any subject."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    subject: _Part  # with its article; stands where a title names no product
    action: _Part
    direction: _Part  # or speed
    ambience: _Part

    @property
    def text(self) -> str:
        """With `{subject}` where the title goes."""
        return f"{{subject}} {self.action} {self.direction}, {self.ambience}"

    def fill(self, subject: str) -> str:
        return self.text.replace("{subject}", subject, 1)


GENERAL = PromptTemplate(
    subject="a product",
    action="turning",
    direction="slowly to the left",
    ambience="soft studio light, plain background",
)
"""For a title without a category."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the text encoder reads, and what its author should know about it."""

    text: str
    template: str | None  # with {subject}; None: the caller's own words
    warnings: tuple[str, ...]


def written(text: str) -> Prompt:
    """The caller's own words, unchanged."""
    warnings = _vague(text)
    if foreign := foreign_runs(text):
        warnings.append(
            f"the text encoder reads English: {_named(foreign)} means nothing to it; write English,"
            " or send `title` and `category` without `prompt`"
        )
    elif missing := VOCABULARY.missing_parts(text):
        warnings.append(
            f"no word was found for {', '.join(missing)}; a prompt is [subject] + [action] +"
            " [direction/speed] + [ambience], as in 'a steel watch rotates slowly to the left,"
            " soft studio light'"
        )
    return Prompt(text, None, tuple(warnings))


def composed(template: PromptTemplate, title: str | None) -> Prompt:
    """From a category's template and the product's title, where there is one."""
    subject = subject_of(title or "")
    return Prompt(
        template.fill(_noun_phrase(subject, template)),
        template.text,
        (*_vague(title or ""), *_lost(subject)),
    )


def _noun_phrase(subject: Subject, template: PromptTemplate) -> str:
    if not subject.text:
        return template.subject
    if subject.names_product:
        return subject.text
    noun = template.subject.removeprefix("a ").removeprefix("an ")
    return f"{subject.text} {noun}"


def _lost(subject: Subject) -> list[str]:
    warnings = []
    if subject.unsaid:
        warnings.append(
            f"there is no English here for {_named(subject.unsaid)} of the title, so the prompt"
            " does not say it; send an English `title` or a `prompt` of your own"
        )
    if subject.sales_talk:
        warnings.append(
            f"left out of the prompt, as it shows nothing: {_named(subject.sales_talk)}"
        )
    if subject.cut:
        warnings.append(
            f"the title is cut at {MAX_SUBJECT_CHARS} characters, as the text encoder takes 77"
            f" tokens: the prompt lacks {_named([subject.cut])}"
        )
    return warnings


def _vague(text: str) -> list[str]:
    return [
        f"{_named(found)} shows nothing that a camera sees; {vague.instead}"
        for vague in VOCABULARY.vague
        if (found := vague.found_in(text))
    ]


def _named(words: Sequence[str]) -> str:
    named = ", ".join(f"'{word}'" for word in words[:_MOST_NAMED])
    more = len(words) - _MOST_NAMED
    return f"{named} and {more} more" if more > 0 else named
