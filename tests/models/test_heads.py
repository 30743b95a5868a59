"""Heads read the right positions, and their gradients are those of the naive computation."""

import pytest
import torch

from heedful.batch import Rows
from heedful.models import heads
from heedful.models.heads import Policy, RewardModel, ValueModel
from small_models import FAMILIES, VOCAB, small_model


def some_rows(seed: int = 0) -> Rows:
    generator = torch.Generator().manual_seed(seed)
    prompt_length = torch.tensor([3, 9, 1, 5])
    length = torch.tensor([14, 10, 8, 5])  # the last row has an empty response
    tokens = torch.randint(3, VOCAB, (4, 14), generator=generator)
    return Rows(tokens, prompt_length, length)


def naive_logprob(policy: Policy, rows: Rows, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """All logits at once, row by row, token by token."""
    logprobs = (policy.decoder(input_ids=rows.tokens, use_cache=False).logits / temperature).log_softmax(-1)
    logprob, entropy = torch.zeros(rows.mask.shape), torch.zeros(rows.mask.shape)
    for n, (start, end) in enumerate(zip(rows.prompt_length.tolist(), rows.length.tolist(), strict=True)):
        for r, position in enumerate(range(start, end)):
            logprob[n, r] = logprobs[n, position - 1, rows.tokens[n, position]]
            entropy[n, r] = -(logprobs[n, position - 1].exp() * logprobs[n, position - 1]).sum()
    return logprob, entropy


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("chunk", [1 << 24, 3 * VOCAB], ids=["whole", "chunks"])
def test_logprob_and_gradient_equal_the_naive_computation(
    family: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heads, "MAX_LOGITS", chunk)
    policy, rows = Policy(small_model(family)), some_rows()
    weight = torch.randn(rows.mask.shape, generator=torch.Generator().manual_seed(1))
    logprob, entropy = policy.logprob_and_entropy(rows, temperature=0.7)
    (logprob * weight).sum().backward()
    gradients = {name: p.grad.clone() for name, p in policy.named_parameters()}
    policy.zero_grad()
    expected, expected_entropy = naive_logprob(policy, rows, temperature=0.7)
    (expected * weight).sum().backward()
    torch.testing.assert_close(logprob, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(entropy, expected_entropy, atol=1e-5, rtol=1e-5)
    assert not entropy.requires_grad
    for name, p in policy.named_parameters():
        torch.testing.assert_close(gradients[name], p.grad, atol=1e-5, rtol=1e-5, msg=name)


def test_language_loss_counts_every_token_after_the_first() -> None:
    policy, rows = Policy(small_model("llama")), some_rows()
    loss, mask = policy.language_loss(rows.tokens, rows.length)
    assert mask.sum(1).tolist() == [13, 9, 7, 4]
    logprobs = policy.decoder(input_ids=rows.tokens, use_cache=False).logits.log_softmax(-1)
    expected = -logprobs[:, :-1].gather(2, rows.tokens[:, 1:, None]).squeeze(2) * mask
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)


def test_heads_compute_in_fp32_under_autocast() -> None:
    policy, rows = Policy(small_model("llama")), some_rows()
    reward = RewardModel.from_decoder(small_model("llama"))
    with torch.autocast("cpu", torch.bfloat16):
        logprob, entropy = policy.logprob_and_entropy(rows)
        score = reward(rows)
    assert logprob.dtype == entropy.dtype == score.dtype == torch.float32
    torch.testing.assert_close(logprob, policy.logprob(rows), atol=0.3, rtol=0.1)


@pytest.mark.parametrize("family", FAMILIES)
def test_score_is_read_at_the_last_token(family: str) -> None:
    model, rows = RewardModel.from_decoder(small_model(family), seed=3), some_rows()
    with torch.no_grad():
        score = model(rows)
        for n, length in enumerate(rows.length.tolist()):
            alone = Rows(rows.tokens[n : n + 1, :length], rows.prompt_length[n : n + 1], rows.length[n : n + 1])
            torch.testing.assert_close(model(alone), score[n : n + 1], atol=1e-5, rtol=1e-5)
        other = rows.tokens.clone()
        other[0, rows.length[0] - 1] = 3 if other[0, rows.length[0] - 1] != 3 else 4
        assert model(rows._replace(tokens=other))[0] != score[0]


def test_value_stands_before_each_response_token() -> None:
    reward = RewardModel.from_decoder(small_model("llama"), seed=3)
    model, rows = ValueModel.from_reward_model(reward), some_rows()
    with torch.no_grad():
        value = model(rows)
        assert value.shape == rows.mask.shape
        assert (value[~rows.mask] == 0).all()
        hidden = model.trunk(input_ids=rows.tokens, use_cache=False).last_hidden_state
        everywhere = hidden @ model.head.weight[0] + model.head.bias
        for n, r in rows.mask.nonzero().tolist():
            expected = everywhere[n, rows.prompt_length[n] - 1 + r]
            torch.testing.assert_close(value[n, r], expected, atol=1e-5, rtol=1e-5)
        score = reward(rows._replace(length=rows.prompt_length))
        torch.testing.assert_close(value[:3, 0], score[:3], atol=1e-5, rtol=1e-5)


def test_value_model_is_a_copy() -> None:
    reward = RewardModel.from_decoder(small_model("llama"))
    model = ValueModel.from_reward_model(reward)
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    assert reward.head.weight.abs().sum() > 0
    assert all(p.abs().sum() > 0 for name, p in reward.trunk.named_parameters() if "norm" in name)


def test_new_heads_are_small_seeded_and_shift() -> None:
    one, two = (RewardModel.from_decoder(small_model("gpt2"), seed=s) for s in (1, 2))
    assert one.head.bias.item() == 0
    assert not torch.equal(one.head.weight, two.head.weight)
    assert 0.5 < one.head.weight.std().item() * 33**0.5 < 1.5
    rows = some_rows()
    with torch.no_grad():
        score = one(rows)
        one.bias.sub_(score.mean())
        assert abs(one(rows).mean().item()) < 1e-6
