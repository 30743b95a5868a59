"""A policy whose actions another one masks: outside that one's nucleus nothing can be said (NLPO, arXiv 2210.01241).

The engine samples from a `Twin` of both as from any model. Training reads the same distribution from masks that are
computed once for a rollout, in the layout of its updates, and packed eight tokens to a byte.

Shapes: N rows, R response tokens of a row, M of all rows, D hidden width, V vocabulary, W = ⌈V / 8⌉.
"""

import copy
from typing import Any, NamedTuple

import torch
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from heedful.batch import Rows
from heedful.losses.logprob import all_logprobs, entropy, token_logprob
from heedful.models.attention import Layout
from heedful.models.heads import MAX_LOGITS, Policy, states_at
from heedful.models.load import head_logits


class Nucleus(NamedTuple):
    """Which tokens a mask policy allows: its nucleus at the temperature, and more than that."""

    top_p: float
    temperature: float
    fewest: int  # likeliest tokens that are allowed whatever their probability
    always: tuple[int, ...]  # tokens that are allowed everywhere, the end token among them


def allowed(logits: torch.Tensor, nucleus: Nucleus) -> torch.Tensor:
    """The tokens that a mask policy of these logits (n, V) allows, (n, V) bool; with top_p 1 all of them.

    >>> allowed(torch.tensor([[0.5, 0.3, 0.1, 0.1]]).log(), Nucleus(0.7, 1.0, fewest=1, always=(3,)))
    tensor([[ True,  True, False,  True]])
    """
    if nucleus.top_p == 1:  # a sum of all but one token may round to 1
        return torch.ones_like(logits, dtype=torch.bool)
    weight, index = all_logprobs(logits / nucleus.temperature).exp().sort(dim=-1, descending=True, stable=True)
    inside = missing(weight, nucleus.top_p) > 0
    inside[:, : nucleus.fewest] = True
    found = torch.zeros_like(inside).scatter(1, index, inside)
    found[:, list(nucleus.always)] = True
    return found


def missing(ordered: torch.Tensor, top_p: torch.Tensor | float) -> torch.Tensor:
    """What the tokens before each one lack of the weight of the nucleus: p · Σ w − Σ before it w, float64 (n, V).

    Tokens stand from the likeliest to the least likely, by weights (n, V). Where it is above 0 the token is inside: the
    nucleus is the smallest set of likeliest tokens whose probability reaches p = top_p, a number or (n, 1) (Holtzman et
    al., arXiv 1904.09751).

    >>> missing(torch.tensor([[0.5, 0.25, 0.25]]), 0.75)
    tensor([[0.7500, 0.2500, 0.0000]], dtype=torch.float64)
    """
    reached = ordered.cumsum(-1, dtype=torch.float64)
    return top_p * reached[:, -1:] - (reached - ordered)


def pack(mask: torch.Tensor) -> torch.Tensor:
    """(M, V) bool as (M, W) bytes, the lowest bit first.

    >>> pack(torch.tensor([[True, False, True, False, False, False, False, False, True]]))
    tensor([[5, 1]], dtype=torch.uint8)
    """
    bits = torch.nn.functional.pad(mask, (0, -mask.shape[1] % 8)).unflatten(1, (-1, 8)).to(torch.uint8)
    return (bits << _places(mask.device)).sum(-1, dtype=torch.uint8)


def unpack(packed: torch.Tensor, vocabulary: int) -> torch.Tensor:
    """What `pack` was given."""
    return (packed[..., None] >> _places(packed.device) & 1).flatten(1)[:, :vocabulary].bool()


def _places(device: torch.device) -> torch.Tensor:
    return torch.arange(8, dtype=torch.uint8, device=device)


class Masks(NamedTuple):
    """Which tokens are allowed at each response token of some rows, in the order of the rows' mask."""

    packed: torch.Tensor  # (M, W) uint8
    number: torch.Tensor  # (M,) how many are
    missed: torch.Tensor  # (M,) bool: rounding left out the response's own token, which is allowed all the same


def masks_of(policy: Policy, rows: Rows, nucleus: Nucleus) -> Masks:
    """What the mask policy allows; without gradient."""
    hidden, target = _at_responses(policy, rows)
    parts = []
    for h, t in zip(*_chunks(policy, hidden, target), strict=True):
        found = allowed(head_logits(policy.decoder, h), nucleus)
        missed = ~found.gather(1, t[:, None])
        found.scatter_(1, t[:, None], True)
        parts.append((pack(found), found.sum(-1), missed.squeeze(1)))
    return Masks(*(torch.cat(column) for column in zip(*parts, strict=True)))


def masked_logprob(
    policy: Policy, rows: Rows, packed: torch.Tensor, temperature: float, with_entropy: bool = False
) -> list[torch.Tensor]:
    """log π(token) among the allowed tokens, and log π(token) among all; both at the temperature, in nats, (N, R).

    `packed` (M, W) as in `Masks`. Instead of the second, `with_entropy`, the entropy of the masked distribution. Only
    the first carries gradient.
    """
    hidden, target = _at_responses(policy, rows)
    parts = zip(*_chunks(policy, hidden, target, packed), strict=True)
    if len(target) <= _chunk(policy):
        columns = _read(policy.decoder, hidden, target, packed, temperature, with_entropy)
    else:
        read = [checkpoint(_read, policy.decoder, *p, temperature, with_entropy, use_reentrant=False) for p in parts]
        columns = [torch.cat(column) for column in zip(*read, strict=True)]
    return [x.new_zeros(rows.mask.shape).index_put(rows.mask.nonzero(as_tuple=True), x) for x in columns]


def _at_responses(policy: Policy, rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden states (M, D) behind which response tokens stand, and those tokens (M,)."""
    row, step = rows.mask.nonzero(as_tuple=True)
    position = rows.prompt_length[row] + step
    return states_at(policy.decoder.get_decoder(), rows, row, position - 1), rows.tokens[row, position]


def _chunk(policy: Policy) -> int:
    return max(1, MAX_LOGITS // policy.decoder.get_output_embeddings().weight.shape[0])


def _chunks(policy: Policy, *columns: torch.Tensor) -> list[tuple[torch.Tensor, ...]]:
    return [x.split(_chunk(policy)) for x in columns]


def _read(
    decoder: PreTrainedModel,
    hidden: torch.Tensor,
    target: torch.Tensor,
    packed: torch.Tensor,
    temperature: float,
    with_entropy: bool,
) -> list[torch.Tensor]:
    logits = head_logits(decoder, hidden)
    if temperature != 1.0:
        logits = logits / temperature
    logprobs = all_logprobs(logits.masked_fill(~unpack(packed, logits.shape[1]), float("-inf")))
    logprob = token_logprob(logprobs, target)
    if with_entropy:
        return [logprob, entropy(logprobs)]
    return [logprob, token_logprob(all_logprobs(logits.detach()), target)]


class Twin(torch.nn.Module):
    """A decoder beside the one that masks it, for the engine: one model of twice the layers and twice the width.

    Its hidden states are both models', and `next_logits` reads them; the layers of the second stand behind those of the
    first in the cache.
    """

    def __init__(self, decoder: PreTrainedModel, mask_decoder: PreTrainedModel, nucleus: Nucleus) -> None:
        """Both are used as they are at each call, and neither is copied."""
        super().__init__()
        self.decoder, self.mask_decoder, self.nucleus = decoder, mask_decoder, nucleus
        self.config = copy.deepcopy(decoder.config)
        self._layers = decoder.config.get_text_config().num_hidden_layers
        self.config.get_text_config().num_hidden_layers = 2 * self._layers  # what room their keys and values take

    @property
    def device(self) -> torch.device:
        return self.decoder.device

    @property
    def dtype(self) -> torch.dtype:
        return self.decoder.dtype

    def get_decoder(self) -> "Twin":
        return self

    def get_output_embeddings(self) -> torch.nn.Module:
        return self.decoder.get_output_embeddings()

    def forward(self, layout: Layout, **given: Any) -> BaseModelOutput:
        """Hidden states (n, T, 2 · D)."""
        own = self.decoder.get_decoder()(layout=layout, **given)
        other = self.mask_decoder.get_decoder()(layout=_Behind(layout, self._layers), **given)
        return BaseModelOutput(last_hidden_state=torch.cat([own.last_hidden_state, other.last_hidden_state], -1))

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Of hidden states (n, 2 · D), (n, V); −∞ where the token is not allowed."""
        own, other = hidden.chunk(2, -1)
        inside = allowed(head_logits(self.mask_decoder, other), self.nucleus)
        return head_logits(self.decoder, own).masked_fill(~inside, float("-inf"))


class _Behind(Layout):
    """A layout in which the model's first layer is not the cache's first."""

    def __init__(self, layout: Layout, layers: int) -> None:
        self._layout, self._layers = layout, layers

    def update(
        self, layer: int, key: torch.Tensor, value: torch.Tensor, window: int | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        return self._layout.update(layer + self._layers, key, value, window)


def next_logits(model: PreTrainedModel | Twin, hidden: torch.Tensor) -> torch.Tensor:
    """Logits (n, V) that the engine draws from, by the trunk's hidden states (n, …)."""
    return model.logits(hidden) if isinstance(model, Twin) else head_logits(model, hidden)
