"""The reward model that follows principles: the stage on rankings under principles, and what comes before it."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from heedful.config import InputError, parse
from heedful.engine.sample import score_rows
from heedful.feedback.objectives import learned_from
from heedful.models.checkpoint import load_reward_model, save_policy
from heedful.principles import Principle, PrincipleRanking
from heedful.run import Run
from heedful.snapshot import Snapshot, read_snapshot, write_snapshot
from heedful.stages.reward_model import RewardModelConfig, main
from heedful.text.collate import Encoder, to_rows
from heedful.text.format import PromptFormat
from heedful.text.principles import PrincipleFormat, guideline
from heedful.types import Labeler, Prompt, Ranking, Response
from toys import PAD, TOKENIZER, make_policy

GUIDELINE = PrincipleFormat(item="{text} ", template=" \n {principles}")
FORMAT = PromptFormat(template="{prompt} \n", max_prompt_tokens=8)
CONFIG = RewardModelConfig(batch_size=12, epochs=10, lr=1e-2, precision="fp32", guideline=GUIDELINE)
# Negated or not, each asks for a word: w4 or w5, w6 or w7.
PRINCIPLES = tuple(
    Principle(id=id, language="en", title=id, definition=definition, negative=negative)
    for id, definition, negative in (("a", "w0", "w1"), ("b", "w2", "w3"))
)
WANTED = {("a", False): "w4", ("a", True): "w5", ("b", False): "w6", ("b", True): "w7"}
CASES = [(one.id, negated) for one in PRINCIPLES for negated in (False, True)]


def write_data(folder: Path) -> Path:
    """Every case with every unwanted word, on training prompts and on one validation prompt."""
    split = {3: "valid"}
    prompts = [Prompt(id=f"p{n}", text=f"w{n % 8} w{n // 8}", user="u", split=split.get(n, "train")) for n in range(13)]
    responses = [Response(id=f"{p.id}-{w}", prompt_id=p.id, text=w) for p in prompts for w in WANTED.values()]
    under = [
        PrincipleRanking(
            id=f"{prompt.id}-{case}-{other}",
            prompt_id=prompt.id,
            labeler="judge",
            language="en",
            principles=(case,),
            responses=(f"{prompt.id}-{WANTED[case]}", f"{prompt.id}-{other}"),
            rank=(1, 2),
            decided_by=case[0],
        )
        for prompt in prompts
        for case in CASES
        for other in WANTED.values()
        if other != WANTED[case]
    ]
    plain = [
        Ranking(
            id=f"{p.id}-plain", prompt_id=p.id, labeler="judge", responses=(f"{p.id}-w4", f"{p.id}-w5"), rank=(1, 2)
        )
        for p in prompts
    ]
    write_snapshot(
        folder,
        Snapshot(
            prompts=tuple(prompts),
            responses=tuple(responses),
            labelers=(Labeler(id="judge", kind="principles"),),
            rankings=tuple(plain),
            principles=PRINCIPLES,
            principle_rankings=tuple(under),
        ),
    )
    return folder


def trained(tmp_path: Path, name: str, start: Path, **changes: Any) -> Run:
    config = CONFIG.model_copy(update=changes)
    run = Run.open(tmp_path / name, "reward_model", config.model_dump(mode="json"), 0, {})
    main(config, run, start, write_data(tmp_path / "data"), None, FORMAT)
    return run


def scores(folder: Path, texts: list[str]) -> dict[str, float]:
    """Of each wanted word as the response to an unseen prompt under these texts."""
    model, tokenizer = load_reward_model(folder / "model", GUIDELINE)
    encoder = Encoder(tokenizer, FORMAT).under(guideline(texts, GUIDELINE))
    prompt = Prompt(id="new", text="w0 w2", user="u")
    responses = [Response(id=w, prompt_id="new", text=w) for w in WANTED.values()]
    found = encoder.responses(prompt, responses)
    assert found is not None
    score = score_rows(model, to_rows([row for _, row in found], PAD), 1000, "fp32")
    return dict(zip(WANTED.values(), score.tolist(), strict=True))


def test_it_learns_to_follow_whatever_list_stands_behind_the_response(tmp_path: Path) -> None:
    save_policy(tmp_path / "start", make_policy(num_hidden_layers=2, hidden_size=32), TOKENIZER, {})
    run = trained(tmp_path, "rm", tmp_path / "start")
    assert run.results["num_rankings"] == 12 * 12 and run.results["valid_accuracy"] == 1.0
    assert run.results["demonstration_score_mean"] is None
    for one in PRINCIPLES:
        for negated in (False, True):
            found = scores(run.folder, [one.text(negated)])
            assert max(found, key=found.__getitem__) == WANTED[one.id, negated]
    about = json.loads((run.folder / "model" / "heedful.json").read_text(encoding="utf-8"))
    assert about["guideline"] == GUIDELINE.model_dump()
    followed = read_snapshot(run.folder / "followed")
    assert len(followed.principle_rankings) == 1 and followed.principles == PRINCIPLES and not followed.rankings


def test_it_goes_on_from_preference_pretraining_head_and_all(tmp_path: Path) -> None:
    save_policy(tmp_path / "start", make_policy(), TOKENIZER, {})
    first = trained(tmp_path, "first", tmp_path / "start", fixed_principles=("w6",))
    assert first.results["num_rankings"] == 12  # the plain ones
    found = scores(first.folder, ["w6"])
    assert found["w4"] > found["w5"]
    kept = trained(tmp_path, "kept", first.folder / "model", epochs=1, lr=1e-12)
    assert scores(kept.folder, ["w6"]) == pytest.approx(found, abs=1e-5)
    with pytest.raises(InputError, match="reads no principles"):
        plain = CONFIG.model_copy(update={"guideline": None, "epochs": 1})
        run = Run.open(tmp_path / "plain", "reward_model", plain.model_dump(mode="json"), 0, {})
        main(plain, run, tmp_path / "start", tmp_path / "data", None, FORMAT)
        trained(tmp_path, "after", run.folder / "model")


def test_without_rankings_under_principles_it_is_refused(tmp_path: Path) -> None:
    save_policy(tmp_path / "start", make_policy(), TOKENIZER, {})
    data = read_snapshot(write_data(tmp_path / "data"))
    write_snapshot(tmp_path / "none", Snapshot(data.prompts, data.responses, data.labelers, rankings=data.rankings))
    run = Run.open(tmp_path / "rm", "reward_model", {}, 0, {})
    with pytest.raises(InputError, match="no ranking under principles of a training prompt"):
        main(CONFIG, run, tmp_path / "start", tmp_path / "none", None, FORMAT)
    lacking = Snapshot(
        data.prompts,
        data.responses,
        data.labelers,
        principle_rankings=data.principle_rankings,
        principles=PRINCIPLES[:1],
    )
    write_snapshot(tmp_path / "lacking", lacking)
    with pytest.raises(InputError, match="no principle b in 'en'"):
        main(CONFIG, run, tmp_path / "start", tmp_path / "lacking", None, FORMAT)


def test_soft_labels_set_how_far_apart_scores_are(tmp_path: Path) -> None:
    """Two nats between the wanted word and another by one principle; by the other none, which no rank could teach."""
    save_policy(tmp_path / "start", make_policy(num_hidden_layers=2, hidden_size=32), TOKENIZER, {})
    data = read_snapshot(write_data(tmp_path / "data"))
    share = {"a": 1 / (1 + math.exp(-2.0)), "b": 0.5}
    told = tuple(
        one.model_copy(
            update={"preference": ((share[one.decided_by],) * 2,), "rank": (1, 2) if one.decided_by == "a" else (1, 1)}
        )
        for one in data.principle_rankings
    )
    write_snapshot(tmp_path / "soft", replace(data, principle_rankings=told))
    run = Run.open(tmp_path / "rm", "reward_model", {}, 0, {})
    config = CONFIG.model_copy(update={"objective": "soft", "epochs": 20})
    main(config, run, tmp_path / "start", tmp_path / "soft", None, FORMAT)
    assert run.results["num_rankings"] == 12 * 12  # those of one rank among them
    for one in PRINCIPLES:
        for negated in (False, True):
            found = scores(run.folder, [one.text(negated)])
            wanted = found.pop(WANTED[one.id, negated])
            apart = 2.0 if one.id == "a" else 0.0
            assert [wanted - other for other in found.values()] == pytest.approx([apart] * 3, abs=0.4)


def test_validation_is_on_validation_prompts(tmp_path: Path) -> None:
    data = read_snapshot(write_data(tmp_path / "data"))
    found = learned_from(CONFIG, Encoder(TOKENIZER, FORMAT), data, Snapshot(), tmp_path)
    assert len(found.valid) == 12 and {item.id.split("-")[0] for item in found.valid} == {"p3"}
    assert len(found.train) == 12 * 12 and "p3" not in {item.id.split("-")[0] for item in found.train}


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"guideline": None, "fixed_principles": ["w6"]}, "fixed_principles stand in a guideline"),
        ({"objective": "regression"}, "objective is regression, and rankings under principles have no marks"),
        ({"labeler_weights": {"ai": 1}}, "weigh alike"),
        ({"comparison_weight": "per_pair"}, "weigh alike"),
    ],
)
def test_what_such_rankings_do_not_hold_is_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        parse(RewardModelConfig, {"guideline": {}, **settings}, "reward_model")
    assert parse(RewardModelConfig, {"guideline": {}}, "reward_model").guideline == PrincipleFormat()


def test_plain_rankings_are_learned_from_as_ever(tmp_path: Path) -> None:
    """A snapshot that holds both: without a guideline the response has nothing behind it."""
    save_policy(tmp_path / "start", make_policy(), TOKENIZER, {})
    config = CONFIG.model_copy(update={"guideline": None, "epochs": 1})
    run = Run.open(tmp_path / "rm", "reward_model", config.model_dump(mode="json"), 0, {})
    main(config, run, tmp_path / "start", write_data(tmp_path / "data"), None, FORMAT)
    model, _ = load_reward_model(run.folder / "model")
    assert run.results["num_rankings"] == 12 and not torch.isnan(model.bias).any()
