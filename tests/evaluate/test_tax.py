"""The alignment tax, by hand: what rose, what was undone, and what to say where there is nothing to compute."""

import doctest
import json

import pytest

from heedful.cli.results import tax_line
from heedful.evaluate import tax
from heedful.evaluate.tax import UNMEASURED, alignment_tax

LOSS = {"gpt": 1.0, "init": 2.0, "ppo": 2.8, "ptx": 2.2, "strong": 1.9, "worse": 3.2}
PLAIN = {"ptx": "ppo", "strong": "ppo", "worse": "ppo"}


def test_the_example_runs() -> None:
    assert doctest.testmod(tax).failed == 0


def test_rise_and_share_by_hand() -> None:
    found = alignment_tax("init", LOSS, ["ppo", *PLAIN], PLAIN)
    assert found["start"] == "init" and found["start_lm_loss"] == 2.0
    rows = found["policies"]
    assert {name: row["rise"] for name, row in rows.items()} == pytest.approx(
        {"ppo": 0.8, "ptx": 0.2, "strong": -0.1, "worse": 1.2}
    )
    shares = {name: row["share_undone"] for name, row in rows.items() if "share_undone" in row}
    assert shares == pytest.approx({"ptx": 0.75, "strong": 1.125, "worse": -0.5})
    assert all(1 - rows[name]["rise"] / rows["ppo"]["rise"] == pytest.approx(share) for name, share in shares.items())
    assert {row.get("relative_to") for row in rows.values()} == {"ppo", None}
    assert "reason" not in json.dumps(found)


@pytest.mark.parametrize(
    ("loss", "plain", "why"),
    [
        ({"init": None, "ppo": None, "ptx": None}, "ppo", UNMEASURED),
        ({"init": 2.0, "ppo": 1.9, "ptx": 1.8}, "ppo", "ppo paid no tax, so there is none to undo"),
        ({"init": 2.0, "ptx": 2.1}, None, "there is no PPO without pretraining mix to compare with"),
    ],
)
def test_what_cannot_be_computed_says_why(loss: dict[str, float | None], plain: str | None, why: str) -> None:
    names = [name for name in loss if name != "init"]
    found = alignment_tax("init", loss, names, {"ptx": plain})
    row = found["policies"]["ptx"]
    assert row["share_undone"] is None and row["reason"]["share_undone"] == why
    for place in (found, *found["policies"].values()):
        assert {key for key, value in place.items() if value is None} <= set(place.get("reason", {}))


def test_the_line_that_is_printed() -> None:
    names = ["ppo", "ptx"]
    assert tax_line(alignment_tax("init", LOSS, names, {"ptx": "ppo"})) == (
        "alignment tax over init (2.000): ppo raises held-out LM loss by 0.800; "
        "ptx raises held-out LM loss by 0.200, undoing 75 % of what ppo lost"
    )
    assert "strong lowers held-out LM loss by 0.100;" in tax_line(alignment_tax("init", LOSS, ["strong", *names], {}))
    nothing = alignment_tax("init", dict.fromkeys(LOSS), names, {})
    assert tax_line(nothing) == "alignment tax: not measured, there is no held-out pretraining text"
