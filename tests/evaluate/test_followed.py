"""How well a model follows principles, on cases small enough to count by hand."""

import pytest

from heedful.evaluate.principles import Followed, Gap, flips, followed_rows, labeler_rows


def found(rows: list[dict[str, object]], principle: str, figure: str) -> tuple[object, object]:
    (row,) = [row for row in rows if (row["principle"], row["figure"]) == (principle, figure)]
    return row["mean"], row["num"]


def test_a_choice_flips_where_the_margin_changes_its_sign() -> None:
    pairs = ((1.0, -2.0), (-1.0, 0.5), (1.0, 2.0), (-1.0, -2.0), (0.0, 1.0), (1.0, 0.0))
    assert [flips(Followed("p", "a", *pair)) for pair in pairs] == [True, True, False, False, False, False]


def test_rows_by_principle_and_of_all() -> None:
    items = [
        Followed("p1", "a", 1.0, -1.0, exact=True),  # right, right, flips
        Followed("p2", "a", 1.0, 1.0, exact=False),  # right by the label, wrong by the truth
        Followed("p3", "a", -1.0, 1.0, exact=False),  # wrong by the label, right by the truth, flips
        Followed("p4", "b", 0.0, 1.0, exact=None),  # no choice
    ]
    rows = followed_rows("salmon", items)
    assert len(rows) == 3 * 3 and {row["model"] for row in rows} == {"salmon"}
    assert found(rows, "all", "accuracy") == (pytest.approx(2.5 / 4), 4)
    assert found(rows, "all", "flips") == (pytest.approx(2 / 4), 4)
    assert found(rows, "all", "exact") == (pytest.approx(2 / 3), 3)
    assert found(rows, "a", "accuracy") == (pytest.approx(2 / 3), 3)
    assert found(rows, "b", "exact") == (None, 0)


def test_a_labeler_s_rows() -> None:
    gaps = [
        Gap("p1", "a", (2.0, 1.0), exact=0.5),  # both orders, and right
        Gap("p2", "a", (2.0, -1.0), exact=-0.5),  # the orders disagree, the mean is wrong
        Gap("p3", "a", (-2.0, -1.0), exact=0.0),  # exactly equal: neither right nor wrong
        Gap("p4", "b", (-2.0, 1.0)),  # nobody knows
        Gap("p5", "c", (2.0, 0.0)),  # one order prefers neither
    ]
    rows = labeler_rows("judge", gaps)
    assert found(rows, "a", "exact") == (pytest.approx(1 / 2), 2)
    assert found(rows, "a", "orders_agree") == (pytest.approx(2 / 3), 3)
    assert found(rows, "all", "orders_agree") == (pytest.approx(2 / 5), 5)
    assert found(rows, "c", "orders_agree") == (0, 1)
    assert found(rows, "b", "exact") == (None, 0)
