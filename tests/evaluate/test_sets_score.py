"""Choosing and answering, against plain forward passes; what does not fit is counted."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from heedful.evaluate.sets import choose
from heedful.evaluate.sets.answer import Wish, answers, prompts
from heedful.evaluate.sets.catalogue import SETS, Options, evaluate_set, read_set
from heedful.evaluate.sets.choose import accuracy_of_labels, chances, encoded, is_right
from heedful.evaluate.sets.item import Item, Model, Tools, drawn, misfit, with_examples
from heedful.evaluate.sets.language import language_loss
from set_files import random_model, write_sets


def quiet(done: int) -> None:
    pass


@pytest.fixture(scope="module")
def model() -> Model:
    return random_model("qwen3")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sets(tmp_path_factory.mktemp("sets"))


def plain(model: Model, prompt: str, choice: str) -> float:
    """log π(choice | prompt) by one forward pass over the whole text."""
    before, whole = (model.begin + model.encode([text])[0] for text in (prompt, prompt + choice))
    before = before or [1]
    whole = whole if model.begin or prompt else [1, *whole]
    with torch.no_grad():
        logits = model.decoder(input_ids=torch.tensor([whole]), use_cache=False).logits[0]
    logprob = logits.log_softmax(-1)[:-1].gather(1, torch.tensor(whole)[1:, None])[:, 0]
    return float(logprob[len(before) - 1 :].sum())


@pytest.mark.parametrize("begins", [True, False])
def test_chances_are_those_of_a_plain_pass(begins: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "AT_ONCE", 2)
    model = random_model("gpt2", begins=begins)
    items = [
        Item("a", "The boat is", (" red.", " on the sea", "let")),
        Item("b", "", ("Old people forget.", "Young people forget.")),
        Item("c", "Q: Who?\nA:", (" Ada", " Bo")),
    ]
    kept, scores, missing = chances(model, items, encoded(model, items), quiet)
    assert kept == items and not missing
    for item, chance in zip(items, scores, strict=True):
        assert chance.total == pytest.approx([plain(model, item.prompt, choice) for choice in item.choices], abs=1e-3)
        joined = [len(model.encode([item.prompt + choice])[0]) for choice in item.choices]
        assert chance.tokens + len(model.encode([item.prompt])[0]) == pytest.approx(joined)


def test_a_choice_that_merges_with_the_prompt_keeps_its_probability() -> None:
    """Where tokens join across the border, both choices are told from the last token they share."""
    model = random_model("gpt2")
    item = Item("a", "The bo", ("at sinks", "lt"))
    [row] = encoded(model, [item])
    texts = [model.tokenizer.decode(row.prompt[1:] + choice) for choice in row.choices]
    assert texts == ["The boat sinks", "The bolt"]
    assert row.prompt[1:] + row.choices[0] == model.encode(["The boat sinks"])[0]


def test_what_cannot_be_scored_is_counted(model: Model) -> None:
    long = "the boat " * 600
    items = [Item("a", long, (" x", " y")), Item("b", "Is it", ("", " y")), Item("c", "Is it", (" x", " y"))]
    told: list[int] = []
    kept, scores, missing = chances(model, items, encoded(model, items), told.append)
    assert [item.id for item in kept] == ["c"] and len(scores) == 1 and sum(told) == 3
    assert missing == Counter(too_long=1, choice_without_token=1)


def test_ties_share_what_is_right() -> None:
    item = Item("a", "", ("x", "y", "z"), right=(1,))
    assert is_right(item, np.array([0.0, 1.0, 0.5])) == 1 and is_right(item, np.array([2.0, 1.0, 0.5])) == 0
    assert is_right(item, np.array([1.0, 1.0, 0.5])) == 0.5 and is_right(item, np.zeros(3)) == pytest.approx(1 / 3)


def test_accuracy_by_the_mean_and_not_the_sum(model: Model) -> None:
    chance = choose.Chances(np.array([-4.0, -3.0]), np.array([4.0, 1.0]))
    items = [Item("a", "", (" no", " yes"), (0,)), Item("b", "", (" no", " yes"), (0,))]
    found = accuracy_of_labels(items, [chance, chance], Tools(model)).metrics
    assert found["accuracy"].mean == 1.0 and found["majority"].mean == 1.0


def test_answers_are_greedy_and_end_at_the_line_break(model: Model) -> None:
    items = [Item("a", "Ada had a"), Item("b", "the boat " * 600), Item("c", "Q: What is\nA:")]
    kept, texts, _, missing = answers(model, items, prompts(model, items), Wish(12), 0, quiet)
    assert [item.id for item in kept] == ["a", "c"] and missing == {"too_long": 1}
    for item, [text] in zip(kept, texts, strict=True):
        ids = model.begin + model.encode([item.prompt])[0]
        start = len(ids)
        while len(ids) - start < 12 and ids[-1] != 1:
            with torch.no_grad():
                ids.append(int(model.decoder(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
        whole = model.tokenizer.decode([id for id in ids[start:] if id != 1])
        assert text == whole.split("\n")[0].strip()


def test_samples_depend_on_the_seed_alone(model: Model) -> None:
    items = [Item(str(n), "The people are") for n in range(3)]
    wish = Wish(6, samples=4, temperature=1.0, top_p=0.9, one_line=False)
    one, other, third = (answers(model, items, prompts(model, items), wish, seed, quiet) for seed in (0, 0, 9))
    assert one == other != third and [len(group) for group in one.texts] == [4, 4, 4]
    for texts, tokens in zip(one.texts, one.tokens, strict=True):
        assert texts == model.tokenizer.batch_decode(tokens)


CLUSTERS = st.lists(st.sampled_from("abcd"), min_size=1, max_size=12)


@settings(deadline=None)
@given(CLUSTERS, st.integers(0, 4), st.integers(0, 3))
def test_an_item_is_never_its_own_example(clusters: list[str], shots: int, seed: int) -> None:
    items = [Item(str(n), f"<{n}:{c}>", references=("x",), cluster=c) for n, c in enumerate(clusters)]
    asked, fewer = with_examples(items, items, shots, seed)
    assert fewer == sum(sum(c != item.cluster for c in clusters) < shots for item in items)
    for item, whole in zip(items, asked, strict=True):
        before = whole.prompt.removesuffix(item.prompt)
        assert before.count("\n\n") == min(shots, sum(c != item.cluster for c in clusters))
        assert f":{item.cluster}>" not in before and whole.references == item.references


def test_examples_are_mostly_the_same() -> None:
    items = [Item(str(n), f"<{n}>", references=("x",)) for n in range(50)]
    prefixes = Counter(item.prompt.rsplit("\n\n", 1)[0] for item in with_examples(items, items, 3, 0)[0])
    assert prefixes.most_common(1)[0][1] == 47


def test_items_are_drawn_once_and_in_order() -> None:
    items = [Item(str(n), "") for n in range(20)]
    some = drawn(items, 5, 1)
    assert len(some) == 5 and some == [item for item in items if item in some] and drawn(items, 5, 1) == some
    assert drawn(items, None, 0) == items == drawn(items, 20, 0)


def test_a_set_with_less_than_half_fitting_is_unscored(data: Path) -> None:
    assert misfit(5, 10, 8) == "" and misfit(4, 10, 8) and misfit(0, 0, 8) == "the set has no items"
    small = random_model("gpt2", context=12)
    for name in ("boolq", "squad"):
        part = read_set(name, Options(data))
        found = evaluate_set(name, part, Tools(small), Options(data), quiet)
        assert found["num_scored"] == 0 and found["num_items"] == len(part.items)
        assert set(found["metrics"]) == set(SETS[name].metrics)
        assert sum(found["unscored"].values()) == found["num_items"] and found["unscored"]["too_long"] > 0
        for estimate in found["metrics"].values():
            assert estimate["mean"] is None and "fit the context of 12 tokens" in estimate["reason"]


def test_language_loss_is_the_plain_mean(data: Path) -> None:
    model = random_model("gpt2", context=32)
    documents = ["Ada had a boat. " * 5, "Bo had a cat."]
    measured, rows = language_loss(model, documents, None)
    ids = [id for text in documents for id in (*model.begin, *model.encode([text])[0], 1)]
    total, count = 0.0, 0
    for start in range(0, len(ids), 32):
        row = torch.tensor([ids[start : start + 32]])
        if row.shape[1] > 1:
            with torch.no_grad():
                logits = model.decoder(input_ids=row, use_cache=False).logits[0, :-1]
            total += float(torch.nn.functional.cross_entropy(logits, row[0, 1:], reduction="sum"))
            count += row.shape[1] - 1
    loss, bits = measured.metrics["loss"], measured.metrics["bits_per_byte"]
    assert loss.mean == pytest.approx(total / count, rel=1e-5) and loss.num == count and loss.num_clusters == rows
    assert measured.metrics["perplexity"].mean == pytest.approx(np.exp(total / count), rel=1e-4)
    size = sum(len(text.encode()) for text in documents)
    assert bits.mean == pytest.approx(total / count * len(ids) / size / np.log(2), rel=1e-5)
    assert language_loss(model, documents, 1)[1] == 1
