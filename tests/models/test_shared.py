"""Sharing a prompt changes nothing but the work: values, gradients and positions are those of rows standing alone."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from heedful.batch import Rows
from heedful.models.heads import Policy, RewardModel, ValueModel
from heedful.models.shared import SharedPrompts
from small_models import FAMILIES, VOCAB, small_model


def some_rows(groups: list[int], seed: int = 0, longest: int = 9) -> Rows:
    """Rows whose prompts are equal where their groups are; responses of 0 … longest tokens."""
    generator = torch.Generator().manual_seed(seed)

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=generator))

    prompts = {g: torch.randint(3, VOCAB, (draw(1, longest),), generator=generator) for g in sorted(set(groups))}
    texts = [torch.cat([prompts[g], torch.randint(3, VOCAB, (draw(0, longest),), generator=generator)]) for g in groups]
    tokens = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True)
    prompt_length = torch.tensor([len(prompts[g]) for g in groups])
    return Rows(tokens, prompt_length, torch.tensor([len(text) for text in texts]), torch.tensor(groups))


GROUPS = [4, 1, 1, 4, 7, 1, 1]  # neither sorted nor neighbours


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("head", ["policy", "reward", "value"])
def test_values_and_gradients_are_those_of_rows_alone(family: str, head: str) -> None:
    rows = some_rows(GROUPS)
    alone = rows._replace(group=None)
    decoder = small_model(family)
    model = {"policy": Policy, "reward": RewardModel.from_decoder, "value": ValueModel.from_decoder}[head](decoder)

    def values(rows: Rows) -> torch.Tensor:
        return model.logprob(rows, 0.7) if head == "policy" else model(rows)

    found, expected = values(rows), values(alone)
    weight = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    (found * weight).sum().backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    (expected * weight).sum().backward()
    assert gradients
    for name, p in model.named_parameters():
        if p.grad is not None:
            near = 2e-6 * float(p.grad.abs().max())  # what fp32 sums in another order may differ by
            torch.testing.assert_close(gradients[name], p.grad, atol=near, rtol=1e-5, msg=name)


@pytest.mark.parametrize("family", ["mistral", "gemma3_text"])
def test_past_a_sliding_window_too(family: str) -> None:
    rows = some_rows([0, 0, 1], longest=40)
    policy = Policy(small_model(family))
    assert policy.decoder.config.get_text_config().sliding_window < int(rows.length.max())
    torch.testing.assert_close(policy.logprob(rows), policy.logprob(rows._replace(group=None)), atol=1e-5, rtol=1e-5)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=9), st.integers(0, 99))
def test_every_token_has_its_place_and_a_prompt_stands_once(groups: list[int], seed: int) -> None:
    rows = some_rows(groups, seed)
    shared = SharedPrompts(rows)
    for row, length in enumerate(rows.length.tolist()):
        place = shared.index(torch.full((length,), row), torch.arange(length))
        assert shared.tokens.flatten()[place].equal(rows.tokens[row, :length])
        assert shared.position.flatten()[place].equal(torch.arange(length))
    real = sum({g: int(n) for g, n in zip(groups, rows.prompt_length, strict=True)}.values())
    places = {int(p) for row in range(len(groups)) for p in shared._place[row, : rows.length[row]]}
    assert len(places) == real + int(rows.response_length.sum()) == shared.tokens.numel()  # and no padding


def test_rows_stand_behind_their_prompt_and_come_back() -> None:
    rows = Rows(torch.tensor([[5, 6, 7], [5, 6, 8]]), torch.tensor([2, 2]), torch.tensor([3, 3]), torch.tensor([0, 0]))
    shared = SharedPrompts(rows)
    assert shared.tokens.tolist() == [[5, 6, 7, 8]]
    assert shared.position.tolist() == [[0, 1, 2, 2]]
    x = shared.tokens[:, None, :, None].float()
    (prompt, _, _, causal), (query, key, value, mask) = shared.parts(0, x, x, x, None)
    assert prompt[:, 0, :, 0].tolist() == [[5, 6]] and causal is None
    assert query[:, 0, :, 0].tolist() == [[7], [8]] and key is not value
    assert key[:, 0, :, 0].equal(rows.tokens.float()) and value.equal(key)
    assert shared.join([prompt.transpose(1, 2), query.transpose(1, 2)])[:, :, 0, 0].equal(shared.tokens.float())
    assert mask is not None and mask.tolist() == [[[[0.0, 0.0, 0.0]]]] * 2
    past = shared.parts(0, x, x, x, 2)[1][3]
    assert past is not None and past.tolist() == [[[[-math.inf, 0.0, 0.0]]]] * 2
