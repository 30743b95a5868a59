"""Attention to what all rows share and to each row's own, apart and merged, is one softmax over both."""

import pytest
import torch

from heedful.engine.score import score_continuations
from heedful.models import attention, prefix
from heedful.models.prefix import joined, merged, merges
from small_models import FAMILIES, VOCAB, WINDOW, small_model


def random(*shape: int, seed: int) -> torch.Tensor:
    return 2 * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("tokens", [1, 5])
@pytest.mark.parametrize("heads", [2, 4])
def test_one_softmax_over_both(heads: int, tokens: int) -> None:
    query, key, value = random(3, heads, tokens, 8, seed=0), random(3, 2, 6, 8, seed=1), random(3, 2, 6, 8, seed=2)
    shared = random(1, 2, 9, 8, seed=3), random(1, 2, 9, 8, seed=4)
    mask = random(3, 1, tokens, 6, seed=5).masked_fill_(random(3, 1, tokens, 6, seed=6) > 1, float("-inf"))
    mask[..., 0] = 0.0
    with torch.no_grad():
        assert merges(query, shared)
        found = merged(query, shared, key, value, mask, 0.3)
    for n in range(3):
        for h in range(heads):
            of = h * 2 // heads
            keys = torch.cat([shared[0][0, of], key[n, of]])
            values = torch.cat([shared[1][0, of], value[n, of]])
            weight = (query[n, h] @ keys.T * 0.3 + torch.cat([torch.zeros(tokens, 9), mask[n, 0]], 1)).softmax(-1)
            torch.testing.assert_close(found[n, :, h], weight @ values)
    whole = joined(shared, key, value, mask)
    assert [x.shape for x in whole] == [(3, 2, 15, 8), (3, 2, 15, 8), (3, 1, tokens, 15)]
    torch.testing.assert_close(found, attention._attention(query, *whole, None, 0.3, 0.0, None, None))


def test_torch_tells_the_sum_of_exponentials() -> None:
    """By a private name, which another version may lack: then keys are copied, and this says so."""
    assert prefix._FUSED is not None


def prompts(length: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(length)
    texts = torch.randint(3, VOCAB, (3, length + 6), generator=generator)
    texts[:, :length] = texts[0, :length]
    texts[:, length] = torch.arange(3, 6)
    return [text[: length + n].tolist() for n, text in zip((6, 3, 5), texts, strict=True)]


ASKED = [[[5], [6, 7]], [[8, 9, 10], [8]], [[4]]]


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_those_of_keys_that_are_copied(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model(family)
    found = score_continuations(model, prompts(20), ASKED)
    monkeypatch.setattr(prefix, "_FUSED", None)
    for mine, copied in zip(found, score_continuations(model, prompts(20), ASKED), strict=True):
        assert mine == pytest.approx(copied, abs=1e-5)


@pytest.mark.parametrize(
    ("family", "length", "layers"),
    [("llama", 20, 3), ("mistral", 20, 0), ("mistral", WINDOW - 6, 0), ("gemma3_text", 20, 1)],
)
def test_apart_wherever_no_window_cuts_the_prefix(
    family: str, length: int, layers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def counted(*given: torch.Tensor) -> torch.Tensor:
        calls.append(len(given[0]))
        return merged(*given)

    monkeypatch.setattr(attention, "merged", counted)
    score_continuations(small_model(family), prompts(length), ASKED)
    assert calls == [3] * layers


def test_under_autocast_and_with_gradients_keys_are_copied() -> None:
    query, shared = random(2, 4, 5, 8, seed=0), (random(1, 2, 9, 8, seed=3), random(1, 2, 9, 8, seed=4))
    assert not merges(query, shared)
    with torch.no_grad():
        assert merges(query, shared) and not merges(query.float(), shared)
        with torch.autocast("cpu", torch.bfloat16):
            assert not merges(query, shared)
    model = small_model("llama")
    exact = score_continuations(model, prompts(20), ASKED)
    rounded = score_continuations(model, prompts(20), ASKED, "bf16")
    for mine, near in zip(exact, rounded, strict=True):
        assert mine == pytest.approx(near, abs=0.3) and mine != near
