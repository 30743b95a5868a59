"""Diversity of a policy's responses: a win rate without it hides a policy that says one thing."""

from collections.abc import Iterable, Sequence


def distinct_n(responses: Iterable[Sequence[int]], n: int = 2) -> float:
    """Distinct n-grams over all n-grams of the responses' tokens (Li et al., arXiv 1510.03055).

    The value falls with the number of responses, so compare sets of one size. No n-gram at all gives 0.
    """
    seen: set[tuple[int, ...]] = set()
    total = 0
    for tokens in responses:
        grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
        seen.update(grams)
        total += len(grams)
    return len(seen) / total if total else 0.0
