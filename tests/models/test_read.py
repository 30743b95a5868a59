"""The last layer computed where it is read alone: the same values and gradients from fewer products."""

import copy
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedModel

from heedful.batch import Rows
from heedful.engine.engine import Engine, Request
from heedful.engine.score import score_continuations
from heedful.models import read as module
from heedful.models.heads import Policy, RewardModel, states_at, text_states_at
from heedful.models.load import set_residual_dropout
from heedful.models.lora import attach_lora
from heedful.models.read import Read, read_of, read_of_rows
from small_models import FAMILIES, VOCAB, WINDOW, small_model

TOKENS = torch.randint(3, VOCAB, (5, 30), generator=torch.Generator().manual_seed(0))
TOKENS[1, :9], TOKENS[4, :9] = TOKENS[0, :9], TOKENS[0, :9]
PROMPT = torch.tensor([9, 9, 4, 13, 9])
LENGTHS = {"padded": torch.tensor([30, 29, 30, 28, 30]), "packed": torch.tensor([30, 11, 23, 14, 9])}
ROW = torch.tensor([0, 0, 1, 2, 2, 3, 4, 0])  # in no order, one place named twice, and one that two rows share
POSITION = torch.tensor([29, 3, 8, 22, 1, 13, 8, 29])
LAYOUTS = ("padded", "packed", "shared")


def rows_of(layout: str) -> Rows:
    group = torch.tensor([0, 0, 1, 2, 0]) if layout == "shared" else None
    return Rows(TOKENS, PROMPT, LENGTHS["padded" if layout == "padded" else "packed"], group)


def read_states(trunk: PreTrainedModel, layout: str) -> torch.Tensor:
    return states_at(trunk, rows_of(layout), ROW, POSITION)


def whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on the last layer is computed for every token."""
    monkeypatch.setattr(module, "MOST", 0.0)


def gradients(model: torch.nn.Module, states: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    weight = torch.randn(states.shape, generator=torch.Generator().manual_seed(1))
    (states * weight).sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def passed(trunk: PreTrainedModel) -> list[int]:
    """From now on how many tokens the MLP of the trunk's last layer was given, call by call."""
    seen: list[int] = []
    last = (trunk.h if hasattr(trunk, "h") else trunk.layers)[-1]
    last.mlp.register_forward_hook(lambda _, args, out: seen.append(args[0].shape[:-1].numel()))
    return seen


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_states_and_gradients_are_those_of_every_token_computed(
    family: str, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trunk = small_model(family).get_decoder()
    seen = passed(trunk)
    found = read_states(trunk, layout)
    some = gradients(trunk, found)
    assert seen == [6 if layout == "shared" else 7]  # of ROW's eight one is named twice, and one is of two rows
    whole(monkeypatch)
    expected = read_states(trunk, layout)
    assert seen[1] > 60
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    every = gradients(trunk, expected)
    assert some.keys() == every.keys()
    for name, gradient in every.items():
        near = 3e-6 * float(gradient.abs().max())
        torch.testing.assert_close(some[name], gradient, atol=near, rtol=1e-5, msg=name)


@pytest.mark.parametrize("family", ["mistral", "gemma3_text"])
def test_what_is_read_lies_past_the_sliding_window(family: str) -> None:
    config = small_model(family).config.get_text_config()
    assert config.sliding_window == WINDOW < int(POSITION.max())
    assert getattr(config, "layer_types", ["sliding_attention"])[-1] == "sliding_attention"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_with_and_without_gradients_to_the_bit(layout: str) -> None:
    """What PPO's ratio of exactly 1 before the first update rests on."""
    trunk = small_model("llama").get_decoder()
    with torch.no_grad():
        before = read_states(trunk, layout)
    assert read_states(trunk, layout).detach().equal(before)


def test_the_order_and_number_in_which_places_are_named_change_no_bit() -> None:
    trunk = small_model("llama").get_decoder()
    one = read_states(trunk, "shared")
    order = torch.tensor([7, 3, 1, 6, 2, 0, 5, 4, 4])
    assert states_at(trunk, rows_of("shared"), ROW[order], POSITION[order]).equal(one[order])


def test_where_most_tokens_are_read_all_are_computed() -> None:
    policy = Policy(small_model("llama"))
    seen = passed(policy.decoder.get_decoder())
    length = torch.full((5,), 30)
    policy.language_loss(TOKENS, length)
    assert seen == [150]
    position = torch.arange(23).repeat(5)
    text_states_at(policy.decoder.get_decoder(), TOKENS, length, torch.arange(5).repeat_interleave(23), position)
    assert seen[1:] == [115]


def test_where_the_mask_outweighs_what_is_left_out_all_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    half = torch.arange(5).repeat_interleave(15), torch.arange(15, 30).repeat(5)
    read = read_of_rows(TOKENS, *half)
    assert read is not None and read.mask_size == 5 * 15 * 30
    monkeypatch.setattr("heedful.models.read.MOST_MASK", 29)
    assert read_of_rows(TOKENS, *half) is None  # 30 numbers of the mask for each of 75 tokens left out


def test_rows_of_one_token_are_computed_whole() -> None:
    """Beside hidden states (6, 1, H) a tensor (1, 1, 1, 1) does not say which of its dimensions is the tokens'."""
    assert read_of_rows(TOKENS[:, :1], torch.tensor([2]), torch.tensor([0])) is None


def test_a_model_is_pickled_and_copied_with_its_last_layer() -> None:
    model = small_model("llama")
    for again in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert type(again.model.layers[-1]) is type(model.model.layers[-1])
        seen = passed(again.get_decoder())
        assert states_at(again.get_decoder(), rows_of("padded"), ROW, POSITION).equal(
            states_at(model.get_decoder(), rows_of("padded"), ROW, POSITION)
        )
        assert seen and seen[0] < 150


def test_nothing_read_is_nothing_given() -> None:
    nobody = torch.zeros(0, dtype=torch.long)
    assert read_of_rows(TOKENS, nobody, nobody) is None
    assert states_at(small_model("llama").get_decoder(), rows_of("padded"), nobody, nobody).shape == (0, 32)


def kept(model: RewardModel, rows: Rows) -> int:
    """How many numbers a forward pass keeps for the backward pass."""
    number = 0

    def count(x: torch.Tensor) -> torch.Tensor:
        nonlocal number
        number += x.numel()
        return x

    with torch.autograd.graph.saved_tensors_hooks(count, lambda x: x):
        model(rows)
    return number


@pytest.mark.parametrize("layout", LAYOUTS)
def test_less_is_kept_for_the_backward_pass(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = RewardModel.from_decoder(small_model("llama"))
    some = kept(model, rows_of(layout))
    whole(monkeypatch)
    assert some < 0.9 * kept(model, rows_of(layout))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_in_bf16_and_with_adapters(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    trunk = small_model("llama").get_decoder()
    with torch.autocast("cpu", torch.bfloat16):
        found = read_states(trunk, layout)
    model = small_model("llama")
    attach_lora(model, rank=2)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(3)) / 9)
    adapted = read_states(model.get_decoder(), layout)
    some = gradients(model, adapted)
    whole(monkeypatch)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(found, read_states(trunk, layout), atol=0.08, rtol=0.05)
    expected = read_states(model.get_decoder(), layout)
    torch.testing.assert_close(adapted, expected, atol=1e-5, rtol=1e-5)
    every = gradients(model, expected)
    assert some.keys() == every.keys() and all("lora" in name for name in every)
    for name, gradient in every.items():
        torch.testing.assert_close(some[name], gradient, atol=3e-6 * float(gradient.abs().max()), rtol=1e-5, msg=name)


def test_dropout_drops_what_is_read() -> None:
    """In the last MLP: every entry of its output is away or, at p = 0.5, twice what it was."""
    trunk = small_model("llama").get_decoder()
    outputs: list[torch.Tensor] = []
    trunk.layers[-1].mlp.register_forward_hook(lambda _, args, out: outputs.append(out.detach()))
    read_states(trunk, "packed")
    set_residual_dropout_of_last(trunk, 0.5)
    trunk.layers[-1].mlp.register_forward_hook(lambda _, args, out: outputs.append(out.detach()))
    trunk.layers[-1].mlp.train()
    outputs.clear()
    read_states(trunk, "packed")
    before, after = outputs
    assert before.shape == (1, 7, 32)
    away = after == 0
    assert 0.3 < away.float().mean() < 0.7 and after[~away].equal(2 * before[~away])


def set_residual_dropout_of_last(trunk: PreTrainedModel, p: float) -> None:
    set_residual_dropout(trunk, 0.0)
    trunk.layers[-1].mlp.residual_dropout = p


def test_a_copy_reads_by_its_own_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    trunk = small_model("llama").get_decoder()
    before = read_states(trunk, "packed")
    other = copy.deepcopy(trunk)
    with torch.no_grad():
        for p in other.layers[-1].parameters():
            p.mul_(1.5)
    found = read_states(other, "packed")
    assert read_states(trunk, "packed").equal(before) and not found.allclose(before, atol=0.1)
    whole(monkeypatch)
    torch.testing.assert_close(found, read_states(other, "packed"), atol=1e-5, rtol=1e-5)


def test_the_engine_and_the_judge_read_one_token_of_each_prompt() -> None:
    model = small_model("llama")
    seen = passed(model.get_decoder())
    prompts = [[3, 4, 5, 6], [7, 8], [9] * 5]
    Engine(model, [0]).generate([Request(prompt, 2, 1, seed=1) for prompt in prompts])
    assert sum(seen) == 3
    Engine(model, [0]).generate([Request(prompts[0], 1, 1, seed=1, prompt_logprobs=0)])
    assert seen[-1] == 4
    seen.clear()
    score_continuations(model, [[5] * 20 + prompt for prompt in prompts], [[[4], [5]]] * 3)
    assert seen == [1, 3]  # the shared prefix, and a place of each prompt


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), min_size=1, max_size=12),
    st.permutations(range(20)),
)
def test_everything_goes_where_it_belongs(cells: list[tuple[int, int]], order: list[int]) -> None:
    """Rows (4, 5) that stand anywhere in a sequence of 20: tokens are divided, joined and asked by row."""
    place = torch.tensor(order).view(4, 5)
    row, position = torch.tensor(cells).unbind(1)
    read = Read(place, 20, row, position)
    wanted = sorted({order[5 * r + p] for r, p in cells})
    assert read.places.tolist() == wanted and read.num == len(wanted)
    sequence = torch.arange(20.0)
    others, mine = read.divided(sequence[None, :, None])
    assert mine.flatten().tolist() == wanted
    assert others.flatten().tolist() == [n for n in range(20) if n not in wanted]
    joined = read.whole(others[:, None], mine[:, None], torch.Size([2, 10]))
    assert joined[:, 0, :, 0].equal(sequence.view(2, 10))
    asked = read.queries(mine[:, None])  # (4, 1, Q, 1)
    mask = read.mask(None, asked, 5, 2)  # (4, 1, Q, 5): itself and the one before
    for r in range(4):
        columns = sorted({p for n, p in cells if n == r})
        assert asked[r, 0, : len(columns), 0].tolist() == [order[5 * r + p] for p in columns]
        for q, p in enumerate(columns):
            assert (mask[r, 0, q] == 0).nonzero().flatten().tolist() == [n for n in (p - 1, p) if n >= 0]
            given_mask = torch.arange(25.0).view(1, 1, 5, 5)
            assert read.mask(given_mask, asked, 5, None)[r, 0, q].equal(given_mask[0, 0, p])
    assert read.join(asked.transpose(1, 2)).flatten().tolist() == wanted


def test_gradients_of_dividing_and_joining_are_exact() -> None:
    place = torch.tensor([[0, 1, 4], [0, 1, 3]])  # two rows that share their first two tokens; nobody has the third
    read = read_of(place, 5, torch.tensor([1, 0, 1]), torch.tensor([1, 2, 1]))
    assert read is not None and read.places.tolist() == [1, 4]
    x = torch.randn(1, 5, 3, dtype=torch.float64, requires_grad=True)

    def round_trip(x: torch.Tensor) -> torch.Tensor:
        others, mine = read.divided(x)
        both = read.whole(others[:, None] * 2, mine[:, None] ** 2, torch.Size([1, 5]))
        asked = read.join(read.queries(mine[:, None] ** 3).transpose(1, 2))
        return torch.cat([both.flatten(), asked.flatten()])

    assert torch.autograd.gradcheck(round_trip, x)
