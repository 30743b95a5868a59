"""Rejection-sampling fine-tuning against the same thing written out, and against the best of n of a whole language."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from heedful.config import InputError
from heedful.engine.sample import Sampled, prompt_order
from heedful.losses.best_of_n import best_of_n_kl
from heedful.models.heads import Policy
from heedful.models.lora import BasePolicy, attach_lora
from heedful.run import Run, read_jsonl
from heedful.stages import best_of_n
from heedful.stages.best_of_n import BestOfNConfig, chosen
from heedful.text.format import PromptFormat
from heedful.types import Prompt
from rollouts import PROMPT_IDS, PROMPTS, count_w1, descend, plain_sgd, rows_of, sampler
from toys import (
    VOCABULARY,
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

CONFIG = BestOfNConfig(
    iterations=3,
    batch_size=24,
    responses_per_prompt=4,
    minibatch_size=4,
    inner_epochs=2,
    lr=1e-2,
    max_new_tokens=6,
    max_tokens=40,
    precision="fp32",
)


def changed(**changes: object) -> BestOfNConfig:
    return BestOfNConfig(**(CONFIG.model_dump() | changes))


def learn(run: Run, config: BestOfNConfig, score: Any = count_w1, **models: Any) -> Policy:
    policy = models.get("policy") or make_policy()
    generate = sampler(policy.decoder, config, models.get("seed", 3))
    prompts = models.get("prompts") or PROMPTS
    best_of_n.train(config, policy, models.get("ref_policy") or make_policy(), prompts, generate, score, run)
    return policy


# What is kept.


@given(
    st.integers(1, 5),
    st.integers(2, 6),
    st.integers(1, 7),
    st.one_of(st.none(), st.integers(-3, 3)),
    st.integers(0, 99),
)
@settings(max_examples=80, deadline=None, derandomize=True)
def test_the_best_of_each_prompt_are_kept(num: int, each: int, keep: int, threshold: int | None, seed: int) -> None:
    score = torch.randint(-3, 4, (num * each,), generator=torch.Generator().manual_seed(seed)).float()
    found = chosen(score, each, keep, threshold).view(num, each).tolist()
    for group, kept in zip(score.view(num, each).tolist(), found, strict=True):
        order = sorted(range(each), key=lambda i: (-group[i], i))[:keep]  # the earlier of equal ones
        expected = {i for i in order if threshold is None or group[i] > threshold}
        assert {i for i, one in enumerate(kept) if one} == expected


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batch_size": 10}, "responses_per_prompt must divide batch_size"),
        ({"responses_per_prompt": 1}, "responses_per_prompt"),
        ({"keep": 4}, "keep must be below responses_per_prompt, or nothing is chosen; or give a threshold"),
    ],
)
def test_what_could_not_work_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        changed(**changes)
    assert changed(keep=4, threshold=0.0).keep == 4


def test_something_must_be_maximised(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    with pytest.raises(InputError, match="best_of_n: nothing to maximise; give a reward model or a score"):
        best_of_n.main(CONFIG, open_run(tmp_path), nowhere, nowhere, PromptFormat())
    with pytest.raises(InputError, match=r"best_of_n\.normalize_score scales the reward model, not a score of your"):
        best_of_n.main(
            changed(normalize_score=True), open_run(tmp_path), nowhere, nowhere, PromptFormat(), score=count_w1
        )


@pytest.mark.parametrize("n", [2, 3, 4])
def test_what_is_kept_of_a_language_of_seven_is_the_best_of_n_and_within_its_bound(n: int) -> None:
    """Every draw of n responses with its chance, brute force, beside Σ to the power of n; two responses score alike."""
    likely = torch.tensor([0.3, 0.05, 0.2, 0.1, 0.15, 0.12, 0.08], dtype=torch.float64)
    for score in (torch.tensor([2.0, 5, -1, 0, 3, 1, 4]), torch.tensor([2.0, 5, -1, 2, 3, 1, 5])):
        draws = torch.cartesian_prod(*[torch.arange(7)] * n)
        kept = chosen(score[draws].flatten(), n, 1, None).view(-1, n)
        assert kept.sum(1).eq(1).all()
        made = torch.zeros_like(likely).index_add(0, draws[kept], likely[draws].prod(1))
        level, at = score.unique(return_inverse=True)
        reached = torch.zeros(len(level), dtype=torch.float64).index_add(0, at, likely).cumsum(0) ** n
        analytic = reached.diff(prepend=torch.zeros(1, dtype=torch.float64))
        torch.testing.assert_close(torch.zeros_like(analytic).index_add(0, at, made), analytic)
        kl = float((made * (made / likely).log()).sum())
        assert 0 < kl < float(best_of_n_kl(n))
        if len(level) == 7:
            torch.testing.assert_close(made[score.argsort()], analytic)


# An iteration.


@pytest.mark.parametrize("max_tokens", [1, 25, 10_000])
@pytest.mark.parametrize(("keep", "threshold"), [(1, None), (2, None), (4, 0.5)])
def test_an_iteration_is_the_one_written_out(
    keep: int, threshold: float | None, max_tokens: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One update on all that is kept: plain gradient descent on the mean over its tokens."""
    alone: dict[str, Any] = {"iterations": 1, "minibatch_size": 24, "inner_epochs": 1, "max_grad_norm": 1e9}
    config = changed(**alone, keep=keep, threshold=threshold, lr=1.0, max_tokens=max_tokens, no_eos_penalty=0.25)
    monkeypatch.setattr(best_of_n, "adam", plain_sgd)
    policy, other, ref_policy = make_policy(), make_policy(), make_policy(5)
    sampled = sampler(policy.decoder, config)(prompt_order(len(PROMPTS), 0, 24, 3, 4), 0)
    learn(open_run(tmp_path), config, policy=policy, ref_policy=ref_policy)
    rows = rows_of(sampled)
    score = [
        float(worth) - (0.0 if whole else 0.25)
        for worth, whole in zip(count_w1([], sampled), sampled.finished.tolist(), strict=True)
    ]
    kept = []
    for group in range(6):
        members = sorted(range(4 * group, 4 * group + 4), key=lambda i: (-score[i], i))[:keep]
        kept += [i for i in members if threshold is None or score[i] > threshold]
    assert 0 < len(kept) < 24
    loss = -torch.cat([plain_logprob(other, rows[i]) for i in kept]).mean()
    descend(loss, other)
    assert_same(weights(policy), weights(other), 1e-4)
    [row] = read_log(tmp_path)
    assert row["loss"] == pytest.approx(float(loss.detach()), abs=1e-4) and row["kept"] == len(kept)
    assert row["score"] == pytest.approx(sum(score) / 24, abs=1e-5)
    assert row["kept_score"] == pytest.approx(sum(score[i] for i in kept) / len(kept), abs=1e-5)
    assert row["without_kept"] == pytest.approx(1 - len({i // 4 for i in kept}) / 6)
    start = make_policy()
    moved = [float((plain_logprob(start, one) - plain_logprob(ref_policy, one)).sum().detach()) for one in rows]
    assert row["kl_k1"] == pytest.approx(sum(moved) / 24, abs=1e-3)


def test_what_nothing_passes_teaches_nothing_and_is_told(tmp_path: Path) -> None:
    policy = learn(open_run(tmp_path), changed(threshold=99.0))
    assert all(torch.equal(x, weights(make_policy())[name]) for name, x in weights(policy).items())
    for row in read_log(tmp_path):
        assert row["kept"] == 0 and row["without_kept"] == 1
        assert not {"loss", "kept_score", "kl_bound", "gradient_norm"} & set(row)


@pytest.mark.parametrize("n", [2, 4])
def test_imitated_exactly_an_iteration_is_the_best_of_n(n: int, tmp_path: Path) -> None:
    """A language of one token behind one prompt, every token with a score of its own: the best of n is known."""
    score = torch.rand(VOCABULARY, generator=torch.Generator().manual_seed(4))

    def by_token(prompts: list[Prompt], sampled: Sampled) -> torch.Tensor:
        rows = sampled.rows
        return score[rows.tokens[torch.arange(len(prompts)), rows.prompt_length]]

    def distribution(policy: Policy) -> torch.Tensor:
        ids = torch.tensor([PROMPT_IDS[0]])
        return policy.decoder(input_ids=ids, use_cache=False).logits[0, -1].detach().double().softmax(0)

    number = 2000 * n
    config = changed(iterations=1, batch_size=number, responses_per_prompt=n, max_new_tokens=1, minibatch_size=number)
    config = config.model_copy(update={"inner_epochs": 150, "max_tokens": 100_000, "lr": 2e-2})
    learned = distribution(learn(open_run(tmp_path), config, by_token, prompts=PROMPTS[:1]))
    start = distribution(make_policy())
    order = score.argsort()
    reached = start[order].cumsum(0) ** n
    expected = torch.zeros_like(start)
    expected[order] = reached.diff(prepend=torch.zeros(1, dtype=torch.float64))
    assert (learned - expected).abs().max() < 0.03 < (learned - start).abs().max()
    kl = float((learned * (learned / start).log()).sum())
    assert 0 < kl < float(best_of_n_kl(n)) + 0.03


# The whole loop.


def test_the_bound_is_that_of_as_many_rounds_as_were_imitated(tmp_path: Path) -> None:
    learn(open_run(tmp_path / "best"), changed(iterations=3))
    bounds = [row["kl_bound"] for row in read_log(tmp_path / "best")]
    assert bounds == pytest.approx([0, 0.6363, 1.8351], abs=5e-5)  # the best of 1, 4, 16
    for name, other in (("two", {"keep": 2}), ("above", {"threshold": 0.0})):
        learn(open_run(tmp_path / name), changed(iterations=1, **other))
        assert all("kl_bound" not in row for row in read_log(tmp_path / name))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_finds_a_planted_reward(seed: int, tmp_path: Path) -> None:
    config = changed(iterations=8, batch_size=192, minibatch_size=24, inner_epochs=1, lr=8e-3, max_tokens=1000)
    policy = make_policy(seed)
    learn(open_run(tmp_path, seed=seed), config, policy=policy, ref_policy=make_policy(seed), seed=seed)
    log = read_log(tmp_path)
    assert log[-1]["score"] > log[0]["score"] + 1.5 and log[-1]["kl_k3"] > 0.5
    assert abs(log[0]["kl_k1"]) < 1e-4
    assert all(row["kept_score"] > row["score"] for row in log)
    episodes = read_jsonl(tmp_path / "samples.jsonl")
    assert len(episodes) == 8 and {episode["kept"] for episode in episodes} <= {True, False}


def test_threads_side_by_side_change_no_bit(tmp_path: Path) -> None:
    assert_threads_change_nothing(lambda run: learn(run, changed(max_tokens=20)), tmp_path)


def test_a_killed_run_ends_with_the_same_weights_and_log(tmp_path: Path) -> None:
    assert_resumes(lambda run: learn(run, changed(iterations=4)), tmp_path, kills=(0, 2, 3))


def test_with_adapters_the_base_is_the_reference_and_stays(tmp_path: Path) -> None:
    policy = make_policy()
    attach_lora(policy.decoder, 2, seed=1)
    with base_stays(policy):
        learn(open_run(tmp_path), changed(iterations=4), policy=policy, ref_policy=BasePolicy(policy))
    log = read_log(tmp_path)
    assert log[0]["kl_k1"] == pytest.approx(0, abs=1e-5) and log[-1]["kl_k3"] > 1e-3
