"""Continuations scored behind one shared prefix, against a forward pass for each alone."""

from collections.abc import Iterator
from itertools import combinations, pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel

from heedful.config import InputError
from heedful.engine import prefixes, score
from heedful.engine.prefixes import groups, shared_length
from heedful.engine.score import score_and_compare, score_continuations
from small_models import FAMILIES, VOCAB, WINDOW, small_model


def some(length: int, seed: int) -> list[int]:
    return torch.randint(3, VOCAB, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def plain(model: PreTrainedModel, prompt: list[int], continuation: list[int]) -> float:
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompt + continuation]), use_cache=False).logits[0]
    before = logits[len(prompt) - 1 : -1].log_softmax(-1)
    return before.gather(1, torch.tensor(continuation)[:, None]).sum().item()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("shared", [0, 3, 2 * WINDOW + 3])
def test_scores_equal_a_pass_for_each(family: str, shared: int) -> None:
    """Prefixes from none to past the sliding window; continuations of one token and of several."""
    model = small_model(family)
    prefix = some(shared, 9)
    prompts = [[*prefix, 3 + i, *some(length, i)] for i, length in enumerate((5, 0, WINDOW + 4, 2))]
    asked = [[[5], [6]], [[5, 7, 8], [6], some(WINDOW + 3, 5)], [some(2, 3)], []]
    found = score_continuations(model, prompts, asked)
    assert [len(scores) for scores in found] == [2, 3, 1, 0]
    for prompt, continuations, scores in zip(prompts, asked, found, strict=True):
        for continuation, mine in zip(continuations, scores, strict=True):
            assert mine == pytest.approx(plain(model, prompt, continuation), abs=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("shared", [0, WINDOW + 3])
def test_what_groups_share_counts_as_if_each_stood_alone(
    family: str, shared: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two groups whose own prefixes differ in length, past the sliding window, and a prompt of neither."""
    monkeypatch.setattr(prefixes, "LEAST", 2)
    model = small_model(family)
    every = some(shared, 9)
    own = [[*every, 3 + i, *some(length, i)] for i, length in enumerate((5, WINDOW + 4))]
    prompts = [[*own[i % 2], 20 + i, *some(i, 30 + i)] for i in range(6)] + [[*every, 9, 8]]
    assert [len(group.members) for group in groups(prompts, shared_length(prompts))] == [3, 3, 1]
    asked = [[[5], [6]], [[5, 7, 8], some(WINDOW + 3, 5)]] * 3 + [[[5, 6]]]
    found = score_continuations(model, prompts, asked)
    for prompt, continuations, scores in zip(prompts, asked, found, strict=True):
        assert scores == pytest.approx([plain(model, prompt, one) for one in continuations], abs=1e-4)


MODEL = small_model("gemma3_text").double()


@settings(deadline=None, max_examples=25)
@given(
    shared=st.integers(0, 20),
    asked=st.lists(st.tuples(st.integers(1, 12), st.lists(st.integers(1, 9), max_size=4)), min_size=1, max_size=6),
    alike=st.lists(st.integers(0, 3), min_size=6, max_size=6),
    least=st.integers(1, 12),
    max_tokens=st.integers(1, 60),
    max_logits=st.integers(1, 10 * VOCAB),
)
def test_any_mix_is_scored_rightly(
    shared: int,
    asked: list[tuple[int, list[int]]],
    alike: list[int],
    least: int,
    max_tokens: int,
    max_logits: int,
) -> None:
    """Prompts with the same number in `alike` begin alike behind what all share."""
    own = [some(4 * n, 50 + n) for n in alike]
    prompts = [some(shared, 1) + own[i] + some(length, i) for i, (length, _) in enumerate(asked)]
    continuations = [[some(n, 100 + n) for n in lengths] for _, lengths in asked]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prefixes, "LEAST", least)
        patch.setitem(score.MAX_TOKENS, "cpu", max_tokens)
        patch.setattr(score, "MAX_LOGITS", max_logits)
        found = score_continuations(MODEL, prompts, continuations)
    for prompt, some_asked, scores in zip(prompts, continuations, found, strict=True):
        assert scores == pytest.approx([plain(MODEL, prompt, one) for one in some_asked], abs=1e-5)


def test_greedy_continuations_are_those_of_likeliest_tokens() -> None:
    prompts = [some(6, 1), some(9, 2)]
    asked = []
    for prompt in prompts:
        greedy: list[int] = []
        for _ in range(3):
            with torch.no_grad():
                logits = MODEL(input_ids=torch.tensor([prompt + greedy]), use_cache=False).logits[0, -1]
            greedy.append(int(logits.argmax()))
        asked.append(
            [greedy, [*greedy[:2], (greedy[2] + 1) % VOCAB], [(greedy[0] + 1) % VOCAB, *greedy[1:]], greedy[:1]]
        )
    found = score_and_compare(MODEL, prompts, asked)
    assert [[one.greedy for one in row] for row in found] == [[True, False, False, True]] * 2
    alone = score_continuations(MODEL, prompts, asked)
    assert [[one.logprob for one in row] for row in found] == alone


def test_all_continuations_of_one_token_share_out_probability_one() -> None:
    [scores] = score_continuations(MODEL, [some(8, 0)], [[[token] for token in range(VOCAB)]])
    assert torch.tensor(scores).exp().sum().item() == pytest.approx(1.0)


def test_the_shared_prefix_is_computed_once_and_single_tokens_cost_nothing() -> None:
    seen: list[int] = []
    handle = MODEL.get_decoder().register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    prefix = some(30, 2)
    score_continuations(MODEL, [prefix + [3 + i] * 4 for i in range(10)], [[[4], [5]]] * 10)
    handle.remove()
    assert seen == [30, 40]


def test_a_pair_is_computed_once_for_all_that_is_asked_of_it() -> None:
    """Three pairs of 24 tokens behind a preamble of 10, four questions of 5 tokens on each."""
    seen: list[int] = []
    handle = MODEL.get_decoder().register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    pairs = [some(10, 1) + [3 + n] * 24 for n in range(3)]
    score_continuations(MODEL, [pair + [30 + q] * 5 for q in range(4) for pair in pairs], [[[4], [5]]] * 12)
    handle.remove()
    assert sum(seen) == 10 + 3 * 24 + 12 * 5 and seen[0] == 10


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.lists(st.integers(0, 1), min_size=2, max_size=9), min_size=1, max_size=5),
    st.integers(1, 3),
)
def test_groups_save_as_much_as_any_cut_of_the_sorted_prompts(prompts: list[list[int]], least: int) -> None:
    """Against every way to cut them into runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prefixes, "LEAST", least)
        shared = shared_length(prompts)
        found = groups(prompts, shared)
    assert sorted(n for group in found for n in group.members) == list(range(len(prompts)))
    for group in found:
        own = shared_length([prompts[n] for n in group.members]) if len(group.members) > 1 else shared
        assert group.length == own and (len(group.members) == 1 or own - shared >= least)
    saved = [(len(group.members) - 1) * (group.length - shared) for group in found]
    order = sorted(range(len(prompts)), key=prompts.__getitem__)
    assert sum(saved) == max(saving(parts, prompts, shared, least) for parts in cuts(order))


def saving(parts: list[list[int]], prompts: list[list[int]], shared: int, least: int) -> int:
    own = [(len(part) - 1, shared_length([prompts[n] for n in part]) - shared) for part in parts]
    return sum(more * length for more, length in own if length >= least)


def cuts(items: list[int]) -> Iterator[list[list[int]]]:
    for number in range(len(items)):
        for places in combinations(range(1, len(items)), number):
            yield [items[i:j] for i, j in pairwise((0, *places, len(items)))]


def test_the_shared_length_leaves_each_prompt_a_token() -> None:
    assert shared_length([[1, 2, 3], [1, 2, 4, 5]]) == 2
    assert shared_length([[1, 2], [1, 2, 4, 5]]) == 1
    assert shared_length([[1, 2, 3]] * 3) == 2
    assert shared_length([[1], [2]]) == 0
    assert score_continuations(MODEL, [], []) == []


def test_the_model_stays_as_it_was() -> None:
    model = small_model("llama").train()
    score_continuations(model, [[3, 4]], [[[5]]])
    assert model.training


@pytest.mark.parametrize(
    ("prompt", "continuations", "says"),
    [
        ([], [[1]], "prompt 1 or a continuation of it is empty"),
        ([1], [[1], []], "prompt 1 or a continuation of it is empty"),
        ([1], [[VOCAB]], "prompt 1: a token outside"),
        ([1] * 60, [[1] * 5], "prompt 1: 65 tokens with its longest continuation exceed the model's context of 64"),
    ],
)
def test_impossible_prompts_are_named(prompt: list[int], continuations: list[list[int]], says: str) -> None:
    with pytest.raises(InputError, match=says):
        score_continuations(MODEL, [[1], prompt], [[[1]], continuations])
