"""The trace of a ranking: every number is the one that the plainest reading of PPO's formulas gives."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from heedful.engine.follow import by_reward_model_in, write_trace
from heedful.engine.sample import Sampled, Sampler, prompt_order, responses_by
from heedful.models.checkpoint import save_reward_model
from heedful.models.lora import BasePolicy, attach_lora
from heedful.snapshot import Snapshot, write_snapshot
from heedful.stages.ppo import PPOConfig
from heedful.stages.rloo import RLOOConfig
from heedful.text.collate import Encoded, Encoder
from heedful.text.format import PromptFormat
from heedful.types import Labeler, Prompt, Ranking, Response
from toys import (
    BEGIN,
    END,
    FIRST,
    TOKENIZER,
    make_policy,
    make_reward_model,
    make_value_model,
    open_run,
    plain_logprob,
    plain_score,
    plain_value,
)

FORMAT = PromptFormat(template="{prompt}", max_response_tokens=6)
TEXTS = ["w1 w2 w3", "w4", "w5 w6 w7 w0 w1", "w1 w1 w1 w1 w1 w1 w1 w1"]  # the last is longer than the format allows
KL_COEF = 0.3


def followed(folder: Path) -> Path:
    prompt = Prompt(id="p", text="w0 w1", user="u")
    responses = tuple(Response(id=f"r{n}", prompt_id="p", text=t, finished=n != 1) for n, t in enumerate(TEXTS))
    order = tuple(response.id for response in reversed(responses))
    ranking = Ranking(id="k", prompt_id="p", labeler="l", responses=order, rank=(1, 3, 2, 4))
    write_snapshot(
        folder, Snapshot(prompts=(prompt,), responses=responses, labelers=(Labeler(id="l"),), rankings=(ranking,))
    )
    return folder


def length(prompts: list[Prompt], sampled: Sampled) -> torch.Tensor:
    assert len(prompts) == len(sampled.text) and {prompt.id for prompt in prompts} == {"p"}
    return torch.tensor([float(len(tokens)) for tokens in sampled.tokens])


def trace(folder: Path, adapters: bool = False, **changes: Any) -> dict[str, Any]:
    config = PPOConfig(precision="fp32", temperature=1.5, discount=0.9, no_eos_penalty=0.5, **changes)
    policy, ref_policy = make_policy(0), make_policy(5)
    if adapters:
        attach_lora(policy.decoder, 2, seed=1)
    run = open_run(folder / "run")
    run.log(0, kl_coef=0.9)
    run.log(1, kl_coef=KL_COEF)
    reference = BasePolicy(policy) if adapters else ref_policy
    place = followed(folder / "followed")
    write_trace(run, place, Encoder(TOKENIZER, FORMAT), policy, reference, make_value_model(), length, config)
    return json.loads((folder / "run" / "trace.json").read_text())


def plainly(text: str, finished: bool) -> dict[str, Any]:
    """One response alone, its numbers one after the other."""
    ids = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    prompt = [TOKENIZER.bos_token_id, *TOKENIZER("w0 w1", add_special_tokens=False)["input_ids"]]
    row = Encoded(prompt, ids + [END] * finished)
    with torch.no_grad():
        found = {
            "logprob": plain_logprob(make_policy(0), row, 1.5).tolist(),
            "ref_logprob": plain_logprob(make_policy(5), row, 1.5).tolist(),
            "value": plain_value(make_value_model(), row).tolist(),
        }
    score = len(ids) - 0.5 * (not finished)
    reward = [-KL_COEF * (a - b) for a, b in zip(found["logprob"], found["ref_logprob"], strict=True)]
    reward[-1] += score
    value, raw = [*found["value"], 0.0], [0.0] * (len(reward) + 1)
    for t in reversed(range(len(reward))):
        raw[t] = reward[t] + 0.9 * value[t + 1] - value[t] + 0.9 * 0.95 * raw[t + 1]
    returns = [a + v for a, v in zip(raw, value, strict=True)][:-1]
    return found | {"score": score, "tokens": ids, "reward": reward, "gae": raw[:-1], "returns": returns}


def test_every_number_is_ppo_s_and_what_does_not_fit_is_left_out(tmp_path: Path) -> None:
    found = trace(tmp_path)
    assert (found["ranking_id"], found["kl_coef"]) == ("k", KL_COEF)
    assert [row["response_id"] for row in found["responses"]] == ["r2", "r1", "r0"]  # as ranked
    for row in found["responses"]:
        n = int(row["response_id"][1])
        expected = plainly(TEXTS[n], finished=n != 1)
        assert row["tokens"] == expected["tokens"] and row["score"] == pytest.approx(expected["score"])
        for name in ("logprob", "ref_logprob", "value", "reward", "gae", "returns"):
            assert row[name] == pytest.approx(expected[name], abs=2e-5), name
    raw = [a for row in found["responses"] for a in row["gae"]]
    mean = sum(raw) / len(raw)
    sd = math.sqrt(sum((a - mean) ** 2 for a in raw) / len(raw))
    scaled = [a for row in found["responses"] for a in row["advantage"]]
    assert scaled == pytest.approx([(a - mean) / sd for a in raw], abs=1e-4)


def test_without_whitening_the_advantage_is_gae_s(tmp_path: Path) -> None:
    found = trace(tmp_path, whiten_advantage=False)
    assert all(row["advantage"] == row["gae"] for row in found["responses"]) and not found["whiten_advantage"]


def test_whitened_rewards_keep_their_mean(tmp_path: Path) -> None:
    plain, white = (trace(tmp_path / name, whiten_reward=name == "white") for name in ("plain", "white"))
    mean, sd = ([f([v for row in t["responses"] for v in row["reward"]]) for t in (plain, white)] for f in (avg, dev))
    assert mean[0] == pytest.approx(mean[1], abs=1e-5) and sd[1] == pytest.approx(1, abs=1e-3) and sd[0] > 1.1


def avg(values: list[float]) -> float:
    return sum(values) / len(values)


def dev(values: list[float]) -> float:
    return math.sqrt(avg([(v - avg(values)) ** 2 for v in values]))


def test_untrained_adapters_cost_no_kl_and_the_trace_is_the_same_every_time(tmp_path: Path) -> None:
    found = trace(tmp_path / "a", adapters=True)
    assert all(row["logprob"] == row["ref_logprob"] for row in found["responses"])
    assert found == trace(tmp_path / "b", adapters=True)


@pytest.mark.parametrize("normalize", [False, True])
def test_a_reward_model_is_scaled_on_the_first_batch_of_the_start(normalize: bool, tmp_path: Path) -> None:
    save_reward_model(tmp_path / "model", make_reward_model(), TOKENIZER, {})
    sampler = Sampler(make_policy().decoder, TOKENIZER, 5)
    generate = responses_by(sampler, [[BEGIN, FIRST + n] for n in range(5)], 4, 3)
    asked = [Prompt(id=f"p{n}", text=f"w{n}", user="u") for n in range(5)]
    config = RLOOConfig(batch_size=20, normalize_score=normalize, precision="fp32", max_tokens=30)
    score = by_reward_model_in(tmp_path / "model", config, generate, asked, seed=3)
    first, other = (generate(prompt_order(5, start, 20, 3, 4), start) for start in (0, 20))
    plain = [
        torch.stack([plain_score(make_reward_model(), row) for row in as_rows(sampled)]).detach()
        for sampled in (first, other)
    ]
    mean, sd = (plain[0].mean(), plain[0].std()) if normalize else (0.0, 1.0)
    for sampled, raw in zip((first, other), plain, strict=True):
        found = score([], sampled).detach()
        torch.testing.assert_close(found, (raw - mean) / sd, atol=1e-4, rtol=1e-4)


def as_rows(sampled: Sampled) -> list[Encoded]:
    return [Encoded(r[:p].tolist(), r[p:n].tolist()) for r, p, n in zip(*sampled.rows[:3], strict=True)]
