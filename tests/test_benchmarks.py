"""What the benchmarks make of their measurements; nothing is timed here."""

import importlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
NAMES = {"reward_k9", "reward_k4", "ppo_1_epoch", "ppo_4_epochs", "rollout", "rollout_k9", "sft", "sft_packed", "judge"}
NAMES |= {"principles"}
FIELDS = ["ours", "peer", "unit", "ratio", "target", "tokens_ours", "tokens_peer"]


@pytest.fixture(scope="module")
def load() -> Iterator[type]:
    """Imports a module of the benchmarks, which are scripts beside one another."""
    before = set(sys.modules)
    sys.path.insert(0, str(BENCHMARKS))

    def by_name(name: str) -> ModuleType:
        return importlib.import_module(name)

    yield by_name
    sys.path.remove(str(BENCHMARKS))
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(BENCHMARKS)):
            del sys.modules[name]


def test_every_row_is_there_with_its_target_and_memory(load) -> None:
    rows = load("rows")
    assert {row.name for row in rows.TIMED} == NAMES
    assert {row.name for row in rows.MEMORY} == {f"memory_{name}" for name in NAMES}
    targets = {row.name: row.target for row in rows.TIMED}
    assert targets == {
        "reward_k9": 14,
        "reward_k4": 4.5,
        "ppo_1_epoch": 3,
        "ppo_4_epochs": 2.5,
        "rollout": 3.5,
        "rollout_k9": 4.5,
        "sft": 2,
        "sft_packed": 1.2,
        "judge": 4,
        "principles": 5,
    }
    assert all(row.target == 1 and row.most for row in rows.MEMORY)
    assert all((BENCHMARKS / f"{row.family}.py").is_file() for row in rows.ROWS.values())


def test_ratio_is_the_median_over_pairs_not_of_medians(load) -> None:
    timing = load("timing")
    entry = timing.result([10.0, 2.0, 6.0], [1.0, 4.0, 2.0], "x/s", 2.0, [7, 8])
    assert list(entry) == FIELDS
    assert entry == {
        "ours": 6,
        "peer": 2,
        "unit": "x/s",
        "ratio": 3,
        "target": 2,
        "tokens_ours": 7,
        "tokens_peer": 8,
    }
    assert timing.ratio([8.0, 1.0, 3.0], [1.0, 2.0, 1.0]) == 3  # pairs: 8, 1/2, 3


def test_without_a_peer_ours_still_counts(load) -> None:
    timing, page, rows = load("timing"), load("page"), load("rows")
    entry = timing.result([5.0], [], "x/s", 2.0, [7, 0])
    assert (entry["ours"], entry["peer"], entry["ratio"], entry["tokens_peer"]) == (5, None, None, None)
    assert "not measured" in page.line(rows.ROWS["sft"], entry, {})


def test_most_and_least(load) -> None:
    rows = load("rows")
    assert rows.met(rows.ROWS["reward_k9"], 14.0) and not rows.met(rows.ROWS["reward_k9"], 13.9)
    assert rows.met(rows.ROWS["memory_sft"], 1.0) and not rows.met(rows.ROWS["memory_sft"], 1.01)


def test_the_page_is_written_from_results(load, tmp_path: Path) -> None:
    page = load("page")
    entry = {"ours": 1234.5, "peer": 100.0, "unit": "comparisons/s", "ratio": 12.345, "target": 14.0}
    entry |= {"tokens_ours": 5632, "tokens_peer": 110592}
    about = {"cpu": "a CPU", "threads": 2, "date": "2026-01-01", "commit": "abc", "peak_flops": 2e11}
    chosen = [{"layout": 704, "threads": 2}, {"layout": 16, "threads": 1}]
    detail = about | {
        "versions": {"torch": "2.13.0", "trl": "1.12.0"},
        "layouts": chosen,
        "tried": [{json.dumps(chosen[0]): [9.5, 9.25]}, {json.dumps(chosen[1]): [1.5]}],
        "waiting": [{"OMP_WAIT_POLICY": "PASSIVE"}, {}],
        "checks": [{"loss": 0.71}, {"loss": 0.71}],
        "agree": True,
        "notes": [{}, {}],
        "pairs": [12.0, 12.345],
        "flops": 1e11,
        "share_of_peak": 0.5,
        "profile": {
            "seconds": 1.0,
            "kinds": {"matrix products": 0.8},
            "operations": {"mm": {"share": 0.8, "calls": 5}},
        },
    }
    (tmp_path / "r").write_text(json.dumps({"reward_k9": entry}))
    (tmp_path / "s").write_text(json.dumps({"reward_k9": detail}))
    page.write_page(tmp_path / "r", tmp_path / "s", tmp_path / "page.md")
    written = (tmp_path / "page.md").read_text()
    shown = "| reward_k9 | 1,234 | 100 | comparisons/s | 12.35× (12.09…12.26) | ≥ 14× | **not met** | 5,632 | 110,592 |"
    assert shown in written
    assert "| sft | not measured |" in written
    assert "reward_k9: a CPU, 2 threads; 2026-01-01, commit abc; torch 2.13.0, trl 1.12.0;" in written
    assert "heedful 704 on 2 threads (tried: 704 on 2 threads 9.5 9.25); peer 16 on 1 thread" in written
    assert "Told to the thread libraries: heedful OMP_WAIT_POLICY=PASSIVE; peer nothing." in written
    assert "The sides agree." in written and "No GPU was at hand" in written
    assert "trl 1.12.0" in written and "50% of the peak of 200" in written and "matrix products 80%" in written
    assert "void" not in written
    handicapped = detail | {"waiting": [{}, {"OMP_WAIT_POLICY": "PASSIVE"}]}
    text = page.text({"reward_k9": entry}, {"reward_k9": handicapped})
    assert "| **void** |" in text and "until they are measured again" in text


def test_the_published_page_is_that_of_the_published_results(load) -> None:
    page, rows = load("page"), load("rows")
    results, session = BENCHMARKS / "results.json", BENCHMARKS / "session.json"
    if not results.exists():
        pytest.skip("nothing has been measured")
    entries = json.loads(results.read_text(encoding="utf-8"))
    for name, entry in entries.items():
        assert list(entry) == FIELDS
        assert (entry["unit"], entry["target"]) == (rows.ROWS[name].unit, rows.ROWS[name].target)
    written = (BENCHMARKS.parent / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert written == page.text(entries, json.loads(session.read_text(encoding="utf-8")))


def test_responses_end_where_they_should_on_average(load) -> None:
    common = load("common")
    chance = common.chance_of_end(24, 48)
    mean = sum((1 - chance) ** n for n in range(48))  # the chance that there is an n-th token more
    assert abs(mean - 24) < 1e-6


def test_lengths_count_the_end_token_and_nothing_behind_it(load) -> None:
    torch, common = pytest.importorskip("torch"), load("common")
    tokens = torch.tensor([[5, 6, common.EOS, common.PAD], [common.EOS, 5, 5, 5], [5, 5, 5, 5]])
    assert common.response_lengths(tokens) == [3, 1, 4]


def test_pairs_and_rankings_hold_the_same_comparisons(load) -> None:
    reward = load("reward")
    found = reward.rankings(3, 4, seed=1)
    assert found.rank.sort(1).values.tolist() == [[1, 2, 3, 4]] * 3
    assert reward.size("reward_k9").comparisons == 16 * 36
    assert reward.size("reward_k4").comparisons == 3 * 16 * 6


def test_agreement_is_relative(load) -> None:
    run = load("run")
    assert run.agree({"loss": 0.7}, {"loss": 0.7 + 1e-5}) is True
    assert run.agree({"loss": 0.7}, {"loss": 0.72}) is False
    assert run.agree({"loss": 0.0, "score": 2.0}, {"loss": 1e-7, "score": 2.0}) is True


def test_mean_lengths_agree_as_far_as_so_many_responses_can_tell(load) -> None:
    run = load("run")
    mine = {"responses": 100, "length_mean": 24.0, "length_sd": 16.0}  # a mean of 500: ±0.72, so 1.01 for a difference
    assert run.same_lengths(mine, mine | {"length_mean": 28.0}, 5) is True
    assert run.same_lengths(mine, mine | {"length_mean": 28.2}, 5) is False
    assert run.same_lengths(mine, mine | {"length_mean": 28.2}, 4) is True
    assert run.same_lengths({}, {}, 5) is True


def test_a_row_whose_sides_disagree_is_not_met(load) -> None:
    page, rows, timing = load("page"), load("rows"), load("timing")
    entry = timing.result([10.0], [1.0], "tokens/s", 2.0, [7, 8])
    assert "| met |" in page.line(rows.ROWS["sft"], entry, {"agree": True})
    assert "| **not met: the sides disagree** |" in page.line(rows.ROWS["sft"], entry, {"agree": False})


def test_quartiles_stand_beside_the_ratio_and_imports_beside_that_of_memory(load) -> None:
    page, rows, timing = load("page"), load("rows"), load("timing")
    entry = timing.result([4.0], [2.0], "x", 1.0, [7, 8])
    assert "| 2.00× (1.50…3.50) |" in page.line(rows.ROWS["sft"], entry, {"pairs": [1.0, 2.0, 5.0]})
    assert "| 2.00× (3.00× above imports) |" in page.line(rows.ROWS["memory_sft"], entry, {"grown": [3.0, 1.0]})


def test_speed_takes_the_best_trial_and_memory_a_smaller_layout_about_as_fast(load) -> None:
    timing = load("timing")
    seconds = {1: [4.0], 2: [1.9, 1.6, 1.05], 4: [2.0, 1.0, 2.0], 8: [2.5, 2.5]}  # of each trial
    asked = []

    class Side:
        side = "ours"

        def run(self, choice: dict[str, int], seed: int, trial: bool = False) -> dict[str, float]:
            asked.append(choice["layout"])
            first = len(asked) == 1  # which is the warm-up
            return {"units": 1.0, "seconds": 9.0 if first else seconds[choice["layout"]].pop(0)}

    choices = [{"layout": layout, "threads": 2} for layout in seconds]
    best, tried = timing.choose(Side(), choices, lambda what: None)
    assert asked == [1, 1, 2, 4, 8, 2, 4, 8, 4, 2]  # 1 is hopeless after its first trial
    assert best == choices[2]
    assert list(tried.values()) == [[0.25], [0.53, 0.62, 0.95], [0.5, 1.0, 0.5], [0.4, 0.4]]
    assert timing.lean(tried) == choices[1]


def test_one_layout_needs_no_trials_but_warms_up(load) -> None:
    timing = load("timing")
    asked = []

    class Side:
        side = "ours"

        def run(self, choice: dict[str, int], seed: int, trial: bool = False) -> dict[str, float]:
            asked.append(choice)
            return {"units": 1.0, "seconds": 1.0}

    only = {"layout": None, "threads": 2}
    best, tried = timing.choose(Side(), [only], lambda what: None)
    assert best == only and asked == [only] and list(tried.values()) == [[]] and timing.lean(tried) == only


def test_the_peer_is_told_nothing_of_threads_and_heedful_tells_itself(load, monkeypatch) -> None:
    """What importing heedful sets in this process must not reach a peer's; asked of real processes."""
    import heedful

    assert heedful and "OMP_WAIT_POLICY" in os.environ
    for name in ("OMP_NUM_THREADS", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"):
        monkeypatch.setenv(name, "1")
    timing = load("timing")
    told = {}
    for side in ("ours", "peer"):
        worker = timing.Worker(sys.executable, side, "judge", 2)
        try:
            told[side] = worker.ask(do="layouts")
        finally:
            worker.close()
    assert told["peer"]["waiting"] == {} and told["ours"]["waiting"] == {"OMP_WAIT_POLICY": "PASSIVE"}
    assert {choice["threads"] for choice in told["peer"]["layouts"]} == {1, 2}
    assert told["ours"]["layouts"] == [{"layout": None, "threads": 2}]


def test_the_cost_at_a_mark_is_the_median_of_many_iterations(load) -> None:
    flat = load("flat")
    times, now, tokens = [], 0.0, 0
    for number in range(flat.MARKS[-1] // flat.EPISODES):
        now += 1e-3 if number % 10 else 1.0  # a slow one now and then
        tokens += 100
        times.append((now, tokens, 50.0 + number))
    found = flat.at_marks(times)
    assert all(abs(found[f"cost_{mark}"] - 10) < 1e-6 for mark in flat.MARKS)
    assert found["memory_1000"] == 50 + 99


def test_given_responses_have_no_end_and_follow_their_prompt(load) -> None:
    ppo, common = load("ppo"), load("common")
    prompts = common.random_tokens((4, ppo.PROMPT), 0)
    found = ppo.given(prompts)
    assert found.shape == (4, common.MAX_RESPONSE) and found.min() >= common.FIRST
    assert found.max() < common.VOCABULARY
    assert (ppo.given(prompts.flip(0)) == found.flip(0)).all()


def test_every_principle_is_asked_of_every_pair_in_both_orders(load) -> None:
    judge = load("judge")
    shape = judge.Shape(3, 4, 6, 5, 2)
    found = [tuple(row) for row in judge.prompts(shape, 1).tolist()]
    assert len(found) == len(set(found)) == shape.prompts == 3 * 2 * 5 and {row[:4] for row in found} == {found[0][:4]}
    pairs, principles = {row[4:10] for row in found}, {row[10:] for row in found}
    assert len(pairs) == 6 and len(principles) == 5 and {pair[3:] + pair[:3] for pair in pairs} == pairs
    assert judge.prompts(judge.SHAPES["judge"], 0).shape == (400, 500)
    assert judge.prompts(judge.SHAPES["principles"], 0).shape == (256, 500)


def test_products_that_are_left_out_are_not_counted(load, monkeypatch) -> None:
    """Of tokens nobody reads the last layer gives queries, keys and values alone; each of six layers else does all."""
    torch, common = pytest.importorskip("torch"), load("common")
    from transformers import LlamaModel
    from transformers.models.llama.modeling_llama import LlamaMLP

    from heedful.models.heads import text_states_at
    from heedful.models.load import from_scratch

    trunk = from_scratch({"model_type": "llama", **common.SHAPE}).get_decoder()
    for kind in (LlamaModel, LlamaMLP):
        monkeypatch.setattr(kind, "forward", kind.forward)  # what the counting replaces comes back
    tell = common.count_tokens()
    tokens, length = common.random_tokens((3, 8), 0), torch.tensor([8, 2, 5])
    with torch.no_grad():
        text_states_at(trunk, tokens, length, torch.arange(3), length - 1)
    counted = tell()
    assert counted == (15, 0, 5 * 15 + 3, 0) and counted.tokens == 15
    text_states_at(trunk, tokens, length, torch.arange(3), length - 1).sum().backward()
    trained = tell()
    assert trained == (0, 15, 0, 5 * 15 + 3)
    layer = 4 * common.WIDTH**2 + 3 * common.WIDTH * 688
    left_out = 12 * (common.WIDTH**2 + 3 * common.WIDTH * 688)
    assert common.flops(counted) == 2 * (6 * 15 * layer - left_out) == common.flops(trained) / 3


def test_what_a_head_counts_is_what_products_are_counted_from(load) -> None:
    common = load("common")
    shape = common.SHAPE | {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    shape |= {"num_attention_heads": 1, "num_key_value_heads": 1}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **shape))
    tell = common.count_head(model)
    with torch.no_grad():
        model(torch.ones(2, 3, dtype=torch.long))
    model(torch.ones(1, 5, dtype=torch.long))
    read = tell()
    assert (read.forward, read.trained) == (6, 5) and tuple(tell()) == (0, 0)
    assert common.flops(common.Counted(0, 0), *read) == common.HEAD_WEIGHTS * (2 * 6 + 6 * 5)
