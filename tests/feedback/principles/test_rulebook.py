"""Rules of an assistant with examples: what is shipped, what is written of them, what is refused."""

from pathlib import Path

import pytest
import yaml

from heedful.config import InputError
from heedful.feedback.principles.rulebook import FOLDER, read_rules, shipped_rules, written
from heedful.text.format import PromptFormat


def test_both_languages_have_the_same_rules_and_as_many_examples() -> None:
    assert shipped_rules() == ["self_align.en", "self_align.zh"]
    english, chinese = (read_rules(name) for name in shipped_rules())
    assert list(english.rules) == list(chinese.rules) and len(english.rules) == 17
    assert [example.rules for example in english.examples] == [example.rules for example in chinese.examples]
    assert len(english.examples) == 6 and all(example.rules for example in english.examples)
    for book in (english, chinese):
        texts = [part for rule in book.rules.values() for part in (rule.title, rule.text)]
        assert len(set(texts)) == len(texts)


def test_the_prefix_is_preamble_rules_and_examples_as_worked_pairs_are_written() -> None:
    book, format = read_rules("self_align.en"), PromptFormat(example="Q: {prompt}\nA: {response}\n---\n")
    text = written(book, format, shots=2)
    head, _, pairs = text.partition("\n\n")
    assert head.startswith(book.preamble + "1. Ethical: It takes no part in") and head.count("\n") == 17
    first, second = book.examples[:2]
    assert pairs == f"Q: {first.prompt}\nA: {first.response}\n---\nQ: {second.prompt}\nA: {second.response}\n---\n"
    assert written(book, format, shots=0).endswith("unless told otherwise.\n\n")
    with pytest.raises(InputError, match="the rules have 6 examples"):
        written(book, format, shots=7)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"rule": "{title}\n"}, "rule: it holds {text}"),
        ({"rule": "{text} {weight}\n"}, "rule: it holds {text}"),
        ({"rule": "{text"}, "rule: it holds {text}"),
        ({"rules": {}}, "rules"),
        ({"examples": [{"prompt": "p", "response": "r", "rules": ["candour"]}]}, "example 1: no rule 'candour'"),
        ({"thoughts": True}, "thoughts"),
    ],
)
def test_a_file_of_one_s_own_is_checked(changes: dict[str, object], told: str, tmp_path: Path) -> None:
    raw = yaml.safe_load((FOLDER / "self_align.en.yaml").read_text(encoding="utf-8"))
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(raw, allow_unicode=True), encoding="utf-8")
    assert read_rules(str(path)) == read_rules("self_align.en")
    path.write_text(yaml.safe_dump(raw | changes, allow_unicode=True), encoding="utf-8")
    with pytest.raises(InputError, match=told):
        read_rules(str(path))
    with pytest.raises(InputError, match=r"did you mean|name a YAML file or one of self_align\.en"):
        read_rules("self_align.fr")
