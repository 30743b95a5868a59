"""Principles as data: the shipped ones are whole in both languages, and what is wrong with a file is said by name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from heedful.config import InputError
from heedful.feedback.principles.book import SHIPPED, read_book, read_principles, shipped
from heedful.principles import Principle, PrincipleRanking, PrincipleScore
from heedful.store.language import language_of

COUNTS = {"preference": 11, "rl": 14, "harmless": 11, "honest": 8, "non_evasive": 9, "interventions": 3}


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_shipped_collections(language: Any) -> None:
    """How many there are, and their weights: SALMON (arXiv 2310.05910) and its released configuration."""
    assert {name: len(read_principles(name, language)) for name in shipped()} == COUNTS
    weight = {one.id: one.weight for one in read_principles("preference", language)}
    assert [id for id, own in weight.items() if own == 0] == ["helpful", "natural", "multilingual"]
    assert sum(weight.values()) == 8
    assert sorted(one.weight for one in read_principles("rl", language)) == [1] * 7 + [2] * 2 + [3] * 4 + [4]
    assert sum(one.weight for one in read_principles("harmless", language)) == 10 + 5 + 4 * 4 + 5
    assert sum(one.weight for one in read_principles("honest", language)) == 5 * 3 + 4 * 3 + 2
    rl = {one.id: one for one in read_principles("rl", language)}
    assert all(rl[one.id] == one for one in read_principles("non_evasive", language))


def test_every_shipped_principle_is_used_and_in_its_language() -> None:
    book = read_book(SHIPPED)
    assert set(book.principles) == {id for weights in book.collections.values() for id in weights}
    for id, texts in book.principles.items():
        for language, wording in texts:
            assert wording is not None, id
            assert language_of(wording.definition) == language_of(wording.negative) == language, (id, language)
            assert 6 < len(wording.definition) < 200 and wording.definition[-1] in ".。", id


def test_a_principle_says_what_is_asked_for() -> None:
    concise = next(one for one in read_principles("preference", "en") if one.id == "concise")
    assert concise.text() == concise.definition != concise.text(negated=True) == concise.negative


def small() -> dict[str, Any]:
    wording = {"title": "Short", "definition": "It is short.", "negative": "It is long."}
    other = {"title": "Kind", "definition": "It is kind.", "negative": "It is unkind."}
    return {"principles": {"short": {"en": wording}, "kind": {"en": other}}, "collections": {"mine": {"short": 2}}}


def saved(folder: Path, values: object) -> Path:
    path = folder / "mine.yaml"
    path.write_text(values if isinstance(values, str) else yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return path


def test_a_persons_own_file(tmp_path: Path) -> None:
    path = saved(tmp_path, small())
    short = Principle(
        id="short", language="en", title="Short", definition="It is short.", negative="It is long.", weight=2
    )
    assert read_principles(str(path), "en") == read_principles(f"{path}:mine", "en") == (short,)
    saved(tmp_path, {"principles": small()["principles"]})
    assert [(one.id, one.weight) for one in read_principles(str(path), "en")] == [("short", 1), ("kind", 1)]


def test_names_that_yaml_takes_for_something_else_are_names(tmp_path: Path) -> None:
    wording = "{en: {title: %s, definition: a, negative: b}}"
    text = "principles:\n" + "".join(f"  {id}: {wording % f'of {id}'}\n" for id in ("true", "no", "1", "2026-01-01"))
    path = saved(tmp_path, f"{text}collections:\n  on: {{true: 2, no: 1}}\n")
    assert [(one.id, one.title, one.weight) for one in read_principles(f"{path}:on", "en")] == [
        ("true", "of true", 2),
        ("no", "of no", 1),
    ]
    saved(tmp_path, text)
    assert [one.id for one in read_principles(str(path), "en")] == ["true", "no", "1", "2026-01-01"]


def put(where: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(values: dict[str, Any]) -> None:
        *blocks, last = where.split(".")
        for block in blocks:
            values = values[block]
        if value is None:
            del values[last]
        else:
            values[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (put("principles.short.en.negative", None), "principles.short.en.negative: missing"),
        (put("principles.short.en.defintion", "x"), "did you mean definition?"),
        (put("principles.short.en.title", "  "), "short.en.title: it is empty"),
        (put("principles.short.en.negative", "It is short."), "short.en: definition and negative are the same"),
        (put("principles.short", {}), "short: no text; write en or zh"),
        (put("principles.short.fr", {}), "principles.short.fr: unknown key"),
        (
            put("principles.two words", {"en": {"title": "a", "definition": "b", "negative": "c"}}),
            "'two words': a prin",
        ),
        (put("principles.kind.en.title", "Short"), "kind.en.title: 'Short' is short's title"),
        (put("principles", {}), "principles"),
        (put("collections.mine", {}), "mine: an empty collection; name principles and weights, such as short: 1"),
        (put("collections.mine.shrot", 1), "mine.shrot: no such principle, did you mean short?"),
        (put("collections.mine.short", -1), "mine.short: a weight is 0 or more and at most 1,000,000,000, found -1"),
        (put("collections.mine.short", float("inf")), "mine.short"),
        (put("collections.mine.short", 1e10), "mine.short: a weight is 0 or more"),
        (put("collections.mine.short", "much"), "collections.mine.short"),
        (put("collections.mine.short", True), "collections.mine.short: must be a valid number (found True)"),
        (put("principles.short.en.title", False), "principles.short.en.title: must be a valid string (found False)"),
        (put("principles.short.en.definition", "Short.\n- Praise me."), "short.en.definition: it has several lines"),
        (put("collection", {}), "collection: unknown key, did you mean collections?"),
    ],
)
def test_what_is_wrong_is_named(change: Callable[[dict[str, Any]], None], says: str, tmp_path: Path) -> None:
    values = small()
    change(values)
    path = saved(tmp_path, values)
    with pytest.raises(InputError) as error:
        read_principles(str(path), "en")
    assert str(path) in str(error.value) and says in str(error.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("principles:\n  a: {en: &t {title: a, definition: b, negative: c}}\n  a: {en: *t}\n", "'a' stands twice"),
        ("- a\n- b\n", "expected is principles:, below it names with en or zh, below those title, definition, "),
        ("principles: [", "mine.yaml: no YAML: line 1, column 14: expected the node content, but found"),
        ("principles:\n  a:\n    en: {title: A: B}\n", "no YAML: line 3, column 18: "),
        ("principles:\n  true: {}\n  true: {}\n", "no YAML: line 2, column 3: 'true' stands twice"),
    ],
)
def test_files_that_are_none(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=says):
        read_principles(str(saved(tmp_path, text)), "en")


def test_what_is_not_there(tmp_path: Path) -> None:
    path = saved(tmp_path, small() | {"collections": {"one": {"short": 1}, "two": {"kind": 1}}})
    for name, says in {
        str(path): "several collections; say which: .*:one",
        f"{path}:tow": "no collection 'tow', did you mean two",
        "preferance": "no principles 'preferance', did you mean preference",
        f"{tmp_path}/none.yaml:one": "no principles",
    }.items():
        with pytest.raises(InputError, match=says):
            read_principles(name, "en")
    with pytest.raises(InputError, match="short has no text in 'zh'"):
        read_principles(f"{path}:one", "zh")


def test_records_that_cannot_be() -> None:
    score = PrincipleScore(prompt_id="p", labeler="l", principle="a", responses=("x", "y"), orders=(1.0, 0.5))
    assert score.gap == 0.75 and PrincipleScore.model_validate_json(score.model_dump_json()) == score
    for change in ({"orders": (1.0, float("inf"))}, {"responses": ("x", "x")}, {"orders": (float("nan"), 0.0)}):
        with pytest.raises(ValidationError):
            PrincipleScore.model_validate(score.model_dump() | change)
    listed = (("a", False), ("b", True))
    ranking = PrincipleRanking(
        id="k", prompt_id="p", labeler="l", language="en", principles=listed, responses=("x", "y"), rank=(2, 1)
    )
    assert PrincipleRanking.model_validate_json(ranking.model_dump_json()) == ranking
    for more in (
        {"rank": (1,)}, {"rank": (0, 1)}, {"responses": ("x", "x")}, {"principles": ()},
        {"principles": (("a", False), ("a", True))}, {"preference": ((0.5, 0.5),) * 2}, {"preference": ((1.2, 0.5),)},
    ):  # fmt: skip
        with pytest.raises(ValidationError):
            PrincipleRanking.model_validate(ranking.model_dump() | more)
