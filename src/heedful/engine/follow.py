"""A ranking's responses taken through PPO's arithmetic: score → penalised reward → advantage, token by token.

So one judgement can be followed from the labeler's form to what it would teach. The responses are taken as if they were
the episodes of one rollout, by the formulas that PPO uses and under the models it ended with. PPO's own episodes answer
other prompts, because rankings and PPO draw on separate pools.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch

from heedful.batch import Rows, pad_to
from heedful.config import InputError
from heedful.engine.sample import Generate, Sampled, prompt_order, score_rows
from heedful.losses.masked import masked_whiten
from heedful.losses.ppo import gae, kl_penalized_reward
from heedful.models.checkpoint import load_reward_model
from heedful.models.heads import Policy, RewardModel, ValueModel
from heedful.models.lora import Reference
from heedful.models.optimizer import Precision, autocast
from heedful.run import Run, read_jsonl, write_atomic
from heedful.snapshot import read_snapshot
from heedful.text.collate import Encoded, Encoder, to_rows
from heedful.text.principles import PrincipleFormat
from heedful.text.tokenizer import pad_id
from heedful.types import Prompt, Response

TRACE = "trace.json"
Score = Callable[[list[Prompt], Sampled], torch.Tensor]  # N prompts with their N responses → (N,), on any device


class Start(NamedTuple):
    """What the starting policy says to some prompts: on it a reward model is scaled to mean 0, sd 1."""

    prompts: list[Prompt]
    sampled: Sampled


def by_reward_model(model: RewardModel, max_tokens: int, precision: Precision, start: Start | None = None) -> Score:
    """What the reward model, scaled on `start` where it is given, gives a response, in passes of at most max_tokens."""

    def score(prompts: list[Prompt], sampled: Sampled) -> torch.Tensor:
        return score_rows(model, sampled.rows, max_tokens, precision)

    if start is not None:
        model.normalize(score(*start))
    return score


class Scorer(Protocol):
    """As `by_reward_model`, of a reward model that reads prompts as `guideline` says; None: as they are."""

    guideline: PrincipleFormat | None

    def __call__(
        self, model: RewardModel, max_tokens: int, precision: Precision, start: Start | None = None
    ) -> Score: ...


class Scaling(Protocol):
    """The settings of a stage that say how a reward model's scores are scaled, and computed."""

    batch_size: int
    responses_per_prompt: int
    normalize_score: bool
    max_tokens: int
    precision: Precision


def start_of(config: Scaling, generate: Generate, prompts: Sequence[Prompt], seed: int) -> Start | None:
    """The first batch that `generate` gives, of the policy as it is now; None without `normalize_score`."""
    if not config.normalize_score:
        return None
    order = prompt_order(len(prompts), 0, config.batch_size, seed, config.responses_per_prompt)
    return Start([prompts[i] for i in order], generate(order, 0))


def by_reward_model_in(
    folder: Path,
    config: Scaling,
    generate: Generate,
    prompts: Sequence[Prompt],
    seed: int,
    scorer: Scorer | None = None,
) -> Score:
    """What `scorer` makes of the folder's reward model, else its score itself, see `start_of`.

    Raises:
        InputError: the folder holds no reward model.
    """
    model, _ = load_reward_model(folder, scorer.guideline if scorer else None)
    start = start_of(config, generate, prompts, seed)
    return (scorer or by_reward_model)(model, config.max_tokens, config.precision, start)


def scored(score: Score, prompts: list[Prompt], sampled: Sampled, device: torch.device) -> torch.Tensor:
    """What the function gives the N responses: (N,) fp32 on the device, without gradient.

    Raises:
        InputError: it gives something else than a tensor (N,) of finite numbers.
    """
    found = score(prompts, sampled)
    if not isinstance(found, torch.Tensor) or found.shape != (len(prompts),):
        given = f"a tensor of shape {tuple(found.shape)}" if isinstance(found, torch.Tensor) else type(found).__name__
        raise InputError(f"the score function must return a tensor of shape ({len(prompts)},), not {given}")
    wrong = (~torch.isfinite(found)).nonzero().flatten().tolist()
    if wrong:
        raise InputError(
            f"the score of {len(wrong)} of {len(found)} responses is no finite number: {float(found[wrong[0]])} for "
            f"the response to prompt {prompts[wrong[0]].id}; mend what scores, then the same command goes on"
        )
    return found.detach().to(device, torch.float32)


class Learning(Protocol):
    """The settings of PPO that make advantages out of scores."""

    temperature: float
    clamp_kl: bool
    discount: float
    gae_lambda: float
    whiten_reward: bool
    whiten_advantage: bool
    no_eos_penalty: float
    precision: Precision


def write_trace(
    run: Run,
    followed: Path,
    encoder: Encoder,
    policy: Policy,
    ref_policy: Reference,
    value_model: ValueModel,
    score: Score,
    config: Learning,
) -> None:
    """Write trace.json: the one ranking of the snapshot `followed` at the KL coefficient of the run's last iteration.

    Responses that do not fit are left out; the reward model, which meets them first, has counted them.
    """
    kl_coef = read_jsonl(run.folder / "metrics.jsonl")[-1]["kl_coef"]
    snapshot = read_snapshot(followed)
    ranking, prompt, by_id = snapshot.rankings[0], snapshot.prompts[0], snapshot.response_by_id()
    fitting = [(by_id[id], row) for id in ranking.responses if (row := encoder.response(prompt, by_id[id])) is not None]
    found: list[dict[str, Any]] = []
    if fitting:
        sampled = as_sampled([response for response, _ in fitting], [row for _, row in fitting], encoder, policy.device)
        scores = scored(score, [prompt] * len(fitting), sampled, policy.device)
        columns = arithmetic(policy, ref_policy, value_model, sampled, scores, config, kl_coef)
        found = [record(response, n, sampled, columns) for n, (response, _) in enumerate(fitting)]
    settings = {"discount": config.discount, "gae_lambda": config.gae_lambda, "temperature": config.temperature}
    settings |= {"whiten_reward": config.whiten_reward, "whiten_advantage": config.whiten_advantage}
    content = {"ranking_id": ranking.id, "kl_coef": kl_coef, **settings, "responses": found}
    write_atomic(run.folder / TRACE, json.dumps(content) + "\n")


def as_sampled(
    responses: Sequence[Response], encoded: Sequence[Encoded], encoder: Encoder, device: torch.device
) -> Sampled:
    """The responses in the form in which a sampler hands them over; what they were sampled with is not known: 0."""
    rows = to_rows(encoded, pad_id(encoder.tokenizer)).to(device)
    finished = torch.tensor([response.finished for response in responses], device=device)
    tokens = [row.response[: len(row.response) - r.finished] for row, r in zip(encoded, responses, strict=True)]
    text = [response.text for response in responses]
    return Sampled(rows, tokens, text, finished, torch.zeros(rows.mask.shape, device=device))


@torch.no_grad()
def arithmetic(
    policy: Policy,
    ref_policy: Reference,
    value_model: ValueModel,
    sampled: Sampled,
    score: torch.Tensor,
    config: Learning,
    kl_coef: float,
) -> dict[str, torch.Tensor]:
    """What PPO makes of the responses as one rollout: score (N,), all others (N, R).

    `gae` is the advantage as it comes out of the recursion, `advantage` what the policy loss is given: the same where
    advantages are not whitened.
    """
    mask = sampled.rows.mask

    def read(rows: Rows) -> list[torch.Tensor]:
        with autocast(score.device, config.precision):
            logprob, ref_logprob = (model.logprob(rows, config.temperature) for model in (policy, ref_policy))
            return [pad_to(x, mask.shape[1]) for x in (logprob, ref_logprob, value_model(rows))]

    one_by_one = [read(sampled.rows.select(torch.tensor([n]))) for n in range(len(mask))]  # whatever fits PPO fits here
    logprob, ref_logprob, value = (torch.cat(column) for column in zip(*one_by_one, strict=True))
    score = score - config.no_eos_penalty * (~sampled.finished)
    reward = kl_penalized_reward(score, logprob, ref_logprob, mask, kl_coef, config.clamp_kl)
    if config.whiten_reward:
        reward = masked_whiten(reward, mask, shift_mean=False)
    raw, returns = gae(reward, value, mask, config.discount, config.gae_lambda)
    advantage = masked_whiten(raw, mask) if config.whiten_advantage else raw
    found = {"score": score, "logprob": logprob, "ref_logprob": ref_logprob, "reward": reward, "value": value}
    return found | {"returns": returns, "gae": raw, "advantage": advantage}


def record(response: Response, n: int, sampled: Sampled, columns: dict[str, torch.Tensor]) -> dict[str, Any]:
    """The n-th response, token by token (the end token included), as JSON."""
    num = int(sampled.rows.response_length[n])
    found = {"response_id": response.id, "tokens": sampled.tokens[n], "score": round(float(columns["score"][n]), 6)}
    return found | by_token({name: x for name, x in columns.items() if name != "score"}, n, num)


def by_token(columns: dict[str, torch.Tensor], n: int, num: int) -> dict[str, list[float]]:
    """The first `num` entries of row n of each (N, R), as JSON."""
    return {name: [round(v, 6) for v in x[n, :num].tolist()] for name, x in columns.items()}
