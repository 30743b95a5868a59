"""Logits → tokens, by inverse CDF: one uniform number per row and a search in the cumulative sum.

The sum is over blocks of the vocabulary first, then within the block that was hit, so that no row is summed up whole.
The uniform number is a hash of (seed, sample, position), so a response never depends on what else is in the batch.
Shapes: n rows, V vocabulary.
"""

from typing import NamedTuple

import torch

from heedful.models.masked import missing

CLOSE = 1e-5  # of all probability: what lies nearer than this to a boundary could fall otherwise under fp32 rounding
COLDEST = 1e-5  # temperatures below it are greedy: logits divided by less leave fp32
BLOCK = 64  # tokens; about the square root of a usual vocabulary
_BITS = 50  # of the 64 hashed ones: u · total then stays below total in float64
_GOLDEN = 0x9E3779B97F4A7C15
_MIX = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
_WORD = (1 << 64) - 1


class Sampling(NamedTuple):
    """How each row samples; None where no row asks for it, so that the usual case costs nothing."""

    temperature: torch.Tensor | None  # (n, 1), 1 for greedy rows
    greedy: torch.Tensor | None  # (n, 1) bool
    top_k: torch.Tensor | None  # (n, 1) int64, V where a row keeps every token
    top_p: torch.Tensor | None  # (n, 1)


def sampling(temperature: torch.Tensor, top_k: torch.Tensor, top_p: torch.Tensor) -> Sampling:
    """From each row's settings (n,): temperatures below COLDEST are greedy; top_k 0 and top_p 1 keep every token."""
    greedy = temperature < COLDEST
    divisor = torch.where(greedy, 1.0, temperature)
    top_k = torch.where(top_k == 0, torch.iinfo(torch.int64).max, top_k)
    return Sampling(
        divisor[:, None] if bool((divisor != 1).any()) else None,
        greedy[:, None] if bool(greedy.any()) else None,
        top_k[:, None] if bool((top_k < torch.iinfo(torch.int64).max).any()) else None,
        top_p[:, None] if bool((top_p < 1).any()) else None,
    )


class Draw(NamedTuple):
    token: torch.Tensor  # (n,) int64
    logprob: torch.Tensor  # (n,) of the token at the row's temperature (at 1 when that is 0), before top-k and top-p
    close: torch.Tensor  # (n,) bool: rounding could have given another token
    failed: torch.Tensor  # (n,) bool: the logits are no distribution (NaN, +inf, or all -inf), and token is 0


def stream_key(seed: int, sample: int) -> int:
    """The key, a signed 64-bit integer, of one response's uniform numbers."""
    mixed = _mix((seed * _GOLDEN + _mix(sample + 1)) & _WORD)
    return mixed - (1 << 64) if mixed >> 63 else mixed


def uniforms(key: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
    """Numbers in (0, 1), float64, one for each pair of key and position (int64, broadcast): splitmix64 of a counter."""
    x = key + (position + 1) * _signed(_GOLDEN)
    x = (x ^ _shift(x, 30)) * _signed(_MIX[0])
    x = (x ^ _shift(x, 27)) * _signed(_MIX[1])
    x = x ^ _shift(x, 31)
    return (_shift(x, 64 - _BITS).double() + 0.5) * 2.0**-_BITS


def draw(logits: torch.Tensor, how: Sampling, uniform: torch.Tensor) -> Draw:
    """One token per row of logits (n, V), by uniform (n,) float64."""
    if how.temperature is not None:
        logits = logits / how.temperature.to(logits.dtype)
    highest = logits.amax(-1, keepdim=True)
    weight = (logits - highest).exp_()
    blocks, cumulative = in_blocks(weight)
    total = cumulative[:, -1:]
    failed = total.isnan()
    unsure: torch.Tensor | float = 0.0
    if how.top_k is not None or how.top_p is not None:
        kept, unsure = truncate(weight, how)
        blocks, cumulative = in_blocks(kept)
    token, close = search(blocks, cumulative, uniform[:, None], unsure)
    if how.greedy is not None:
        token = torch.where(how.greedy, logits.argmax(-1, keepdim=True), token)
        rivals = (weight >= 1 - CLOSE).sum(-1, keepdim=True)
        close = torch.where(how.greedy, rivals > 1, close)
    token = token.masked_fill(failed, 0)
    logprob = logits.gather(1, token) - (highest + total.log()).to(logits.dtype)
    return Draw(token.squeeze(1), logprob.squeeze(1), close.squeeze(1), failed.squeeze(1))


class Bias(NamedTuple):
    """Numbers (M,) to be added to the logits of tokens (M,) in rows (M,)."""

    row: torch.Tensor
    token: torch.Tensor
    number: torch.Tensor


def biased(logits: torch.Tensor, bias: Bias | None) -> torch.Tensor:
    """Logits (n, V) with the biases added, in new storage where there are any."""
    if bias is None:
        return logits
    return logits.index_put((bias.row, bias.token), bias.number.to(logits.dtype), accumulate=True)


def in_blocks(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights (n, V) in blocks (n, V / BLOCK, BLOCK), zeros at the end, and the cumulative sum of blocks, float64."""
    short = -weight.shape[1] % BLOCK
    blocks = torch.nn.functional.pad(weight, (0, short)) if short else weight
    blocks = blocks.unflatten(1, (-1, BLOCK))
    return blocks, blocks.sum(-1).cumsum(-1, dtype=torch.float64)


def search(
    blocks: torch.Tensor, cumulative: torch.Tensor, uniform: torch.Tensor, unsure: torch.Tensor | float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The tokens (n, 1) at `uniform` (n, 1) of all weight, and whether a boundary is CLOSE (n, 1).

    No boundary moves further, beside the target, than the weight of all tokens that might come in or go: `unsure`.
    """
    total = cumulative[:, -1:]
    target = uniform * total
    # NaN weights, which `draw` sees to, lie beyond all others
    block = torch.searchsorted(cumulative, target, right=True).clamp_(max=cumulative.shape[1] - 1)
    before = torch.nn.functional.pad(cumulative, (1, 0)).gather(1, block)
    inside = blocks.gather(1, block[..., None].expand(-1, -1, BLOCK)).squeeze(1)
    sums = inside.cumsum(-1, dtype=torch.float64)
    # the block's sum was rounded otherwise: what lies beyond its last token belongs to that
    rest = torch.minimum(target - before, torch.nextafter(sums[:, -1:], torch.zeros_like(total)))
    place = torch.searchsorted(sums, rest, right=True).clamp_(max=BLOCK - 1)
    above = sums.gather(1, place) - rest
    close = torch.minimum(above, inside.gather(1, place) - above) < CLOSE * total + unsure
    return block * BLOCK + place, close


def truncate(weight: torch.Tensor, how: Sampling) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights (n, V) with zeros outside each row's k likeliest tokens and outside its nucleus; and the weight (n, 1) of
    the tokens about which rounding could decide.

    The nucleus is that of `models.masked.missing`. Of equally likely tokens the lower id comes first.
    """
    ordered, index = weight.sort(dim=-1, descending=True, stable=True)
    place = torch.arange(weight.shape[1], device=weight.device)[None]
    outside, unsure = torch.zeros_like(ordered, dtype=torch.bool), torch.zeros_like(ordered, dtype=torch.bool)
    if how.top_k is not None:
        outside |= place >= how.top_k
    if how.top_p is not None:
        short, total = missing(ordered, how.top_p), ordered.sum(-1, keepdim=True, dtype=torch.float64)
        outside |= (short <= 0) & (place > 0)
        unsure |= (short.abs() < CLOSE * total) & (place > 0) & (how.top_p < 1)
    kept = (~outside).sum(-1, keepdim=True)
    last, rival = ordered.gather(1, kept - 1), ordered.gather(1, kept.clamp(max=weight.shape[1] - 1))
    alike = (rival > last * (1 - CLOSE)) & (kept < weight.shape[1])
    unsure |= alike & (ordered <= last * (1 + CLOSE)) & (ordered >= rival * (1 - CLOSE))
    inside = weight.masked_fill(torch.zeros_like(outside).scatter(1, index, outside), 0.0)
    return inside, (ordered * unsure).sum(-1, keepdim=True, dtype=torch.float64)


def _mix(x: int) -> int:
    x = (x + _GOLDEN) & _WORD
    x = ((x ^ (x >> 30)) * _MIX[0]) & _WORD
    x = ((x ^ (x >> 27)) * _MIX[1]) & _WORD
    return x ^ (x >> 31)


def _signed(x: int) -> int:
    return x - (1 << 64) if x >> 63 else x


def _shift(x: torch.Tensor, bits: int) -> torch.Tensor:
    """Logical shift to the right; torch's keeps the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
