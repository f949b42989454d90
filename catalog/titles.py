"""From a shop's title, English or Chinese, to the English noun phrase that a prompt begins with."""

import html
import re
import unicodedata
from dataclasses import dataclass, field

from catalog.vocabulary import VOCABULARY, is_latin

MAX_SUBJECT_CHARS = 60
"""With the template around it that stays within the 77 tokens of CLIP, even for article codes."""

_MARKUP = re.compile(r"<[^<>]*>")
_HAN = "㐀-䶿一-鿿豈-﫿"
_RUNS = re.compile(rf"[tT]恤|[{_HAN}]+|[^\s{_HAN}]+")
_NO_PART_OF_A_WORD = re.compile(r"[^\w'’&%+./,\"-]+")
_LOOSE = " ,.-/&+"


@dataclass(frozen=True, slots=True)
class Subject:
    """What a title says in English, and what it says besides."""

    text: str  # "" where it says nothing in English
    names_product: bool  # else it is a colour, a brand or a code alone
    unsaid: tuple[str, ...]  # for these there is no English here
    sales_talk: tuple[str, ...]
    cut: str  # what went beyond MAX_SUBJECT_CHARS


@dataclass(slots=True)
class _Words:
    attributes: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)  # in Latin script, as written
    products: list[str] = field(default_factory=list)
    unsaid: list[str] = field(default_factory=list)
    sales_talk: list[str] = field(default_factory=list)


def subject_of(title: str) -> Subject:
    """Chinese is looked up word by word; Latin script stays as it is, other scripts are unsaid."""
    plain = unicodedata.normalize("NFKC", _MARKUP.sub(" ", html.unescape(title)))
    words = _Words()
    for run in _RUNS.findall(plain):
        if re.search(f"[{_HAN}]", run):
            _look_up(run.upper(), words)
            continue
        word = _NO_PART_OF_A_WORD.sub("", run)
        if word == "&" or any(c.isalnum() for c in word):
            (words.names if is_latin(word) else words.unsaid).append(word)
    # A title of names alone is taken to name the product, unless none of them is spelt out.
    spelt_out = any(len(name) > 2 and name.strip(_LOOSE).isalpha() for name in words.names)
    # Both languages put the head last; a brand stands between its colour and the product.
    said = (*_once(words.attributes), *words.names, *_once(words.products))
    text, cut = _fit(" ".join(said).strip(_LOOSE))
    return Subject(
        text,
        bool(words.products) or (is_latin(plain) and spelt_out),
        _once(words.unsaid),
        _once(words.sales_talk),
        cut,
    )


def _look_up(run: str, words: _Words) -> None:
    """The longest known word each, from the left; what stands between them has no English."""
    start, unknown = 0, ""
    while start < len(run):
        word = VOCABULARY.longest_word(run, start)
        if not word:
            unknown += run[start]
            start += 1
            continue
        if unknown:
            words.unsaid.append(unknown)
        start, unknown = start + len(word), ""
        if english := VOCABULARY.products.get(word):
            words.products.append(english)
        elif english := VOCABULARY.attributes.get(word):
            words.attributes.append(english)
        elif word in VOCABULARY.sales_talk:  # else it is vague, which is warned of elsewhere
            words.sales_talk.append(word)
    if unknown:
        words.unsaid.append(unknown)


def _fit(text: str) -> tuple[str, str]:
    if len(text) <= MAX_SUBJECT_CHARS:
        return text, ""
    end = text.rfind(" ", 0, MAX_SUBJECT_CHARS + 1)
    end = MAX_SUBJECT_CHARS if end <= 0 else end
    return text[:end].rstrip(_LOOSE), text[end:].strip()


def _once(words: list[str]) -> tuple[str, ...]:
    """Titles say the same thing in several ways, to be found."""
    return tuple(dict.fromkeys(words))
