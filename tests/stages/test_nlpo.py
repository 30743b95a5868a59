"""NLPO against PPO, against the same thing written out, and its promises about masks."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from heedful.config import InputError
from heedful.engine.sample import Generate, Sampled, prompt_order
from heedful.losses.kl import next_kl_coef
from heedful.models.heads import Policy, ValueModel
from heedful.models.lora import BasePolicy, attach_lora
from heedful.models.masked import Nucleus, Twin, masks_of, unpack
from heedful.run import Inexact, Run, read_jsonl
from heedful.stages import nlpo, ppo
from heedful.stages.nlpo import NLPOConfig, collect
from heedful.stages.ppo import PPOConfig
from heedful.text.collate import Encoded
from heedful.text.format import PromptFormat
from rollouts import PROMPTS, count_w1, descend, plain_sgd, rows_of, sampler
from toys import (
    END,
    VOCABULARY,
    assert_resumes,
    assert_same,
    assert_threads_change_nothing,
    base_stays,
    make_policy,
    make_value_model,
    open_run,
    plain_logprob,
    plain_value,
    read_log,
    weights,
)

CONFIG = NLPOConfig(
    iterations=3,
    batch_size=12,
    minibatch_size=5,
    inner_epochs=2,
    top_p=0.7,
    min_tokens=2,
    target_update=2,
    lr=1e-2,
    value_lr=1e-2,
    warmup_iterations=2,
    max_new_tokens=6,
    max_tokens=40,
    precision="fp32",
)


def changed(**changes: object) -> NLPOConfig:
    return NLPOConfig(**(CONFIG.model_dump() | changes))


def nucleus_of(config: NLPOConfig) -> Nucleus:
    return Nucleus(config.top_p, config.temperature, config.min_tokens, (END,))


def masked_sampler(policy: Policy, mask_policy: Policy, config: NLPOConfig, seed: int = 3) -> Generate:
    return sampler(Twin(policy.decoder, mask_policy.decoder, nucleus_of(config)), config, seed)


def learn(run: Run, config: NLPOConfig, **models: Any) -> Policy:
    policy = models.get("policy") or make_policy()
    mask_policy = models.get("mask_policy") or copy.deepcopy(policy).requires_grad_(False)
    generate = masked_sampler(policy, mask_policy, config, models.get("seed", 3))
    ref_policy, value_model = models.get("ref_policy") or make_policy(), models.get("value_model") or make_value_model()
    nucleus = nucleus_of(config)
    nlpo.train(config, policy, mask_policy, ref_policy, value_model, nucleus, PROMPTS, generate, count_w1, run)
    return policy


def inside_of(mask_policy: Policy, before: list[int], config: NLPOConfig) -> set[int]:
    """The nucleus behind these tokens, the likeliest few and the end."""
    logits = mask_policy.decoder(input_ids=torch.tensor([before]), use_cache=False).logits[0, -1].detach()
    probability = (logits.double() / config.temperature).softmax(0)
    order = probability.argsort(descending=True).tolist()
    short = [float(probability[order[:place]].sum()) < config.top_p for place in range(len(order))]
    return {v for v, inside in zip(order, short, strict=True) if inside} | set(order[: config.min_tokens]) | {END}


def plain_masked(policy: Policy, mask_policy: Policy, row: Encoded, config: NLPOConfig) -> torch.Tensor:
    """The masked policy's log-probability of each response token, (R,)."""
    found = []
    for t, token in enumerate(row.response):
        before = row.prompt + row.response[:t]
        logits = policy.decoder(input_ids=torch.tensor([before]), use_cache=False).logits[0, -1] / config.temperature
        inside = sorted(inside_of(mask_policy, before, config) | {token})
        found.append(logits[token] - logits[inside].logsumexp(0))
    return torch.stack(found)


# Configuration.


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kl_target": 6.0, "batch_size": 500, "kl_horizon": 100}, "kl_horizon must exceed a fifth of batch_size"),
        ({"kl_target": 6.0, "kl_coef": 0.0}, "kl_coef, which is 0 and would stay so"),
        ({"batch_size": 10, "responses_per_prompt": 4}, "responses_per_prompt must divide batch_size"),
        ({"batch_size": 1, "normalize_score": True}, "normalize_score divides by the spread"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
    ],
)
def test_what_could_not_work_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        changed(**changes)


def test_something_must_be_maximised(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    with pytest.raises(InputError, match="nlpo: nothing to maximise; give a reward model or a score"):
        nlpo.main(CONFIG, open_run(tmp_path), nowhere, nowhere, PromptFormat())
    with pytest.raises(InputError, match=r"nlpo\.normalize_score scales the reward model, not a score of your own"):
        nlpo.main(changed(normalize_score=True), open_run(tmp_path), nowhere, nowhere, PromptFormat(), score=count_w1)


# Masks.


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_a_rollout_is_what_one_row_at_a_time_gives(temperature: float) -> None:
    config = changed(temperature=temperature, no_eos_penalty=2.5)
    policy, mask_policy, ref_policy, value_model = make_policy(), make_policy(2), make_policy(5), make_value_model()
    sampled = masked_sampler(policy, mask_policy, config)(prompt_order(len(PROMPTS), 0, 12, 3), 0)
    models = (policy, mask_policy, ref_policy, value_model)
    rollout = collect(*models, sampled, torch.arange(12.0), config, nucleus_of(config), seed=4)
    rows = rows_of(sampled)
    for n, i in enumerate(rollout.order.tolist()):
        num = len(rows[i].response)
        assert rollout.mask[n].tolist() == [t < num for t in range(rollout.mask.shape[1])]
        columns = {"old_logprob": plain_masked(policy, mask_policy, rows[i], config)}
        columns |= {"engine_logprob": columns["old_logprob"], "value": plain_value(value_model, rows[i])}
        columns |= {"unmasked": plain_logprob(policy, rows[i], temperature)}
        columns |= {"ref_logprob": plain_logprob(ref_policy, rows[i], temperature)}
        for name, expected in columns.items():
            torch.testing.assert_close(getattr(rollout, name)[n, :num], expected.detach(), atol=1e-4, rtol=1e-4)
        assert float(rollout.score[n]) == i - 2.5 * (not sampled.finished[i])
    assert not any(masks.missed.any() for masks in rollout.masks)


def test_every_sampled_token_is_allowed_even_where_rounding_says_otherwise() -> None:
    """Episodes of another policy stand in for rounding: most of their tokens are outside the masks."""
    policy, config = make_policy(), changed(top_p=0.05, min_tokens=1)
    sampled = masked_sampler(make_policy(9), make_policy(9), changed(top_p=1.0))(
        prompt_order(len(PROMPTS), 0, 12, 3), 0
    )
    models = (policy, make_policy(2), make_policy(5), make_value_model())
    rollout = collect(*models, sampled, torch.zeros(12), config, nucleus_of(config), seed=4)
    assert rollout.old_logprob.isfinite().all()
    assert sum(int(masks.missed.sum()) for masks in rollout.masks) > int(rollout.mask.sum()) / 2
    for rows, masks in zip(rollout.micro, rollout.masks, strict=True):
        row, step = rows.mask.nonzero(as_tuple=True)
        own = rows.tokens[row, rows.prompt_length[row] + step]
        assert unpack(masks.packed, VOCABULARY).gather(1, own[:, None]).all()


@pytest.mark.parametrize("max_tokens", [1, 40, 10_000])
@pytest.mark.parametrize(("temperature", "precision"), [(1.0, "fp32"), (0.6, "fp32"), (1.0, "bf16")])
def test_before_the_first_update_kl_is_0_and_every_ratio_1(
    max_tokens: int, temperature: float, precision: str, tmp_path: Path
) -> None:
    config = changed(iterations=3, max_tokens=max_tokens, temperature=temperature, precision=precision)
    learn(open_run(tmp_path), config)  # check_start sees to it
    log = read_log(tmp_path)
    assert log[0]["kl_k1"] == log[0]["kl_k3"] == 0.0 < log[0]["kl_masked"]
    assert 3 <= log[0]["allowed"] < VOCABULARY - 1
    if precision == "fp32":
        assert log[0]["engine_mismatch"] < 1e-4 and log[0]["mask_misses"] == 0
    assert log[1]["kl_k3"] > 0


def test_another_reference_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(Inexact, match=r"KL is .* before the first update"):
        learn(open_run(tmp_path), CONFIG, ref_policy=make_policy(1))
    assert read_log(tmp_path) == []


def test_masks_that_change_before_the_update_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, taken = nlpo.collect, iter((True, False))

    def other(*given: Any, **named: Any) -> nlpo.Rollout:
        rollout = real(*given, **named)
        wider = [masks._replace(packed=torch.full_like(masks.packed, 255)) for masks in rollout.masks]
        return rollout._replace(masks=wider) if next(taken) else rollout

    monkeypatch.setattr(nlpo, "collect", other)
    with pytest.raises(Inexact, match="ratio is off 1 by"):
        learn(open_run(tmp_path), CONFIG)


def test_the_mask_policy_is_renewed_every_so_many_iterations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]] = []
    real = nlpo.collect

    def noted(policy: Policy, mask_policy: Policy, *given: Any) -> nlpo.Rollout:
        seen.append((weights(policy), weights(mask_policy)))
        return real(policy, mask_policy, *given)

    monkeypatch.setattr(nlpo, "collect", noted)
    learn(open_run(tmp_path), changed(iterations=6, target_update=2))
    renewed = [0, 0, 2, 2, 4, 4]  # the iteration at whose beginning the policy was what masks now
    for (_, masking), source in zip(seen, renewed, strict=True):
        assert all(torch.equal(masking[name], seen[source][0][name]) for name in masking)
    assert not torch.equal(seen[1][0]["decoder.lm_head.weight"], seen[1][1]["decoder.lm_head.weight"])


# An iteration.


def plain_iteration(config: NLPOConfig, policy: Policy, value_model: ValueModel, sampled: Sampled) -> None:
    """One update on the whole rollout, token by token, and plain gradient descent."""
    mask_policy, ref_policy, score = make_policy(2), make_policy(5), count_w1([], sampled)
    policy_terms, value_terms, all_advantages = [], [], []
    for n, row in enumerate(rows_of(sampled)):
        masked = plain_masked(policy, mask_policy, row, config)
        unmasked, ref = (plain_logprob(m, row, config.temperature).detach() for m in (policy, ref_policy))
        value, num = plain_value(value_model, row), len(row.response)
        reward = [-config.kl_coef * float(unmasked[t] - ref[t]) for t in range(num)]
        reward[-1] += float(score[n])
        advantage, after = [0.0] * num, 0.0
        for t in reversed(range(num)):
            following = float(value[t + 1].detach()) if t + 1 < num else 0.0
            after = reward[t] + following - float(value[t].detach()) + config.gae_lambda * after
            advantage[t] = after
        for t in range(num):
            all_advantages.append(advantage[t])
            policy_terms.append((masked[t] - masked[t].detach()).exp())
            value_terms.append((value[t] - (advantage[t] + float(value[t].detach()))) ** 2 / 2)
    gain = torch.tensor(all_advantages)
    gain = (gain - gain.mean()) / (gain.var(correction=0) + 1e-8).sqrt()
    loss = -(gain * torch.stack(policy_terms)).mean() + torch.stack(value_terms).mean()
    descend(loss, policy, value_model)


@pytest.mark.parametrize("max_tokens", [1, 25, 10_000])
def test_an_iteration_is_the_one_written_out(max_tokens: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone: dict[str, Any] = {"iterations": 1, "minibatch_size": 12, "inner_epochs": 1, "warmup_iterations": 0}
    config = changed(**alone, kl_coef=0.3, lr=1.0, value_lr=1.0, max_grad_norm=1e9, max_tokens=max_tokens)
    monkeypatch.setattr(nlpo, "adam", plain_sgd)
    monkeypatch.setattr(nlpo, "check_start", lambda *given: None)  # the reference is another model
    policy, value_model = make_policy(), make_value_model()
    sampled = masked_sampler(policy, make_policy(2), config)(prompt_order(len(PROMPTS), 0, 12, 3), 0)
    models: dict[str, Any] = {"policy": policy, "value_model": value_model}
    learn(open_run(tmp_path), config, **models, mask_policy=make_policy(2), ref_policy=make_policy(5))
    other, other_value = make_policy(), make_value_model()
    plain_iteration(config, other, other_value, sampled)
    assert_same(weights(policy), weights(other), 2e-4)
    assert_same(weights(value_model), weights(other_value), 2e-4)
    assert not torch.equal(weights(policy)["decoder.lm_head.weight"], weights(make_policy())["decoder.lm_head.weight"])


def test_with_top_p_1_it_is_ppo_to_the_bit(tmp_path: Path) -> None:
    config = changed(top_p=1.0, iterations=4, kl_target=0.1, kl_coef=0.3)
    shared = {key: value for key, value in config.model_dump().items() if key in PPOConfig.model_fields}
    other, other_value, value_model = make_policy(), make_value_model(), make_value_model()
    plain = PPOConfig(**shared, ptx_coef=0, ema_decay=0)
    generate, run = sampler(other.decoder, plain), open_run(tmp_path / "ppo")
    ppo.train(plain, other, make_policy(), other_value, PROMPTS, generate, count_w1, None, run)
    policy = learn(open_run(tmp_path / "nlpo"), config, value_model=value_model)
    for mine, theirs in ((weights(policy), weights(other)), (weights(value_model), weights(other_value))):
        assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    logs = [read_log(tmp_path / name) for name in ("nlpo", "ppo")]
    for mine, theirs in zip(*logs, strict=True):
        assert {key: mine[key] for key in theirs if key != "engine_mismatch"} == {
            key: value for key, value in theirs.items() if key != "engine_mismatch"
        }
        assert mine["allowed"] == VOCABULARY and mine["kl_masked"] == mine["kl_k1"]


def test_the_coefficient_adapts_to_the_kl_without_masks(tmp_path: Path) -> None:
    learn(open_run(tmp_path), changed(iterations=4, kl_target=1e-3, kl_horizon=20, kl_coef=0.3))
    log, coefficient = read_log(tmp_path), 0.3
    for row in log:
        assert row["kl_coef"] == pytest.approx(coefficient)
        coefficient = next_kl_coef(coefficient, row["kl_k1"], 1e-3, 12, 20)
    assert log[-1]["kl_coef"] != 0.3


# The whole loop.


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_finds_a_planted_reward(seed: int, tmp_path: Path) -> None:
    longer: dict[str, Any] = {"iterations": 25, "batch_size": 48, "minibatch_size": 24, "inner_epochs": 1}
    config = changed(**longer, lr=8e-3, value_lr=2e-2, kl_coef=0.2, top_p=0.9, target_update=4, max_tokens=1000)
    policy = make_policy(seed)
    learn(open_run(tmp_path, seed=seed), config, policy=policy, ref_policy=make_policy(seed), seed=seed)
    log = read_log(tmp_path)
    early, late = (sum(row["score"] for row in part) / len(part) for part in (log[:3], log[-3:]))
    assert late > early + 1.5 and log[-1]["kl_k3"] > 0
    assert min(row["kl_masked"] for row in log) > 0
    for episode in read_jsonl(tmp_path / "samples.jsonl"):
        penalty = sum(episode["unmasked"]) - sum(episode["ref_logprob"])
        assert sum(episode["reward"]) == pytest.approx(episode["score"] - 0.2 * penalty, abs=1e-3)
        assert all(
            with_masks >= without for with_masks, without in zip(episode["logprob"], episode["unmasked"], strict=True)
        )


def test_threads_side_by_side_change_no_bit(tmp_path: Path) -> None:
    assert_threads_change_nothing(lambda run: learn(run, changed(max_tokens=20)), tmp_path)


def test_a_killed_run_ends_with_the_same_weights_and_log(tmp_path: Path) -> None:
    """Between two renewals the mask policy is neither the policy nor the start."""
    config = changed(iterations=6, kl_target=0.1, kl_coef=0.3, target_update=3)
    assert_resumes(lambda run: learn(run, config), tmp_path, kills=(0, 2, 4, 5))


def test_with_adapters_the_base_is_the_reference_and_stays(tmp_path: Path) -> None:
    policy, value_model = make_policy(), make_value_model()
    for model in (policy.decoder, value_model.trunk):
        attach_lora(model, 2, seed=1)
    models: dict[str, Any] = {"policy": policy, "value_model": value_model, "ref_policy": BasePolicy(policy)}
    with base_stays(policy):
        learn(open_run(tmp_path), changed(iterations=4), **models)
    log = read_log(tmp_path)
    assert log[0]["kl_k3"] == 0.0 < log[-1]["kl_k3"]


def test_masks_of_a_copy_with_adapters_follow_what_they_learned(tmp_path: Path) -> None:
    policy = make_policy()
    attach_lora(policy.decoder, 2, seed=1)
    mask_policy = copy.deepcopy(policy).requires_grad_(False)
    config = changed(iterations=2, target_update=2)
    learn(open_run(tmp_path), config, policy=policy, mask_policy=mask_policy, ref_policy=BasePolicy(policy))
    rows = masked_sampler(policy, mask_policy, config)([0, 1], 0).rows
    with torch.no_grad():
        mine, copied, base = (masks_of(m, rows, nucleus_of(config)) for m in (policy, mask_policy, make_policy()))
    assert torch.equal(mine.packed, copied.packed) and not torch.equal(mine.packed, base.packed)
