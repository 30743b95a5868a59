"""PPO's steps, each against the plainest computation of the same thing, and its promises about the first update."""

import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from heedful.batch import Texts
from heedful.config import InputError
from heedful.engine.sample import Sampled, Sampler
from heedful.losses.kl import next_kl_coef
from heedful.models.checkpoint import save_policy, save_reward_model, weights_hash
from heedful.models.ema import mostly_start
from heedful.models.heads import Policy, RewardModel, ValueModel
from heedful.models.load import set_residual_dropout
from heedful.models.lora import BasePolicy, attach_lora
from heedful.run import Diverged, Inexact, Run, read_jsonl
from heedful.snapshot import Snapshot, write_snapshot
from heedful.stages import ppo
from heedful.stages.ppo import (
    Generate,
    PPOConfig,
    Rollout,
    Score,
    collect,
    pretraining_update,
    prompt_order,
    ptx_batches,
    responses_by,
    train,
    update,
)
from heedful.text.collate import Encoded, to_rows
from heedful.text.format import PromptFormat
from heedful.text.parts import minibatches
from heedful.types import Prompt
from rollouts import PROMPT_IDS, PROMPTS, count_w1, plain_sgd, rows_of
from toys import (
    PAD,
    TOKENIZER,
    assert_resumes,
    assert_same,
    assert_threads_change_nothing,
    gradients,
    make_policy,
    make_reward_model,
    make_rows,
    make_value_model,
    open_run,
    plain_logprob,
    plain_score,
    plain_value,
    read_log,
    weights,
)

CONFIG = PPOConfig(
    iterations=3,
    batch_size=12,
    minibatch_size=5,
    lr=1e-2,
    value_lr=1e-2,
    warmup_iterations=2,
    ptx_coef=0,
    window=6,
    max_new_tokens=6,
    max_tokens=40,
    precision="fp32",
)
TEXTS = Texts(
    torch.randint(4, 12, (9, 6), generator=torch.Generator().manual_seed(1)), torch.tensor([6, 6, 5, 4, 3, 6, 2, 6, 6])
)


def changed(**changes: object) -> PPOConfig:
    return PPOConfig(**(CONFIG.model_dump() | changes))


def make_sampled(number: int = 12, seed: int = 0) -> Sampled:
    """Episodes nobody sampled, with log-probabilities as if somebody had; every third is cut by the limit."""
    rows = to_rows(make_rows(number, seed), PAD)
    generator = torch.Generator().manual_seed(seed)
    logprob = -2 * torch.rand(rows.mask.shape, generator=generator) * rows.mask
    tokens = [row[p:n].tolist() for row, p, n in zip(rows.tokens, rows.prompt_length, rows.length, strict=True)]
    return Sampled(rows, tokens, [""] * number, torch.arange(number) % 3 != 0, logprob)


def sampler(policy: Policy, config: PPOConfig, seed: int = 3) -> Generate:
    sample = Sampler(policy.decoder, TOKENIZER, config.max_new_tokens, config.temperature)
    return lambda index, first: sample(
        [PROMPT_IDS[i] for i in index], [seed * 1_000_003 + first + n for n in range(len(index))]
    )


def learn(run: Run, config: PPOConfig, score: Score = count_w1, texts: Texts | None = None, **models: Any) -> Policy:
    policy = models.get("policy") or make_policy()
    ref_policy = models.get("ref_policy") or make_policy()
    value_model = models.get("value_model") or make_value_model()
    generate = models.get("generate") or sampler(policy, config)
    train(config, policy, ref_policy, value_model, PROMPTS, generate, score, texts, run)
    return policy


def with_adapters(rank: int = 2) -> dict[str, Any]:
    """Policy and value model with low-rank adapters; the reference is the policy's own base."""
    policy, value_model = make_policy(), make_value_model()
    for model in (policy.decoder, value_model.trunk):
        attach_lora(model, rank, seed=1)
    return {"policy": policy, "value_model": value_model, "ref_policy": BasePolicy(policy)}


# Configuration.


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kl_target": 6.0, "batch_size": 500, "kl_horizon": 100}, "kl_horizon must exceed a fifth of batch_size"),
        ({"kl_target": 6.0, "kl_coef": 0.0}, "kl_coef, which is 0 and would stay so"),
        ({"kl_target": 6.0, "kl_coef": 0.0, "responses_per_prompt": 2}, "kl_coef, which is 0"),
    ],
)
def test_a_controller_that_could_not_work_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        changed(**changes)
    changed(**{**changes, "kl_target": None})  # without a controller its settings mean nothing


def test_one_score_has_no_spread_to_divide_by() -> None:
    with pytest.raises(ValidationError, match="normalize_score divides by the spread of batch_size scores; give at le"):
        changed(normalize_score=True, batch_size=1)
    changed(normalize_score=True, batch_size=2)
    changed(normalize_score=False, batch_size=1)


@given(st.integers(1, 4000), st.integers(1, 1000), st.floats(0, 1e6))
@settings(deadline=None, derandomize=True)
def test_an_accepted_controller_stays_positive(batch: int, horizon: int, kl: float) -> None:
    try:
        config = changed(kl_target=1.0, batch_size=batch, kl_horizon=horizon)
    except ValidationError:
        assert batch >= 5 * horizon
        return
    assert next_kl_coef(0.1, kl, 1.0, config.batch_size, config.kl_horizon) > 0


def test_the_papers_preset() -> None:
    paper = PPOConfig()
    assert (paper.batch_size, paper.minibatch_size, paper.inner_epochs, paper.iterations) == (512, 64, 1, 500)
    assert (paper.kl_coef, paper.clip_range, paper.discount, paper.temperature) == (0.02, 0.2, 1.0, 1.0)
    assert (paper.warmup_iterations, paper.warmup_start, paper.ema_decay) == (10, 0.1, 0.992)
    assert (paper.ptx_coef, paper.ptx_examples, paper.logprobs) == (27.8, 8.0, "trainer")


# Which episodes, in which layout.


@given(st.integers(1, 9), st.integers(0, 40), st.integers(1, 40), st.integers(0, 5))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_every_pass_over_the_prompts_asks_each_once(num: int, first: int, number: int, seed: int) -> None:
    order = prompt_order(num, 0, first + number, seed)
    for start in range(0, len(order) - num + 1, num):
        assert sorted(order[start : start + num]) == list(range(num))
    assert prompt_order(num, first, number, seed) == order[first:]  # wherever an iteration, or a resumed run, begins


@given(st.integers(1, 25), st.integers(1, 12), st.integers(1, 60), st.integers(0, 5))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_the_layout_holds_every_episode_once(number: int, minibatch: int, max_tokens: int, seed: int) -> None:
    rows = to_rows(make_rows(number, seed), PAD)
    order, parts = minibatches(rows, minibatch, max_tokens, seed)
    assert sorted(order.tolist()) == list(range(number))
    assert [sum(end - start for start, end in part) for part in parts] == [
        min(minibatch, number - start) for start in range(0, number, minibatch)
    ]
    spans = [span for part in parts for span in part]
    assert [start for start, _ in spans] == [0, *[end for _, end in spans[:-1]]]
    for start, end in spans:
        part = order[start:end].tolist()
        prompts = {tuple(rows.tokens[i, : rows.prompt_length[i]].tolist()) for i in part}  # each is computed once
        tokens = sum(map(len, prompts)) + int(rows.response_length[part].sum())
        assert end - start == 1 or tokens <= max_tokens
    # which episodes share an update does not depend on what one pass can hold
    whole, one_part = minibatches(rows, minibatch, 10_000, seed)
    for mine, theirs in zip(parts, one_part, strict=True):
        (start, end), (first, last) = (mine[0][0], mine[-1][1]), (theirs[0][0], theirs[-1][1])
        assert sorted(order[start:end].tolist()) == sorted(whole[first:last].tolist())


@pytest.mark.parametrize(("logprobs", "temperature"), [("trainer", 1.0), ("trainer", 0.7), ("engine", 1.0)])
def test_a_rollout_is_what_one_row_at_a_time_gives(logprobs: str, temperature: float) -> None:
    policy, ref_policy, value_model = make_policy(), make_policy(5), make_value_model()
    sampled, score = make_sampled(), torch.arange(12.0)
    config = changed(logprobs=logprobs, temperature=temperature, no_eos_penalty=2.5)
    rollout = collect(policy, ref_policy, value_model, sampled, score, config, seed=4)
    rows = make_rows(12)
    assert rollout.mask.shape == rollout.value.shape == sampled.logprob.shape
    for n, i in enumerate(rollout.order.tolist()):
        number = len(rows[i].response)
        assert rollout.mask[n].tolist() == [t < number for t in range(rollout.mask.shape[1])]
        old = plain_logprob(policy, rows[i], temperature) if logprobs == "trainer" else sampled.logprob[i, :number]
        torch.testing.assert_close(rollout.old_logprob[n, :number], old, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(rollout.engine_logprob[n], sampled.logprob[i])
        ref_logprob = plain_logprob(ref_policy, rows[i], temperature)
        torch.testing.assert_close(rollout.ref_logprob[n, :number], ref_logprob, atol=1e-5, rtol=1e-5)
        value = plain_value(value_model, rows[i])
        torch.testing.assert_close(rollout.value[n, :number], value, atol=1e-5, rtol=1e-5)
        assert float(rollout.score[n]) == i - 2.5 * (i % 3 == 0)  # every third was cut, without an end token
        assert not rollout.old_logprob.requires_grad and not rollout.value.requires_grad


# One update.


def plain_losses(
    policy: Policy,
    value_model: ValueModel,
    rollout: Rollout,
    part: slice,
    advantage: torch.Tensor,
    returns: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Policy and value loss of some episodes, token by token, as means over their tokens."""
    rows = make_rows(12)
    policy_terms, value_terms = [], []
    for n in range(part.start, part.stop):
        row = rows[int(rollout.order[n])]
        logprob, value = plain_logprob(policy, row), plain_value(value_model, row)
        for t in range(len(row.response)):
            ratio, gain = (logprob[t] - rollout.old_logprob[n, t]).exp(), advantage[n, t]
            policy_terms.append(-torch.minimum(gain * ratio, gain * ratio.clamp(0.8, 1.2)))
            old, goal = rollout.value[n, t], returns[n, t]
            near = torch.minimum(torch.maximum(value[t], old - 0.2), old + 0.2)
            value_terms.append(torch.maximum((value[t] - goal) ** 2, (near - goal) ** 2) / 2)
    return torch.stack(policy_terms).mean(), torch.stack(value_terms).mean()


@pytest.mark.parametrize("max_tokens", [1, 25, 10_000])
def test_an_update_is_the_mean_over_the_minibatchs_tokens_whatever_the_micro_batches(max_tokens: int) -> None:
    policy, value_model, sampled = make_policy(), make_value_model(), make_sampled()
    config = changed(max_tokens=max_tokens, logprobs="engine")  # ratios far from 1: some are clipped
    rollout = collect(policy, make_policy(5), value_model, sampled, torch.zeros(12), config, seed=4)
    rollout = rollout._replace(value=rollout.value + 0.3 * torch.sign(torch.randn(rollout.value.shape)) * rollout.mask)
    generator = torch.Generator().manual_seed(0)
    advantage = torch.randn(rollout.mask.shape, generator=generator) * rollout.mask
    returns = torch.randn(rollout.mask.shape, generator=generator) * rollout.mask
    assert (max(map(len, rollout.parts)) > 1) == (max_tokens < 10_000)
    start = 0
    for minibatch, part in enumerate(rollout.parts):
        end = part[-1][1]
        stats = update(policy, value_model, rollout, minibatch, advantage, returns, config)
        mine, mine_value = gradients(policy), gradients(value_model)
        losses = plain_losses(policy, value_model, rollout, slice(start, end), advantage, returns)
        (losses[0] + losses[1]).backward()
        assert_same(mine, gradients(policy))
        assert_same(mine_value, gradients(value_model))
        assert (stats["policy_loss"], stats["value_loss"]) == pytest.approx(
            [float(x.detach()) for x in losses], abs=1e-5
        )
        start = end


def test_statistics_of_an_update_are_means_over_tokens() -> None:
    policy, value_model, sampled = make_policy(), make_value_model(), make_sampled()
    config = changed(logprobs="engine", minibatch_size=12)
    rollout = collect(policy, make_policy(5), value_model, sampled, torch.zeros(12), config, seed=4)
    zero = torch.zeros(rollout.mask.shape)
    stats = update(policy, value_model, rollout, 0, zero, zero, config)
    ratios = [
        math.exp(float((now - then).detach()))
        for row, old in zip(make_rows(12), sampled.logprob, strict=True)
        for now, then in zip(plain_logprob(policy, row), old, strict=False)
    ]
    assert stats["ratio"] == pytest.approx(sum(ratios) / len(ratios), rel=1e-4)
    assert stats["clip_fraction"] == pytest.approx(sum(abs(r - 1) > 0.2 for r in ratios) / len(ratios), abs=1e-6)
    assert stats["ratio_off_one"] == pytest.approx(max(abs(r - 1) for r in ratios), rel=1e-4)
    assert 0 < stats["entropy"] < math.log(len(TOKENIZER))


@pytest.mark.parametrize("max_tokens", [1, 14, 10_000])
def test_the_pretraining_gradient_is_added_to_the_policys(max_tokens: int) -> None:
    policy, value_model, sampled = make_policy(), make_value_model(), make_sampled()
    config = changed(ptx_coef=27.8, max_tokens=max_tokens)
    rollout = collect(policy, make_policy(5), value_model, sampled, torch.zeros(12), config, seed=4)
    advantage = torch.randn(rollout.mask.shape) * rollout.mask
    update(policy, value_model, rollout, 0, advantage, advantage, config)
    alone = gradients(policy)
    loss = pretraining_update(policy, TEXTS, config)
    ptx = gradients(policy)
    rows = [row[:n].tolist() for row, n in zip(TEXTS.tokens, TEXTS.length.tolist(), strict=True)]
    plain = -torch.cat([plain_logprob(policy, Encoded(row[:1], row[1:])) for row in rows]).mean()
    (27.8 * plain).backward()
    assert loss == pytest.approx(float(plain.detach()), abs=1e-5)
    assert_same(ptx, gradients(policy), 1e-4)
    update(policy, value_model, rollout, 0, advantage, advantage, config)
    pretraining_update(policy, TEXTS, config)
    assert_same(gradients(policy), {name: alone[name] + ptx[name] for name in alone}, 1e-4)


def test_pretraining_rows_are_eight_an_episode_and_drawn_anew_for_every_update() -> None:
    batches = ptx_batches(TEXTS, changed(ptx_examples=8.0, minibatch_size=64), seed=1)
    first, second = next(batches), next(batches)
    assert len(first.length) == 512
    assert not torch.equal(first.length, second.length)
    known = {tuple(row[:n].tolist()) for row, n in zip(TEXTS.tokens, TEXTS.length.tolist(), strict=True)}
    drawn = Counter(tuple(r[:n].tolist()) for r, n in zip(first.tokens, first.length.tolist(), strict=True))
    assert drawn.keys() == known


# The whole loop.


def plain_train(config: PPOConfig, policy: Policy, value_model: ValueModel, sampled: Sampled, seed: int) -> None:
    """One iteration with every formula written out and plain gradient descent."""
    rows = rows_of(sampled)
    score = count_w1([], sampled)
    order, parts = minibatches(sampled.rows, config.minibatch_size, config.max_tokens, seed)
    old = [plain_logprob(policy, row).detach() for row in rows]
    old_value = [plain_value(value_model, row).detach() for row in rows]
    ref = [plain_logprob(make_policy(5), row).detach() for row in rows]
    advantage, returns = [], []
    for n in range(len(rows)):
        kl = old[n] - ref[n]
        reward = -config.kl_coef * (torch.where(kl < 0, 0, kl) if config.clamp_kl else kl)
        reward[-1] += score[n]
        found = torch.zeros_like(reward)
        later = later_value = 0.0
        for t in reversed(range(len(reward))):
            delta = reward[t] + later_value - old_value[n][t]
            later = found[t] = delta + 0.95 * later
            later_value = old_value[n][t]
        advantage.append(found)
        returns.append(found + old_value[n])
    flat = torch.cat(advantage)
    advantage = [(a - flat.mean()) / flat.std(correction=0) for a in advantage]
    for _ in range(config.inner_epochs):
        for part in parts:
            chosen = order[part[0][0] : part[-1][1]].tolist()
            policy_terms, value_terms = [], []
            for n in chosen:
                ratio = (plain_logprob(policy, rows[n]) - old[n]).exp()
                gain = torch.minimum(advantage[n] * ratio, advantage[n] * ratio.clamp(0.8, 1.2))
                policy_terms.append(-gain)
                value = plain_value(value_model, rows[n])
                near = torch.minimum(torch.maximum(value, old_value[n] - 0.2), old_value[n] + 0.2)
                value_terms.append(torch.maximum((value - returns[n]) ** 2, (near - returns[n]) ** 2) / 2)
            for model, terms, lr in ((policy, policy_terms, config.lr), (value_model, value_terms, config.value_lr)):
                model.zero_grad()
                torch.cat(terms).mean().backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm)
                with torch.no_grad():
                    for p in model.parameters():
                        p -= lr * 0.1 * (0 if p.grad is None else p.grad)  # a tenth: the first step of the warm-up


@pytest.mark.parametrize("clamp_kl", [False, True])
def test_an_iteration_of_two_epochs_is_the_one_written_out(
    clamp_kl: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = changed(iterations=1, inner_epochs=2, lr=1.0, value_lr=1.0, ema_decay=0.0, kl_coef=0.1, clamp_kl=clamp_kl)
    monkeypatch.setattr(ppo, "adam", plain_sgd)
    monkeypatch.setattr(ppo, "check_start", lambda *_: None)  # the reference is another model here
    policy, value_model = make_policy(), make_value_model()
    generate = sampler(policy, config)
    sampled = generate(prompt_order(len(PROMPTS), 0, 12, 3), 0)
    learn(open_run(tmp_path), config, policy=policy, value_model=value_model, ref_policy=make_policy(5))
    plain, plain_value_model = make_policy(), make_value_model()
    plain_train(config, plain, plain_value_model, sampled, seed=3 * 100_003)
    assert_same(weights(policy), weights(plain), 1e-5)
    assert_same(weights(value_model), weights(plain_value_model), 1e-5)
    assert not torch.allclose(
        weights(policy)["decoder.lm_head.weight"], weights(make_policy())["decoder.lm_head.weight"]
    )


def test_responses_to_one_prompt_stand_side_by_side_and_share_its_computation(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="responses_per_prompt must divide batch_size"):
        changed(responses_per_prompt=5)
    config = changed(responses_per_prompt=4, minibatch_size=12, max_tokens=10_000)
    order = prompt_order(len(PROMPTS), 12, 12, 3, 4)
    assert order == [index for index in prompt_order(len(PROMPTS), 3, 3, 3) for _ in range(4)]
    policy = make_policy()
    sample = Sampler(policy.decoder, TOKENIZER, config.max_new_tokens)
    generate = responses_by(sample, PROMPT_IDS, 4, seed=3)
    sampled = generate(order, 12)
    assert sampled.rows.tokens[:, 1].tolist() == [PROMPT_IDS[i][1] for i in order]
    assert len({tuple(tokens) for tokens in sampled.tokens[:4]}) > 1  # draws of their own
    seen: list[int] = []
    policy.decoder.get_decoder().layers[0].register_forward_pre_hook(
        lambda _, args: seen.append(args[0][..., 0].numel())
    )
    collect(policy, make_policy(), make_value_model(), sampled, torch.zeros(12), config, seed=0)
    assert seen == [3 * 2 + int(sampled.rows.response_length.sum())]
    learn(open_run(tmp_path), config, policy=policy, generate=generate)  # check_start sees to exactness


@pytest.mark.parametrize("max_tokens", [1, 40, 10_000])
@pytest.mark.parametrize(("temperature", "precision"), [(1.0, "fp32"), (0.6, "fp32"), (1.0, "bf16")])
def test_before_the_first_update_kl_is_0_and_every_ratio_1(
    max_tokens: int, temperature: float, precision: str, tmp_path: Path
) -> None:
    config = changed(iterations=2, max_tokens=max_tokens, temperature=temperature, precision=precision)
    learn(open_run(tmp_path), config)  # check_start sees to it
    first = read_log(tmp_path)
    assert first[0]["kl_k1"] == first[0]["kl_k3"] == 0.0
    assert 0 <= first[0]["engine_mismatch"] < (1e-4 if precision == "fp32" else 0.2)  # the engine computes in fp32
    assert first[1]["kl_k3"] > 0


def test_with_adapters_the_base_is_the_reference_and_stays(tmp_path: Path) -> None:
    models = with_adapters()
    policy = models["policy"]
    base = {name: p.clone() for name, p in policy.named_parameters() if not p.requires_grad}
    config = changed(iterations=4, ptx_coef=1.0, ptx_examples=0.5, ema_decay=0.5)
    learn(open_run(tmp_path, checkpoint_seconds=0.0), config, texts=TEXTS, **models)
    [*_, newest] = sorted(tmp_path.glob("state-*.pt"))
    averaged = set(torch.load(newest, weights_only=True)["parts"]["ema"]["average"])
    assert averaged and averaged.isdisjoint(base)
    log = read_log(tmp_path)
    assert log[0]["kl_k3"] == 0.0 and log[-1]["kl_k3"] > 0
    assert base and all(torch.equal(p, dict(policy.named_parameters())[name]) for name, p in base.items())
    rows = make_sampled().rows
    with torch.no_grad():
        ref = BasePolicy(policy).logprob(rows)
        untouched = make_policy().logprob(rows)
        now = policy.logprob(rows)
    assert torch.equal(ref, untouched) and (now - ref).abs().max() > 1e-3


def test_another_reference_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(Inexact, match=r"KL is .* before the first update"):
        learn(open_run(tmp_path), CONFIG, ref_policy=make_policy(1))
    assert read_log(tmp_path) == []


def test_dropout_is_noticed(tmp_path: Path) -> None:
    policy = make_policy()
    set_residual_dropout(policy.decoder, 0.3)
    policy.train()
    with pytest.raises(Inexact, match="ratio is off 1 by"):
        learn(open_run(tmp_path), CONFIG, policy=policy)


@pytest.mark.parametrize("off", [0.0, 0.01, 0.5])
def test_with_the_engines_logprobs_the_mismatch_is_logged_and_bounded(off: float, tmp_path: Path) -> None:
    config = changed(iterations=1, logprobs="engine", minibatch_size=12)
    policy = make_policy()
    real = sampler(policy, config)

    def generate(index: Any, first: int) -> Sampled:
        sampled = real(index, first)
        return sampled._replace(logprob=(sampled.logprob - off) * sampled.rows.mask)

    if off == 0.5:
        with pytest.raises(InputError, match=r"100.0% of tokens are clipped before the first update .* logprobs: tra"):
            learn(open_run(tmp_path), config, policy=policy, generate=generate)
        return
    learn(open_run(tmp_path), config, policy=policy, generate=generate)
    assert read_log(tmp_path)[0]["engine_mismatch"] == pytest.approx(math.expm1(off), abs=1e-4)


def test_warm_up_ema_and_the_adaptive_coefficient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = changed(iterations=4, minibatch_size=12, ema_decay=0.8, kl_target=1e-3, kl_horizon=20, kl_coef=0.3)
    rates: list[tuple[float, float]] = []
    snapshots: list[dict[str, torch.Tensor]] = []
    policy = make_policy()
    real = ppo.Ema.update

    def noted(self: Any) -> None:
        real(self)
        snapshots.append(weights(policy))

    monkeypatch.setattr(ppo.Ema, "update", noted)
    optimizers: list[torch.optim.Optimizer] = []
    monkeypatch.setattr(ppo, "set_lr", lambda o, lr: (optimizers.append(o), rates.append(lr)))
    start = weights(policy)
    learn(open_run(tmp_path), config, policy=policy)
    assert rates[::2] == pytest.approx([1e-2 * share for share in (0.1, 0.55, 1.0, 1.0)])
    assert rates[1::2] == pytest.approx([1e-2 * share for share in (0.1, 0.55, 1.0, 1.0)])
    assert optimizers[0] is not optimizers[1]
    average = start
    for now in snapshots:
        average = {name: 0.8 * average[name] + 0.2 * now[name] for name in average}
    assert len(snapshots) == 4
    assert_same(weights(policy), average, 1e-6)
    log = read_log(tmp_path)
    coefficient = 0.3
    for row in log:
        assert row["kl_coef"] == pytest.approx(coefficient)
        coefficient = next_kl_coef(coefficient, row["kl_k1"], 1e-3, 12, 20)
    assert log[-1]["kl_coef"] != 0.3


@pytest.mark.parametrize(("warmup", "shares"), [(0, [1.0, 1.0, 1.0]), (1, [0.25, 1.0, 1.0]), (2, [0.25, 0.625, 1.0])])
def test_the_log_tells_both_learning_rates_and_no_warm_up_is_none(
    warmup: int, shares: list[float], tmp_path: Path
) -> None:
    learn(open_run(tmp_path), changed(lr=4e-3, value_lr=8e-3, warmup_iterations=warmup, warmup_start=0.25))
    log = read_log(tmp_path)
    assert [row["lr"] for row in log] == pytest.approx([4e-3 * share for share in shares])
    assert [row["value_lr"] for row in log] == pytest.approx([8e-3 * share for share in shares])


def test_the_first_update_without_warm_up_is_a_whole_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ppo, "adam", plain_sgd)
    moved = []
    for warmup in (0, 1):
        config = changed(iterations=1, minibatch_size=12, warmup_iterations=warmup, ema_decay=0.0, lr=1e-2)
        now, start = weights(learn(open_run(tmp_path / str(warmup)), config)), weights(make_policy())
        moved.append(torch.cat([(now[name] - start[name]).flatten() for name in start]))
    torch.testing.assert_close(moved[0] * 0.1, moved[1], atol=1e-6, rtol=1e-3)


def test_without_averaging_the_last_weights_stay(tmp_path: Path) -> None:
    last = weights(learn(open_run(tmp_path / "a"), changed(ema_decay=0.0)))
    averaged = weights(learn(open_run(tmp_path / "b"), changed(ema_decay=0.9)))
    assert any(not torch.equal(last[name], averaged[name]) for name in last)


def test_an_average_that_is_mostly_the_start_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short = changed(iterations=3, inner_epochs=2, batch_size=12, minibatch_size=12, ema_decay=0.992)
    with pytest.raises(InputError, match="nowhere"):
        nowhere = tmp_path / "nowhere"
        ppo.main(short, open_run(tmp_path), nowhere, nowhere, nowhere, PromptFormat(), None)
    words = "warning: ppo.ema_decay 0.992 over 6 updates: the saved weights are 95% PPO's start; lower it"
    assert words in capsys.readouterr().err
    several = short.model_copy(update={"minibatch_size": 5})  # three updates an epoch, the last of two episodes
    assert "over 18 updates" in mostly_start(several)
    for quiet in (
        PPOConfig(),
        short.model_copy(update={"ema_decay": 0.0}),
        short.model_copy(update={"iterations": 60}),
    ):
        assert mostly_start(quiet) == ""


def test_what_micro_batches_hold_changes_nothing(tmp_path: Path) -> None:
    config = changed(ptx_coef=1.0, ptx_examples=0.5, inner_epochs=2, ema_decay=0.0)
    ends = []
    for max_tokens in (12, 10_000):
        run = open_run(tmp_path / str(max_tokens))
        policy = learn(run, config.model_copy(update={"max_tokens": max_tokens}), texts=TEXTS)
        ends.append((weights(policy), read_log(run.folder)))
    assert_same(ends[0][0], ends[1][0], 2e-3)  # Adam makes much of gradients near 0
    for mine, theirs in zip(ends[0][1], ends[1][1], strict=True):
        assert mine["score"] == theirs["score"]
        assert mine["policy_loss"] == pytest.approx(theirs["policy_loss"], abs=1e-3)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_finds_a_planted_reward_and_stays_near_its_reference(seed: int, tmp_path: Path) -> None:
    config = changed(
        iterations=25,
        batch_size=48,
        minibatch_size=24,
        lr=8e-3,
        value_lr=2e-2,
        kl_coef=0.25,
        ema_decay=0.0,
        max_tokens=1000,
    )
    policy = make_policy(seed)
    run = open_run(tmp_path, seed=seed)
    learn(run, config, policy=policy, ref_policy=make_policy(seed), generate=sampler(policy, config, seed))
    log = read_log(tmp_path)
    early, late = (sum(row["score"] for row in part) / len(part) for part in (log[:3], log[-3:]))
    assert late > early + 2.0
    assert 0 < max(row["kl_k3"] for row in log) < 12
    assert log[-1]["explained_variance"] > log[0]["explained_variance"]
    episodes = read_jsonl(tmp_path / "samples.jsonl")
    assert len(episodes) == 25
    for episode in episodes:  # a judgement followed to the reward it became
        penalty = sum(episode["logprob"]) - sum(episode["ref_logprob"])
        assert sum(episode["reward"]) == pytest.approx(episode["score"] - 0.25 * penalty, abs=1e-3)


def test_threads_side_by_side_change_no_bit(tmp_path: Path) -> None:
    """Several micro-batches a minibatch, so that there is something to share out."""
    config = changed(ptx_coef=1.0, ptx_examples=0.5, max_tokens=20)
    assert_threads_change_nothing(lambda run: learn(run, config, texts=TEXTS), tmp_path)


def test_a_long_run_follows_a_bounded_number_of_episodes(tmp_path: Path) -> None:
    learn(open_run(tmp_path), changed(iterations=101, batch_size=1, minibatch_size=1))
    followed = [row["iteration"] for row in read_jsonl(tmp_path / "samples.jsonl")]
    assert followed == [*range(0, 100, 2), 100] and len(read_log(tmp_path)) == 101


def test_a_killed_run_ends_with_the_same_weights_and_log(tmp_path: Path) -> None:
    config = changed(iterations=5, ptx_coef=2.0, ptx_examples=0.5, kl_target=0.1, kl_coef=0.3, ema_decay=0.5)
    assert_resumes(lambda run: learn(run, config, texts=TEXTS), tmp_path, kills=(0, 2, 3, 4))


def test_a_killed_run_with_adapters_ends_with_the_same_weights_and_log(tmp_path: Path) -> None:
    config = changed(ema_decay=0.5)
    assert_resumes(lambda run: learn(run, config, **with_adapters()), tmp_path, kills=(0, 1, 2))


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda found: found.tolist(), r"must return a tensor of shape \(12,\), not list"),
        (lambda found: found.numpy(), r"must return a tensor of shape \(12,\), not ndarray"),
        (lambda found: found[1:], r"a tensor of shape \(12,\), not a tensor of shape \(11,\)"),
        (lambda found: found[:, None], r"not a tensor of shape \(12, 1\)"),
        (lambda found: found.sum(), r"not a tensor of shape \(\)"),
        (
            lambda found: found / (torch.arange(12) != 0),
            r"score of 1 of 12 responses is no .*: (nan|inf) .* prompt w\d",
        ),
        (
            lambda found: found * float("nan"),
            r"score of 12 of 12 responses is no finite number: nan for the response to",
        ),
    ],
)
def test_a_score_function_that_gives_something_else_is_told_so(made: Any, words: str, tmp_path: Path) -> None:
    def score(prompts: list[Prompt], sampled: Sampled) -> Any:
        return made(count_w1(prompts, sampled) + 1)

    with pytest.raises(InputError, match=words):
        learn(open_run(tmp_path), CONFIG, score)


def test_a_score_may_be_whole_numbers_doubles_or_have_a_gradient(tmp_path: Path) -> None:
    weight = torch.ones((), requires_grad=True)
    config = changed(iterations=1)
    scores: list[Score] = [
        count_w1,
        lambda prompts, sampled: count_w1(prompts, sampled).long(),
        lambda prompts, sampled: count_w1(prompts, sampled).double(),
        lambda prompts, sampled: count_w1(prompts, sampled) * weight,
    ]
    ends = [weights(learn(open_run(tmp_path / str(n)), config, score)) for n, score in enumerate(scores)]
    assert all(torch.equal(end[name], ends[0][name]) for end in ends for name in end)
    assert weight.grad is None


def test_a_score_of_ones_own_is_not_normalized(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="normalize_score scales the reward model, not a score of your own"):
        config, nowhere = changed(normalize_score=True), tmp_path / "nowhere"
        ppo.main(config, open_run(tmp_path), nowhere, nowhere, nowhere, PromptFormat(), None, count_w1)


def test_after_a_score_that_is_none_the_same_run_goes_on(tmp_path: Path) -> None:
    asked: list[int] = []

    def score(prompts: list[Prompt], sampled: Sampled) -> torch.Tensor:
        asked.append(len(prompts))
        found = count_w1(prompts, sampled)
        return found if len(asked) < 3 else found * float("nan")

    with pytest.raises(InputError, match="score of 12 of 12 responses is no finite number"):
        learn(open_run(tmp_path, checkpoint_seconds=0.0), CONFIG, score)
    policy = make_policy()
    done, plain = open_run(tmp_path).restore(policy=policy)
    assert done == 2 and plain["kl_coef"] == CONFIG.kl_coef
    assert all(torch.isfinite(x).all() for x in weights(policy).values())
    assert [row["step"] for row in read_log(tmp_path)] == [0, 1]
    learn(open_run(tmp_path), CONFIG)
    assert [row["step"] for row in read_log(tmp_path)] == [0, 1, 2]


def test_weights_that_diverged_stop_with_their_step_and_name_the_state_before_them(tmp_path: Path) -> None:
    policy = make_policy()

    def generate(index: Any, first: int) -> Sampled:
        if first == 24:  # the third iteration begins with weights that give nothing
            with torch.no_grad():
                sampled = sampler(make_policy(), CONFIG)(index, first)
                policy.decoder.lm_head.weight.fill_(float("nan"))
            return sampled
        return sampler(policy, CONFIG)(index, first)

    with pytest.raises(
        Diverged, match=r"toy: policy_loss became nan at step 2; the last good state is kept in .*001.pt"
    ):
        learn(open_run(tmp_path, checkpoint_seconds=0.0), CONFIG, policy=policy, generate=generate)
    assert {path.name for path in tmp_path.glob("state-*")} == {"state-000000001.pt", "state-000000002.pt"}


def test_scores_are_scaled_to_mean_0_and_sd_1_on_the_start(tmp_path: Path) -> None:
    model: RewardModel = make_reward_model()
    rows = make_rows(20)
    before = torch.stack([plain_score(model, row) for row in rows]).detach()
    model.normalize(before)
    after = torch.stack([plain_score(model, row) for row in rows]).detach()
    torch.testing.assert_close(after, (before - before.mean()) / before.std(), atol=1e-5, rtol=1e-5)


def test_with_one_base_reward_and_value_are_adapters_over_the_policy(tmp_path: Path) -> None:
    """The log is that of a reward model with its adapters merged in, up to rounding."""
    save_policy(tmp_path / "policy", make_policy(), TOKENIZER, {})
    reward_model = RewardModel.from_decoder(make_policy().decoder, seed=1)
    attach_lora(reward_model.trunk, 2, seed=1)
    with torch.no_grad():
        for name, p in reward_model.named_parameters():
            if "lora_B" in name:
                p.normal_(std=0.2, generator=torch.Generator().manual_seed(0))
    save_reward_model(tmp_path / "rm", reward_model, TOKENIZER, {"model": weights_hash(tmp_path / "policy")})
    write_snapshot(tmp_path / "prompts", Snapshot(prompts=tuple(PROMPTS)))
    logs = []
    for one_base in (False, True):
        run = open_run(tmp_path / f"run-{one_base}")
        config = changed(iterations=1, minibatch_size=12, lora_rank=2, one_base=one_base)
        ppo.main(config, run, tmp_path / "policy", tmp_path / "rm", tmp_path / "prompts", PromptFormat(), None)
        logs.append(read_log(run.folder)[0])
    same = ("score", "score_sd", "length", "value_loss", "explained_variance", "policy_loss")
    assert {key: logs[0][key] for key in same} == pytest.approx({key: logs[1][key] for key in same}, abs=1e-4)
    for more in ({}, {"lora_rank": 2, "normalize_score": True}):
        with pytest.raises(ValueError, match="one_base needs lora_rank"):
            changed(one_base=True, **more)
