"""Masks of a nucleus, and the policy that is left among them, against loops over a small vocabulary."""

from itertools import pairwise, product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from heedful.batch import Rows
from heedful.engine.requests import Request
from heedful.engine.sample import Sampler
from heedful.models import masked
from heedful.models.heads import Policy
from heedful.models.masked import Nucleus, Twin, allowed, masked_logprob, masks_of, pack, unpack
from heedful.text.collate import Encoded, to_rows
from small_models import FAMILIES, VOCAB, small_model
from toys import (
    BEGIN,
    END,
    FIRST,
    PAD,
    TOKENIZER,
    VOCABULARY,
    assert_same,
    gradients,
    make_policy,
    make_rows,
    plain_logprob,
)

NUCLEUS = Nucleus(top_p=0.6, temperature=1.0, fewest=2, always=(END,))


def logits_behind(policy: Policy, tokens: list[int]) -> torch.Tensor:
    return policy.decoder(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, -1].detach()


def allowed_by_hand(logits: torch.Tensor, nucleus: Nucleus) -> set[int]:
    """Likeliest first, until what was taken reaches top_p; then the fewest, and those that always are."""
    weights = (logits.double() / nucleus.temperature).softmax(0).tolist()
    order = sorted(range(len(weights)), key=lambda v: -weights[v])
    found, reached = set(), 0.0
    for v in order:
        if reached < nucleus.top_p:
            found.add(v)
        reached += weights[v]
    return found | set(order[: nucleus.fewest]) | set(nucleus.always)


def masked_by_hand(policy: Policy, mask_policy: Policy, row: Encoded, nucleus: Nucleus) -> list[torch.Tensor]:
    """For each response token the masked policy's log-probabilities of the whole vocabulary."""
    found = []
    for t in range(len(row.response)):
        before = row.prompt + row.response[:t]
        inside = sorted(allowed_by_hand(logits_behind(mask_policy, before), nucleus) | {row.response[t]})
        logits = policy.decoder(input_ids=torch.tensor([before]), use_cache=False).logits[0, -1] / nucleus.temperature
        left = torch.full_like(logits, float("-inf"))
        left[inside] = logits[inside] - logits[inside].exp().sum().log()
        found.append(left)
    return found


# Which tokens are allowed.


@given(
    st.lists(st.floats(-6, 6), min_size=2, max_size=12),
    st.floats(0.01, 0.99),
    st.sampled_from([0.5, 1.0, 2.0]),
    st.integers(1, 14),
    st.sets(st.integers(0, 1)),
)
@settings(deadline=None, derandomize=True)
def test_the_nucleus_the_likeliest_few_and_what_always_is(
    values: list[float], top_p: float, temperature: float, fewest: int, always: set[int]
) -> None:
    nucleus = Nucleus(top_p, temperature, fewest, tuple(always))
    logits = torch.tensor(values, dtype=torch.float64)
    weights = sorted((logits / temperature).softmax(0).tolist(), reverse=True)
    reached = torch.tensor(weights).double().cumsum(0)
    alike = any(a - b < 1e-6 for a, b in pairwise(weights))
    if not alike and (reached - top_p).abs().min() > 1e-5:  # else rounding may decide
        [found] = allowed(logits.float()[None], nucleus).tolist()
        assert {v for v, inside in enumerate(found) if inside} == allowed_by_hand(logits, nucleus)


def test_with_top_p_1_every_token_is_allowed_however_unlikely() -> None:
    logits = torch.tensor([[0.0, -200.0, 100.0, float("-inf")]])
    assert allowed(logits, Nucleus(1.0, 1.0, 1, ())).all()
    assert allowed(logits, Nucleus(0.999, 1.0, 1, ())).tolist() == [[False, False, True, False]]


@given(st.integers(1, 40), st.integers(0, 99))
@settings(deadline=None, derandomize=True)
def test_masks_come_back_from_their_bits(vocabulary: int, seed: int) -> None:
    mask = torch.rand(5, vocabulary, generator=torch.Generator().manual_seed(seed)) < 0.5
    packed = pack(mask)
    assert packed.shape == (5, -(-vocabulary // 8)) and packed.dtype == torch.uint8
    assert torch.equal(unpack(packed, vocabulary), mask)


@pytest.mark.parametrize("chunk", [1, 3, 10_000])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_masks_are_those_of_one_place_at_a_time(
    chunk: int, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(masked, "MAX_LOGITS", chunk * VOCABULARY)
    policy, rows, nucleus = make_policy(2), make_rows(9), NUCLEUS._replace(temperature=temperature)
    with torch.no_grad():
        masks = masks_of(policy, to_rows(rows, PAD), nucleus)
    places = [(row, t) for row in rows for t in range(len(row.response))]
    found = unpack(masks.packed, VOCABULARY)
    for n, (row, t) in enumerate(places):
        inside = allowed_by_hand(logits_behind(policy, row.prompt + row.response[:t]), nucleus)
        assert bool(masks.missed[n]) == (row.response[t] not in inside)
        inside |= {row.response[t]}
        assert set(found[n].nonzero().squeeze(1).tolist()) == inside and int(masks.number[n]) == len(inside)
    assert masks.missed.any() and not masks.missed.all()  # nobody sampled these


# The masked policy.


def packed_of(mask_policy: Policy, rows: Rows, nucleus: Nucleus = NUCLEUS) -> torch.Tensor:
    with torch.no_grad():
        return masks_of(mask_policy, rows, nucleus).packed


@pytest.mark.parametrize("chunk", [1, 4, 10_000])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_masked_logprobs_entropy_and_gradient(chunk: int, temperature: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masked, "MAX_LOGITS", chunk * VOCABULARY)
    policy, mask_policy, items = make_policy(), make_policy(2), make_rows(9)
    rows, nucleus = to_rows(items, PAD), NUCLEUS._replace(temperature=temperature)
    packed = packed_of(mask_policy, rows, nucleus)
    logprob, unmasked = masked_logprob(policy, rows, packed, temperature)
    again, entropy = masked_logprob(policy, rows, packed, temperature, with_entropy=True)
    assert torch.equal(logprob, again) and logprob.shape == entropy.shape == rows.mask.shape
    assert logprob.requires_grad and not unmasked.requires_grad and not entropy.requires_grad
    plain = [masked_by_hand(policy, mask_policy, row, nucleus) for row in items]
    for n, row in enumerate(items):
        own = torch.stack([left[token] for left, token in zip(plain[n], row.response, strict=True)])
        torch.testing.assert_close(logprob[n, : len(own)], own, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(unmasked[n, : len(own)], plain_logprob(policy, row, temperature).detach())
        for t, left in enumerate(plain[n]):
            kept = left[left.isfinite()]
            assert float(entropy[n, t]) == pytest.approx(-float((kept.exp() * kept).sum().detach()), abs=1e-5)
        assert not logprob[n, len(own) :].any() and not entropy[n, len(own) :].any()
    weight = torch.randn(logprob.shape, generator=torch.Generator().manual_seed(1))
    (logprob * weight).sum().backward()
    mine = gradients(policy)
    sum(
        left[token] * weight[n, t]
        for n, row in enumerate(items)
        for t, (left, token) in enumerate(zip(plain[n], row.response, strict=True))
    ).backward()
    assert_same(mine, gradients(policy), 1e-4)


def test_all_responses_that_are_allowed_have_probability_1_together() -> None:
    """A whole language: every response of two tokens, or of one that ends it, behind one prompt."""
    policy, mask_policy = make_policy(), make_policy(2)
    inside = {
        before: allowed_by_hand(logits_behind(mask_policy, [BEGIN, FIRST, *before]), NUCLEUS)
        for before in [(), *((v,) for v in range(VOCABULARY))]
    }
    responses = [(END,)] + [pair for pair in product(range(VOCABULARY), repeat=2) if pair[0] != END]
    possible = [y for y in responses if all(y[t] in inside[y[:t]] for t in range(len(y)))]
    assert 4 <= len(possible) < len(responses) / 2
    rows = to_rows([Encoded([BEGIN, FIRST], list(y)) for y in possible], PAD)
    with torch.no_grad():
        masks = masks_of(mask_policy, rows, NUCLEUS)
        logprob, unmasked = masked_logprob(policy, rows, masks.packed, 1.0)
    assert not masks.missed.any()
    total = logprob.double().sum(1).exp().sum()
    assert float(total) == pytest.approx(1, abs=1e-5) and float(unmasked.double().sum(1).exp().sum()) < 0.9


def test_with_top_p_1_the_masked_policy_is_the_policy_to_the_bit() -> None:
    policy, rows = make_policy(), to_rows(make_rows(9), PAD)
    packed = packed_of(make_policy(2), rows, NUCLEUS._replace(top_p=1.0))
    plain, plain_entropy = policy.logprob_and_entropy(rows, 0.7)
    (plain * plain_entropy).sum().backward()
    expected = gradients(policy)
    logprob, entropy = masked_logprob(policy, rows, packed, 0.7, with_entropy=True)
    (logprob * entropy).sum().backward()
    assert torch.equal(logprob, plain) and torch.equal(entropy, plain_entropy)
    assert all(torch.equal(gradient, expected[name]) for name, gradient in gradients(policy).items())


# Sampling.


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_the_engine_samples_from_the_masked_policy(temperature: float) -> None:
    policy, mask_policy, nucleus = make_policy(), make_policy(2), NUCLEUS._replace(temperature=temperature)
    prompts = [[BEGIN, FIRST], [BEGIN, FIRST + 1, FIRST + 2, FIRST]]
    sampler = Sampler(Twin(policy.decoder, mask_policy.decoder, nucleus), TOKENIZER, 5, temperature)
    sampled = sampler(prompts, [1, 2], [40, 40])
    with torch.no_grad():
        masks = masks_of(mask_policy, sampled.rows, nucleus)
        logprob, unmasked = masked_logprob(policy, sampled.rows, masks.packed, temperature)
    assert not masks.missed.any() and len(masks.missed) == int(sampled.rows.mask.sum()) > 200
    torch.testing.assert_close(sampled.logprob, logprob, atol=1e-5, rtol=1e-5)
    assert (logprob - unmasked).max() > 0.3
    # how often each token came first, against its probability
    for n, prompt in enumerate(prompts):
        [left] = masked_by_hand(policy, mask_policy, Encoded(prompt, [END]), nucleus)
        first = sampled.rows.tokens[40 * n : 40 * n + 40, len(prompt)].bincount(minlength=VOCABULARY) / 40
        assert (first - left.exp().detach()).abs().max() < 0.25
    plain = Sampler(policy.decoder, TOKENIZER, 5, temperature)(prompts, [1, 2], [40, 40])
    assert plain.tokens != sampled.tokens


def test_with_top_p_1_the_twin_says_what_the_policy_says() -> None:
    policy, prompts = make_policy(), [[BEGIN, FIRST], [BEGIN, FIRST + 1, FIRST + 2]]
    twin = Twin(policy.decoder, make_policy(2).decoder, NUCLEUS._replace(top_p=1.0))
    found, plain = (Sampler(m, TOKENIZER, 6)(prompts, [1, 2], [30, 30]) for m in (twin, policy.decoder))
    assert found.tokens == plain.tokens
    torch.testing.assert_close(found.logprob, plain.logprob)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_twin_of_every_architecture_keeps_both_models_keys(family: str) -> None:
    """Prompts of unlike length and more tokens than a sliding window, so that layers, columns and rows all matter."""
    policy, mask_policy = Policy(small_model(family)).eval(), Policy(small_model(family, 1)).eval()
    nucleus = Nucleus(0.5, 1.0, 2, (5,))
    sampler = Sampler(Twin(policy.decoder, mask_policy.decoder, nucleus), TOKENIZER, 14)
    draw = torch.Generator().manual_seed(0)
    prompts = [torch.randint(3, VOCAB, (n,), generator=draw).tolist() for n in (1, 9, 4)]
    completions = sampler.generate([Request(p, 3, 14, seed=n) for n, p in enumerate(prompts)])
    items = [Encoded(p, c.tokens) for p, group in zip(prompts, completions, strict=True) for c in group]
    rows = to_rows(items, 0)
    with torch.no_grad():
        masks = masks_of(mask_policy, rows, nucleus)
        logprob, _ = masked_logprob(policy, rows, masks.packed, 1.0)
    assert not masks.missed.any()
    for n, completion in enumerate(c for group in completions for c in group):
        torch.testing.assert_close(
            torch.tensor(completion.logprob), logprob[n, : len(completion.logprob)], atol=1e-4, rtol=1e-4
        )
