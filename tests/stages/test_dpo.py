"""DPO on rankings against the plainest computation of the same thing, pair by pair and response by response."""

import math
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from heedful.models.heads import Policy
from heedful.models.lora import attach_lora
from heedful.run import Run
from heedful.stages import dpo
from heedful.stages.dpo import DPOConfig, backward, of_reference, train, validate
from heedful.text.collate import Encoded, EncodedRanking
from toys import (
    FIRST,
    PAD,
    assert_resumes,
    assert_same,
    assert_threads_change_nothing,
    base_stays,
    gradients,
    make_policy,
    make_rankings,
    open_run,
    plain_logprob,
    read_log,
)

CONFIG = DPOConfig(batch_size=8, lr=1e-2, warmup_steps=0, dpo_beta=0.3, max_tokens=40, precision="fp32")


def changed(**changes: object) -> DPOConfig:
    return DPOConfig(**(CONFIG.model_dump() | changes))


def count_w1(row: Encoded) -> float:
    return float(row.response.count(FIRST + 1))


def log_ratios(policy: Policy, reference: Policy, item: EncodedRanking) -> list[torch.Tensor]:
    return [(plain_logprob(policy, row) - plain_logprob(reference, row)).sum() for row in item.rows]


def plain_loss(policy: Policy, item: EncodedRanking, config: DPOConfig) -> torch.Tensor:
    """The mean over the ranking's pairs, each by the formula as it stands in its paper."""
    ratio = log_ratios(policy, make_policy(5), item)
    terms = []
    for i, j in combinations(range(len(item.rank)), 2):
        if item.rank[i] > item.rank[j]:
            i, j = j, i
        tied = item.rank[i] == item.rank[j]
        margin = ratio[i] - ratio[j]
        right, wrong = (-torch.sigmoid(sign * config.dpo_beta * margin).log() for sign in (1, -1))
        if config.soft:
            p = item.share[i][j]
            terms.append(p * right + (1 - p) * wrong)
        elif tied:
            continue
        elif config.objective == "ipo":
            terms.append((margin - 1 / (2 * config.dpo_beta)) ** 2)
        elif config.objective == "conservative":
            terms.append((1 - config.flipped) * right + config.flipped * wrong)
        else:
            terms.append(right)
    return torch.stack(terms).mean()


def with_shares(item: EncodedRanking) -> EncodedRanking:
    """Shares that agree with the ranks, some of them certain."""
    share = [[0.5 if a == b else 0.9 if a < b else 0.1 for b in item.rank] for a in item.rank]
    return item._replace(share=tuple(map(tuple, share)))


def items(number: int, seed: int = 0) -> list[EncodedRanking]:
    return [with_shares(item) for item in make_rankings(number, seed)]


@pytest.mark.parametrize("max_tokens", [1, 60, 10_000])
@pytest.mark.parametrize("how", [{}, {"objective": "conservative"}, {"objective": "ipo"}, {"soft": True}])
def test_the_gradient_is_that_of_every_pair_written_out(how: dict[str, Any], max_tokens: int) -> None:
    config, policy, rankings = changed(**how, max_tokens=max_tokens), make_policy(), items(7)
    reference = of_reference(make_policy(5), rankings, PAD, config)
    told = backward(policy, rankings, reference, PAD, config)
    mine = gradients(policy)
    losses = torch.stack([plain_loss(policy, item, config) for item in rankings])
    losses.mean().backward()
    assert_same(mine, gradients(policy))
    assert told["loss"] == pytest.approx(float(losses.mean().detach()), rel=1e-4)
    ratios = [[float(x.detach()) for x in log_ratios(policy, make_policy(5), item)] for item in rankings]
    best = [
        [r for r, rank in zip(own, item.rank, strict=True) if rank == min(item.rank)]
        for own, item in zip(ratios, rankings, strict=True)
    ]
    assert told["best_logratio"] == pytest.approx(sum(sum(own) / len(own) for own in best) / len(best), abs=1e-4)
    right = [
        [(own[i] > own[j]) for i, a in enumerate(item.rank) for j, b in enumerate(item.rank) if a < b]
        for own, item in zip(ratios, rankings, strict=True)
    ]
    assert told["accuracy"] == pytest.approx(sum(sum(own) / len(own) for own in right) / len(right), abs=1e-6)
    found = validate(policy, rankings, reference, PAD, config)
    assert found == pytest.approx({"valid_loss": told["loss"], "valid_accuracy": told["accuracy"]}, abs=1e-5)


def test_at_the_start_every_margin_is_0() -> None:
    policy, rankings = make_policy(), items(5)
    for objective, expected in (("dpo", math.log(2)), ("conservative", math.log(2)), ("ipo", (1 / 0.6) ** 2)):
        config = changed(objective=objective)
        told = backward(policy, rankings, of_reference(policy, rankings, PAD, config), PAD, config)
        assert told["loss"] == pytest.approx(expected, rel=1e-4)
        assert told["best_logratio"] == pytest.approx(0, abs=1e-5) and told["accuracy"] == pytest.approx(0.5, abs=0.5)


def test_the_references_numbers_are_those_of_one_response_at_a_time() -> None:
    rankings, reference = items(6), make_policy(5)
    found = of_reference(reference, rankings, PAD, changed(max_tokens=30))
    assert list(found) and set(found) == {item.id for item in rankings}
    for item in rankings:
        expected = torch.stack([plain_logprob(reference, row).sum() for row in item.rows]).detach()
        torch.testing.assert_close(found[item.id], expected, atol=1e-5, rtol=1e-5)


def learn(run: Run, config: DPOConfig, policy: Policy | None = None, seed: int = 0) -> Policy:
    policy = policy or make_policy()
    data, valid = make_rankings(40, seed, count_w1), make_rankings(20, seed + 1, count_w1)
    data, valid = (
        [item._replace(id=f"{name}{item.id}") for item in part] for name, part in (("t", data), ("v", valid))
    )
    reference = of_reference(policy, [*data, *valid], PAD, config)
    train(config, policy, data, valid, reference, PAD, run)
    return policy


@pytest.mark.parametrize("objective", ["dpo", "conservative", "ipo"])
def test_it_learns_what_is_preferred_where_it_never_looked(objective: str, tmp_path: Path) -> None:
    learn(open_run(tmp_path), changed(objective=objective, epochs=6, dpo_beta=0.1))
    log = read_log(tmp_path)
    assert log[-1]["valid_accuracy"] > 0.75 > 0.6 > log[0]["accuracy"]
    assert log[-1]["valid_loss"] < log[0]["loss"]


def test_threads_side_by_side_change_no_bit(tmp_path: Path) -> None:
    assert_threads_change_nothing(lambda run: learn(run, CONFIG), tmp_path)


def test_a_killed_run_ends_with_the_same_weights_and_log(tmp_path: Path) -> None:
    assert_resumes(lambda run: learn(run, changed(epochs=2)), tmp_path, kills=(0, 2, 5))


def test_with_adapters_the_base_stays(tmp_path: Path) -> None:
    policy = make_policy()
    attach_lora(policy.decoder, 2, seed=1)
    with base_stays(policy):
        learn(open_run(tmp_path), CONFIG, policy)


def test_probabilities_are_for_the_objective_that_reads_them() -> None:
    assert changed(soft=True).objective == "dpo"
    for objective in ("ipo", "conservative"):
        with pytest.raises(ValidationError, match=f"soft labels are for objective dpo; {objective} takes one of two"):
            changed(soft=True, objective=objective)


def test_the_papers_preset() -> None:
    config = DPOConfig()
    assert (config.dpo_beta, config.batch_size, config.lr, config.warmup_steps) == (0.1, 64, 1e-6, 150)
    assert dpo.DPOConfig is DPOConfig


@pytest.mark.parametrize("how", [{}, {"soft": True}])
def test_a_comparison_pulls_by_its_weight(how: dict[str, Any]) -> None:
    config, policy, rankings = changed(**how), make_policy(), items(5)
    reference = of_reference(make_policy(5), rankings, PAD, config)
    weight = [(1.0, 0.5, 3.0)[n % 3] for n in range(len(rankings))]
    heavy = [
        item._replace(weight=tuple((w,) * len(item.rank) for _ in item.rank))
        for item, w in zip(rankings, weight, strict=True)
    ]
    told = backward(policy, heavy, reference, PAD, config)
    mine = gradients(policy)
    losses = torch.stack([w * plain_loss(policy, item, config) for item, w in zip(rankings, weight, strict=True)])
    losses.mean().backward()
    assert_same(mine, gradients(policy))
    assert told["loss"] == pytest.approx(float(losses.mean().detach()), rel=1e-4)
