"""REINFORCE's steps against the plainest computation of the same thing, and what it finds by itself."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from heedful.config import InputError
from heedful.engine.sample import Sampled, prompt_order
from heedful.models.heads import Policy
from heedful.models.lora import BasePolicy, attach_lora
from heedful.run import Run, read_jsonl
from heedful.stages import reinforce
from heedful.stages.reinforce import ReinforceConfig, collect, train, update
from heedful.text.collate import to_rows
from heedful.text.format import PromptFormat
from rollouts import PROMPTS, count_w1, plain_sgd, rows_of, sampler
from toys import (
    PAD,
    assert_resumes,
    assert_same,
    assert_threads_change_nothing,
    base_stays,
    gradients,
    make_policy,
    make_rows,
    make_value_model,
    open_run,
    plain_logprob,
    plain_value,
    read_log,
    weights,
)

CONFIG = ReinforceConfig(
    iterations=3,
    batch_size=12,
    lr=1e-2,
    value_lr=1e-2,
    warmup_iterations=0,
    max_new_tokens=6,
    max_tokens=40,
    precision="fp32",
)


def changed(**changes: object) -> ReinforceConfig:
    return ReinforceConfig(**(CONFIG.model_dump() | changes))


def learn(run: Run, config: ReinforceConfig, **models: Any) -> Policy:
    policy = models.get("policy") or make_policy()
    ref_policy, value_model = models.get("ref_policy") or make_policy(), models.get("value_model") or make_value_model()
    generate = models.get("generate") or sampler(policy.decoder, config)
    train(config, policy, ref_policy, value_model, PROMPTS, generate, models.get("score") or count_w1, run)
    return policy


def make_sampled(number: int = 12) -> Sampled:
    """Episodes with the log-probabilities of the policy at the sampling temperature; every third is cut."""
    rows, policy = make_rows(number), make_policy()
    batch = to_rows(rows, PAD)
    logprob = torch.zeros(batch.mask.shape)
    for n, row in enumerate(rows):
        logprob[n, : len(row.response)] = plain_logprob(policy, row, 0.9).detach()
    return Sampled(batch, [row.response for row in rows], [""] * number, torch.arange(number) % 3 != 0, logprob)


def test_the_papers_preset() -> None:
    config = ReinforceConfig()
    assert (config.batch_size, config.lr, config.value_lr, config.kl_coef) == (128, 1e-5, 1e-5, 0.05)
    assert config.temperature == 0.9


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"responses_per_prompt": 5}, "responses_per_prompt must divide batch_size"),
        ({"normalize_score": True, "batch_size": 1}, "normalize_score divides by the spread"),
        ({"kl_coef": 1.0}, "less than 1"),
    ],
)
def test_settings_that_could_not_work_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        changed(**changes)


@pytest.mark.parametrize("max_tokens", [1, 25, 10_000])
def test_an_update_is_the_expected_rewards_gradient_whatever_the_micro_batches(max_tokens: int) -> None:
    policy, value_model, sampled = make_policy(), make_value_model(), make_sampled()
    config = changed(max_tokens=max_tokens, no_eos_penalty=1.0)
    rollout = collect(policy, make_policy(5), value_model, sampled, torch.arange(12.0), config, seed=4)
    rows = [make_rows(12)[n] for n in rollout.order.tolist()]
    assert (len(rollout.micro) > 1) == (max_tokens < 10_000)
    assert rollout.score.tolist() == [n - (n % 3 == 0) for n in rollout.order.tolist()]
    for n, row in enumerate(rows):
        torch.testing.assert_close(
            rollout.ref_logprob[n, : len(row.response)], plain_logprob(make_policy(5), row, 0.9), atol=1e-5, rtol=1e-5
        )
    generator = torch.Generator().manual_seed(0)
    advantage, returns = (torch.randn(rollout.mask.shape, generator=generator) * rollout.mask for _ in range(2))
    stats = update(policy, value_model, rollout, advantage, returns, config)
    mine, mine_value = gradients(policy), gradients(value_model)
    gains, errors = [], []
    for n, row in enumerate(rows):
        length = len(row.response)
        gains.append((advantage[n, :length] * plain_logprob(policy, row, 0.9)).sum())
        errors.append((plain_value(value_model, row) - returns[n, :length]) ** 2 / 2)
    (-torch.stack(gains).mean()).backward()
    torch.cat(errors).mean().backward()
    assert_same(mine, gradients(policy))
    assert_same(mine_value, gradients(value_model))
    assert stats["policy_loss"] == pytest.approx(-float(torch.stack(gains).mean().detach()), abs=1e-4)
    assert stats["engine_mismatch"] < 1e-4


def plain_train(config: ReinforceConfig, policy: Policy, value_model: Any, sampled: Sampled) -> None:
    """One iteration with every formula written out and plain gradient descent."""
    rows = rows_of(sampled)
    score = count_w1([], sampled)
    gains, errors = [], []
    for n, row in enumerate(rows):
        logprob, value = plain_logprob(policy, row, 0.9), plain_value(value_model, row)
        reward = -0.1 * (logprob.detach() - plain_logprob(make_policy(5), row, 0.9).detach())
        reward[-1] += 0.9 * score[n]
        to_come = reward.flip(0).cumsum(0).flip(0)
        gains.append(((to_come - value.detach()) * logprob).sum())
        errors.append((value - to_come) ** 2 / 2)
    for model, loss, lr in (
        (policy, -torch.stack(gains).mean(), config.lr),
        (value_model, torch.cat(errors).mean(), config.value_lr),
    ):
        model.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm)
        with torch.no_grad():
            for p in model.parameters():
                p -= lr * (0 if p.grad is None else p.grad)


def test_an_iteration_is_the_one_written_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = changed(iterations=1, lr=1.0, value_lr=1.0, kl_coef=0.1)
    monkeypatch.setattr(reinforce, "adam", plain_sgd)
    policy, value_model = make_policy(), make_value_model()
    sampled = sampler(policy.decoder, config)(prompt_order(len(PROMPTS), 0, 12, 3), 0)
    learn(open_run(tmp_path), config, policy=policy, value_model=value_model, ref_policy=make_policy(5))
    plain, plain_value_model = make_policy(), make_value_model()
    plain_train(config, plain, plain_value_model, sampled)
    assert_same(weights(policy), weights(plain), 1e-5)
    assert_same(weights(value_model), weights(plain_value_model), 1e-5)
    assert not torch.allclose(
        weights(policy)["decoder.lm_head.weight"], weights(make_policy())["decoder.lm_head.weight"]
    )


def test_the_value_may_learn_alone_first(tmp_path: Path) -> None:
    policy, value_model = make_policy(), make_value_model()
    learn(open_run(tmp_path), changed(iterations=2, value_first=2), policy=policy, value_model=value_model)
    assert_same(weights(policy), weights(make_policy()), 0)
    assert not torch.equal(value_model.head.weight, make_value_model().head.weight)


def objective(row: dict[str, float], kl_coef: float) -> float:
    """What is maximised; where it has risen, the score was worth its KL."""
    return (1 - kl_coef) * row["score"] - kl_coef * row["kl_k1"]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_finds_a_planted_reward_for_what_it_costs(seed: int, tmp_path: Path) -> None:
    config = changed(iterations=25, batch_size=48, lr=8e-3, value_lr=2e-2, kl_coef=0.2, max_tokens=1000)
    policy, run = make_policy(seed), open_run(tmp_path, seed=seed)
    learn(run, config, policy=policy, ref_policy=make_policy(seed), generate=sampler(policy.decoder, config, seed))
    log = read_log(tmp_path)
    early, late = (sum(objective(row, 0.2) for row in part) / len(part) for part in (log[:3], log[-3:]))
    assert late > early + 0.8
    assert log[-1]["kl_k3"] > 0.5
    for episode in read_jsonl(tmp_path / "samples.jsonl"):  # a judgement followed to the reward it became
        penalty = sum(episode["logprob"]) - sum(episode["ref_logprob"])
        assert sum(episode["reward"]) == pytest.approx(0.8 * episode["score"] - 0.2 * penalty, abs=1e-3)


def test_a_dear_penalty_keeps_it_near_its_reference(tmp_path: Path) -> None:
    """At 0.98 a word earns 0.02 and a nat costs 0.98, so the best policy is 0.02 nats a word away."""
    far = []
    for kl_coef in (0.02, 0.98):
        config = changed(iterations=15, batch_size=48, lr=8e-3, kl_coef=kl_coef, max_tokens=1000)
        learn(open_run(tmp_path / str(kl_coef)), config)
        far.append(read_log(tmp_path / str(kl_coef))[-1]["kl_k3"])
    assert 0 < 4 * far[1] < far[0]


def test_threads_side_by_side_change_no_bit(tmp_path: Path) -> None:
    assert_threads_change_nothing(lambda run: learn(run, changed(max_tokens=20)), tmp_path)


def test_a_killed_run_ends_with_the_same_weights_and_log(tmp_path: Path) -> None:
    assert_resumes(lambda run: learn(run, changed(iterations=4)), tmp_path, kills=(0, 2, 3))


def test_with_adapters_the_base_is_the_reference(tmp_path: Path) -> None:
    policy, value_model = make_policy(), make_value_model()
    for model in (policy.decoder, value_model.trunk):
        attach_lora(model, 2, seed=1)
    with base_stays(policy):
        learn(open_run(tmp_path), CONFIG, policy=policy, value_model=value_model, ref_policy=BasePolicy(policy))
    assert read_log(tmp_path)[0]["kl_k1"] == pytest.approx(0, abs=1e-5)
    assert read_log(tmp_path)[-1]["kl_k1"] != 0


def test_it_needs_something_to_maximise(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    with pytest.raises(InputError, match="nothing to maximise"):
        reinforce.main(CONFIG, open_run(tmp_path), nowhere, nowhere, PromptFormat())
    with pytest.raises(InputError, match="normalize_score scales the reward model"):
        config = changed(normalize_score=True)
        reinforce.main(config, open_run(tmp_path), nowhere, nowhere, PromptFormat(), score=count_w1)
