"""RLOO and GRPO against the plainest computation of the same thing, and what they find by themselves."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from heedful.engine.sample import Sampled, prompt_order
from heedful.losses.masked import masked_sum
from heedful.models.heads import Policy
from heedful.models.lora import BasePolicy, attach_lora
from heedful.run import Run
from heedful.stages import grpo, rloo
from heedful.stages.grpo import GRPOConfig
from heedful.stages.rloo import RLOOConfig
from rollouts import PROMPTS, count_w1, descend, plain_sgd, rows_of, sampler
from toys import (
    assert_resumes,
    assert_same,
    assert_threads_change_nothing,
    base_stays,
    make_policy,
    open_run,
    plain_logprob,
    read_log,
    weights,
)

SHARED = {"iterations": 3, "batch_size": 12, "responses_per_prompt": 4, "lr": 1e-2, "warmup_iterations": 0}
SHARED |= {"max_new_tokens": 6, "max_tokens": 40, "precision": "fp32"}
Config = RLOOConfig | GRPOConfig
STAGES: list[tuple[ModuleType, Config]] = [
    (rloo, RLOOConfig(**SHARED)),
    (grpo, GRPOConfig(**SHARED, minibatch_size=5, inner_epochs=2)),
]
both = pytest.mark.parametrize(("stage", "config"), STAGES, ids=["rloo", "grpo"])


def changed(config: Config, **changes: object) -> Any:
    return type(config)(**(config.model_dump() | changes))


def one_update_each(config: Config, **changes: object) -> Any:
    """Settings for a run that gets somewhere: every iteration is one update on many responses."""
    alone = {"minibatch_size": 48, "inner_epochs": 1} if isinstance(config, GRPOConfig) else {}
    return changed(config, **changes, **alone, batch_size=48, lr=8e-3, max_tokens=1000)


def learn(stage: ModuleType, run: Run, config: Config, **models: Any) -> Policy:
    policy = models.get("policy") or make_policy()
    generate = models.get("generate") or sampler(policy.decoder, config)
    stage.train(config, policy, models.get("ref_policy") or make_policy(), PROMPTS, generate, count_w1, run)
    return policy


@both
def test_groups_must_fit_the_batch(stage: ModuleType, config: Config) -> None:
    with pytest.raises(ValidationError, match="responses_per_prompt must divide batch_size"):
        changed(config, batch_size=10)
    with pytest.raises(ValidationError, match="responses_per_prompt"):
        changed(config, responses_per_prompt=1)


def plain_rloo(policy: Policy, sampled: Sampled, config: RLOOConfig) -> torch.Tensor:
    """The loss of one iteration, response by response."""
    reward = count_w1([], sampled).tolist()
    now, ref = ([plain_logprob(model, row) for row in rows_of(sampled)] for model in (policy, make_policy(5)))
    for n in range(len(reward)):
        reward[n] -= config.kl_coef * float((now[n] - ref[n]).detach().sum())
    terms = []
    for n in range(len(reward)):
        others = [m for m in range(len(reward)) if m // 4 == n // 4 and m != n]
        baseline = sum(reward[m] for m in others) / len(others)
        terms.append(-(reward[n] - baseline) * now[n].sum())
    return torch.stack(terms).mean()


def plain_grpo(policy: Policy, sampled: Sampled, config: GRPOConfig) -> torch.Tensor:
    """The loss of one update on the whole rollout, response by response."""
    score = count_w1([], sampled)
    now, ref = ([plain_logprob(model, row) for row in rows_of(sampled)] for model in (policy, make_policy(5)))
    terms = []
    for n in range(len(score)):
        group = score[n // 4 * 4 : n // 4 * 4 + 4]
        advantage = 0.0 if group.std() == 0 else float((score[n] - group.mean()) / group.std())
        ratio = (now[n] - now[n].detach()).exp()
        log_ratio = ref[n].detach() - now[n]
        penalty = log_ratio.exp() - 1 - log_ratio
        terms.append((-advantage * ratio + config.kl_coef * penalty).mean())
    return torch.stack(terms).mean()


@pytest.mark.parametrize("max_tokens", [1, 25, 10_000])
@pytest.mark.parametrize(
    ("stage", "config", "plain"),
    [
        (rloo, changed(STAGES[0][1], kl_coef=0.3), plain_rloo),
        (grpo, changed(STAGES[1][1], kl_coef=0.3, minibatch_size=12, inner_epochs=1), plain_grpo),
    ],
    ids=["rloo", "grpo"],
)
def test_an_iteration_is_the_one_written_out(
    stage: ModuleType,
    config: Config,
    plain: Callable[..., torch.Tensor],
    max_tokens: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = changed(config, iterations=1, lr=1.0, max_grad_norm=1e9, max_tokens=max_tokens)
    monkeypatch.setattr(stage, "adam", plain_sgd)
    policy = make_policy()
    sampled = sampler(policy.decoder, config)(prompt_order(len(PROMPTS), 0, 12, 3, 4), 0)
    assert len(set(count_w1([], sampled).tolist())) > 1
    learn(stage, open_run(tmp_path), config, policy=policy, ref_policy=make_policy(5))
    other = make_policy()
    descend(plain(other, sampled, config), other)
    assert_same(weights(policy), weights(other), 1e-4)
    assert not torch.allclose(
        weights(policy)["decoder.lm_head.weight"], weights(make_policy())["decoder.lm_head.weight"]
    )


def test_a_groups_advantages_stand_by_their_own_responses() -> None:
    """Whatever order the trainer takes them in."""
    policy = make_policy()
    for stage, config in STAGES:
        sampled = sampler(policy.decoder, config)(prompt_order(len(PROMPTS), 0, 12, 3, 4), 0)
        score = torch.arange(12.0) ** 2
        rollout = stage.collect(policy, make_policy(), sampled, score, changed(config, no_eos_penalty=0.5), seed=7)
        assert rollout.order.tolist() != list(range(12))
        penalised = score - 0.5 * (~sampled.finished)
        torch.testing.assert_close(rollout.score, penalised[rollout.order])
        sums = torch.zeros(12).index_copy(0, rollout.order, rollout.advantage).view(3, 4).sum(1)
        torch.testing.assert_close(sums, torch.zeros(3), atol=1e-4, rtol=0)
        torch.testing.assert_close(
            masked_sum(rollout.ref_logprob, rollout.mask),
            torch.stack([plain_logprob(policy, rows_of(sampled)[n]).sum() for n in rollout.order.tolist()]).detach(),
            atol=1e-4,
            rtol=1e-4,
        )


@both
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_finds_a_planted_reward_for_what_it_costs(
    stage: ModuleType, config: Config, seed: int, tmp_path: Path
) -> None:
    config = one_update_each(config, iterations=20, kl_coef=0.15)
    policy, run = make_policy(seed), open_run(tmp_path, seed=seed)
    learn(
        stage, run, config, policy=policy, ref_policy=make_policy(seed), generate=sampler(policy.decoder, config, seed)
    )
    log = read_log(tmp_path)
    worth = [row["score"] - 0.15 * row["kl_k1"] for row in log]  # where it has risen, the score was worth its KL
    assert sum(worth[-3:]) / 3 > sum(worth[:3]) / 3 + 0.5
    assert log[-1]["kl_k3"] > 0.5


@both
def test_a_dear_penalty_keeps_it_near_its_reference(stage: ModuleType, config: Config, tmp_path: Path) -> None:
    """A nat costs nothing, or what 50 words earn."""
    far = []
    for kl_coef in (0.0, 50.0):
        asked = one_update_each(config, iterations=15, kl_coef=kl_coef)
        learn(stage, open_run(tmp_path / str(kl_coef)), asked)
        far.append(read_log(tmp_path / str(kl_coef))[-1]["kl_k3"])
    assert 0 < 4 * far[1] < far[0]


@both
def test_threads_side_by_side_change_no_bit(stage: ModuleType, config: Config, tmp_path: Path) -> None:
    assert_threads_change_nothing(lambda run: learn(stage, run, changed(config, max_tokens=20)), tmp_path)


@both
def test_a_killed_run_ends_with_the_same_weights_and_log(stage: ModuleType, config: Config, tmp_path: Path) -> None:
    assert_resumes(lambda run: learn(stage, run, changed(config, iterations=4)), tmp_path, kills=(0, 2, 3))


@both
def test_with_adapters_the_base_is_the_reference(stage: ModuleType, config: Config, tmp_path: Path) -> None:
    policy = make_policy()
    attach_lora(policy.decoder, 2, seed=1)
    with base_stays(policy):
        learn(stage, open_run(tmp_path), config, policy=policy, ref_policy=BasePolicy(policy))
    assert read_log(tmp_path)[0]["kl_k1"] == pytest.approx(0, abs=1e-5) != read_log(tmp_path)[-1]["kl_k1"]
