"""Recomputed activations change the memory that is kept, and nothing else."""

import copy

import pytest
import torch

from heedful.batch import Rows
from heedful.config import InputError
from heedful.engine.engine import Engine, Request
from heedful.models.heads import Policy, ValueModel
from heedful.models.load import set_residual_dropout
from heedful.models.recompute import checkpoint_activations
from small_models import FAMILIES, VOCAB, small_model

ROWS = Rows(
    torch.randint(3, VOCAB, (4, 24), generator=torch.Generator().manual_seed(0)),
    torch.tensor([14, 14, 16, 9]),  # so that less than four of five tokens are read, and the last layer is divided
    torch.tensor([24, 20, 24, 17]),
    torch.tensor([0, 0, 1, 2]),
)


def kept_and_gradients(policy: Policy, rows: Rows) -> tuple[int, list[torch.Tensor]]:
    """How many numbers the forward pass keeps for the backward pass, and the gradients."""
    kept = 0

    def count(x: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        kept += x.numel()
        return x

    torch.manual_seed(5)
    with torch.autograd.graph.saved_tensors_hooks(count, lambda x: x):
        logprob = policy.logprob(rows)
    kept_forward = kept
    logprob.sum().backward()
    return kept_forward, [p.grad for p in policy.parameters() if p.grad is not None]


@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("shared", [False, True])
def test_same_gradients_to_the_bit_from_less_that_is_kept(family: str, dropout: float, shared: bool) -> None:
    plain = Policy(small_model(family))
    set_residual_dropout(plain.decoder, dropout)
    plain.train()
    recomputing = copy.deepcopy(plain)
    checkpoint_activations(recomputing.decoder.get_decoder())
    rows = ROWS if shared else ROWS._replace(group=None)
    kept, expected = kept_and_gradients(plain, rows)
    kept_less, found = kept_and_gradients(recomputing, rows)
    assert kept_less < kept / 2
    for a, b in zip(found, expected, strict=True):
        assert a.equal(b)


def test_it_works_in_eval_mode_and_in_copies_and_leaves_sampling_alone() -> None:
    value_model = ValueModel.from_decoder(small_model("llama"))
    plain = copy.deepcopy(value_model)
    checkpoint_activations(value_model.trunk)
    value_model = copy.deepcopy(value_model)
    for model in (value_model, plain):
        model(ROWS).sum().backward()
    for (name, p), q in zip(value_model.named_parameters(), plain.parameters(), strict=True):
        assert p.grad.equal(q.grad), name

    decoder = small_model("llama")
    requests = [Request([3, 4, 5], 2, 9, seed=1), Request([6], 1, 9, seed=2)]
    before = Engine(decoder, [0]).generate(requests)
    checkpoint_activations(decoder.get_decoder())
    Policy(decoder).logprob(ROWS).sum().backward()
    assert Engine(decoder, [0]).generate(requests) == before


def test_an_architecture_without_such_layers_is_refused_by_name() -> None:
    trunk = small_model("gpt2").get_decoder()
    trunk.supports_gradient_checkpointing = False
    with pytest.raises(InputError, match=r"gpt2.*activation_checkpointing"):
        checkpoint_activations(trunk)
