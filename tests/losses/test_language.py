"""A whole language by brute force: two words and an end token, responses of at most three tokens, a tabular policy.

All 15 responses are enumerated, so expectations are sums and gradients are exact.
"""

from itertools import pairwise, product

import pytest
import torch

from heedful.losses.distil import kl_of_distributions
from heedful.losses.dpo import conservative_dpo_loss, dpo_loss, ipo_loss
from heedful.losses.kl import kl_k1, kl_k3
from heedful.losses.logprob import all_logprobs, token_logprob
from heedful.losses.masked import masked_mean, masked_sum
from heedful.losses.ppo import gae, kl_penalized_reward, policy_loss
from heedful.losses.ranking import soft_pair_loss
from heedful.losses.reinforce import group_normalized, leave_one_out, reinforce_loss
from heedful.losses.sft import sft_loss

END, LONGEST = 2, 3
PREFIXES = [prefix for length in range(LONGEST) for prefix in product((0, 1), repeat=length)]
RESPONSES = [(*prefix, END) for prefix in PREFIXES] + list(product((0, 1), repeat=LONGEST))


def padded(rows):
    return torch.tensor([[*row, *[0] * (LONGEST - len(row))] for row in rows])


TOKENS = padded(RESPONSES)
STATE = padded([[PREFIXES.index(y[:t]) for t in range(len(y))] for y in RESPONSES])  # the prefix each token follows
MASK = torch.arange(LONGEST) < torch.tensor([len(y) for y in RESPONSES])[:, None]


def normal(*shape, seed):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


REF = normal(len(PREFIXES), 3, seed=1)  # logits of the reference, one row per prefix
SCORE = 3 * normal(len(RESPONSES), seed=2)
KL_COEF = 0.7


def table():
    return (REF + normal(len(PREFIXES), 3, seed=3)).requires_grad_()


def logprob_of(logits):
    """(15, 3), with rubbish in the padding."""
    return token_logprob(all_logprobs(logits[STATE]), TOKENS).masked_fill(~MASK, torch.nan)


def probability_by_hand(logits, response):
    """A product of softmaxes."""
    p = 1.0
    for t, token in enumerate(response):
        weights = logits[PREFIXES.index(response[:t])].exp()
        p = p * weights[token] / weights.sum()
    return p


def distribution(logits):
    return torch.stack([probability_by_hand(logits, y) for y in RESPONSES])


def exact_kl(logits):
    p, q = distribution(logits), distribution(REF)
    return (p * (p.log() - q.log())).sum()


def exact_objective(logits):
    """InstructGPT's equation 2 without pretraining: E[score] − β·KL."""
    return distribution(logits) @ SCORE - KL_COEF * exact_kl(logits)


def gradient(loss, logits):
    return torch.autograd.grad(loss, logits)[0]


def reward_of(logits):
    return kl_penalized_reward(SCORE, logprob_of(logits), logprob_of(REF), MASK, KL_COEF).detach()


def exact_value(logits):
    """(7,) expected reward to go from each prefix, by summing over everything that may follow."""
    to_go = (reward_of(logits) * MASK).flip(1).cumsum(1).flip(1)
    p = distribution(logits).detach()
    value = torch.zeros(len(PREFIXES), dtype=torch.float64)
    for state, prefix in enumerate(PREFIXES):
        through = [i for i, y in enumerate(RESPONSES) if y[: len(prefix)] == prefix]
        value[state] = p[through] @ to_go[through, len(prefix)] / p[through].sum()
    return value


def policy_gradient(logits, value, gae_lambda, clip_range=0.2):
    """Gradient of the policy loss averaged over all responses with their exact probabilities."""
    logprob = logprob_of(logits).masked_fill(~MASK, 0)
    advantage, _ = gae(reward_of(logits), value[STATE], MASK, 1.0, gae_lambda)
    per_response = masked_sum(policy_loss(logprob, logprob.detach(), advantage, clip_range), MASK)
    return gradient((distribution(logits).detach() * per_response).sum(), logits)


def best_policy():
    """Logits whose distribution is π* ∝ π_ref·exp(score/β), the maximum of the objective."""
    weight = distribution(REF) * (SCORE / KL_COEF).exp()
    logits = torch.zeros(len(PREFIXES), 3, dtype=torch.float64)
    for state, prefix in enumerate(PREFIXES):
        for token in range(3):
            begins = (*prefix, token)
            logits[state, token] = sum(weight[i] for i, y in enumerate(RESPONSES) if y[: len(begins)] == begins).log()
    torch.testing.assert_close(distribution(logits), weight / weight.sum())
    return logits.requires_grad_()


def test_the_language_is_whole():
    assert len(RESPONSES) == 15
    torch.testing.assert_close(distribution(table()).sum(), torch.tensor(1.0, dtype=torch.float64))


def test_token_logprobs_sum_to_the_response():
    logits = table()
    torch.testing.assert_close(masked_sum(logprob_of(logits), MASK), distribution(logits).log())


@pytest.mark.parametrize("estimator", [kl_k1, kl_k3])
def test_expected_estimators_are_the_exact_kl(estimator):
    logits = table()
    per_response = masked_sum(estimator(logprob_of(logits), logprob_of(REF)), MASK)
    torch.testing.assert_close(distribution(logits) @ per_response, exact_kl(logits))


def test_reward_of_a_response_is_score_minus_kl():
    logits = table()
    log_ratio = distribution(logits).log() - distribution(REF).log()
    torch.testing.assert_close(masked_sum(reward_of(logits), MASK), (SCORE - KL_COEF * log_ratio).detach())


@pytest.mark.parametrize("seed", [4, 5])
def test_policy_loss_has_the_exact_gradient_whatever_the_values(seed):
    logits, value = table(), normal(len(PREFIXES), seed=seed)
    expected = -gradient(exact_objective(logits), logits)
    torch.testing.assert_close(policy_gradient(logits, value, gae_lambda=1.0), expected)


@pytest.mark.parametrize("gae_lambda", [0.0, 0.5, 0.95])
def test_policy_loss_has_the_exact_gradient_for_any_lambda_with_true_values(gae_lambda):
    logits = table()
    expected = -gradient(exact_objective(logits), logits)
    torch.testing.assert_close(policy_gradient(logits, exact_value(logits), gae_lambda), expected)


def test_wrong_values_with_small_lambda_are_biased():
    """The test above can fail: λ < 1 trusts the values."""
    logits = table()
    expected = -gradient(exact_objective(logits), logits)
    assert not torch.allclose(policy_gradient(logits, normal(len(PREFIXES), seed=4), 0.5), expected, rtol=1e-2)


def test_policy_gradient_vanishes_at_the_optimum():
    logits = best_policy()
    zero = torch.zeros_like(logits)
    torch.testing.assert_close(policy_gradient(logits, normal(len(PREFIXES), seed=4), 1.0), zero, atol=1e-12, rtol=0)


def test_following_the_policy_gradient_reaches_the_optimum():
    logits, best = REF.clone().requires_grad_(), distribution(best_policy()).detach()
    distances = []
    for _ in range(200):
        p = distribution(logits).detach()
        distances.append((p * (p / best).log()).sum().item())
        logits = (logits - 2 * policy_gradient(logits, exact_value(logits), 0.95)).detach().requires_grad_()
    assert all(later < earlier for earlier, later in pairwise(distances))
    assert distances[0] > 1 and distances[-1] < 0.02


def test_rlaif_objective_is_the_same_reward_rescaled():
    """(1 − β)·score − β·KL (RLAIF) needs no formula of its own."""
    logits = table()
    logprob, ref_logprob = logprob_of(logits).detach(), logprob_of(REF)
    reward = kl_penalized_reward(0.95 * SCORE, logprob, ref_logprob, MASK, 0.05)
    expected = 0.95 * distribution(logits) @ SCORE - 0.05 * exact_kl(logits)
    torch.testing.assert_close(distribution(logits) @ masked_sum(reward, MASK), expected)


def test_sft_on_the_policys_own_responses_is_its_entropy():
    """And the gradient is zero there: a policy cannot learn from itself."""
    logits = table()
    p = distribution(logits).detach()
    nll = p @ masked_sum(sft_loss(logprob_of(logits)), MASK)
    torch.testing.assert_close(nll, -(p * p.log()).sum())
    torch.testing.assert_close(gradient(nll, logits), torch.zeros_like(logits), atol=1e-12, rtol=0)


def test_dpo_of_the_optimal_policy_is_the_reward_models_loss():
    """β·log(π*/π_ref) is the score up to a constant, so DPO's minimum is PPO's optimum (Rafailov et al., section 4)."""
    a, b = torch.tensor([0, 3, 9]), torch.tensor([14, 7, 1])
    best, ref = distribution(best_policy()).log(), distribution(REF).log()
    torch.testing.assert_close(
        dpo_loss(best[a], best[b], ref[a], ref[b], KL_COEF).detach(),
        soft_pair_loss(SCORE[a], SCORE[b], torch.ones(3, dtype=torch.float64)),
    )


def test_what_dpo_ends_at_is_the_tilted_reference():
    """Every pair of responses, labelled as often one way as the score says (Bradley–Terry): a tabular policy that is
    fitted to them with DPO's loss becomes π_ref·exp(score/β), though no score is shown to it and nothing is sampled."""
    a, b = torch.triu_indices(len(RESPONSES), len(RESPONSES), 1)
    preferred = torch.sigmoid(SCORE[a] - SCORE[b])
    ref, best = distribution(REF).log(), distribution(best_policy()).detach()
    logits = table().detach().requires_grad_()
    assert (distribution(logits) - best).abs().max() > 0.05
    optimizer = torch.optim.LBFGS([logits], max_iter=500, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        own = masked_sum(logprob_of(logits).masked_fill(~MASK, 0), MASK)
        given = own[a], own[b], ref[a], ref[b]
        mean = conservative_dpo_loss(*given, KL_COEF, flipped=1 - preferred).mean()
        mean.backward()
        return mean

    optimizer.step(loss)
    torch.testing.assert_close(distribution(logits).detach(), best, atol=1e-4, rtol=0)


@pytest.mark.parametrize("seed", [4, 5])
def test_reinforce_has_the_exact_gradient_whatever_the_baseline(seed):
    """Summed over a response, averaged over responses; the baseline is a value of the prefix, right or wrong."""
    logits = table()
    logprob = logprob_of(logits).masked_fill(~MASK, 0)
    advantage, _ = gae(reward_of(logits), normal(len(PREFIXES), seed=seed)[STATE], MASK, 1.0, 1.0)
    loss = distribution(logits).detach() @ masked_sum(reinforce_loss(logprob, advantage), MASK)
    torch.testing.assert_close(gradient(loss, logits), -gradient(exact_objective(logits), logits))


def expected_over_groups(logits, advantage, size):
    """Gradient of the mean loss over groups of `size` independent responses, every group with its probability."""
    reward = masked_sum(reward_of(logits), MASK)
    logprob = masked_sum(logprob_of(logits).masked_fill(~MASK, 0), MASK)
    group = torch.cartesian_prod(*[torch.arange(len(RESPONSES))] * size)
    chance = distribution(logits).detach()[group].prod(1)
    loss = reinforce_loss(logprob[group], advantage(reward[group])).mean(1)
    return gradient((chance * loss).sum(), logits)


@pytest.mark.parametrize("size", [2, 3])
def test_leaving_one_out_has_the_exact_gradient(size):
    logits = table()
    expected = -gradient(exact_objective(logits), logits)
    torch.testing.assert_close(expected_over_groups(logits, leave_one_out, size), expected)


def test_dividing_by_the_groups_spread_has_another_gradient():
    """The test above can fail, and GRPO's advantage is not the expected reward's."""
    logits = table()
    expected = -gradient(exact_objective(logits), logits)
    found = expected_over_groups(logits, group_normalized, 3)
    assert not torch.allclose(found / found.norm(), expected / expected.norm(), rtol=1e-2)
    assert float((found * expected).sum() / found.norm() / expected.norm()) > 0.7  # though a direction like it


def test_conservative_dpo_is_lowest_at_its_own_odds():
    """log((1 − ε)/ε), not at infinity; and ε = ½ is a tie."""
    margin = torch.linspace(-6, 6, 2401, dtype=torch.float64)
    zero = torch.zeros_like(margin)
    for flipped in (0.1, 0.3, 0.5):
        loss = conservative_dpo_loss(margin, zero, zero, zero, 1.0, flipped)
        best = torch.tensor((1 - flipped) / flipped, dtype=torch.float64).log()
        assert margin[loss.argmin()] == pytest.approx(float(best), abs=0.005)
        torch.testing.assert_close(loss, soft_pair_loss(margin, zero, torch.full_like(margin, 1 - flipped)))


def test_ipo_on_a_tabular_policy_ends_at_its_margin():
    """One certain pair of a reference: the margin settles at 1/(2β), where DPO's would run away."""
    ref = distribution(REF).log()
    free = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    for _ in range(200):
        loss = ipo_loss(ref[:1] + free[0], ref[1:2] + free[1], ref[:1], ref[1:2], dpo_beta=0.25).sum()
        (slope,) = torch.autograd.grad(loss, free)
        free = (free - 0.1 * slope).detach().requires_grad_()
    assert float((free[0] - free[1]).detach()) == pytest.approx(1 / (2 * 0.25), abs=1e-6)


def test_microbatches_with_the_global_count_add_up_to_the_batch():
    logits = table()
    whole = gradient(masked_mean(sft_loss(logprob_of(logits)), MASK), logits)
    total = MASK.sum()
    parts = sum(
        gradient(masked_mean(sft_loss(logprob_of(logits))[rows], MASK[rows], total), logits)
        for rows in (slice(0, 1), slice(1, 6), slice(6, 15))
    )
    torch.testing.assert_close(parts, whole)


# Distillation: the reference, asked behind a prefix, is the teacher.


def divergence(student):
    """Expected over the teacher's responses, the sum over their tokens."""
    each = kl_of_distributions(all_logprobs(REF), all_logprobs(student))
    return distribution(REF) @ masked_sum(each[STATE], MASK)


def test_token_divergences_along_the_teachers_responses_are_that_of_responses():
    student = table()
    p, q = distribution(REF), distribution(student)
    torch.testing.assert_close(divergence(student), (p * (p.log() - q.log())).sum())
    assert float(divergence(REF)) == pytest.approx(0, abs=1e-12)


def test_the_student_that_diverges_least_is_the_teacher():
    student = table()
    assert gradient(divergence(student), student).abs().max() > 0.01
    for _ in range(400):
        student = (student - 2 * gradient(divergence(student), student)).detach().requires_grad_()
    torch.testing.assert_close(distribution(student), distribution(REF), atol=1e-3, rtol=0)


def test_what_the_teacher_never_says_costs_nothing_and_what_the_student_cannot_say_everything():
    teacher = REF.clone()
    teacher[0, 1] = -torch.inf
    student = table()
    found = kl_of_distributions(all_logprobs(teacher), all_logprobs(student))
    assert found.isfinite().all() and gradient(found.sum(), student).isfinite().all()
    assert kl_of_distributions(all_logprobs(REF), all_logprobs(teacher))[0] == torch.inf
