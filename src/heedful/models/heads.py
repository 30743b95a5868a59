"""Policy, reward model and value model: one trunk, run one way on rows, with three readings of its hidden states.

The trunk runs in whatever precision the caller's torch.autocast chooses; heads compute in the weights' precision, fp32.
Shapes: N rows, T tokens, R response tokens, D hidden width, V vocabulary.
"""

import copy
from typing import Self

import torch
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from heedful.batch import Rows
from heedful.losses.logprob import all_logprobs, entropy, token_logprob
from heedful.models.load import head_logits
from heedful.models.packed import Packed, pays
from heedful.models.read import read_of_rows
from heedful.models.shared import SharedPrompts

MAX_LOGITS = 1 << 24  # entries of one chunk of logits (64 MB in fp32): positions · V never exists for a whole rollout


def states_at(trunk: PreTrainedModel, rows: Rows, row: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
    """The trunk's last hidden states (M, D) at positions (M,) of rows (M,).

    Prompts that rows share are computed once, and padding where it costs less than leaving it out.
    """
    if rows.group is None:
        return text_states_at(trunk, rows.tokens, rows.length, row, position)
    shared = SharedPrompts(rows)
    read = shared.read(row, position)
    output = trunk(input_ids=shared.tokens, position_ids=shared.position, use_cache=False, laid=shared, read=read)
    return output.last_hidden_state[0, shared.index(row, position)]


def text_states_at(
    trunk: PreTrainedModel, tokens: torch.Tensor, length: torch.Tensor, row: torch.Tensor, position: torch.Tensor
) -> torch.Tensor:
    """The same over right-padded tokens (N, T) of which length (N,) are real."""
    if not pays(length, tokens.shape[1]):
        read = read_of_rows(tokens, row, position)
        return trunk(input_ids=tokens, use_cache=False, read=read).last_hidden_state[row, position]
    packed = Packed(length, tokens.shape[1])
    read, laid_out, place = packed.read(row, position), packed.take(tokens)[None], packed.position[None]
    output = trunk(input_ids=laid_out, position_ids=place, use_cache=False, laid=packed, read=read)
    return output.last_hidden_state[0, packed.index(row, position)]


class Policy(torch.nn.Module):
    """A causal language model over responses."""

    def __init__(self, decoder: PreTrainedModel) -> None:
        super().__init__()
        self.decoder = decoder

    @property
    def device(self) -> torch.device:
        return self.decoder.device

    def logprob(self, rows: Rows, temperature: float = 1.0) -> torch.Tensor:
        """log π(token) at the temperature, in nats, (N, R); zero where rows.mask is False.

        Only real response positions pass through the language-model head.
        """
        return self._at_responses(rows, temperature, with_entropy=False)[0]

    def logprob_and_entropy(self, rows: Rows, temperature: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
        """The same, and the entropy of π(·), both (N, R). The entropy is a measurement: it carries no gradient."""
        logprob, entropy = self._at_responses(rows, temperature, with_entropy=True)
        return logprob, entropy

    def _at_responses(self, rows: Rows, temperature: float, with_entropy: bool) -> list[torch.Tensor]:
        mask = rows.mask
        row, step = mask.nonzero(as_tuple=True)
        position = rows.prompt_length[row] + step
        hidden = states_at(self.decoder.get_decoder(), rows, row, position - 1)
        found = self._read(hidden, rows.tokens[row, position], temperature, with_entropy)
        return [x.new_zeros(mask.shape).index_put((row, step), x) for x in found]

    def language_loss(self, tokens: torch.Tensor, length: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """−log π of every token after the first, in nats (N, T − 1), and which of them are within length (N,), bool."""
        mask = torch.arange(1, tokens.shape[1], device=tokens.device)[None] < length[:, None]
        row, step = mask.nonzero(as_tuple=True)
        hidden = text_states_at(self.decoder.get_decoder(), tokens, length, row, step)
        [logprob] = self._read(hidden, tokens[row, step + 1], 1.0, with_entropy=False)
        return logprob.new_zeros(mask.shape).index_put((row, step), -logprob), mask

    def _read(
        self, hidden: torch.Tensor, target: torch.Tensor, temperature: float, with_entropy: bool
    ) -> list[torch.Tensor]:
        """Log-probability of target (M,), and entropy (M,) where asked for, from hidden states (M, D), by chunks."""
        size = max(1, MAX_LOGITS // self.decoder.get_output_embeddings().weight.shape[0])
        if len(target) <= size:
            return _read_chunk(self.decoder, hidden, target, temperature, with_entropy)
        parts = [
            checkpoint(_read_chunk, self.decoder, h, t, temperature, with_entropy, use_reentrant=False)
            for h, t in zip(hidden.split(size), target.split(size), strict=True)
        ]
        return [torch.cat(column) for column in zip(*parts, strict=True)]


def _read_chunk(
    decoder: PreTrainedModel, hidden: torch.Tensor, target: torch.Tensor, temperature: float, with_entropy: bool
) -> list[torch.Tensor]:
    logits = head_logits(decoder, hidden)
    if temperature != 1.0:
        logits = logits / temperature
    logprobs = all_logprobs(logits)
    logprob = token_logprob(logprobs, target)
    return [logprob, entropy(logprobs)] if with_entropy else [logprob]


class _ScalarModel(torch.nn.Module):
    """A trunk with one linear number per position."""

    def __init__(self, trunk: PreTrainedModel, head: torch.nn.Linear) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = head

    @classmethod
    def from_decoder(cls, decoder: PreTrainedModel, seed: int = 0) -> Self:
        """Take over the decoder's trunk (it is not copied) under a new head: N(0, 1 / (D + 1)) weights, bias 0.

        The head's size is that of Stiennon et al. (arXiv 2009.01325): numbers of order one whatever the width.
        """
        trunk = decoder.get_decoder()
        weight = next(trunk.parameters())
        width = trunk.config.get_text_config().hidden_size
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            head = torch.nn.Linear(width, 1)
            torch.nn.init.normal_(head.weight, std=(width + 1) ** -0.5)
            torch.nn.init.zeros_(head.bias)
        return cls(trunk, head.to(weight.device, torch.promote_types(weight.dtype, torch.float32)))

    @property
    def device(self) -> torch.device:
        return self.head.weight.device

    @property
    def bias(self) -> torch.nn.Parameter:
        """(1,), added to every number: shift it in place to move the scale's origin."""
        return self.head.bias

    def _read(self, hidden: torch.Tensor) -> torch.Tensor:
        """Hidden states (…, D) → numbers (…)."""
        with torch.autocast(hidden.device.type, enabled=False):
            return self.head(hidden.to(self.head.weight.dtype)).squeeze(-1)


class RewardModel(_ScalarModel):
    """Scores a prompt with its response at the last token."""

    def forward(self, rows: Rows) -> torch.Tensor:
        """Score (N,)."""
        row = torch.arange(len(rows.length), device=rows.tokens.device)
        return self._read(states_at(self.trunk, rows, row, rows.length - 1))

    @torch.no_grad()
    def normalize(self, score: torch.Tensor) -> None:
        """Rescale the head so that what had `score` (N,) has mean 0 and standard deviation 1 (Ziegler et al., 2.2)."""
        self.bias.sub_(score.mean())
        for parameter in self.head.parameters():
            parameter.div_(score.std().clamp_min(1e-6))


class ValueModel(_ScalarModel):
    """The expected return before each response token."""

    @classmethod
    def from_reward_model(cls, reward_model: RewardModel) -> Self:
        """A copy of the reward model, trunk and head (InstructGPT, section 3.5)."""
        return cls(copy.deepcopy(reward_model.trunk), copy.deepcopy(reward_model.head))

    def forward(self, rows: Rows) -> torch.Tensor:
        """Value (N, R) of the state each response token was chosen in; zero where rows.mask is False."""
        mask = rows.mask
        row, step = mask.nonzero(as_tuple=True)
        value = self._read(states_at(self.trunk, rows, row, rows.prompt_length[row] + step - 1))
        return value.new_zeros(mask.shape).index_put((row, step), value)
