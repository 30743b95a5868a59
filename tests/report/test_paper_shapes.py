"""The paper's claims on hand-made numbers: all hold where they should, each falls alone, none is said of nothing."""

import copy
from typing import Any

import pytest

from heedful.report.shapes import Json, shapes

SIZES = ("small", "medium", "large")
WINS = {"gpt": 0.2, "gpt_prompted": 0.35, "sft": 0.48, "ppo": 0.62, "ppo_ptx": 0.64, "flan": 0.3, "t0": 0.27}
BOXES = {"fails_instruction": (0.5, 0.2), "hallucination": (0.41, 0.21), "inappropriate_assistant": (0.1, 0.05)}
COEFFICIENTS = (0.0, 1.0, 4.0)


def row(figure: str, mean: float, **place: Any) -> Json:
    names = ("measure", "policy", "size", "labelers", "prompts", "coefficient")
    return {"figure": figure, "mean": mean} | {name: place.get(name) for name in names}


def numbers(sizes: tuple[str, ...] = SIZES) -> Json:
    rows = []
    for n, size in enumerate(sizes):
        for policy, win in WINS.items():
            rows.append(row("1", win + 0.01 * n, policy=policy, size=size))
            for labelers in ("heldout", "train"):
                rows.append(row("3", win, policy=policy, size=size, labelers=labelers, prompts="base"))
        for policy, score, loss in (
            ("gpt", 0.7, 1.0),
            ("ppo_init", 0.6, 1.1),
            ("ppo", 0.5, 1.2),
            ("ppo_ptx", 0.68, 1.05),
        ):
            rows.append(row("14", score, measure="squad", policy=policy, size=size))
            rows.append(row("14", loss, measure="lm_loss", policy=policy, size=size))
        for kind in ("language", "code", "false_premise", "hedging", "constraints"):
            for policy, share in (("gpt", 0.9), ("sft", 0.6), ("ppo_ptx", 0.3)):
                rows.append(row("qualitative", share, measure=f"{kind} mistake", policy=policy, size=size))
    for flag, (before, after) in {**BOXES, "satisfies_constraint": (0.3, 0.5)}.items():
        rows += [row("4", before, measure=flag, policy="gpt"), row("4", after, measure=flag, policy="ppo_ptx")]
    curves = {
        "33": {"classic": (0.5, 0.6, 0.68), "lm_loss": (1.2, 1.1, 1.05), "score": (0.8, 0.78, 0.4)},
        "34": {"classic": (0.5, 0.5, 0.7), "lm_loss": (1.2, 1.2, 1.0), "score": (0.8, 0.7, 0.2)},
    }
    for figure, measures in curves.items():
        for measure, means in measures.items():
            for at, value in zip(COEFFICIENTS, means, strict=True):
                policy = "ppo_ptx" if (figure, at) == ("33", 4.0) else f"at_{at}"
                rows.append(row(figure, value, measure=measure, policy=policy, coefficient=at, size=sizes[0]))
    return {"sizes": dict.fromkeys(sizes, 1000), "rows": rows}


def test_all_hold_where_the_numbers_are_as_the_papers() -> None:
    assert [(shape.claim, shape.holds) for shape in shapes(numbers()) if shape.holds is not True] == []


SPOILED = [
    ({"figure": "1", "policy": "gpt_prompted", "size": "medium"}, 0.55, "GPT < prompted GPT < SFT < PPO-ptx"),
    ({"figure": "1", "policy": "gpt", "size": "large"}, 0.9, "the smallest PPO-ptx is preferred"),
    ({"figure": "1", "policy": "ppo_ptx", "size": "large"}, 0.54, "PPO-ptx of the largest size wins"),
    ({"figure": "1", "policy": "ppo_ptx", "size": "medium"}, 0.9, "PPO-ptx wins more the larger it is"),
    ({"figure": "1", "policy": "ppo", "size": "small"}, 0.5, "PPO and PPO-ptx differ little"),
    ({"figure": "1", "policy": "t0", "size": "large"}, 0.51, "FLAN and T0 lose"),
    ({"figure": "3", "policy": "sft", "size": "small", "labelers": "train"}, 0.3, "held-out labelers prefer"),
    ({"figure": "4", "measure": "hallucination", "policy": "ppo_ptx"}, 0.5, "PPO-ptx hallucinates less"),
    ({"figure": "4", "measure": "satisfies_constraint", "policy": "ppo_ptx"}, 0.2, "PPO-ptx keeps constraints"),
    ({"figure": "14", "measure": "squad", "policy": "ppo"}, 0.75, "PPO loses on classic tasks"),
    ({"figure": "14", "measure": "squad", "policy": "ppo_ptx"}, 0.55, "PPO-ptx undoes most"),
    ({"figure": "14", "measure": "lm_loss", "policy": "ppo_ptx"}, 1.3, "held-out LM loss"),
    ({"figure": "33", "measure": "classic", "coefficient": 4.0}, 0.55, "a larger pretraining coefficient restores"),
    ({"figure": "33", "measure": "score", "coefficient": 1.0}, 0.6, "at little cost in score"),
    ({"figure": "33", "measure": "lm_loss", "coefficient": 4.0}, 1.3, "and language loss falls"),
    ({"figure": "34", "measure": "score", "coefficient": 4.0}, 0.9, "a large KL coefficient costs score"),
    ({"figure": "34", "measure": "classic", "coefficient": 0.0}, 0.7, "no KL coefficient that keeps half"),
    ({"figure": "34", "measure": "lm_loss", "coefficient": 1.0}, 1.0, "nor language loss"),
    ({"figure": "qualitative", "measure": "code mistake", "policy": "ppo_ptx"}, 0.95, "PPO-ptx answers about code"),
    ({"figure": "qualitative", "measure": "hedging mistake", "policy": "ppo_ptx"}, 0.05, "PPO-ptx hedges"),
]


@pytest.mark.parametrize(("place", "mean", "claim"), SPOILED, ids=[claim for _, _, claim in SPOILED])
def test_each_claim_falls_with_its_number_and_is_not_said_without_it(
    place: dict[str, Any], mean: float, claim: str
) -> None:
    spoiled, lacking = numbers(), numbers()
    for figures, value in ((spoiled, mean), (lacking, None)):
        found = [r for r in figures["rows"] if all(r[key] == wanted for key, wanted in place.items())]
        assert found
        for r in found:
            r["mean"] = value
    assert [shape.holds for shape in shapes(spoiled) if shape.claim.startswith(claim)] == [False]
    assert True not in [shape.holds for shape in shapes(lacking) if shape.claim.startswith(claim)]


WITHOUT = [
    ("PPO loses nothing", {"figure": "14", "policy": "ppo", "measure": "squad"}, 0.72, ["PPO-ptx undoes most"]),
    ("plain PPO keeps more than GPT had", {"figure": "33", "coefficient": 0.0, "measure": "classic"}, 0.75,
     ["a larger pretraining coefficient restores", "no KL coefficient that keeps half"]),
    ("the mix mends no loss", {"figure": "33", "coefficient": 0.0, "measure": "lm_loss"}, 1.0, ["nor language loss"]),
    ("PPO gains no score", {"figure": "33", "measure": "score"}, -0.2, ["at little cost in score"]),
    ("no KL coefficient gains score", {"figure": "34", "measure": "score"}, -0.2,
     ["a large KL coefficient costs", "no KL coefficient that keeps half", "nor language loss"]),
]  # fmt: skip


@pytest.mark.parametrize(("place", "mean", "claims"), [case[1:] for case in WITHOUT], ids=[case[0] for case in WITHOUT])
def test_nothing_is_said_of_what_was_not_lost_or_gained(place: dict[str, Any], mean: float, claims: list[str]) -> None:
    figures = numbers()
    for r in figures["rows"]:
        if all(r[key] == wanted for key, wanted in place.items()):
            r["mean"] = mean
    for claim in claims:
        assert [shape.holds for shape in shapes(figures) if shape.claim.startswith(claim)] == [None], claim


def test_one_of_several_noisy_points_is_no_trend() -> None:
    figures = numbers()
    curves = {"classic": (0.5, 0.51, 0.4), "score": (0.8, 0.79, 0.78)}
    for r in figures["rows"]:
        if r["figure"] == "33" and r["measure"] in curves:
            r["mean"] = curves[r["measure"]][COEFFICIENTS.index(r["coefficient"])]
        if r["figure"] == "34" and r["measure"] == "score":
            r["mean"] = (0.8, 0.79, 0.78)[COEFFICIENTS.index(r["coefficient"])]
    found = {shape.claim: shape.holds for shape in shapes(figures) if shape.figure in ("33", "34")}
    assert found["a larger pretraining coefficient restores classic tasks"] is False
    assert found["a large KL coefficient costs score"] is False


def test_one_size_grows_nowhere_and_an_order_needs_all_of_it() -> None:
    [growth] = [shape for shape in shapes(numbers(("small",))) if shape.claim.endswith("the larger it is")]
    assert growth.holds is None
    part = copy.deepcopy(numbers())
    part["rows"] = [r for r in part["rows"] if (r["figure"], r["policy"]) != ("1", "gpt_prompted")]
    assert shapes(part)[0].holds is None
