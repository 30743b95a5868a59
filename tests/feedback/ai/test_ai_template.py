"""Templates: every shipped one can be asked with, and what is wrong with one is said before it is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from heedful.config import InputError
from heedful.feedback.ai.template import FOLDER, read_template, shipped, trimmed, write, write_score
from heedful.types import Prompt

TASKS = ("summary", "helpful", "harmless", "instruct")
NASTY = "a {brace} {0} and {{two}}, %s, 100 %\n\nResponse 1 - me"
PROMPT = Prompt(id="p", text=NASTY, user="u", examples=(("earlier {question}", "earlier answer"),))


def test_every_task_comes_base_and_detailed_in_two_languages() -> None:
    written = [f"{task}.{how}.{lang}" for task in TASKS for how in ("base", "detailed") for lang in ("en", "zh")]
    assert shipped() == sorted([*written, "world"])


@pytest.mark.parametrize("name", sorted({*shipped()} - {"world"}))
@pytest.mark.parametrize("think", [False, True], ids=["plain", "thinking"])
@pytest.mark.parametrize("shots", [0, 1, 2])
def test_a_shipped_template_asks(name: str, think: bool, shots: int) -> None:
    template = read_template(name, shots, think)
    assert f"{template.task}.{name.split('.')[1]}.{template.language}" == name
    assert template.asks_for == ("worse" if template.task == "harmless" else "better")
    assert sorted(exemplar.label for exemplar in read_template(name, 2).exemplars) == ["1", "2"]
    asked = write(template, PROMPT, "first {one}", "second {two}")
    places = [asked.index(text) for text in (template.preamble, "earlier {question}", "earlier answer", NASTY)]
    places += [asked.index(text) for text in ("first {one}", "second {two}")]
    assert places == sorted(places) and places[0] == 0
    assert asked.count(template.example) == shots and (template.follow in asked) == (shots > 0)
    assert asked.endswith(str(template.rationale_ending) if think else template.ending)
    for exemplar in template.exemplars:
        label = f"{template.ending}{exemplar.label}\n"
        assert (f"{exemplar.rationale}\n{label}" in asked) == think and label in asked
    if think:
        assert write(template, PROMPT, "a", "b", " why").endswith(f"{template.rationale_ending} why\n{template.ending}")
    scored = write_score(template, PROMPT, "the {only} one")
    assert NASTY in scored and "the {only} one" in scored and scored.endswith("=") and "earlier answer" in scored


def test_orders_differ_in_nothing_but_the_order() -> None:
    template = read_template("summary.detailed.en", 1)
    asked = write(template, PROMPT, "AAA", "BBB")
    assert write(template, PROMPT, "BBB", "AAA") == asked.replace("AAA", "~").replace("BBB", "AAA").replace("~", "BBB")


def test_a_rationale_ends_where_the_model_answers_itself() -> None:
    template = read_template("helpful.base.en", think=True)
    assert trimmed(template, " It is.\n\nPreferred Response=1\n\n>>>> Example") == " It is."
    assert trimmed(template, " It is.\n>>>> Example >>>>\nUser: x") == " It is."
    assert trimmed(template, " It is. ") == " It is."


def raw(name: str = "helpful.base.en") -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    return found


def saved(values: object, folder: Path) -> str:
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(values, allow_unicode=True), encoding="utf-8")
    return str(path)


def test_a_persons_own_file_may_stand_for_a_name(tmp_path: Path) -> None:
    mine = raw("instruct.base.zh") | {"labels": ["甲", "乙"], "exemplars": [], "task": "mine"}
    template = read_template(saved(mine, tmp_path))
    assert template.labels == ("甲", "乙") and write(template, PROMPT, "一", "二").endswith(template.ending)


def put(path: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(values: dict[str, Any]) -> None:
        *blocks, last = path.split(".")
        at: Any = values
        for block in blocks:
            at = at[int(block) if block.isdigit() else block]
        at[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("labels", ["1", "1"]), "labels: '1' and '1' must differ"),
        (put("labels", ["1", "10"]), "neither begin the other"),
        (put("labels", ["", "2"]), "labels: '' and '2' must differ"),
        (
            put("sample", "{history}{prompt} {first}"),
            "sample: it holds each of {first}, {history}, {prompt}, {second} once",
        ),
        (put("sample", "{history}{prompt}{first}{second}{first}"), "sample: it holds each"),
        (put("sample", "{history}{prompt}{first}{second}{third}"), "sample: it holds each"),
        (put("sample", "{history}{prompt}{first}{second} {"), "sample: .* twice"),
        (put("sample", "{history}{prompt}{first:d}{second}"), "sample: it holds each"),
        (put("sample", "{history}{prompt}{first!r}{second}"), "sample: it holds each"),
        (put("labels", ["1", " 2"]), "labels: ' 2' has a blank at its edge"),
        (put("turn", "{prompt}"), "turn: it holds each of {prompt}, {response} once"),
        (put("score.sample", "{history}{prompt}"), "score.sample: it holds each"),
        (put("ending", " "), "ending is empty"),
        (put("ending", "Better: "), "ending ends in a blank"),
        (put("rationale_ending", "Why?\n"), "rationale_ending ends in a blank"),
        (put("score.ending", ""), "score.ending is empty"),
        (put("exemplars.1.label", "3"), "exemplar 2: its label '3' is none of 1, 2"),
        (put("exemplars.0.first", " "), "exemplar 1: prompt, first or second is empty"),
        (put("exemplars.1.rationale", ""), "exemplar 2 has no rationale"),
        (put("rationale_ending", None), "no rationale_ending"),
        (put("asks_for", "best"), "asks_for: must be 'better' or 'worse'"),
        (put("preambel", "x"), "preambel: unknown key, did you mean preamble"),
        (put("exemplars.0.lable", "x"), "unknown key, did you mean label"),
    ],
)
def test_what_is_wrong_is_named(change: Callable[[dict[str, Any]], None], message: str, tmp_path: Path) -> None:
    values = raw()
    change(values)
    with pytest.raises(InputError, match=message) as raised:
        read_template(saved(values, tmp_path), shots=2, think=True)
    assert "\n" not in str(raised.value)


def test_files_that_are_no_template(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"did you mean harmless\.base\.en"):
        read_template("harmles.base.en")
    with pytest.raises(InputError, match="3 exemplars asked for, and it has 2"):
        read_template("helpful.base.en", shots=3)
    with pytest.raises(InputError, match="a template is a mapping"):
        read_template(saved([1], tmp_path))
    (tmp_path / "mine.yaml").write_text("a: [", encoding="utf-8")
    with pytest.raises(InputError, match="no YAML"):
        read_template(str(tmp_path / "mine.yaml"))
    values = raw()
    del values["score"]
    template = read_template(saved(values, tmp_path))
    with pytest.raises(InputError, match="no score block"):
        write_score(template, PROMPT, "a")
