"""Rewards under principles: which are drawn, what a response earns by them, and PPO that maximises it."""

import doctest
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from heedful.config import InputError
from heedful.engine.follow import Start
from heedful.engine.sample import Sampled, Sampler
from heedful.models.checkpoint import load_policy, load_reward_model, save_policy, save_reward_model, weights_hash
from heedful.models.heads import RewardModel
from heedful.models.lora import attach_lora
from heedful.pipeline import principle_rewards
from heedful.pipeline.principle_rewards import (
    InForce,
    PrincipleReward,
    PrincipleRewardConfig,
    PrincipleScorer,
    by_principles,
    guideline_in,
    in_force,
    of_kind,
    principles_for,
)
from heedful.pipeline.recipe import build
from heedful.principles import Principle
from heedful.run import Run, read_jsonl
from heedful.snapshot import Snapshot, write_snapshot
from heedful.stages import best_of_n, grpo, nlpo, ppo, reinforce, rloo
from heedful.stages.ppo import PPOConfig
from heedful.text.collate import Encoded
from heedful.text.format import PromptFormat
from heedful.text.principles import PrincipleFormat
from heedful.types import Prompt
from tiny import TINY
from toys import BEGIN, END, TOKENIZER, assert_resumes, make_policy, make_reward_model, open_run, plain_score

GUIDELINE = PrincipleFormat(item="{text} ", template=" \n {principles}")
FORMAT = PromptFormat(template="{prompt} \n", max_prompt_tokens=6)
WEIGHTS = {"a": 3.0, "b": 1.0, "c": 0.0, "d": 2.0}
DRAWN = tuple(
    Principle(id=id, language="en", title=id, definition=f"w{n}", negative="w7", weight=weight)
    for n, (id, weight) in enumerate(WEIGHTS.items())
)
ALWAYS = (Principle(id="z", language="en", title="z", definition="w6", negative="w7"),)
FORCE = InForce(drawn=DRAWN, always=ALWAYS)
CONFIG = PrincipleRewardConfig(
    number=2,
    length_bonus=5.0,
    length_tokens=10,
    length_cap=0.3,
    length_multiplier={"reasoning": -0.4},
    language_bonus=0.25,
    scale=10.0,
)
PROMPTS = [
    Prompt(id="p0", text="w0", user="u"),
    Prompt(id="p1", text="w1 w2", user="u", use_case="reasoning"),
    Prompt(id="p2", text="w3", user="u", kind="few_shot", use_case="chat"),
]


def changed(**changes: Any) -> PrincipleRewardConfig:
    return PrincipleRewardConfig(**(CONFIG.model_dump() | changes))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    save_reward_model(tmp_path / "rm", make_reward_model(), TOKENIZER, {}, GUIDELINE)
    return tmp_path / "rm"


def reward(
    folder: Path, run: Run, config: PrincipleRewardConfig = CONFIG, start: Start | None = None
) -> PrincipleReward:
    write_snapshot(folder.parent / "asked", Snapshot(prompts=tuple(PROMPTS)))
    guideline = guideline_in(folder)
    scorer = PrincipleScorer(config, FORCE, guideline, TOKENIZER, FORMAT, folder.parent / "asked", 5, run)
    return scorer(load_reward_model(folder, guideline)[0], 30, "fp32", start)


def maximise(
    main: Any, config: Any, run: Run, model: Path, folder: Path, reward: PrincipleRewardConfig = CONFIG
) -> None:
    """The stage, from the folder's policy and prompts."""
    more = {"documents": None} if main is ppo.main else {}
    by_principles(main)(
        config,
        run,
        principle_reward=reward,
        principles=FORCE,
        policy_folder=folder / "policy",
        reward_model_folder=model,
        prompts=folder / "prompts",
        format=FORMAT,
        **more,
    )


def ids_of(text: str) -> list[int]:
    return [BEGIN, *TOKENIZER(text, add_special_tokens=False)["input_ids"]]


def sample(seeds: list[int], each: int = 1) -> tuple[list[Prompt], Sampled]:
    """Responses of an untrained policy, some of them cut."""
    asked = [PROMPTS[n % len(PROMPTS)] for n in range(len(seeds))]
    tokens = [ids_of(f"{prompt.text} \n") for prompt in asked]
    sampled = Sampler(make_policy().decoder, TOKENIZER, 5)(tokens, seeds, [each] * len(seeds))
    return [prompt for prompt in asked for _ in range(each)], sampled


def test_the_example_in_the_docstring_runs() -> None:
    found = doctest.testmod(principle_rewards)
    assert found.attempted == 3 and found.failed == 0


def test_principles_are_drawn_by_weight_behind_those_always_in_force() -> None:
    first, sets = Counter[str](), set()
    for seed in range(3000):
        z, one, other = (found.id for found in principles_for(PROMPTS[0], FORCE, CONFIG, random.Random(seed)))
        assert z == "z" and one != other and "c" not in (one, other)
        first[one] += 1
        sets.add(frozenset((one, other)))
    assert sets == {frozenset(pair) for pair in ("ab", "ad", "bd")}
    for id, weight in WEIGHTS.items():
        assert first[id] / 3000 == pytest.approx(weight / 6, abs=0.03)


def test_prompts_of_a_kind_have_principles_of_more_weight() -> None:
    config = changed(number=1, more_weight={"reasoning": {"c": 128}, "few_shot": {"b": 128}})
    drawn = {
        n: Counter(principles_for(PROMPTS[n], FORCE, config, random.Random(s))[1].id for s in range(300))
        for n in range(3)
    }
    assert "c" not in drawn[0]
    assert drawn[1]["c"] / 300 == pytest.approx(128 / 134, abs=0.05)
    assert drawn[2]["b"] / 300 == pytest.approx(129 / 134, abs=0.05)  # by its kind: its use case has no entry
    assert of_kind(PROMPTS[2], {"few_shot": 1, "chat": 2}, 0) == 2  # its use case goes before its kind


def test_a_score_is_the_model_s_behind_its_principles_and_the_bonuses(model: Path, tmp_path: Path) -> None:
    run, seeds = open_run(tmp_path / "run"), [4, 5, 6, 7, 8, 9]
    prompts, sampled = sample(seeds)
    assert not sampled.finished.all()
    found = reward(model, run)(prompts, sampled)
    plain, _ = load_reward_model(model, GUIDELINE)
    principled, lengths = [], []
    for n, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True)):
        texts = [
            one.definition for one in principles_for(prompt, FORCE, CONFIG, random.Random(f"{run.seed}\x1f{seed}"))
        ]
        assert texts[0] == "w6" and len(texts) == 3
        response = sampled.tokens[n] + [END] * bool(sampled.finished[n])
        behind = [*ids_of(f"\n {' '.join(texts)}")[1:], END]
        principled.append(plain_score(plain, Encoded(ids_of(f"{prompt.text} \n"), response + behind)).item())
        share = (-0.4 if prompt.use_case == "reasoning" else 1.0) * len(response) / 10
        lengths.append(5.0 * min(share, 0.3))
    total = 10 * (torch.tensor(principled) + torch.tensor(lengths) + 0.25)
    torch.testing.assert_close(found, total, atol=1e-4, rtol=1e-4)
    assert min(lengths) < 0 and max(lengths) == 1.5  # the cap was reached
    run.log(0)
    (row,) = read_jsonl(run.folder / "metrics.jsonl")
    means = {"principle_score": sum(principled) / 6, "length_bonus": sum(lengths) / 6, "language_bonus": 0.25}
    assert {key: row[key] for key in means} == pytest.approx(means, abs=1e-5)


def test_apart_a_score_is_the_mean_by_weight_over_all_principles_each_by_itself(model: Path, tmp_path: Path) -> None:
    run, seeds = open_run(tmp_path / "run"), [4, 5, 6]
    prompts, sampled = sample(seeds)
    more = {"length_bonus": 0, "language_bonus": 0, "more_weight": {"reasoning": {"b": 2}}, "scale": 2}
    found = reward(model, run, changed(apart=True, **more))(prompts, sampled)
    plain, _ = load_reward_model(model, GUIDELINE)
    for n, prompt in enumerate(prompts):
        response = sampled.tokens[n] + [END] * bool(sampled.finished[n])
        weights = {"w6": 1.0, "w0": 3.0, "w1": 3.0 if prompt.use_case == "reasoning" else 1.0, "w3": 2.0}  # c has none
        total = 0.0
        for text, weight in weights.items():
            behind = [*ids_of(f"\n {text}")[1:], END]
            total += weight * plain_score(plain, Encoded(ids_of(f"{prompt.text} \n"), response + behind)).item()
        assert found[n].item() == pytest.approx(2 * total / sum(weights.values()), abs=1e-4)


@pytest.mark.parametrize("apart", [False, True])
def test_the_model_is_scaled_on_the_start_and_the_bonuses_are_not(apart: bool, model: Path, tmp_path: Path) -> None:
    start, later = sample([4, 5, 6, 7, 8, 9]), sample([1, 2, 3])
    run, config = open_run(tmp_path / "run"), changed(apart=apart)
    plain = reward(model, run, config)
    scaled = reward(model, run, config, Start(*start))
    raw = plain.principled(*start)
    for batch in (start, later):
        expected = (plain.principled(*batch) - raw.mean()) / raw.std()
        torch.testing.assert_close(scaled.principled(*batch), expected, atol=1e-4, rtol=1e-4)
        bonuses = plain(*batch) - 10 * plain.principled(*batch)
        torch.testing.assert_close(scaled(*batch), 10 * expected + bonuses, atol=1e-3, rtol=1e-4)


def test_responses_to_one_request_share_their_principles_and_other_requests_draw_anew(
    model: Path, tmp_path: Path
) -> None:
    prompts, sampled = sample([11, 12], each=3)
    score = reward(model, open_run(tmp_path / "run"))
    other = reward(model, open_run(tmp_path / "other", seed=4))

    def drawn(score: PrincipleReward, prompts: list[Prompt], sampled: Sampled) -> list[tuple[int, ...]]:
        return [tuple(row.response) for (row,) in score.read(prompts, sampled)]

    found = drawn(score, prompts, sampled)
    assert len(set(found[:3])) == len(set(found[3:])) == 1
    asked, many = sample(list(range(200)))
    assert len(set(drawn(score, asked, many))) == 6  # ordered pairs of a, b, d
    assert drawn(score, asked, many) == drawn(score, asked, many) != drawn(other, asked, many)
    assert drawn(score, asked, many._replace(seed=())) == drawn(score, asked, many)  # of nobody's: by their places


def test_what_could_become_too_long_is_refused_before_training(model: Path, tmp_path: Path) -> None:
    score = reward(model, open_run(tmp_path / "run"))
    score.check_fits(PROMPTS, max_new_tokens=5)
    with pytest.raises(InputError, match="exceed the reward model's context of 64"):
        score.check_fits(PROMPTS, max_new_tokens=60)
    score.check_fits([Prompt(id="p", text="w0 " * 8, user="u")], max_new_tokens=60)  # never asked: too long itself


@pytest.mark.parametrize("number", [0, 2, 4])
@pytest.mark.parametrize("apart", [False, True])
def test_what_just_fits_before_the_longest_guideline_is_let_through(
    apart: bool, number: int, model: Path, tmp_path: Path
) -> None:
    score = reward(model, open_run(tmp_path / "run"), changed(apart=apart, number=number))
    long = DRAWN[1].model_copy(update={"definition": "w1 w2 w3 w4"})
    score.principles = InForce(drawn=(DRAWN[0], long, *DRAWN[2:]), always=ALWAYS)
    behind = 1 + (4 if apart else 1) + (0 if apart or not number else number + 3) + 1  # line, texts, end
    room = 64 - behind - len(ids_of(f"{PROMPTS[1].text} \n"))
    score.check_fits(PROMPTS, max_new_tokens=room)
    with pytest.raises(InputError, match=r"; lower max_new" if apart else r"; lower number or max_new"):
        score.check_fits(PROMPTS, max_new_tokens=room + 1)


def test_a_model_that_reads_no_principles_is_refused(tmp_path: Path) -> None:
    save_reward_model(tmp_path / "plain", make_reward_model(), TOKENIZER, {})
    with pytest.raises(InputError, match="reads no principles"):
        reward(tmp_path / "plain", open_run(tmp_path / "run"))


def weightless(folder: Path) -> Path:
    """A file of one principle, whose collection `rl` gives it no weight."""
    texts = {"title": "a", "definition": "w0", "negative": "w1"}
    (folder / "book.yaml").write_text(
        yaml.safe_dump({"principles": {"a": {"en": texts}}, "collections": {"rl": {"a": 0}}})
    )
    return Path(f"{folder / 'book.yaml'}:rl")


def test_collections_are_read_and_principles_always_in_force_are_not_drawn(tmp_path: Path) -> None:
    found = in_force(PrincipleRewardConfig(always="interventions"))
    assert len(found.drawn) == 14 and len(found.always) == 3
    assert in_force(PrincipleRewardConfig(always="rl", number=0)).drawn == ()
    with pytest.raises(InputError, match="no principle has a weight"):
        in_force(PrincipleRewardConfig(always="rl"))
    with pytest.raises(InputError, match="rl: no principle has a weight, and apart"):
        in_force(PrincipleRewardConfig(principles=str(weightless(tmp_path)), apart=True, number=0))
    with pytest.raises(InputError, match="a principle of weight 0, and apart"):
        in_force(PrincipleRewardConfig(always=str(weightless(tmp_path)), apart=True))
    with pytest.raises(InputError, match=r"more_weight\.chat\.nothing"):
        in_force(PrincipleRewardConfig(more_weight={"chat": {"nothing": 1}}))


@pytest.mark.parametrize("normalize", [False, True])
def test_ppo_maximises_it(normalize: bool, model: Path, tmp_path: Path) -> None:
    """Through the stage, whose value model begins as the reward model: the terms in the log add up to the score."""
    save_policy(tmp_path / "policy", make_policy(), TOKENIZER, {})
    write_snapshot(tmp_path / "prompts", Snapshot(prompts=tuple(PROMPTS)))
    config = PPOConfig(
        iterations=2,
        batch_size=6,
        minibatch_size=6,
        ptx_coef=0,
        max_new_tokens=5,
        max_tokens=60,
        no_eos_penalty=6.0,
        clamp_kl=True,
        normalize_score=normalize,
        precision="fp32",
    )
    run = open_run(tmp_path / "run")
    maximise(ppo.main, config, run, model, tmp_path)
    rows = read_jsonl(run.folder / "metrics.jsonl")
    for row in rows:
        total = 10 * (row["principle_score"] + row["length_bonus"] + row["language_bonus"])
        assert row["score"] == pytest.approx(total - 6.0 * row["unfinished"], abs=1e-3)
    assert run.done and len(rows) == 2
    assert (abs(rows[0]["principle_score"]) < 1e-5) == normalize  # the first rollout is the start's


@pytest.mark.parametrize("changes", [{}, {"apart": True, "lora_rank": 2}])
def test_a_stopped_run_scales_and_draws_as_one_that_was_not(
    changes: dict[str, Any], model: Path, tmp_path: Path
) -> None:
    save_policy(tmp_path / "policy", make_policy(), TOKENIZER, {})
    write_snapshot(tmp_path / "prompts", Snapshot(prompts=tuple(PROMPTS)))
    settings = {"iterations": 3, "batch_size": 6, "minibatch_size": 3, "ptx_coef": 0, "max_new_tokens": 5}
    more = {"lora_rank": changes.get("lora_rank", 0), "max_tokens": 60, "normalize_score": True, "precision": "fp32"}

    def train(run: Run) -> Any:
        maximise(
            ppo.main,
            PPOConfig(**settings, **more, lr=1e-2),
            run,
            model,
            tmp_path,
            changed(apart=changes.get("apart", False)),
        )
        return load_policy(run.folder / "model")[0]

    assert_resumes(train, tmp_path / "runs", kills=[2])


def test_over_one_base_it_is_the_same_score(tmp_path: Path) -> None:
    """The log is that of a reward model with its adapters merged in, up to rounding."""
    save_policy(tmp_path / "policy", make_policy(), TOKENIZER, {})
    under = RewardModel.from_decoder(make_policy().decoder, seed=1)
    attach_lora(under.trunk, 2, seed=1)
    with torch.no_grad():
        for name, p in under.named_parameters():
            if "lora_B" in name:
                p.normal_(std=0.2, generator=torch.Generator().manual_seed(0))
    save_reward_model(tmp_path / "rm", under, TOKENIZER, {"model": weights_hash(tmp_path / "policy")}, GUIDELINE)
    write_snapshot(tmp_path / "prompts", Snapshot(prompts=tuple(PROMPTS)))
    rows = []
    for one_base in (False, True):
        run = open_run(tmp_path / f"run-{one_base}")
        settings = {"iterations": 1, "batch_size": 6, "minibatch_size": 6, "ptx_coef": 0, "max_new_tokens": 5}
        maximise(
            ppo.main,
            PPOConfig(**settings, max_tokens=60, lora_rank=2, one_base=one_base, precision="fp32"),
            run,
            tmp_path / "rm",
            tmp_path,
            changed(apart=True),
        )
        (row,) = read_jsonl(run.folder / "metrics.jsonl")
        rows.append([row[key] for key in ("principle_score", "score", "score_sd", "value_loss", "policy_loss")])
    assert rows[0] == pytest.approx(rows[1], abs=1e-4) and abs(rows[0][0]) > 1e-3


@pytest.mark.parametrize(
    ("main", "config"),
    [
        (nlpo.main, nlpo.NLPOConfig),
        (reinforce.main, reinforce.ReinforceConfig),
        (rloo.main, rloo.RLOOConfig),
        (grpo.main, grpo.GRPOConfig),
        (best_of_n.main, best_of_n.BestOfNConfig),
    ],
)
def test_every_stage_that_samples_maximises_it(main: Any, config: Any, model: Path, tmp_path: Path) -> None:
    save_policy(tmp_path / "policy", make_policy(), TOKENIZER, {})
    write_snapshot(tmp_path / "prompts", Snapshot(prompts=tuple(PROMPTS)))
    run = open_run(tmp_path / "run")
    maximise(
        main,
        config(iterations=1, batch_size=64, max_new_tokens=5, max_tokens=60, precision="fp32"),
        run,
        model,
        tmp_path,
    )
    (row,) = read_jsonl(run.folder / "metrics.jsonl")
    total = 10 * (row["principle_score"] + row["length_bonus"] + row["language_bonus"])
    assert run.done and row["score"] == pytest.approx(total, abs=1e-3)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, ""),
        ({"principle_rewards": {"under": {"reward_model": "none"}}}, "reward_model is 'none'; there is principled, re"),
        ({"principle_rewards": {"under": {}}}, "reward_model has no guideline"),
        ({"principle_rewards": {"principled": {}, "under": {}}}, "'principled' also names a reward model"),
        ({"reinforce": {"reward": "principled"}}, r"reinforce.reward \(of reinforce\): principled follows principles"),
        ({"reinforce": {"reward": "other"}}, "which is none of principled, reward_model, under"),
    ],
)
def test_a_recipe_s_rewards_name_models_that_read_principles(changes: dict[str, Any], told: str) -> None:
    raw = yaml.safe_load(TINY.read_text(encoding="utf-8")) | {
        "principles": {"collection": "world", "template": "world", "judge": {}},
        "further_reward_models": {"principled": {"guideline": {}}},
        "principle_rewards": {"under": {"reward_model": "principled"}},
        "reinforce": {"reward": "under"},
    }
    if not told:
        assert build(raw).principle_rewards["under"].number == 3
        return
    with pytest.raises(InputError, match=told):
        build(raw | changes)
