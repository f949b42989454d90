"""Categories: their prompts, what a deployment may change, and the command that shows them."""

import json
from typing import Any

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from catalog.categories import Category, default_categories
from catalog.presets import Preset, default_presets
from catalog.prompts import composed, written
from cluster.tiers import TierConfig
from diffusion.model_folder import ModelConfig
from serve.cli import app
from serve.config import AppConfig

TEMPLATE = {
    "subject": "a boat",
    "action": "sailing",
    "direction": "to the left",
    "ambience": "sunset",
}


def config(**sections: Any) -> AppConfig:
    return AppConfig(model=ModelConfig(source="tiny"), tiers=(TierConfig(name="cpu"),), **sections)


@pytest.mark.parametrize("name", default_categories())
def test_the_prompts_of_categories_have_every_part_of_the_grammar(name: str) -> None:
    template = default_categories()[name].template
    for title in (None, "Steel thing"):
        prompt = composed(template, title)
        assert prompt.warnings == ()
        assert written(prompt.text).warnings == ()


def test_a_category_changes_its_own_preset() -> None:
    watch, high = default_categories()["watch"], default_presets()["high"]
    changed = watch.over(high)
    assert (changed.num_inference_steps, changed.guidance_scale) == (60, 11)
    assert changed.area_px == high.area_px
    assert high == default_presets()["high"]


def test_a_preset_that_says_its_guidance_keeps_it_beside_a_category() -> None:
    said = Preset(area_px=4096, num_frames=8, fps=8, num_inference_steps=5, guidance_scale=2)
    assert default_categories()["portrait"].under(said) == said


def test_a_deployment_has_categories_of_its_own() -> None:
    boats = config(categories={"boats": {"template": TEMPLATE, "preset": "high"}}).categories
    assert list(boats) == ["boats"]
    prompt = composed(boats["boats"].template, None).text
    assert prompt == "a boat sailing to the left, sunset"


@pytest.mark.parametrize(
    ("category", "said"),
    [
        ({"template": TEMPLATE, "preset": "ultra"}, "starts from the preset 'ultra'"),
        ({"template": TEMPLATE, "stepps": 5}, "stepps"),
        ({"template": {**TEMPLATE, "action": "航行"}}, "action"),
    ],
)
def test_a_category_that_cannot_be_is_refused_at_the_start(
    category: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValidationError, match=said):
        config(categories={"boats": category})


def test_presets_without_the_one_that_a_category_starts_from_are_refused() -> None:
    standard = default_presets()["standard"].model_dump()
    with pytest.raises(ValidationError, match="categories.digital starts from the preset 'high'"):
        config(presets={"standard": standard})
    assert config(presets={"standard": standard}, categories={}).categories == {}


def test_a_category_sets_only_what_it_says() -> None:
    plain = Category.model_validate({"template": TEMPLATE})
    standard = default_presets()["standard"]
    assert plain.over(standard) == plain.under(standard) == standard


def test_the_command_shows_a_prompt_without_a_service() -> None:
    result = CliRunner().invoke(app, ["prompt", "--category", "watch", "--title", "精工机械表"])
    assert result.exit_code == 0
    assert result.stdout.startswith("mechanical watch rotating slowly clockwise, ")
    assert "'精工'" in result.stderr


def test_the_command_checks_a_prompt() -> None:
    result = CliRunner().invoke(app, ["prompt", "a nice mug", "--json"])
    preview = json.loads(result.stdout)
    assert (preview["prompt"], preview["template"]) == ("a nice mug", None)
    assert len(preview["warnings"]) == 2
    shown = CliRunner().invoke(app, ["prompt", "a nice mug"])
    assert "[subject] + [action]" in " ".join(shown.stderr.split())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "unless category or title"),
        (["--category", "submarine"], "no category 'submarine'; have apparel, digital"),
        (["--title", "x" * 501], "title"),
        (["a mug", "--url", "http://127.0.0.1:9"], "no service answers"),
    ],
)
def test_the_command_says_what_is_wrong(arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(app, ["prompt", *arguments])
    assert result.exit_code == 1
    assert said in " ".join(result.stderr.split())
