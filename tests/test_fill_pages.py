"""Pages that scripts fill from results: every marker is there, the words follow the numbers, twice is once."""

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from heedful.evaluate.overoptimization import Law
from heedful.pipeline.lab_laws import comparisons, law_row
from heedful.report.lab_shapes import shapes

Json = dict[str, Any]
DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a script of docs/ by its name."""
    monkeypatch.syspath_prepend(str(DOCS))

    def load(name: str) -> ModuleType:
        for own in (name, "tables", "pictures", "fill_optimisers"):
            sys.modules.pop(own, None)
        return importlib.import_module(name)

    return load


def row(table: str, name: str, measure: str, seeds: list[float], room: float) -> Json:
    mean = sum(seeds) / len(seeds)
    about = {"table": table, "name": name, "measure": measure, "mean": mean, "seeds": seeds, "num_seeds": len(seeds)}
    return about | {"low": mean - room, "high": mean + room, "reason": ""}


# gold by seed, win rate, √KL, sampled tokens
POLICIES: dict[str, tuple[list[float], float, float, float | None]] = {
    "best_of_4": ([0.8, 0.9, 0.7], 0.6, 0.8, None),
    "ppo": ([1.0, 1.2, 1.1], 0.62, 1.2, 60_000),
    "dpo": ([0.99, 1.21, 1.06], 0.61, 1.5, 0),
    "grpo": ([0.1, 0.0, -0.1], 0.51, 1.0, 70_000),
}


def group(recipe: str, **changed: Any) -> Json:
    rows = []
    for name, (gold, wins, root, tokens) in (POLICIES | changed).items():
        rows += [row("over_start", name, "gold", gold, 0.1), row("over_start", name, "win_rate", [wins] * 3, 0.02)]
        rows += [row("over_start", name, "sqrt_kl", [root] * 3, 0.1)]
        if tokens is not None:
            rows += [row("optimised", name, key, [tokens] * 3, 0) for key in ("sampled_tokens", "seconds", "episodes")]
    about = {"settings": {}, "seeds": [0, 1, 2], "seconds": [600.0, 660.0, 540.0], "commits": ["abc"]}
    return {"groups": [about | {"recipe": recipe, "baseline": "sft", "start": "ppo_start", "rows": rows}]}


def test_optimisers_are_told_apart_by_their_numbers(script: Any) -> None:
    module = script("fill_optimisers")
    told = module.texts(group("optimisers"))["world-told"]
    assert "Most gold: ppo (1.100)." in told
    assert "Not told apart from it by these seeds: dpo." in told
    assert "less KL than best_of_4, ppo." in told
    assert "Do not surely beat their start: grpo." in told
    assert "fewest sampled tokens to train: dpo (0)" in told
    better = module.texts(group("optimisers", grpo=([2.0, 2.1, 1.9], 0.7, 0.5, 10)))["world-told"]
    assert "Most gold: grpo (2.000)." in better and "by these seeds: none." in better
    assert "less KL than grpo." in better and "beat their start: none." in better


def test_methods_are_set_beside_each_other_by_their_numbers(script: Any) -> None:
    module = script("fill_optimisers")
    found = group("optimisers")
    rows = found["groups"][0]["rows"]
    spread = {"ppo_start": 0.3, "ppo": 0.2, "dpo": 0.31, "grpo": 0.1}
    rows += [row("policies", name, "distinct_2", [value] * 3, 0) for name, value in spread.items()]
    told = module.texts(found)["world-told"]
    assert "best_of_4 gains 73 % of PPO's gold at 0.6 against 1.4 nats, which these seeds tell apart." in told
    assert "of those that train, most and least: ppo 0.92, grpo 0.00." in told
    assert "DPO, which samples nothing, gains 99 % of what ppo does" in told
    assert "below the start's 0.300 with 2 of 3, the most with grpo (0.100)." in told
    more = {"best_of_64": ([1.3, 0.9, 1.1], 0.6, 1.8, None), "best_of_n": ([0.5, 0.6, 0.4], 0.6, 2.0, 10)}
    like = module.texts(group("optimisers", **more))["world-told"]
    assert "best_of_64 gains 100 % of PPO's gold at 3.2 against 1.4 nats, which these seeds do not tell apart." in like
    assert "Distinct-2" not in like


def test_the_page_of_optimisers_is_filled_by_halves(script: Any) -> None:
    module = script("fill_optimisers")
    page = (DOCS / "optimisers.md").read_text(encoding="utf-8")
    world = module.filled(page, "optimisers", module.texts(group("optimisers")))
    both = module.filled(world, "optimisers", module.texts(group("optimisers_stories")))
    assert "| ppo | 1.100 (1.000…1.200) | 62.0 (60.0…64.0) | yes | 1.20 (1.10…1.30) | – | – |" in world
    assert "| grpo | 0.000 (-0.100…0.100) | 51.0 (49.0…53.0) | **no** |" in world
    assert "Not measured yet" not in both and both.count("Seeds 0, 1, 2; 10, 11, 9 min; commit `abc`.") == 2
    assert module.filled(both, "optimisers", module.texts(group("optimisers"))) == both
    with pytest.raises(LookupError, match="world-run"):
        module.filled("", "optimisers", module.texts(group("optimisers")))


def salmon(**changed: list[float]) -> Json:
    """Three seeds in which every claim holds, but for what is changed."""
    found = {"flips": [0.9, 0.9, 0.86], "found": [0.5, 0.6, 0.4], "mended": [0.0, 0.06, 0.03], "wins": [0.6, 0.6, 0.55]}
    found = found | {"gold": [1.0, 1.1, 0.9]} | changed
    places: dict[tuple[str, str, str], list[float]] = {
        ("principles_followed", "salmon/all", "flips"): found["flips"],
        ("principles_followed", "salmon/humble", "exact"): [0.7] * 3,
        ("principles_followed", "judge/humble", "exact"): [0.8] * 3,
        ("principles_kept", "plain", "concise"): [-20.0] * 3,
        ("principles_kept", "ppo_init", "boasts"): [0.1, 0.1, 0.1],
        ("principles_kept", "plain", "boasts"): found["found"],
        ("principles_kept", "mended", "boasts"): found["mended"],
        ("principles_kept", "plain", "vivid"): [1.0, 1.0, 1.0],
        ("principles_kept", "steered", "vivid"): [2.0, 3.0, 2.0],
        ("policies", "plain", "gold"): [0.0, 0.5, 0.2],
        ("policies", "mended", "gold"): found["gold"],
        ("policies", "principled", "win_rate"): found["wins"],
    }
    rows = [row(*place, seeds, 0.02) for place, seeds in places.items() if seeds]
    about = {"settings": {}, "seeds": [0, 1, 2], "seconds": [600.0] * 3, "commits": ["abc"], "recipe": "salmon"}
    return {"groups": [about | {"baseline": "sft", "start": "ppo_init", "rows": rows}]}


def test_salmon_s_claims_follow_the_numbers_of_every_seed(script: Any) -> None:
    module = script("fill_salmon")

    def verdicts(sweep: Json) -> list[str]:
        return [line.split(" | ")[-1].strip(" |") for line in module.texts(sweep)["claims"].splitlines()[2:]]

    assert verdicts(salmon()) == ["yes"] * 6
    assert verdicts(salmon(flips=[0.84, 0.8, 0.7]))[0] == "**no**"
    assert (
        verdicts(salmon(wins=[0.6, 0.49, 0.6]))[-1] == "open"
        and verdicts(salmon(wins=[0.51, 0.4, 0.4]))[-1] == "**no**"
    )
    assert verdicts(salmon(found=[0.1, 0.05, 0.0]))[1] == "**no**" and verdicts(salmon(gold=[]))[3] == "–"
    assert verdicts(salmon(mended=[0.0, 0.2, 0.0]))[2] == "open"  # below what it had found, but not below the start
    texts = module.texts(salmon())
    assert "0.03 → 0.10, 3 of 3" in texts["claims"]
    (humble,) = [line for line in texts["followed"].splitlines() if line.startswith("| humble ")]
    assert humble.index("70.0 (") < humble.index("80.0 (")  # the reward model's, then the judge's
    (plain,) = [line for line in texts["policies"].splitlines() if line.startswith("| plain ")]
    assert "| 1.0 | -20.0 |" in plain  # vivid, concise
    assert verdicts(salmon(flips=[0.85, 0.9, 0.9]))[0] == "open"  # above its mark, not at it


def test_the_page_of_salmon_is_filled_twice_alike(script: Any) -> None:
    module = script("fill_salmon")
    page = (DOCS / "salmon.md").read_text(encoding="utf-8")
    once = module.filled(page, "salmon", module.texts(salmon()))
    assert "Seeds 0, 1, 2; 10, 10, 10 min; commit `abc`." in once and "Not measured yet" not in once
    assert module.filled(once, "salmon", module.texts(salmon())) == once
    with pytest.raises(SystemExit, match="no run of the recipe salmon"):
        module.texts(group("optimisers"))


def test_the_frontier_is_a_picture_of_its_own_with_every_policy(script: Any) -> None:
    module = script("fill_optimisers")
    found = group("optimisers")["groups"][0]
    drawn = ElementTree.fromstring(module.picture(module.frontier(found["rows"], found["start"])))
    shapes = [element.tag.rpartition("}")[2] for element in drawn.iter()]
    assert (
        shapes.count("circle") == 3 * len(POLICIES) and shapes.count("g") == 2
    )  # two charts and the names beside them
    texts = [element.text for element in drawn.iter() if element.tag.endswith("text")]
    assert {*POLICIES, "Gold gained over ppo_start against √KL"} <= {*texts}
    [style] = [element.text or "" for element in drawn.iter() if element.tag.endswith("style")]
    used = {word for element in drawn.iter() for word in element.get("class", "").split() if word[1:].isdigit()}
    assert len(used) == len(POLICIES) and all(f".{colour} {{ --c: #" in style for colour in used)


def law(proxy: str, form: str, alpha: float, beta: float, reached: float = 6.0) -> tuple[Json, list[Json]]:
    """A law's row and its exact curve."""
    d = np.linspace(0.0, reached**0.5, 25)
    gold = Law(form, alpha, beta).at(d)  # type: ignore[arg-type]
    outgrown = 0.3 if "-kl-" in proxy else 0.0
    along = zip(d.tolist(), gold.tolist(), strict=True)
    points = [{"kl": x * x, "gold": y, "score": x + outgrown} for x, y in along]
    row = {"proxy": proxy} | law_row(form, points)  # type: ignore[arg-type]
    return row, [{"proxy": proxy, "form": form, "law": None} | point for point in points]


def lab(**changed: tuple[float, float]) -> Json:
    """A lab in which every finding of the paper's comes out, but for the α and β that are changed, by PROXY__FORM."""
    known = {
        f"{size}-{number}__{form}": (alpha + gained, dull)
        for form, alpha in (("best_of_n", 1.0), ("rl", 0.3))
        for number, gained in ((100, 0.0), (1600, 0.4))
        for size, dull in (("small", 0.5), ("medium", 0.45), ("own", 0.4))
    }
    known |= {"own-1600-kl-0.1__rl": (0.7, 0.4), "own-1600-by-tiny__best_of_n": (1.5, 0.45)}
    known |= {"own-1600-by-tiny__rl": (0.8, 0.4), "own-1600-rounds-2__rl": (0.7 + 0.4 * float(np.log(2)), 0.4)}
    names = {name.replace("-", "_").replace(".", "_"): name for name in known}
    known |= {names[name]: values for name, values in changed.items()}
    made = [law(*name.split("__"), *values, reached=4.0) for name, values in known.items()]
    laws = [row for row, _ in made]
    curves = {(row["proxy"], row["form"]): points for row, points in made}
    compared = comparisons("own-1600", laws, curves, 2)
    learned = [("small-100", 500, 0.53), ("own-100", 1_999, 0.55), ("own-1600", 2_000, 0.8)]
    proxies = [
        {"proxy": name, "num_comparisons": number, "valid_accuracy": right, "valid_loss": 0.69}
        for name, number, right in learned
    ]
    curves = [point for _, points in made for point in points]
    return {"proxies": proxies, "laws": laws, "curves": curves, "comparisons": compared}


def test_every_finding_of_the_paper_can_come_out() -> None:
    found = shapes(lab())
    assert [shape.claim for shape in found if shape.holds is False] == []
    assert sum(shape.holds is True for shape in found) == len(found) - 1  # which policy gains more is told, not judged


@pytest.mark.parametrize(
    ("changed", "claim"),
    [
        ({"small_1600__best_of_n": (1.4, 0.42)}, "β of best-of-n falls"),
        ({"medium_1600__rl": (0.7, 0.55)}, "β of RL falls"),
        ({"small_1600__rl": (2.2, 0.5)}, "α of RL is the same"),
        ({"medium_1600__best_of_n": (0.2, 0.45)}, "with more rankings more gold"),
        ({"own_1600__rl": (3.0, 0.4)}, "RL gains less gold"),
        ({"own_1600_kl_0_1__rl": (1.6, 0.4)}, "a KL penalty only stops early"),
        ({"own_1600_by_tiny__best_of_n": (1.5, 0.9)}, "the tiny policy peaks at the same KL"),
        ({"own_1600_rounds_2__rl": (0.7, 0.4)}, "a proxy renewed k times"),
    ],
)
def test_each_finding_can_fail(changed: dict[str, tuple[float, float]], claim: str) -> None:
    [shape] = [shape for shape in shapes(lab(**changed)) if claim in shape.claim]
    assert shape.holds is False, shape


def test_few_comparisons_may_teach_and_a_gap_may_be_narrower() -> None:
    found = lab()
    found["proxies"][1]["valid_accuracy"] = 0.551
    for row in found["comparisons"]:
        row["score"] = row["gold"]
    told = {shape.claim: shape for shape in shapes(found)}
    for words in ("are near chance", "the gap between proxy and gold is larger"):
        [shape] = [shape for claim, shape in told.items() if words in claim]
        assert shape.holds is False, shape
    before = {shape.claim: shape.holds for shape in shapes(found | {"proxies": []})}  # a run that does not tell
    assert [holds for claim, holds in before.items() if "are near chance" in claim] == [None]


def test_a_peak_that_is_far_from_its_prediction_is_told() -> None:
    found = lab()
    found["laws"][0]["off"] = 1.01
    [shape] = [shape for shape in shapes(found) if "peak of best-of-n" in shape.claim]
    assert shape.holds is False and shape.ours.startswith("6 of 7;")


def test_the_page_of_over_optimisation_is_filled(script: Any) -> None:
    module = script("fill_overoptimization")
    page = (DOCS / "overoptimization.md").read_text(encoding="utf-8")
    results = {"lab": lab(), "seconds": {"total": 1200.0}, "seed": 3, "commit": "abc"}
    written = module.filled(page, "lab", module.texts(results))
    assert "\nNot measured yet.\n" not in written and "Seed 3; 20 min; commit `abc`." in written
    assert "| own-1600 | best of n | 1.400 | 0.400 | 4.00 | " in written
    assert "| 1 | the peak of best-of-n predicted" in written and "| yes |" in written
    assert module.filled(written, "lab", module.texts(results)) == written


def test_curves_of_over_optimisation_are_a_picture_with_their_own_names(script: Any, tmp_path: Path) -> None:
    """Each way to optimise has its own curves, so its own names stand below it."""
    module = script("fill_overoptimization")
    (tmp_path / "results.json").write_text(json.dumps({"lab": lab()}), encoding="utf-8")
    exact = [one for one in module.panels(module.RunFolder(tmp_path)) if "exact utility" in one.title]
    drawn = ElementTree.fromstring(module.picture(exact))
    texts = [element.text for element in drawn.iter() if element.tag.endswith("text")]
    for form in ("best_of_n", "rl"):
        assert {row["proxy"] for row in lab()["curves"] if row["form"] == form} <= {*texts}
    assert len(exact) == 2 and texts.count("own-1600") == 2


def numbers(ppo: list[float], nlpo: list[float]) -> Json:
    rows = {"start": [0.1] * len(ppo), "ppo": ppo, "nlpo": nlpo}
    of = {"kl": 5.0, "allowed": 100.0, "seconds": 30.0}
    made = {name: [{"reward": r, "curve": [0.1] * 20 + [r] * 20, **of} for r in own] for name, own in rows.items()}
    return made | {"seeds": list(range(len(ppo))), "iterations": 40}


@pytest.mark.parametrize(
    ("ppo", "nlpo", "told"),
    [
        ([0.5, 0.52, 0.48], [0.7, 0.73, 0.66], "NLPO gains more."),
        ([0.7, 0.73, 0.66], [0.5, 0.52, 0.48], "PPO gains more."),
        ([0.5, 0.52, 0.48], [0.52, 0.5, 0.5], "do not tell the two apart."),
        ([0.5], [0.9], "of one seed, which says nothing of another."),
    ],
)
def test_increasing_numbers_are_told_by_the_numbers(
    script: Any, ppo: list[float], nlpo: list[float], told: str
) -> None:
    module = script("fill_nlpo")
    page = (DOCS / "nlpo.md").read_text(encoding="utf-8")
    written = module.filled(page, "numbers", module.texts(numbers(ppo, nlpo)))
    higher = sum(n > p for n, p in zip(nlpo, ppo, strict=True))
    assert told in written and "| NLPO | " in written and f"ends higher in {higher} of {len(ppo)} seeds" in written
    assert f"{(0.1 + ppo[0]) / 2:.3f}" in written or len(ppo) > 1


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        ("", 0.0),
        ("w1 w2", 0.0),
        ("7", 0.1),
        ("1 2 3 4 5", 0.5),
        (" ".join(map(str, range(20))), 1.0),
        ("3 w1 5 9 4 11", 0.3),
        ("5 5 6", 0.1),
        (" ".join(["1", "2", *["w1"] * 18]), 0.1),
    ],
)
def test_the_reward_of_increasing_numbers(text: str, reward: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS.parent / "benchmarks"))
    assert importlib.import_module("increasing_numbers").increasing(text) == pytest.approx(reward)
