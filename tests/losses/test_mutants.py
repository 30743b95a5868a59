"""Tests of the tests: each mistake planted in the source of a loss must be caught by some closed-form check."""

from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from loss_checks import CHECKS
from test_closed_forms import NAMES

# (what goes wrong, module, what stands there, what is planted)
MUTANTS = [
    ("row sum keeps padding", "masked", "return x.masked_fill(~mask, 0).sum(-1)", "return x.nan_to_num().sum(-1)"),
    ("row sum over rows", "masked", "mask, 0).sum(-1)", "mask, 0).sum(0)"),
    ("mean keeps padding", "masked", "return x.masked_fill(~mask, 0).sum() /", "return x.nan_to_num().sum() /"),
    ("mask by product, NaN leaks", "masked", "return x.masked_fill(~mask, 0).sum() /", "return (x * mask).sum() /"),
    ("mean over all entries", "masked", "mask.sum() if total is None", "mask.numel() if total is None"),
    ("total ignored", "masked", "mask.sum() if total is None else total", "mask.sum()"),
    ("empty mask divides by zero", "masked", "count.masked_fill(count == 0, 1)", "count"),
    ("small totals rounded up", "masked", "count.masked_fill(count == 0, 1)", "count.clamp(min=1)"),
    ("whitening adds the mean where it should not", "masked", "if shift_mean else", "if not shift_mean else"),
    ("whitening loses the mean always", "masked", "whitened + mean)", "whitened)"),
    ("whitening without centring", "masked", "whitened = (x - mean)", "whitened = x"),
    ("unbiased variance", "masked", "masked_mean((x - mean) ** 2, mask)", "x[mask].var()"),
    ("variance over padding", "masked", "masked_mean((x - mean) ** 2, mask)", "((x - mean) ** 2).mean()"),
    ("no epsilon", "masked", "variance + WHITEN_EPSILON", "variance"),
    ("another epsilon", "masked", "WHITEN_EPSILON = 1e-8", "WHITEN_EPSILON = 1e-5"),
    ("whitened padding kept", "masked", "whitened + mean).masked_fill(~mask, 0)", "whitened + mean)"),
    ("explained variance of the value", "masked", "/ returns.var", "/ value.var"),
    (
        "explained variance by squares",
        "masked",
        "(returns - value).var(correction=0)",
        "((returns - value) ** 2).mean()",
    ),
    (
        "log-probability in half precision",
        "logprob",
        "logits.to(torch.promote_types(logits.dtype, torch.float32))",
        "logits",
    ),
    (
        "log-probability unnormalized",
        "logprob",
        "return torch.log_softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), dim=-1)",
        "return logits.float()",
    ),
    ("log-probability over positions", "logprob", "dim=-1", "dim=0"),
    ("entropy's sign", "logprob", "return torch.special.entr", "return -torch.special.entr"),
    ("entropy of impossible tokens", "logprob", "torch.special.entr(logprobs.exp())", "-(logprobs.exp() * logprobs)"),
    ("entropy carries a gradient", "logprob", "@torch.no_grad()", ""),
    ("k1's sign", "kl", "return logprob - ref_logprob", "return ref_logprob - logprob"),
    ("k3 with the inverse ratio", "kl", "torch.expm1(-k1) + k1", "torch.expm1(k1) - k1"),
    ("k3 without its linear term", "kl", "torch.expm1(-k1) + k1", "torch.expm1(-k1)"),
    ("k3 lost to rounding", "kl", "torch.expm1(-k1) + k1", "torch.exp(-k1) - 1 + k1"),
    ("controller's sign", "kl", "(1 + error", "(1 - error"),
    ("controller without clipping", "kl", "min(max(kl / target - 1, -MAX_ERROR), MAX_ERROR)", "kl / target - 1"),
    (
        "controller hides NaN",
        "kl",
        "min(max(kl / target - 1, -MAX_ERROR), MAX_ERROR)",
        "max(-0.2, min(0.2, kl / target - 1))",
    ),
    ("likelihood's sign", "sft", "return -logprob", "return logprob"),
    ("a tie counts as a pair", "ranking", "rank.unsqueeze(2) < rank", "rank.unsqueeze(2) <= rank"),
    ("rank 1 is worst", "ranking", "rank.unsqueeze(2) < rank", "rank.unsqueeze(2) > rank"),
    ("padding is compared", "ranking", "above & valid.unsqueeze(2) & valid.unsqueeze(1)", "above & valid.unsqueeze(2)"),
    ("padding reaches the gradient", "ranking", "score = score.masked_fill(~valid, 0)", "pass"),
    ("margin's sign", "ranking", "score.unsqueeze(2) - score.unsqueeze(1)", "score.unsqueeze(1) - score.unsqueeze(2)"),
    (
        "mean over C(K, 2), ties included",
        "ranking",
        "/ pairs.sum((1, 2)).clamp(min=1)",
        "/ (x.shape[1] * (x.shape[1] - 1) / 2)",
    ),
    ("all tied divides by zero", "ranking", ".clamp(min=1)", ""),
    ("mean over the batch's pairs", "ranking", "/ pairs.sum((1, 2))", "/ pairs.sum()[None]"),
    ("pairs summed, not averaged", "ranking", " / pairs.sum((1, 2)).clamp(min=1)", ""),
    ("ranking loss's sign", "ranking", "loss = -logsigmoid(_margin", "loss = logsigmoid(_margin"),
    (
        "weights divide themselves out",
        "ranking",
        "weight * loss, untied_pairs(rank, valid))\n\n\ndef hinge",
        "loss, untied_pairs(rank, valid))\n\n\ndef hinge",
    ),
    ("hinge's sign", "ranking", "(margin - _margin(score, valid))", "(margin + _margin(score, valid))"),
    ("hinge never rests", "ranking", "_margin(score, valid)).clamp(min=0)", "_margin(score, valid))"),
    ("equal scores count as right", "ranking", "(margin.sign() + 1) / 2", "(margin >= 0).to(score)"),
    (
        "probability of the other response",
        "ranking",
        "-probability * logsigmoid(margin)",
        "-probability * logsigmoid(-margin)",
    ),
    ("second half of the soft loss missing", "ranking", " - (1 - probability) * logsigmoid(-margin)", ""),
    ("softmax over padding", "ranking", "score = score.masked_fill(~valid, -torch.inf)", "score = score.nan_to_num()"),
    ("softmax over prompts", "ranking", "log_softmax(score, dim=1)", "log_softmax(score, dim=0)"),
    ("regression by absolute error", "ranking", "(score - target) ** 2", "(score - target).abs()"),
    ("score on the first token", "ppo", "mask.flip(1).cumsum(1).flip(1)", "mask.cumsum(1)"),
    (
        "score on the last column",
        "ppo",
        "last = mask & (still_to_come == 1)",
        "last = torch.arange(mask.shape[1]) == mask.shape[1] - 1",
    ),
    ("score one before the last token", "ppo", "still_to_come == 1", "still_to_come == 2"),
    ("score behind the last token too", "ppo", "mask & (still_to_come == 1)", "(still_to_come <= 1)"),
    ("score on every token", "ppo", "torch.where(last,", "torch.where(mask,"),
    ("KL rewarded", "ppo", "penalty = -kl_coef", "penalty = kl_coef"),
    ("KL clamped unasked", "ppo", "if clamp_kl else kl", "if True else kl"),
    ("KL not clamped", "ppo", "if clamp_kl else kl", "if False else kl"),
    ("KL clamped from above", "ppo", "kl.clamp_min(0)", "kl.clamp_max(0)"),
    ("KL of padding", "ppo", "kl_k1(logprob, ref_logprob).masked_fill(~mask, 0)", "kl_k1(logprob, ref_logprob)"),
    ("the score replaces the penalty", "ppo", "penalty + score.unsqueeze(1)", "score.unsqueeze(1)"),
    ("gae forwards", "ppo", "zip(*(x.flip(1).unbind(1)", "zip(*(x.unbind(1)"),
    ("gae takes values from padding", "ppo", "torch.where(m, v, next_value)", "v"),
    ("gae carries padding's advantage", "ppo", "torch.where(m, a, next_advantage)", "a"),
    ("gae without discount on the value", "ppo", "r + discount * next_value", "r + next_value"),
    ("gae with its own value", "ppo", "discount * next_value - v", "discount * v - v"),
    ("gae without discount on the advantage", "ppo", "discount * gae_lambda * next", "gae_lambda * next"),
    ("gae without lambda", "ppo", "discount * gae_lambda * next", "discount * next"),
    ("gae's value sign", "ppo", "next_value - v\n", "next_value + v\n"),
    ("returns without the value", "ppo", "(advantage + value).masked_fill", "advantage.masked_fill"),
    ("returns on padding", "ppo", "(advantage + value).masked_fill(~mask, 0)", "advantage + value"),
    ("ratio inverted", "ppo", "torch.exp((logprob - old_logprob)", "torch.exp((old_logprob - logprob)"),
    (
        "policy loss's sign",
        "ppo",
        "torch.maximum(-advantage * ratio, -advantage *",
        "torch.maximum(advantage * ratio, advantage *",
    ),
    ("clip on the wrong side", "ppo", "torch.maximum(-advantage", "torch.minimum(-advantage"),
    ("clip only above", "ppo", "ratio.clamp(1 - clip_range, 1 + clip_range)", "ratio.clamp(max=1 + clip_range)"),
    ("clip only below", "ppo", "ratio.clamp(1 - clip_range, 1 + clip_range)", "ratio.clamp(min=1 - clip_range)"),
    ("value loss takes the smaller error", "ppo", "0.5 * torch.maximum(error", "0.5 * torch.minimum(error"),
    (
        "value clipped around the return",
        "ppo",
        "old_value - clip_range, old_value + clip_range",
        "returns - clip_range, returns + clip_range",
    ),
    ("half missing with clipping", "ppo", "return 0.5 * torch.maximum", "return torch.maximum"),
    ("half missing without clipping", "ppo", "return 0.5 * error", "return error"),
    ("references swapped", "dpo", "beta * (chosen_logprob - chosen_ref", "beta * (chosen_logprob - rejected_ref"),
    ("reference added", "dpo", "beta * (rejected_logprob - rej", "beta * (rejected_logprob + rej"),
    ("rejected preferred", "dpo", "chosen_reward - rejected_reward", "rejected_reward - chosen_reward"),
    ("coefficient on one side only", "dpo", "rejected_reward = dpo_beta * ", "rejected_reward = "),
    ("flipped labels trusted", "dpo", "(1 - flipped) * dpo_loss(*given", "flipped * dpo_loss(*given"),
    ("flipped labels not flipped", "dpo", "flipped * dpo_loss(*other", "flipped * dpo_loss(*given"),
    ("IPO's aim is 1/β", "dpo", "1 / (2 * dpo_beta)", "1 / dpo_beta"),
    (
        "IPO takes the reference for the policy",
        "dpo",
        "(chosen_logprob - chosen_ref_logprob) - (rej",
        "(chosen_logprob) - (rej",
    ),
    ("IPO by absolute error", "dpo", "(margin - 1 / (2 * dpo_beta)) ** 2", "(margin - 1 / (2 * dpo_beta)).abs()"),
    ("REINFORCE lowers what was good", "reinforce", "return -advantage", "return advantage"),
    ("REINFORCE without the log-probability", "reinforce", "-advantage * logprob", "-advantage * logprob.exp()"),
    (
        "RLOO's baseline knows its own response",
        "reinforce",
        "(reward.sum(1, keepdim=True) - reward)",
        "reward.sum(1, keepdim=True)",
    ),
    ("RLOO's mean over K", "reinforce", "reward.shape[1] - 1", "reward.shape[1]"),
    ("RLOO over prompts", "reinforce", "reward.sum(1, keepdim=True)", "reward.sum(0, keepdim=True)"),
    ("GRPO's biased spread", "reinforce", "reward.std(1, keepdim=True)", "reward.std(1, correction=0, keepdim=True)"),
    ("GRPO not centred", "reinforce", "(reward - reward.mean(1, keepdim=True))", "reward"),
    (
        "GRPO of a group without spread is NaN",
        "reinforce",
        "sd.masked_fill(sd == 0, 1)).masked_fill(sd == 0, 0)",
        "sd)",
    ),
    ("best of n's KL without (n − 1)/n", "best_of_n", " - 1 + n ** -float(rounds)", ""),
    ("best of n's KL ignores rounds", "best_of_n", "rounds * np.log(n)", "np.log(n)"),
    (
        "divergence the other way round",
        "distil",
        "logprobs.exp() * (logprobs - other)",
        "other.exp() * (other - logprobs)",
    ),
    ("what is never said is NaN", "distil", ".masked_fill(~said, 0)", ""),
]


def mutated(module: str, there: str, planted: str) -> SimpleNamespace:
    """All the modules, one of them run from its source with `there` replaced."""
    modules = {name: import_module(f"heedful.losses.{name}") for name in NAMES}
    source = Path(modules[module].__file__).read_text(encoding="utf-8")
    assert source.count(there) == 1, f"{there!r} must stand once in {module}.py, found {source.count(there)} times"
    mutant = ModuleType(module)
    exec(compile(source.replace(there, planted), module, "exec"), mutant.__dict__)
    return SimpleNamespace(**modules | {module: mutant})


def catches(check, losses: SimpleNamespace) -> bool:
    try:
        check(losses)
    except AssertionError:
        return True
    return False


@pytest.mark.parametrize(("module", "there", "planted"), [m[1:] for m in MUTANTS], ids=[m[0] for m in MUTANTS])
def test_mutant_is_caught(module, there, planted):
    losses = mutated(module, there, planted)
    assert any(catches(check, losses) for check in CHECKS)
