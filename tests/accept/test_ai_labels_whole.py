"""An AI labeler on every human comparison at hand, by the command line: it cannot know them, and nothing is lost."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from heedful.run import read_done
from public_data import folder, stories_model
from tiny import succeed

pytestmark = pytest.mark.accept


def hh_rlhf(place: Path) -> tuple[Path, int]:
    """Harmlessness comparisons, and how many rows there are."""
    text = gzip.decompress((folder("hh_rlhf") / "harmless-base_test.jsonl.gz").read_bytes())
    path = place / "hh.jsonl"
    path.write_bytes(text)
    return path, text.count(b"\n")


def hhh(place: Path) -> tuple[Path, int]:
    """Constitutional AI's comparisons, under the names that HH-RLHF gives its columns."""
    raw = (folder("constitutional_ai") / "evals" / "438HHHEvaluations.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in raw.splitlines()]
    path = place / "hhh.jsonl"
    lines = (json.dumps({"chosen": row["text_correct"], "rejected": row["text_incorrect"]}) for row in rows)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path, len(rows)


@pytest.mark.parametrize(
    ("name", "read", "template"), [("hh_rlhf", hh_rlhf, "harmless.base.en"), ("438 HHH", hhh, "helpful.base.en")]
)
def test_every_comparison_at_hand(name: str, read: Any, template: str, tmp_path: Path, record_property: Any) -> None:
    record_property(
        "claim",
        f"stories260K, which knows stories alone, judges {name} by heedful judge label within three standard errors of "
        "chance and not surely above it, and what exceeds its 512 tokens is counted",
    )
    path, rows = read(tmp_path)
    out = tmp_path / "judged"
    succeed("judge", "label", path, "--dir", out, "--labeler", stories_model(), "--template", template)
    done = read_done(out)
    results, long = done["results"], done["counts"].get("long", 0)
    alignment, same = results["figures"]["alignment"], results["figures"]["same_position"]
    record_property(
        "measured",
        f"{rows} rows, {results['num_sets']} sets; {results['num_judged']} judged, {long} too long; agrees with people "
        f"in {alignment['mean']:.3f} ({alignment['low']:.3f}…{alignment['high']:.3f}); same place in both orders "
        f"{same['mean']:.2f}",
    )
    assert results["num_judged"] + long == results["num_sets"] and done["counts"].keys() <= {"long"}
    # no better than chance; nor far below it, as labels turned round would be. One of twenty 95 % intervals misses ½.
    assert alignment["low"] <= 0.5 and abs(alignment["mean"] - 0.5) <= 3 * alignment["stderr"]
