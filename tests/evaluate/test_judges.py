"""Every judge behind the same interface: what each says, and what each leaves unsaid."""

from pathlib import Path
from typing import Any

import pytest

from heedful.evaluate.judges import (
    FunctionJudge,
    Judge,
    RecordedJudge,
    RewardModelJudge,
    SimulatedJudge,
    ask,
)
from heedful.evaluate.win_rate import win_rate
from heedful.feedback.sentiment import sentiment
from heedful.feedback.simulated import SimulatedLabeler
from heedful.models.checkpoint import load_reward_model
from heedful.snapshot import read_snapshot
from heedful.store.database import Store, open_store
from heedful.store.export import export_snapshot
from heedful.store.labels import add_labeler, add_ranking, add_response
from heedful.store.pools import add_prompt
from heedful.text.format import PromptFormat
from heedful.types import Labeler, Prompt, Ranking, Response
from heedful.world import World

TEXTS = {"p": ("awful", "wonderful", "wonderful"), "q": ("fine good", "bad"), "r": ("alone",)}


def items() -> list[tuple[Prompt, list[Response]]]:
    return [
        (
            Prompt(id=id, text=f"say {id}", user=id),
            [Response(id=f"{id}{n}", prompt_id=id, text=text) for n, text in enumerate(texts)],
        )
        for id, texts in TEXTS.items()
    ]


def length(prompt: Prompt, text: str) -> float:
    return float(len(text))


def test_a_function_judges_and_what_it_cannot_rank_is_counted() -> None:
    found = ask(FunctionJudge("VADER", sentiment), items())
    assert [(r.prompt_id, r.rank, r.purpose) for r in found.rankings] == [
        ("p", (2, 1, 1), "evaluation"),
        ("q", (1, 2), "evaluation"),
    ]
    assert found.labeler == Labeler(id="VADER", group="heldout", kind="metric")
    assert found.unscored == {"fewer than two responses": 1}
    assert ask(FunctionJudge("VADER", sentiment), items()) == found  # the same records with the same ids


@pytest.mark.parametrize("nothing", [None, float("nan"), float("inf")])
def test_a_response_without_a_score_leaves_its_item_unjudged(nothing: float | None) -> None:
    judge = FunctionJudge("picky", lambda prompt, text: nothing if text == "bad" else float(len(text)))
    found = ask(judge, items())
    assert [r.prompt_id for r in found.rankings] == ["p"]
    assert found.unscored == {"fewer than two responses": 1, "a response has no score": 1}


def test_scores_within_the_tie_width_tie() -> None:
    assert ask(FunctionJudge("long", length, tie_width=5.0), items()).rankings[0].rank == (1, 1, 1)
    assert ask(FunctionJudge("long", length), items()).rankings[0].rank == (2, 1, 1)


def test_the_gold_rater_judges_the_worlds_prompts() -> None:
    world = World(0)
    [prompt] = world.prompts(1, "test", pool="eval")
    texts = [world.demonstrate(prompt), "nonsense nonsense"]
    asked = [(prompt, [Response(id=f"r{n}", prompt_id=prompt.id, text=text) for n, text in enumerate(texts)])]
    gold = FunctionJudge("gold", lambda prompt, text: world.rate(prompt, text).evaluation_utility)
    assert ask(gold, asked).rankings[0].rank == (1, 2)


def test_a_simulated_labeler_says_what_it_says_anywhere() -> None:
    labeler = SimulatedLabeler(Labeler(id="s", kind="simulated"), length, noise_sd=3.0)
    found = ask(SimulatedJudge(labeler), items())
    expected = [labeler.rank(prompt, responses, "evaluation").rank for prompt, responses in items()[:2]]
    assert [ranking.rank for ranking in found.rankings] == expected


def test_people_judge_through_the_store(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    [(prompt, responses), *_] = people(store)
    snapshot = export_snapshot(store, pools=["evaluation"], purpose="evaluation", heldout="include")
    ann = RecordedJudge(Labeler(id="ann", group="heldout"), snapshot.rankings)
    found = ask(ann, [(prompt, responses), (prompt, responses[:2]), *items()[:1]])
    assert [ranking.rank for ranking in found.rankings] == [(3, 1, 2), (2, 1)]  # places among those asked about
    assert found.unscored == {"not ranked by this labeler": 1}
    given = {name: {prompt.id: response.id} for name, response in zip("abc", responses, strict=True)}
    assert win_rate(found.rankings[:1], given, "b", "a").wins == 1


def test_a_recorded_judge_looks_at_the_rankings_of_a_prompt_alone() -> None:
    """A thousand prompts would else be a million looks."""
    looks = []

    class Watched(Ranking):
        def __getattribute__(self, name: str) -> Any:
            if name == "responses":
                looks.append(name)
            return super().__getattribute__(name)

    rankings = [
        Watched(id=f"k{n}{v}", prompt_id=f"p{n}", labeler="ann", responses=(f"a{n}", f"b{n}"), rank=rank)
        for n in range(50)
        for v, rank in enumerate([(2, 1), (1, 2)])
    ]
    asked = [
        (
            Prompt(id=f"p{n}", text="say", user="u"),
            [Response(id=f"{name}{n}", prompt_id=f"p{n}", text=name) for name in "ba"],
        )
        for n in range(51)
    ]
    looks.clear()
    found = RecordedJudge(Labeler(id="ann"), rankings).judge(asked)
    assert [verdict.rank for verdict in found] == [(2, 1)] * 50 + [None]  # the last of the two counts
    assert len(looks) == 50


def people(store: Store) -> list[tuple[Prompt, list[Response]]]:
    """One evaluation prompt whose three responses ann has ranked."""
    prompt = Prompt(id="x", text="say x", user="u", split="test")
    add_prompt(store, prompt, pool="evaluation")
    responses = [Response(id=f"x{n}", prompt_id=prompt.id, text=f"answer {n}") for n in range(3)]
    add_response(store, *responses)
    add_labeler(store, Labeler(id="ann", group="heldout"))
    ids = tuple(response.id for response in responses)
    common = {"prompt_id": prompt.id, "labeler": "ann", "responses": ids, "purpose": "evaluation"}
    add_ranking(store, Ranking(id="k", rank=(3, 1, 2), **common))
    return [(prompt, responses)]


def test_a_reward_model_judges_all_items_in_one_batch(tiny_run: Path) -> None:
    judged = read_snapshot(tiny_run / "evaluation" / "judgements" / "snapshot")
    by_prompt: dict[str, list[Response]] = {}
    for response in judged.responses:
        by_prompt.setdefault(response.prompt_id, []).append(response)
    asked = [(prompt, by_prompt[prompt.id]) for prompt in judged.prompts][:4]
    model, tokenizer = load_reward_model(tiny_run / "round-1" / "reward_model" / "model")
    format = PromptFormat(template="{prompt} \n", max_prompt_tokens=160, max_response_tokens=40)
    judge: Judge = RewardModelJudge("reward model", model, tokenizer, format)
    found = ask(judge, asked)
    alone = [ask(judge, [item]).rankings for item in asked]
    assert found.rankings == [ranking for rankings in alone for ranking in rankings] and found.rankings
    short = RewardModelJudge("reward model", model, tokenizer, format.model_copy(update={"max_response_tokens": 1}))
    assert ask(short, asked).unscored["a response has no score"] > 0
