"""Recipes: reading, overriding, and errors that name the key, what is known and what is near."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heedful.config import RECIPES, Config, InputError, nearest, parse, read_recipe
from heedful.pipeline.recipe import Recipe, build
from heedful.pipeline.sweep import read_sweep
from tiny import TINY


def refused(*overrides: str) -> str:
    with pytest.raises(InputError) as error:
        build(read_recipe(str(TINY), overrides))
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", sorted(path.stem for path in RECIPES.glob("*.yaml")))
def test_shipped_recipes_are_valid(name: str) -> None:
    raw = read_recipe(name)
    recipes = [cell.recipe for cell in read_sweep(raw).cells] if "matrix" in raw else [build(raw)]
    assert {recipe.name for recipe in recipes} == {name}


def test_a_recipe_survives_its_own_json() -> None:
    recipe = build(read_recipe(str(TINY)))
    assert parse(Recipe, recipe.model_dump(mode="json"), "") == recipe


@pytest.mark.parametrize(
    ("override", "key", "near", "known"),
    [
        ("pols.sft=3", "pols", "pools", "evaluate"),
        ("pools.reward_modl=3", "pools.reward_modl", "reward_model", "evaluation"),
        ("ppo.kl_cof=1", "ppo.kl_cof", "kl_coef", "clip_range"),
        ("ppo.variants.ppo.lrr=1", "ppo.lrr", "lr", "clip_range"),
        ("reward_model.objectiv=hinge", "reward_model.objectiv", "objective", "margin"),
        ("format.templat=x", "format.templat", "template", "style"),
        ("stories.min_word=2", "stories.min_word", "min_words", "separator"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_and_the_known(override: str, key: str, near: str, known: str) -> None:
    message = refused(override)
    assert message.startswith(f"{key}: unknown key, did you mean {near}?; known here: ")
    assert known in message.split("known here: ")[1].split(", ")


def test_an_unknown_key_far_from_all_gets_no_suggestion() -> None:
    assert "did you mean" not in refused("zzz=1")
    assert nearest("", ["a"]) == ""


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("ppo.lr=-1", ["ppo.lr", "greater than 0", "-1"]),
        ("ppo.lr=.inf", ["ppo.lr", "finite", "inf"]),
        ("ppo.lr=inf", ["ppo.lr", "finite", "inf"]),
        ("ppo.lr=.nan", ["ppo.lr", "nan"]),
        ("ppo.iterations=2.5", ["ppo.iterations", "integer", "2.5"]),
        ("seed=x", ["seed", "integer", "'x'"]),
        ("seed=2024-13-45", ["seed", "integer", "'2024-13-45'"]),
        ("seed=0b_", ["--set seed=0b_", "YAML"]),
        ("sft.lora_rank=2000", ["sft.lora_rank", "1024", "2000"]),
        ("reward_model.lora_alpha=4", ["reward_model.lora_alpha", "lora_rank is 0", "found 4"]),
        ("ppo.base_precision=nf4", ["ppo.base_precision", "lora_rank is 0"]),
        ("ppo.base_precision=int8", ["ppo.base_precision", "nf4", "int8"]),
        ("ppo.lora_alpha=4", ["ppo.lora_alpha", "lora_rank is 0"]),
        ("ppo.lr=fast", ["ppo.lr", "number", "'fast'"]),
        ("name=[1]", ["name", "string"]),
        ("sft.residual_dropout=1", ["sft.residual_dropout", "less than 1"]),
        ("rankings.min_k=1", ["rankings.min_k", "greater than or equal to 2", "found 1"]),
        ("rankings.max_k=10", ["rankings.max_k", "9"]),
        ("labelers.judge=cats", ["labelers.judge", "people", "cats"]),
        ("reward_model.objective=rank", ["reward_model.objective", "ranking"]),
        ("model=/x", ["model /x", "both", "--set pretrain=null"]),
        ("pretrain=null", ["model", "pretrain", "not neither"]),
        ("ppo_start=other", ["ppo_start", "'other'", "ppo_init"]),
        ("rankings.policy=other", ["rankings.policy", "'other'", "sft"]),
        ("reward_model=null", ["ppo needs a reward_model block"]),
        ("format.template='{question}'", ["format.template", "{prompt}"]),
        ("format.example='{prompt}'", ["format.example", "{prompt} and {response}"]),
        ("format.template='{'", ["format.template", "'{'"]),
        ("ppo=3", ["ppo", "a block of settings", "3"]),
        ("sft.variants=[1]", ["sft.variants", "a block of settings"]),
        ("seed", ["--set seed", "block.key=value"]),
        ("=3", ["--set =3", "block.key=value"]),
        ("seed.x=1", ["seed", "integer", "a block"]),
        ("name.x=1", ["name.x", "name is a value"]),
        ("seed={", ["--set seed={", "YAML"]),
    ],
)
def test_an_impossible_value_is_named_with_what_is_possible(override: str, words: list[str]) -> None:
    message = refused(override)
    assert all(word in message for word in words), message


def test_several_wrong_settings_are_named_in_one_line() -> None:
    message = refused("rounds=0", "seed=-1")
    assert "rounds" in message and "seed" in message


def test_overrides_reach_blocks_and_make_them() -> None:
    recipe = build(read_recipe(str(TINY), ["ppo.lr=1e-5", "stories.min_words=3", "name=other"]))
    assert [config.lr for config in recipe.ppo.values()] == [1e-5, 1e-5]
    assert recipe.stories is not None and recipe.stories.min_words == 3
    assert recipe.name == "other"


@pytest.mark.parametrize("text", ["007", "1.50", "1e-5", "0x1F", "1_000", "2024-01-01", "2024-13-45", "nan", "12:30"])
def test_a_text_setting_takes_what_looks_like_a_number_as_it_is_written(text: str) -> None:
    recipe = build(read_recipe(str(TINY), [f"name={text}", f"intake.salt={text}", f"evaluate.prefixes=[{text}, a]"]))
    assert (recipe.name, recipe.intake.salt, recipe.evaluate.prefixes) == (text, text, (text, "a"))


def test_numbers_of_overrides_are_plain_numbers_in_a_recipe() -> None:
    recipe = build(read_recipe(str(TINY), ["seed=7", "ppo.lr=1e-5", "pretrain.shape.hidden_size=16"]))
    assert recipe.pretrain is not None and recipe.pretrain.shape["hidden_size"] == 16
    assert type(recipe.seed) is int and {type(config.lr) for config in recipe.ppo.values()} == {float}
    assert json.loads(json.dumps(recipe.model_dump(mode="json")))["pretrain"]["shape"]["hidden_size"] == 16


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"- a\n- b\n", ["mapping", "list"]),
        (b"", ["mapping", "NoneType"]),
        (b"a: [1\n", ["not valid YAML", "line 2"]),
        (b"name: caf\xe9\n", ["UTF-8"]),
    ],
)
def test_a_file_that_is_no_recipe_is_named(tmp_path: Path, content: bytes, words: list[str]) -> None:
    path = tmp_path / "r.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        read_recipe(str(path))
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_an_unknown_recipe_suggests_the_nearest() -> None:
    with pytest.raises(InputError, match=r"no recipe 'quikstart', did you mean quickstart\?.*stories_sentiment"):
        read_recipe("quikstart")


KEYS = st.lists(st.sampled_from(["ppo", "sft", "format", "pools", "seed", "variants", "x", "lr", ""]), max_size=4)
VALUES = st.one_of(st.text(max_size=8), st.integers().map(str), st.floats().map(str), st.just("{}"), st.just("[]"))


@settings(deadline=None)
@given(st.one_of(st.text(max_size=20), st.tuples(KEYS, VALUES).map(lambda kv: ".".join(kv[0]) + "=" + kv[1])))
def test_whatever_is_set_is_a_recipe_or_one_line(override: str) -> None:
    try:
        build(read_recipe(str(TINY), [override]))
    except InputError as error:
        assert str(error)


class Inner(Config):
    number: int = 1


class Outer(Config):
    inner: Inner = Inner()
    several: Mapping[str, Inner] = {}


@pytest.mark.parametrize("values", [{"inner": {"numbr": 1}}, {"several": {"a": {"numbr": 1}}}])
def test_known_keys_are_those_of_the_innermost_block(values: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"top.*numbr: unknown key, did you mean number\?; known here: number$"):
        parse(Outer, values, "top")
