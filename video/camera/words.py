"""A camera move from the words of a prompt, English or Chinese; which words count is in words.yaml.

Nothing is guessed: words that name no move give none, and words that name two are refused.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict

from video.camera.move import CameraMove, Move, Speed
from video.errors import CameraConflict

_CLAUSE_END = r"[.,;:!?()\n。，；：、！？（）…—]"
_SUFFIXES = ("", "s", "es", "ed", "ing")


@dataclass(frozen=True, slots=True)
class Heard:
    """A move, and the words of the prompt that asked for it."""

    camera: CameraMove
    words: tuple[str, ...]


def find_move(prompt: str) -> Heard | None:
    """The camera move that `prompt` names; None where it names none.

    Of phrases within one another the longest counts. Raises CameraConflict where two moves or two
    speeds are named: one clip is one move.
    """
    phrases = list(_longest([p for language in LANGUAGES for p in language.phrases(prompt)]))
    words = tuple(dict.fromkeys(phrase.text for phrase in phrases))
    moves = {phrase.move for phrase in phrases}
    speeds = {speed for phrase in phrases for speed in phrase.speeds}
    for named in (moves, speeds):
        if len(named) > 1:
            raise CameraConflict(words, tuple(sorted(named)))
    if not moves:
        return None
    return Heard(CameraMove(moves.pop(), speeds.pop() if speeds else Speed.NORMAL), words)


@dataclass(frozen=True, slots=True)
class _Phrase:
    move: Move
    start: int  # in the prompt
    end: int
    text: str
    speeds: frozenset[Speed]


def _longest(phrases: Iterable[_Phrase]) -> Iterator[_Phrase]:
    """In order, without those that touch a longer one; as long ones of two moves stay both."""
    kept: list[_Phrase] = []
    for phrase in sorted(phrases, key=lambda p: p.start - p.end):
        rivals = [p for p in kept if p.start < phrase.end and phrase.start < p.end]
        if all(p.end - p.start == phrase.end - phrase.start for p in rivals):
            kept.append(phrase)
    yield from sorted(kept, key=lambda p: p.start)


class _Rule(BaseModel):
    """Verbs that mean a move, with one of the directions `to` where it names any."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    verbs: tuple[str, ...] = ()  # at the start of a clause, or behind a word for the camera
    camera_verbs: tuple[str, ...] = ()  # behind such a word only
    to: tuple[str, ...] = ()
    far: bool = False  # other words of the clause may stand between the two
    not_before: tuple[str, ...] = ()  # what must not follow


class _Language(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    inflected: bool  # verbs have forms, stand apart, and come before the direction
    camera: tuple[str, ...]
    clause: tuple[str, ...]  # words that begin one
    lead: tuple[str, ...]
    fill: tuple[str, ...]
    slow: tuple[str, ...]
    fast: tuple[str, ...]
    moves: Mapping[Move, tuple[_Rule, ...]]

    def phrases(self, prompt: str) -> Iterator[_Phrase]:
        for move, pattern in self._patterns:
            for found in pattern.finditer(prompt):
                start, end = found.span("phrase")
                text = prompt[start:end]
                pace = {speed for speed, word in self._pace.items() if word.search(text)}
                yield _Phrase(move, start, end, text, frozenset(pace))

    @cached_property
    def _patterns(self) -> list[tuple[Move, re.Pattern[str]]]:
        clause = rf"(?:^|{_CLAUSE_END}|{self._any(self.clause)})\s*(?P<phrase>"
        camera = rf"(?P<phrase>{self._any(self.camera)}{self._gap}"
        return [
            (move, re.compile(self._pattern(begin, verbs, rule), re.IGNORECASE))
            for move, rules in self.moves.items()
            for rule in rules
            for begin, verbs in (
                (clause, rule.verbs),
                (camera, (*rule.verbs, *rule.camera_verbs)),
            )
            if verbs
        ]

    @cached_property
    def _pace(self) -> Mapping[Speed, re.Pattern[str]]:
        words = {Speed.SLOW: self.slow, Speed.FAST: self.fast}
        return {speed: re.compile(self._any(words[speed]), re.IGNORECASE) for speed in words}

    @property
    def _gap(self) -> str:
        return r"[\s-]+" if self.inflected else r"\s*"

    def _pattern(self, begin: str, verbs: tuple[str, ...], rule: _Rule) -> str:
        verb = self._any([form for words in verbs for form in self._forms(words)])
        lead, fill = (self._run(words) for words in (self.lead, self.fill))
        said = verb
        if rule.to and self.inflected:
            between = rf"[^{_CLAUSE_END[1:-1]}]{{0,60}}?" if rule.far else fill
            said = f"{verb}{self._gap}{between}{self._any(rule.to)}"
        elif rule.to:
            said = f"{self._any(rule.to)}{fill}{verb}"
        pace = f"(?:{self._gap}{self._any((*self.slow, *self.fast))})?"
        unless = f"(?!{'|'.join(rule.not_before)})" if rule.not_before else ""
        return f"{begin}{lead}{said}{pace}){unless}"

    def _run(self, words: tuple[str, ...]) -> str:
        """Some `words` and words of pace. Possessive and bounded, so that no prompt takes long."""
        return f"(?:{self._any((*words, *self.slow, *self.fast))}{self._gap}){{0,8}}+"

    def _any(self, words: Iterable[str]) -> str:
        longest_first = sorted(set(words), key=lambda word: (-len(word), word))
        choice = f"(?:{'|'.join(map(re.escape, longest_first))})"
        return f"(?<![a-z0-9]){choice}(?![a-z0-9])" if self.inflected else choice

    def _forms(self, verb: str) -> Iterable[str]:
        """Of the first word; those that do not exist do no harm."""
        if not self.inflected:
            return (verb,)
        word, space, rest = verb.partition(" ")
        stems = (word, word.removesuffix("e"), word + word[-1], word.removesuffix("y") + "i")
        return [f"{stem}{suffix}{space}{rest}" for stem in stems for suffix in _SUFFIXES]


LANGUAGES = [
    _Language.model_validate(language)
    for language in yaml.safe_load(
        Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8")
    ).values()
]
