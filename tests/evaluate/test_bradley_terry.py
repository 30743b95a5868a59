"""Bradley-Terry with ties: against closed forms and a general optimiser, and what its intervals promise."""

import random

import numpy as np
import pytest
from scipy import optimize

from heedful.config import InputError
from heedful.evaluate import bradley_terry as module
from heedful.evaluate.bradley_terry import ELO, Game, bradley_terry, probabilities


def pair(wins: int, ties: int, losses: int, one: str = "a", other: str = "b") -> list[Game]:
    """Each game on a prompt of its own."""
    values = [1.0] * wins + [0.5] * ties + [0.0] * losses
    return [Game(f"{one}{other}{n}", one, other, value) for n, value in enumerate(values)]


def some_games(seed: int = 0, number: int = 120, models: str = "abcd") -> list[Game]:
    draw = random.Random(seed)
    found = []
    for n in range(number):
        one, other = draw.sample(models, 2)
        found.append(
            Game(f"p{n % 40}", one, other, draw.choices((1.0, 0.5, 0.0), (3 + ord(other) - ord(one), 3, 3))[0])
        )
    return found


def test_two_models_are_the_logarithm_of_wins_to_losses() -> None:
    fitted = bradley_terry(pair(6000, 3000, 2000), "b", num_resamples=50)
    assert fitted.strength["a"].mean == pytest.approx(np.log(3), abs=2e-3)
    assert fitted.log_nu == pytest.approx(np.log(3000 / np.sqrt(6000 * 2000)), abs=2e-3)
    assert fitted.elo["a"].mean == pytest.approx(1000 + ELO * np.log(3), abs=0.4)
    assert pytest.approx(173.7178) == ELO
    chances = probabilities(fitted, "a", "b")
    assert chances == pytest.approx({"win": 6 / 11, "tie": 3 / 11, "loss": 2 / 11}, abs=1e-3)
    assert (fitted.num_games, fitted.num_ties, fitted.num_prompts) == (11000, 3000, 11000)


def test_the_fit_is_the_highest_posterior_that_an_optimiser_finds() -> None:
    """The formulas of the module's docstring, written out game by game."""
    games = some_games()
    models = sorted({name for game in games for name in game[1:3]})
    played = {name: [game.prompt_id for game in games if name in game[1:3]] for name in models}
    weight = {name: len(prompts) / len(set(prompts)) for name, prompts in played.items()}

    def cost(x: np.ndarray) -> float:
        theta, log_nu = dict(zip(models, x[:-1], strict=True)), x[-1]
        total = log_nu**2 / (2 * module.LOG_NU_SD**2) + sum(x[:-1] ** 2) / (2 * module.THETA_SD**2)
        for game in games:
            d = theta[game.first] - theta[game.second]
            logits = {1.0: d / 2, 0.5: log_nu, 0.0: -d / 2}
            total -= logits[game.value] - np.log(sum(np.exp(v) for v in logits.values()))
        for name in models:
            average = 1 / (1 + np.exp(-theta[name]))
            total -= module.PRIOR_PROMPTS / 2 * weight[name] * (np.log(average) + np.log(1 - average))
        return total

    best = optimize.minimize(cost, np.zeros(len(models) + 1), tol=1e-10).x
    fitted = bradley_terry(games, num_resamples=20)
    expected = dict(zip(models, best[:-1] - best[:-1].mean(), strict=True))
    assert {name: e.mean for name, e in fitted.strength.items()} == pytest.approx(expected, abs=1e-4)
    assert fitted.log_nu == pytest.approx(best[-1], abs=1e-4)
    assert list(fitted.strength) == sorted(expected, key=lambda name: -expected[name])


def test_who_stands_first_in_a_game_does_not_matter() -> None:
    games = some_games(1)
    turned = [game._replace(first=game.second, second=game.first, value=1 - game.value) for game in games]
    shuffled = random.Random(2).sample(turned, len(turned))
    one, other = (bradley_terry(each, "a", num_resamples=100) for each in (games, shuffled))
    for name in one.strength:
        assert one.strength[name][:4] == pytest.approx(other.strength[name][:4])


@pytest.mark.parametrize("prompts", [5, 20, 200])
def test_a_perfect_record_is_finite_and_leaves_room_for_doubt(prompts: int) -> None:
    found = bradley_terry(pair(prompts, 0, 0), "b").strength["a"]
    assert found.low is not None and found.high is not None and found.mean is not None
    assert np.isfinite(found[:4]).all() and found.low < found.mean < found.high < 30
    chance_of_a_loss = 1 / (1 + np.exp(found.low))
    assert 0.7 / prompts < chance_of_a_loss < 6 / prompts  # the rule of three, which is wider: 3 / n


def test_a_chain_of_perfect_records_is_ordered_and_finite() -> None:
    games = pair(10, 0, 0, "a", "b") + pair(10, 0, 0, "b", "c")
    fitted = bradley_terry(games, "b")
    assert list(fitted.strength) == ["a", "b", "c"]
    assert all(np.isfinite(e[:4]).all() for e in fitted.strength.values())
    assert fitted.strength["a"].low > 0 > fitted.strength["c"].high


def test_nothing_but_ties_is_even_and_finite() -> None:
    found = bradley_terry(pair(0, 30, 0), "b")
    assert found.strength["a"].mean == pytest.approx(0) and found.log_nu > 2
    assert found.strength["a"].low <= 0 <= found.strength["a"].high


def test_models_that_never_met_are_told_apart_by_nothing() -> None:
    fitted = bradley_terry(pair(20, 0, 20, "a", "b") + pair(20, 0, 20, "c", "d"), "a")
    assert fitted.strength["c"].mean == pytest.approx(0, abs=1e-6)


def test_judgements_of_one_prompt_are_one_cluster() -> None:
    once = pair(12, 4, 8)
    eight = [game for game in once for _ in range(8)]
    apart = [game._replace(prompt_id=f"{n}") for n, game in enumerate(eight)]
    one, copied, independent = (bradley_terry(games, "b").strength["a"] for games in (once, eight, apart))
    widths = [e.high - e.low for e in (one, copied, independent)]
    assert widths[1] == pytest.approx(widths[0], rel=0.15) and widths[2] < 0.5 * widths[1]
    assert (copied.num, copied.num_clusters) == (8 * 24, 24)


def test_intervals_repeat_with_their_seed() -> None:
    games = some_games(3)
    one, same, other = (bradley_terry(games, seed=seed) for seed in (5, 5, 6))
    assert one == same != other


def test_one_prompt_has_no_interval_and_the_reference_no_doubt() -> None:
    fitted = bradley_terry([Game("p", "a", "b", 1.0), Game("p", "a", "c", 1.0)], "a")
    assert fitted.strength["a"][:4] == (0, 0, 0, 0) and fitted.elo["a"][:4] == (1000, 0, 1000, 1000)
    assert fitted.strength["b"].low is None and "2 prompts" in fitted.strength["b"].reason


def test_wrong_input_is_named() -> None:
    with pytest.raises(InputError, match="no judgement"):
        bradley_terry([])
    with pytest.raises(InputError, match="'z'"):
        bradley_terry(pair(1, 1, 1), "z")


@pytest.mark.parametrize("value", [0.7, float("nan"), -1.0, 2.0])
def test_a_value_that_is_no_outcome_is_refused(value: float) -> None:
    """It would be rounded to one."""
    with pytest.raises(InputError, match=f"'a' and 'b' on prompt 'p' has the value {value}"):
        bradley_terry([*pair(3, 1, 3), Game("p", "a", "b", value)])


def test_a_model_against_itself_is_refused() -> None:
    with pytest.raises(InputError, match="itself"):
        bradley_terry([*pair(3, 1, 3), Game("p", "a", "a", 0.5)])
