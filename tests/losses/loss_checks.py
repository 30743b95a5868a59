"""Closed-form checks of the losses. Each takes the modules it checks, so that the same checks run on mutated ones.

Expected numbers are written as formulas in plain `math`, never by calling the code under test.
"""

import math
from itertools import combinations
from types import SimpleNamespace

import pytest
import torch

NAN = math.nan
INF = math.inf


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


def boolean(rows):
    """0/1 rows as a mask."""
    return torch.tensor(rows, dtype=torch.bool)


def same(actual, expected):
    """Equal within the tolerance torch keeps for the dtype (float64: 1e-7)."""
    torch.testing.assert_close(actual, tensor(expected).to(actual.dtype), equal_nan=True)


def log_sigmoid(x):
    return -math.log1p(math.exp(-x))


# masked


def check_masked_sum(losses: SimpleNamespace):
    same(losses.masked.masked_sum(tensor([[1, 2, NAN], [4, NAN, NAN]]), boolean([[1, 1, 0], [0, 0, 0]])), [3, 0])


def check_masked_mean(losses: SimpleNamespace):
    x, mask = tensor([[1, 2, NAN], [6, NAN, NAN]]).requires_grad_(), boolean([[1, 1, 0], [1, 0, 0]])
    mean = losses.masked.masked_mean(x, mask)
    same(mean, 3)
    (gradient,) = torch.autograd.grad(mean, x)
    same(gradient, [[1 / 3, 1 / 3, 0], [1 / 3, 0, 0]])
    same(losses.masked.masked_mean(x, mask, total=6), 1.5)
    same(losses.masked.masked_mean(x, mask, total=torch.tensor(6)), 1.5)
    same(losses.masked.masked_mean(x, mask, total=0.5), 18)


def check_masked_mean_of_nothing(losses: SimpleNamespace):
    for total in (None, 0, 4):
        x = tensor([NAN, 2]).requires_grad_()
        mean = losses.masked.masked_mean(x, boolean([0, 0]), total=total)
        same(mean, 0)
        same(torch.autograd.grad(mean, x)[0], [0, 0])


def check_masked_whiten(losses: SimpleNamespace):
    x, mask = tensor([[1, 2, NAN], [6, 100, 7]]), boolean([[1, 1, 0], [1, 0, 1]])
    mean, variance = 4, (9 + 4 + 4 + 9) / 4
    scale = math.sqrt(variance + 1e-8)
    centred = [[-3 / scale, -2 / scale, 0], [2 / scale, 0, 3 / scale]]
    same(losses.masked.masked_whiten(x, mask), centred)
    kept = [[mean - 3 / scale, mean - 2 / scale, 0], [mean + 2 / scale, 0, mean + 3 / scale]]
    same(losses.masked.masked_whiten(x, mask, shift_mean=False), kept)
    same(losses.masked.masked_whiten(tensor([5, 5]), boolean([1, 1])), [0, 0])
    same(losses.masked.masked_whiten(tensor([5, 5]), boolean([1, 1]), shift_mean=False), [5, 5])
    same(losses.masked.masked_whiten(tensor([NAN, 5]), boolean([0, 0])), [0, 0])
    tiny = tensor([-1e-4, 1e-4])
    same(losses.masked.masked_whiten(tiny, boolean([1, 1])), [-math.sqrt(0.5), math.sqrt(0.5)])


def check_explained_variance(losses: SimpleNamespace):
    returns, mask = tensor([[1, 5, 8]]), boolean([[1, 1, 0]])

    def explained(values, mask=mask, returns=returns):
        return losses.masked.explained_variance(tensor(values), returns, mask)

    same(explained([[1, 5, NAN]]), 1)
    same(explained([[2, 6, NAN]]), 1)
    same(explained([[2, 2, 0]]), 0)
    same(explained([[3, 5, 0]]), 0.75)
    same(explained([[5, 1, 0]]), -3)
    same(explained([[1, 2, 3]], returns=tensor([[0.1, 0.1, 0.1]]), mask=boolean([[1, 1, 1]])), NAN)
    same(explained([[1, 3, 0]], mask=boolean([[0, 0, 0]])), NAN)


# log-probabilities


def check_token_logprob(losses: SimpleNamespace):
    def logprob(logits, tokens):
        return losses.logprob.token_logprob(losses.logprob.all_logprobs(logits), torch.tensor(tokens))

    logits = tensor([[[0, 1, 2], [5, 5, 5]]])
    expected = [[2 - math.log(1 + math.e + math.e**2), -math.log(3)]]
    same(logprob(logits, [[2, 0]]), expected)
    for dtype in (torch.float32, torch.bfloat16):
        assert logprob((logits + 2.0**14).to(dtype), [[1, 0]]).dtype == torch.float32
    same(logprob((logits + 2.0**14).float(), [[2, 0]]), expected)
    same(logprob(tensor([[1e30, 0], [-1e30, 0]]), [0, 0]), [0, -1e30])


def check_entropy(losses: SimpleNamespace):
    p = 1 / (1 + math.e)
    logprobs = losses.logprob.all_logprobs(tensor([[0, 0, 0], [0, 1, -INF], [7, -INF, -INF]]).requires_grad_())
    h = losses.logprob.entropy(logprobs)
    same(h, [math.log(3), -p * math.log(p) - (1 - p) * math.log(1 - p), 0])
    same(losses.logprob.entropy(logprobs[None]), [h.tolist()])
    assert not h.requires_grad


# divergence


def check_kl(losses: SimpleNamespace):
    policy, reference = [0.5, 0.3, 0.2], [0.2, 0.2, 0.6]
    kl = sum(p * math.log(p / q) for p, q in zip(policy, reference, strict=True))
    logprob, ref_logprob = tensor(policy).log(), tensor(reference).log()
    k1, k3 = losses.kl.kl_k1(logprob, ref_logprob), losses.kl.kl_k3(logprob, ref_logprob)
    same(k1, [math.log(2.5), math.log(1.5), -math.log(3)])
    same(k3, [0.4 - 1 + math.log(2.5), 1 / 1.5 - 1 + math.log(1.5), 3 - 1 - math.log(3)])
    same((tensor(policy) * k1).sum(), kl)
    same((tensor(policy) * k3).sum(), kl)
    tiny = torch.tensor([1e-4])
    assert losses.kl.kl_k3(tiny, torch.zeros(1)).item() > 0, "k3 near 0 in fp32 is not lost to rounding"


def check_next_kl_coef(losses: SimpleNamespace):
    step = losses.kl.next_kl_coef
    for kl, factor in ((12.0, 1.01024), (0.0, 1 - 0.01024), (6.6, 1 + 0.1 * 0.0512), (6.0, 1.0)):
        assert math.isclose(step(0.15, kl, 6.0, 512, 10_000), 0.15 * factor, rel_tol=1e-12)
    assert math.isnan(step(0.15, NAN, 6.0, 512, 10_000))


# supervised


def check_sft_loss(losses: SimpleNamespace):
    same(losses.sft.sft_loss(tensor([[-0.5, -3]])), [[0.5, 3]])


# ranking


def pairs_by_hand(rank, valid):
    """(better, worse) of every untied comparison of one prompt."""
    kept = [i for i, v in enumerate(valid) if v]
    for i, j in combinations(kept, 2):
        if rank[i] != rank[j]:
            yield (i, j) if rank[i] < rank[j] else (j, i)


# A plain ranking, ties, a padded row with rubbish in the padding, nothing but ties, one response.
SCORE = [
    [1.2, 0.3, 0.1, -0.5],
    [0.5, 2.0, -1.0, 0.5],
    [0.7, -0.2, NAN, 1.5],
    [1.0, 2.0, 3.0, 4.0],
    [5.0, NAN, NAN, NAN],
]
RANK = [[1, 2, 2, 4], [1, 1, 3, 4], [2, 1, 1, 1], [2, 2, 2, 2], [1, 2, 3, 4]]
VALID = [[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]]
NUM_PAIRS = [5, 5, 1, 0, 0]


def pair_means(per_pair):
    """Mean of per_pair(better score, worse score) over each prompt's untied pairs; 0 without any."""
    means = []
    for score, rank, valid in zip(SCORE, RANK, VALID, strict=True):
        terms = [per_pair(score[i], score[j]) for i, j in pairs_by_hand(rank, valid)]
        means.append(sum(terms) / max(len(terms), 1))
    return means


def check_untied_pairs(losses: SimpleNamespace):
    pairs = losses.ranking.untied_pairs(torch.tensor(RANK), boolean(VALID))
    for b, (rank, valid) in enumerate(zip(RANK, VALID, strict=True)):
        assert {tuple(p) for p in pairs[b].nonzero().tolist()} == set(pairs_by_hand(rank, valid))
    assert pairs.sum((1, 2)).tolist() == NUM_PAIRS
    for k, number in ((4, 6), (9, 36)):
        assert losses.ranking.untied_pairs(torch.arange(k)[None]).sum().item() == number


def check_ranking_loss(losses: SimpleNamespace):
    score = tensor(SCORE).requires_grad_()
    loss = losses.ranking.ranking_loss(score, torch.tensor(RANK), boolean(VALID))
    same(loss, pair_means(lambda a, b: -log_sigmoid(a - b)))
    assert round(loss[0].item(), 4) == 0.3210
    (gradient,) = torch.autograd.grad(loss.sum(), score)
    slope = 1 / (1 + math.exp(-0.9))  # σ(−Δ) of the only pair: −0.2 ought to beat 0.7
    same(gradient[2:], [[slope, -slope, 0, 0], [0] * 4, [0] * 4])
    same(losses.ranking.ranking_loss(tensor([[3, 3, 3]]), torch.tensor([[1, 2, 3]])), [math.log(2)])
    same(losses.ranking.ranking_loss(tensor([[-1e30, 1e30]]), torch.tensor([[1, 2]])), [2e30])


def check_pair_weights(losses: SimpleNamespace):
    score, rank = tensor([[0, 1, 3]]), torch.tensor([[1, 1, 2]])
    weight = torch.full((1, 3, 3), NAN, dtype=torch.float64)
    weight[0, 0, 2], weight[0, 1, 2] = 0.5, 2.0
    expected = (0.5 * -log_sigmoid(-3) + 2 * -log_sigmoid(-2)) / 2
    same(losses.ranking.ranking_loss(score, rank, weight=weight), [expected])
    same(losses.ranking.hinge_ranking_loss(score, rank, 1.0, weight=weight), [(0.5 * 4 + 2 * 3) / 2])


def check_soft_ranking_loss(losses: SimpleNamespace):
    share = torch.full((5, 4, 4), NAN, dtype=torch.float64)
    weight = share.clone()
    expected, weighed = [], []
    for b, (score, valid) in enumerate(zip(SCORE, VALID, strict=True)):
        terms = []
        for i, j in combinations([i for i, v in enumerate(valid) if v], 2):
            share[b, i, j], weight[b, i, j] = (1 + i) / (3 + j), 2 + i * j
            gap, p = score[i] - score[j], (1 + i) / (3 + j)
            terms.append((-p * log_sigmoid(gap) - (1 - p) * log_sigmoid(-gap), 2 + i * j))
        expected.append(sum(x for x, _ in terms) / max(len(terms), 1))
        weighed.append(sum(x * w for x, w in terms) / max(len(terms), 1))
    score = tensor(SCORE).requires_grad_()
    loss = losses.ranking.soft_ranking_loss(score, share, boolean(VALID))
    same(loss, expected)
    assert torch.autograd.grad(loss.sum(), score)[0].isfinite().all()
    same(losses.ranking.soft_ranking_loss(score, share, boolean(VALID), weight), weighed)
    # Shares of 1 and 0 are a ranking without ties.
    sure = torch.tensor([[[0, 1, 1], [0, 0, 0], [0, 1, 0]]], dtype=torch.float64)
    score = tensor([[0.3, -1, 2]])
    plain = losses.ranking.ranking_loss(score, torch.tensor([[1, 3, 2]]))
    same(losses.ranking.soft_ranking_loss(score, sure), plain.tolist())


def check_hinge_ranking_loss(losses: SimpleNamespace):
    loss = losses.ranking.hinge_ranking_loss(tensor(SCORE), torch.tensor(RANK), 1.0, boolean(VALID))
    same(loss, pair_means(lambda a, b: max(0, 1 - (a - b))))


def check_ranking_accuracy(losses: SimpleNamespace):
    accuracy = losses.ranking.ranking_accuracy(tensor(SCORE), torch.tensor(RANK), boolean(VALID))
    same(accuracy, pair_means(lambda a, b: 0.5 if a == b else float(a > b)))


def check_soft_pair_loss(losses: SimpleNamespace):
    a, b, p = tensor([3, 3, 3, 2, 395]), tensor([2, 2, 2, 2, -5]), tensor([1, 0.5, 0, 0.9, 0])
    expected = [-log_sigmoid(1), -0.5 * (log_sigmoid(1) + log_sigmoid(-1)), -log_sigmoid(-1), math.log(2), 400]
    same(losses.ranking.soft_pair_loss(a, b, p), expected)
    slope = torch.autograd.grad(losses.ranking.soft_pair_loss(a.requires_grad_(), b, p).sum(), a)[0]
    same(slope, [1 / (1 + math.exp(-x)) - q for x, q in zip([1, 1, 1, 0, 400], p.tolist(), strict=True)])


def check_best_of_k_loss(losses: SimpleNamespace):
    score = tensor([[1, 2, 3], [1, 2, NAN]]).requires_grad_()
    valid = boolean([[1, 1, 1], [1, 1, 0]])
    best = losses.ranking.best_of(torch.tensor([[3, 2, 1], [2, 3, 1]]), valid)
    assert best.tolist() == [[False, False, True], [True, False, False]]
    loss = losses.ranking.best_of_k_loss(score, best, valid)
    same(losses.ranking.best_of_k_loss(score, torch.tensor([2, 0]), valid), loss.tolist())  # the same by its place
    first = -3 + math.log(sum(math.exp(s) for s in (1, 2, 3)))
    same(loss, [first, -1 + math.log(math.e + math.e**2)])
    (gradient,) = torch.autograd.grad(loss.sum(), score)
    same(gradient[1], [-math.e / (1 + math.e), math.e / (1 + math.e), 0])
    same(losses.ranking.best_of_k_loss(torch.zeros(1, 4), torch.tensor([3])), [math.log(4)])
    tied = losses.ranking.best_of_k_loss(tensor([[1, 2, 4]]), losses.ranking.best_of(torch.tensor([[2, 1, 1]])))
    same(tied, [-3 + math.log(sum(math.exp(s) for s in (1, 2, 4)))])


def check_regression_loss(losses: SimpleNamespace):
    same(losses.ranking.regression_loss(tensor([0.5, 3]), tensor([2, 3])), [2.25, 0])


# PPO


def check_kl_penalized_reward(losses: SimpleNamespace):
    logprob = tensor([[-1, -1, -1], [-1, -2, NAN], [-1, NAN, -3], [NAN, NAN, NAN]])
    ref_logprob = tensor([[-1.2, -1.4, -0.9], [-2, -2, 5], [-1.5, 1, -2], [-1, -1, -1]])
    mask = boolean([[1, 1, 1], [1, 1, 0], [1, 0, 1], [0, 0, 0]])
    reward = losses.ppo.kl_penalized_reward(tensor([0.9, 2, -3, NAN]), logprob, ref_logprob, mask, 0.02)
    same(reward, [[-0.004, -0.008, 0.902], [-0.02, 2, 0], [-0.01, 0, -3 + 0.02], [0, 0, 0]])
    reward = losses.ppo.kl_penalized_reward(tensor([0.9, 2, -3, NAN]), logprob, ref_logprob, mask, 0.02, True)
    same(reward, [[-0.004, -0.008, 0.9], [-0.02, 2, 0], [-0.01, 0, -3], [0, 0, 0]])


def check_gae(losses: SimpleNamespace):
    g, lam = 0.9, 0.8
    reward, value = [0.3, -0.2, 1.0], [0.4, 0.5, 0.7]
    delta = [0.3 + g * 0.5 - 0.4, -0.2 + g * 0.7 - 0.5, 1.0 - 0.7]
    advantage = [delta[0] + g * lam * (delta[1] + g * lam * delta[2]), delta[1] + g * lam * delta[2], delta[2]]
    two = [0.3 + g * 0.5 - 0.4 + g * lam * (-0.2 - 0.5), -0.2 - 0.5]
    mask = boolean([[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]])
    holed = ([0.3, NAN, -0.2, NAN], [0.4, NAN, 0.5, NAN])
    rewards = tensor([[*reward, 9], [*reward, NAN], holed[0], [1, 1, 1, 1]])
    values = tensor([[*value, 9], [*value, NAN], holed[1], [1, 1, 1, 1]])
    actual, returns = losses.ppo.gae(rewards, values, mask, g, lam)
    same(actual, [[*advantage, 0], [*two, 0, 0], [two[0], 0, two[1], 0], [0, 0, 0, 0]])
    summed = [a + v for a, v in zip(advantage, value, strict=True)]
    short = [two[0] + 0.4, two[1] + 0.5]
    same(returns, [[*summed, 0], [*short, 0, 0], [short[0], 0, short[1], 0], [0, 0, 0, 0]])


def check_gae_published(losses: SimpleNamespace):
    reward, value = tensor([[-0.004, -0.008, 0.902]]), tensor([[0.4, 0.5, 0.7]])
    advantage, _ = losses.ppo.gae(reward, value, boolean([[1, 1, 1]]), 1.0, 0.95)
    assert [round(a, 4) for a in advantage[0].tolist()] == [0.4607, 0.3839, 0.2020]


def check_policy_loss(losses: SimpleNamespace):
    ratio, advantage = [1, 1.5, 1.5, 0.5, 0.5, 1.1], [2, 2, -2, 2, -2, -3]
    logprob = tensor(ratio).log().requires_grad_()
    loss = losses.ppo.policy_loss(logprob, torch.zeros(6), tensor(advantage), 0.2)
    same(loss, [-2, -2.4, 3, -1, 1.6, 3.3])
    (gradient,) = torch.autograd.grad(loss.sum(), logprob)
    same(gradient, [-2, 0, 3, -1, 0, 3.3])
    same(losses.ppo.policy_loss(logprob, torch.zeros(6), tensor(advantage), INF), [-2, -3, 3, -1, 1, 3.3])
    same(losses.ppo.policy_loss(tensor([-1]), tensor([-2]), tensor([-1]), 0.2), [math.e])


def check_value_loss(losses: SimpleNamespace):
    value = tensor([1.0, 1.0, 1.0, 0.1, -1.0]).requires_grad_()
    returns = tensor([2.0, 0.6, -1.0, 2.0, -3.0])
    loss = losses.ppo.value_loss(value, torch.zeros(5), returns, 0.2)
    same(loss, [0.5 * 1.8**2, 0.5 * 0.4**2, 0.5 * 2**2, 0.5 * 1.9**2, 0.5 * 2.8**2])
    (gradient,) = torch.autograd.grad(loss.sum(), value)
    same(gradient[[0, 2, 3, 4]], [0, 2, -1.9, 0])
    for clip_range in (None, INF):
        plain = losses.ppo.value_loss(value, torch.zeros(5), returns, clip_range)
        same(plain, [0.5, 0.5 * 0.4**2, 2, 0.5 * 1.9**2, 2])
        same(torch.autograd.grad(plain.sum(), value)[0], [-1, 0.4, 2, -1.9, 2])


# DPO


def check_dpo_loss(losses: SimpleNamespace):
    chosen, rejected = tensor([-4, -4]), tensor([-6, -6])
    loss = losses.dpo.dpo_loss(chosen, rejected, tensor([-4.5, -4]), tensor([-5, -6]), 0.1)
    same(loss, [-log_sigmoid(0.1 * (0.5 + 1)), math.log(2)])


def check_cautious_dpo(losses: SimpleNamespace):
    given = tensor([-4]), tensor([-6]), tensor([-4.5]), tensor([-5])  # a margin of 1.5 nats
    right, wrong = -log_sigmoid(0.1 * 1.5), -log_sigmoid(-0.1 * 1.5)
    same(losses.dpo.conservative_dpo_loss(*given, 0.1, 0.2), [0.8 * right + 0.2 * wrong])
    same(losses.dpo.conservative_dpo_loss(*given, 0.1, tensor([1])), [wrong])
    same(losses.dpo.ipo_loss(*given, 0.1), [(1.5 - 5) ** 2])


# REINFORCE, RLOO, GRPO


def check_reinforce(losses: SimpleNamespace):
    logprob, advantage = tensor([[-0.5, -2], [-1, -3]]).requires_grad_(), tensor([[2, -1], [0, 4]])
    loss = losses.reinforce.reinforce_loss(logprob, advantage)
    same(loss, [[1, -2], [0, 12]])
    same(torch.autograd.grad(loss.sum(), logprob)[0], [[-2, 1], [0, -4]])


def check_groups(losses: SimpleNamespace):
    reward = tensor([[1, 2, 6], [5, 5, 5], [0, -1, 1]])
    same(losses.reinforce.leave_one_out(reward), [[-3, -1.5, 4.5], [0, 0, 0], [0, -1.5, 1.5]])
    sd = math.sqrt(7)  # of 1, 2, 6 with K − 1 below
    same(losses.reinforce.group_normalized(reward), [[-2 / sd, -1 / sd, 3 / sd], [0, 0, 0], [0, -1, 1]])


# Best of n, distillation


def check_best_of_n_kl(losses: SimpleNamespace):
    known = {1: 0.0, 2: 0.1931472, 4: 0.6362944, 64: 3.1745081}
    for n, kl in known.items():
        assert float(losses.best_of_n.best_of_n_kl(n)) == pytest.approx(kl, abs=1e-7)
    assert float(losses.best_of_n.best_of_n_kl(8, rounds=2)) == pytest.approx(known[64], abs=1e-7)
    assert float(losses.best_of_n.best_of_n_kl(8, rounds=0)) == 0


def check_kl_of_distributions(losses: SimpleNamespace):
    p, q = tensor([[0.5, 0.5, 0], [0.2, 0.3, 0.5]]), tensor([[0.25, 0.5, 0.25], [0.2, 0.3, 0.5]])
    same(losses.distil.kl_of_distributions(p.log(), q.log()), [0.5 * math.log(2), 0])


CHECKS = [check for name, check in list(globals().items()) if name.startswith("check_")]
