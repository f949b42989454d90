"""Prompts: made from English and Chinese titles, and what is said about those people write."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.prompts import GENERAL, PromptTemplate, composed, written
from catalog.titles import MAX_SUBJECT_CHARS, subject_of
from serve.commands import EXAMPLES

TURNS = PromptTemplate(
    subject="a wristwatch", action="turning", direction="slowly", ambience="soft light"
)


@pytest.mark.parametrize(
    ("title", "subject"),
    [
        ("Steel automatic watch, leather strap", "Steel automatic watch, leather strap"),
        ("  Wool &amp; silk <b>scarf</b>\n🔥 ", "Wool & silk scarf"),
        ("Café crème mug", "Café crème mug"),
        ("机械表", "mechanical watch"),
        ("女士碎花连衣裙", "women's floral dress"),
        ("手表 手表 腕表", "watch wristwatch"),
        ("白色T恤", "white T-shirt"),
        ("透明手机壳 iPhone 17 Pro", "clear iPhone 17 Pro phone case"),
        ("红色", "red wristwatch"),  # no product in it
        ("F-91W", "F-91W wristwatch"),
        ("精工", "a wristwatch"),
        ("SEIKO 精工", "SEIKO wristwatch"),
        ("!!! 🔥", "a wristwatch"),
        ("", "a wristwatch"),
    ],
)
def test_the_subject_is_what_the_title_says_in_english(title: str, subject: str) -> None:
    assert composed(TURNS, title).text == f"{subject} turning slowly, soft light"


def test_a_longer_word_is_not_taken_for_the_shorter_one_in_it() -> None:
    assert subject_of("手表").text == "watch"
    assert subject_of("手表带").text == "watch strap"
    assert subject_of("智能手表").text == "smartwatch"


@pytest.mark.parametrize(
    ("title", "named"),
    [
        ("精工机械表", "'精工'"),
        ("手錶", "'手錶'"),  # in traditional characters
        ("Красная сумка", "'Красная', 'сумка'"),
        ("くま toy", "'くま'"),
    ],
)
def test_what_has_no_english_is_named(title: str, named: str) -> None:
    (warning,) = composed(TURNS, title).warnings
    assert f"no English here for {named}" in warning


def test_sales_talk_is_left_out_and_named() -> None:
    prompt = composed(TURNS, "新款机械表包邮")
    assert prompt.text.startswith("mechanical watch turning")
    (warning,) = prompt.warnings
    assert "shows nothing: '新款', '包邮'" in warning


def test_a_long_title_is_cut_between_words_and_the_rest_is_named() -> None:
    prompt = composed(TURNS, "Watch " + "with a very long strap " * 5)
    assert len(prompt.text) < MAX_SUBJECT_CHARS + len(TURNS.text)
    assert "strap with a turning" in prompt.text
    (warning,) = prompt.warnings
    assert "lacks 'very long strap with" in warning


@given(st.text(max_size=500))
def test_any_title_gives_one_line_that_every_encoder_takes(title: str) -> None:
    prompt = composed(TURNS, title).text
    assert prompt.isprintable()
    assert prompt.endswith(" turning slowly, soft light")
    assert len(prompt) <= MAX_SUBJECT_CHARS + len(" wristwatch turning slowly, soft light")


WORDS = {"机械表": "mechanical watch", "红色": "red", "男士": "men's", "花瓶": "vase"}
UNSAID = ("精工", "手錶", "包邮", "新款", "精美", "动感", "くま", "часы")


@given(st.lists(st.sampled_from((*WORDS, *UNSAID)), unique=True, min_size=1))
def test_no_word_of_a_title_goes_unmentioned(title: list[str]) -> None:
    prompt = composed(TURNS, " ".join(title))
    for word in title:
        if word in WORDS:
            assert WORDS[word] in prompt.text
        else:
            assert any(f"'{word}'" in warning for warning in prompt.warnings)


def test_a_subject_may_hold_braces() -> None:
    assert composed(TURNS, "{subject} {0} clock").text.startswith("subject 0 clock turning")


@pytest.mark.parametrize(
    ("word", "instead"),
    [
        ("beautiful", "material, colour, finish"),
        ("AMAZING", "material, colour, finish"),
        ("dynamic", "where to and how fast"),
        ("cinematic", "which light"),
        ("精美", "material, colour, finish"),
        ("高级感", "which light"),
    ],
)
def test_a_vague_word_is_named_with_what_to_write(word: str, instead: str) -> None:
    said = f"a {word} watch turns slowly to the left, soft light"
    warning = next(w for w in written(said).warnings if "camera sees" in w)
    assert warning.startswith(f"'{word}' ")
    assert instead in warning


def test_a_vague_word_in_a_title_is_warned_of() -> None:
    assert "'Beautiful'" in " ".join(composed(TURNS, "Beautiful oak clock").warnings)
    assert "'精美'" in " ".join(composed(TURNS, "精美花瓶").warnings)


@pytest.mark.parametrize("word", ["goodness", "nicely-cut", "pre-cinematic", "vividness"])
def test_a_word_with_a_vague_one_in_it_is_not_vague(word: str) -> None:
    assert not written(f"a {word} watch turns slowly, soft light").warnings


@pytest.mark.parametrize(
    ("prompt", "missing"),
    [
        ("a mug", "action, direction/speed, ambience"),
        ("a mug spinning", "direction/speed, ambience"),
        ("a mug in soft light", "action, direction/speed"),
        ("a mug spins clockwise", "ambience"),
        ("camera zooms in on a mug", "ambience"),
    ],
)
def test_missing_parts_of_the_grammar_are_named(prompt: str, missing: str) -> None:
    (warning,) = written(prompt).warnings
    assert f"no word was found for {missing};" in warning


@pytest.mark.parametrize("prompt", ["一只手表缓慢旋转", "часы slowly turning, soft light"])
def test_another_language_than_english_is_warned_of(prompt: str) -> None:
    (warning,) = written(prompt).warnings
    assert "reads English" in warning


def test_good_prompts_pass_without_a_word() -> None:
    products = json.loads((EXAMPLES / "products.json").read_text())
    assert len(products) == 10
    for product in products:
        assert written(product["prompt"]).warnings == (), product["prompt"]
    assert written(composed(GENERAL, None).text).warnings == ()
