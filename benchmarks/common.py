"""What both sides share: the model, its weights, the data, and the counting of what passes through the model.

Only torch and transformers are imported, so that the peer's environment needs nothing of heedful.
"""

import functools
import json
import math
import os
import resource
import time
import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from transformers import AutoConfig, AutoModelForCausalLM, LlamaModel, PreTrainedModel, PreTrainedTokenizerFast
from transformers.models.llama.modeling_llama import LlamaMLP

PAD, EOS, BOS, FIRST = 0, 1, 2, 4  # FIRST: the lowest token that data may hold
VOCABULARY, WIDTH = 4096, 256
SHAPE: dict[str, Any] = {
    "hidden_size": WIDTH,
    "intermediate_size": 688,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": True,
    "pad_token_id": PAD,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
}
LAYERS = SHAPE["num_hidden_layers"]
KEY_WEIGHTS = 3 * WIDTH * WIDTH  # of a layer, those of products that every token needs: queries, keys and values
READ_WEIGHTS = WIDTH * WIDTH + 3 * WIDTH * 688  # those that may be left out in the last: attention's output and the MLP
HEAD_WEIGHTS = VOCABULARY * WIDTH
MAX_RESPONSE, MEAN_RESPONSE = 48, 24
LR = 1e-5
BETAS = (0.9, 0.95)


class Done(NamedTuple):
    """What one repeat did. `units` are counted by the row's unit, `tokens` went through a trunk, padding included."""

    seconds: float
    units: float
    tokens: int
    flops: float = 0.0  # of products with weights; attention's own are left out
    notes: dict[str, float] = {}  # noqa: RUF012 (never changed)


class Work(NamedTuple):
    """One side of a benchmark: what it may set freely, and one repeat of it.

    `run(layout, seed, trial)`: `seed` decides the data, `trial` allows a smaller part of it, to choose the layout.
    `check()` measures what must agree between the sides.
    """

    layouts: Sequence[Any]
    run: Callable[[Any, int, bool], Done]
    check: Callable[[], dict[str, float]] = dict


class Counted(NamedTuple):
    """Tokens through trunks without and with a backward pass, and likewise through the MLPs of their layers, summed."""

    forward: int
    trained: int
    mlp_forward: int = 0
    mlp_trained: int = 0

    @property
    def tokens(self) -> int:
        return self.forward + self.trained


def count_tokens() -> Callable[[], Counted]:
    """From now on count what Llama trunks of this process are given; the result tells, and begins anew."""
    counts = [0, 0, 0, 0]

    def counted(kind: Any, first: int) -> None:
        original = kind.forward

        @functools.wraps(original)
        def forward(self: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
            given = args[0] if args else kwargs["input_ids"]
            counts[first + torch.is_grad_enabled()] += given.shape[:2].numel()
            return original(self, *args, **kwargs)

        kind.forward = forward

    counted(LlamaModel, 0)
    counted(LlamaMLP, 2)

    def tell() -> Counted:
        found = Counted(*counts)
        counts[:] = [0] * len(counts)
        return found

    return tell


class Read(NamedTuple):
    """Positions that went through a language head, without and with a backward pass."""

    forward: int
    trained: int


def count_head(model: PreTrainedModel) -> Callable[[], Read]:
    """Likewise, the positions that go through the model's language head."""
    counts = [0, 0]

    def count(_: torch.nn.Module, args: Any, logits: torch.Tensor) -> None:
        counts[torch.is_grad_enabled()] += logits.numel() // VOCABULARY

    model.get_output_embeddings().register_forward_hook(count)

    def tell() -> Read:
        found = Read(*counts)
        counts[:] = [0, 0]
        return found

    return tell


def flops(counted: Counted, read: float = 0.0, read_trained: float = 0.0) -> float:
    """Floating-point operations of products with weights; `read`: positions that went through the language head.

    Where a last layer computes no more than keys and values of some tokens, only these are counted of them (and their
    queries, which are computed too).
    """
    keys = LAYERS * KEY_WEIGHTS * (2 * counted.forward + 6 * counted.trained)
    layers = keys + READ_WEIGHTS * (2 * counted.mlp_forward + 6 * counted.mlp_trained)
    return layers + HEAD_WEIGHTS * (2 * read + 6 * read_trained)


def decoder(seed: int = 0) -> PreTrainedModel:
    """The model, as `heedful.models.load.from_scratch` draws it, with transformers' own attention."""
    torch.manual_seed(seed)
    shape = AutoConfig.for_model("llama", **SHAPE)
    return AutoModelForCausalLM.from_config(shape, dtype=torch.float32).eval()


def score_head(seed: int = 0) -> torch.nn.Linear:
    """The head that `heedful.models.heads.RewardModel.from_decoder` draws."""
    torch.manual_seed(seed)
    head = torch.nn.Linear(WIDTH, 1)
    torch.nn.init.normal_(head.weight, std=(WIDTH + 1) ** -0.5)
    torch.nn.init.zeros_(head.bias)
    return head


def make_it_end(model: PreTrainedModel) -> None:
    """Bias the head so that responses end by themselves, at 24 tokens on average when 48 are the most."""
    weight = model.get_output_embeddings().weight
    head = torch.nn.Linear(WIDTH, VOCABULARY)
    head.weight = weight
    with torch.no_grad():
        head.bias.zero_()
        chance = chance_of_end(MEAN_RESPONSE, MAX_RESPONSE)
        head.bias[EOS] = math.log(VOCABULARY * chance / (1 - chance))
        head.bias[PAD] = -30.0  # what the peer takes for padding must not be sampled
    head.bias.requires_grad_(False)
    model.set_output_embeddings(head)


def chance_of_end(mean: float, most: int) -> float:
    """The chance of ending at each token under which responses of at most `most` tokens have this mean length."""
    low, high = 1e-6, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        long = (1 - (1 - middle) ** most) / middle > mean
        low, high = (middle, high) if long else (low, middle)
    return low


def tokenizer() -> PreTrainedTokenizerFast:
    """A word for every token: w4, w5, …"""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    words = {"<pad>": PAD, "<eos>": EOS, "<bos>": BOS, "<unk>": 3}
    words |= {f"w{i}": i for i in range(FIRST, VOCABULARY)}
    words_only = Tokenizer(WordLevel(words, unk_token="<unk>"))
    words_only.pre_tokenizer = Whitespace()
    special = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=words_only, **special)


def random_tokens(shape: Sequence[int], seed: int) -> torch.Tensor:
    return torch.randint(FIRST, VOCABULARY, tuple(shape), generator=torch.Generator().manual_seed(seed))


def restorer(*models: torch.nn.Module) -> Callable[[], None]:
    """Gives the models the weights they have now."""
    kept = [[p.detach().clone() for p in model.parameters()] for model in models]

    @torch.no_grad()
    def restore() -> None:
        for model, values in zip(models, kept, strict=True):
            for p, value in zip(model.parameters(), values, strict=True):
                p.copy_(value)
                p.grad = None

    return restore


def spread(lengths: Sequence[int]) -> dict[str, float]:
    """Mean and standard deviation of response lengths, and how many responses there are."""
    x = torch.tensor(lengths, dtype=torch.float64)
    return {"responses": len(lengths), "length_mean": float(x.mean()), "length_sd": float(x.std(correction=0))}


def checksum(tokens: Sequence[Sequence[int]]) -> float:
    """In [0, 1); equal for equal tokens alone."""
    return zlib.crc32(json.dumps(tokens).encode()) / 2**32


def response_lengths(tokens: torch.Tensor) -> list[int]:
    """Of each row (N, R) of response tokens, those up to and with the first end token."""
    ended = (tokens == EOS).long().cumsum(1)
    return ((ended == 0) | ((ended == 1) & (tokens == EOS))).sum(1).tolist()


def clock() -> float:
    return time.perf_counter()


def resident() -> float:
    """Memory of this process now, in MB."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def peak() -> float:
    """The most memory this process has held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
