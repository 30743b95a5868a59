"""Leaving padding out changes nothing but the work: values and gradients are those of every row standing alone."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from heedful.batch import Rows
from heedful.models.heads import Policy, RewardModel, ValueModel
from heedful.models.packed import Packed, pays
from small_models import FAMILIES, VOCAB, small_model

LENGTH = torch.tensor([17, 3, 40, 1, 29])
PROMPT = torch.tensor([5, 2, 11, 1, 28])
ROWS = Rows(torch.randint(3, VOCAB, (5, 40), generator=torch.Generator().manual_seed(0)), PROMPT, LENGTH)


def gradients(model: torch.nn.Module, value: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    value.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("head", ["policy", "reward", "value", "language"])
def test_values_and_gradients_are_those_of_rows_alone(family: str, head: str) -> None:
    decoder = small_model(family)
    model = {"reward": RewardModel.from_decoder, "value": ValueModel.from_decoder}.get(head, Policy)(decoder)
    assert pays(ROWS.length, ROWS.tokens.shape[1])

    def weighted(index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        rows = ROWS.select(index)
        if head == "language":
            found = model.language_loss(rows.tokens, rows.length)[0]
        else:
            found = model.logprob(rows, 0.7) if head == "policy" else model(rows)
        place = torch.arange(found[0].numel()) + 1.0
        weight = place.sin() * (index[:, None] + 1) if found.dim() == 2 else (index + 1.0)
        return found, (found * weight).sum()

    everything = torch.arange(5)
    found, total = weighted(everything)
    together = gradients(model, total)
    alone = [weighted(everything[i : i + 1]) for i in range(5)]
    for i, (one, _) in enumerate(alone):
        width = one.shape[-1] if one.dim() == 2 else None
        torch.testing.assert_close(
            found[i : i + 1, :width] if width is not None else found[i : i + 1], one, atol=1e-5, rtol=1e-5
        )
    expected = gradients(model, torch.stack([value for _, value in alone]).sum())
    assert expected
    for name, gradient in expected.items():
        near = 3e-6 * float(gradient.abs().max())
        torch.testing.assert_close(together[name], gradient, atol=near, rtol=1e-5, msg=name)


@pytest.mark.parametrize("family", ["mistral", "gemma3_text"])
def test_the_rows_reach_past_the_sliding_window(family: str) -> None:
    assert small_model(family).config.get_text_config().sliding_window < int(LENGTH.max())


def test_no_padding_goes_through_the_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    policy, seen = Policy(small_model("llama")), []
    trunk = policy.decoder.get_decoder()
    trunk.layers[0].register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[:2].numel()))
    policy.logprob(ROWS)
    assert seen == [int(LENGTH.sum())]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=7))
def test_rows_go_in_and_come_out_where_they_were(lengths: list[int]) -> None:
    length, width = torch.tensor(lengths), max(lengths)
    packed = Packed(length, width)
    rows = torch.arange(len(lengths) * width).view(len(lengths), width)
    flat = packed.take(rows)
    assert flat.tolist() == [n for row, number in zip(rows.tolist(), lengths, strict=True) for n in row[:number]]
    assert packed.position.tolist() == [n for number in lengths for n in range(number)]
    for row, number in enumerate(lengths):
        place = packed.index(torch.full((number,), row), torch.arange(number))
        assert flat[place].equal(rows[row, :number])
    x = flat.view(1, 1, -1, 1).double()
    [(found, *_, mask)] = packed.parts(0, x, x, x, None)
    spread = found[:, 0, :, 0]
    assert mask is None
    for row, number in enumerate(lengths):
        assert spread[row, :number].equal(rows[row, :number].double())
    assert packed.join([rows.double()[:, :, None, None]]).flatten().equal(flat.double())


def test_gradients_of_spreading_and_joining_are_exact() -> None:
    packed = Packed(torch.tensor([2, 4, 1]), 4)
    x = torch.randn(1, 2, 7, 3, dtype=torch.float64, requires_grad=True)

    def round_trip(x: torch.Tensor) -> torch.Tensor:
        [(found, *_)] = packed.parts(0, x, x, x, None)
        return packed.join([found.transpose(1, 2) ** 2])

    assert torch.autograd.gradcheck(round_trip, x)
