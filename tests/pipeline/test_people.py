"""People as labelers: the loop takes their prompts in, waits for their judgements and says how many are missing."""

import json
import random
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from heedful.config import InputError
from heedful.evaluate.win_rate import win_rate
from heedful.pipeline.labelling import behind, with_empty_last
from heedful.pipeline.people import PeopleSource, read_documents
from heedful.pipeline.recipe import Recipe, build
from heedful.pipeline.results import policy
from heedful.pipeline.start import source_of
from heedful.snapshot import Snapshot, read_snapshot
from heedful.steps import judged_so_far, people_work
from heedful.store.database import open_store
from heedful.store.export import export_snapshot
from heedful.store.forms import write_forms
from heedful.store.incoming import IncomingPrompt
from heedful.store.intake import take_in
from heedful.store.jsonl import import_jsonl
from heedful.store.labels import add_demonstration, add_labeler, add_ranking, add_response
from heedful.store.pools import add_prompt, prompts_with_pool
from heedful.store.progress import Work, to_label
from heedful.types import METADATA_FLAGS, Demonstration, Labeler, LabelerGroup, Prompt, Ranking, Rating, Response
from people_recipe import RECIPE, text, write_recipe
from tiny import cli, refuse


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return write_recipe(tmp_path)


def built(recipe: Path, **changes: Any) -> Recipe:
    return build(yaml.safe_load(recipe.read_text()) | changes)


def run(recipe: Path, folder: Path) -> Any:
    return cli("run", recipe, "--dir", folder, "--cores", 1)


def waiting(recipe: Path, folder: Path, given: Path | None = None) -> str:
    """What the command says that it waits for: "3 of 20 rankings"; `given` is --dir where a cell of it waits."""
    result = run(recipe, given or folder)
    assert result.exit_code == 3, result.output
    lines = result.stdout[result.stdout.index("waiting for people: ") :].splitlines()
    app, *ask, take_in = [line.strip() for line in lines if line.startswith("  heedful ")]
    assert app == f"heedful label serve {folder}"
    for command in ask:
        who = "checks-held" if "--heldout" in command else "checks"
        filled = command.replace("FILE", str(folder.parent / "forms.jsonl")).replace("NAME", who)
        write = cli(*shlex.split(filled)[1:], "--lease", 0)
        assert write.exit_code == 0 and int(write.stdout.split(": ")[1].split()[0]) > 0, write.output
    assert ask and take_in == f"heedful label import FILE --store {folder / 'store.db'}"
    assert (folder / "store.db").exists() and "then run the same command again" in result.stdout
    return lines[0].removeprefix("waiting for people: ").split(";")[0]


def open_work(folder: Path, work: Work, labeler: str) -> list[tuple[Prompt, tuple[Response, ...]]]:
    with open_store(folder / "store.db") as store:
        group: LabelerGroup = "heldout" if labeler == "kim" else "train"
        add_labeler(store, Labeler(id=labeler, group=group))
        return to_label(store, work, labeler)


def of_train(said: str) -> int:
    """How many rankings training labelers owe: 20 of "0 of 20 rankings, 0 of 4 rankings by held-out labelers"."""
    return int(said.split(" rankings")[0].split()[-1])


def by_held_out(folder: Path, round: int = 1) -> int:
    """Kim ranks what held-out labelers are asked to rank for training; returns the number."""
    todo = open_work(folder, Work("ranking", round=round, pool="reward_model"), "kim")
    assert {prompt.split for prompt, _ in todo} <= {"valid"}
    with open_store(folder / "store.db") as store:
        rankings = [by_w1("kim", item, "train") for item in todo]
        add_ranking(store, *[ranking.model_copy(update={"id": f"{ranking.id}-{round}"}) for ranking in rankings])
    return len(todo)


def demonstrate(folder: Path, items: Sequence[tuple[Prompt, Any]]) -> None:
    with open_store(folder / "store.db") as store:
        for prompt, _ in items:
            id = f"d-{prompt.id}"
            add_demonstration(store, Demonstration(id=id, prompt_id=prompt.id, text="w1 w2 w3", labeler="ada"))


def by_w1(labeler: str, item: tuple[Prompt, tuple[Response, ...]], purpose: Any) -> Ranking:
    prompt, responses = item
    value = [response.text.split().count("w1") for response in responses]
    return Ranking(
        id=f"k-{labeler}-{purpose}-{prompt.id}",
        prompt_id=prompt.id,
        labeler=labeler,
        responses=tuple(response.id for response in responses),
        rank=tuple(1 + sum(other > mine for other in value) for mine in value),
        purpose=purpose,
    )


def as_line(item: tuple[Prompt, tuple[Response, ...]], ranking: Ranking, labeler: Labeler) -> str:
    """The interchange format, as a labelling tool elsewhere would write it."""
    prompt, responses = item
    line = {"schema": "ranking/1", "round": 1, "pool": "reward_model", "ranking": ranking.model_dump(mode="json")}
    line |= {"prompt": prompt.model_dump(mode="json"), "labeler": labeler.model_dump(mode="json")}
    return json.dumps(line | {"responses": [response.model_dump(mode="json") for response in responses]}) + "\n"


def test_the_loop_waits_for_people_and_goes_on(recipe: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    # The few-shot prompt brought three demonstrations; the other prompts of the SFT pool still want theirs.
    first = waiting(recipe, folder)
    pool = len(read_snapshot(folder / "data" / "sft").prompts)
    assert first == f"3 of {pool} demonstrations" and pool > 10
    todo = open_work(folder, Work("demonstration", pool="sft"), "ada")
    demonstrate(folder, todo[:5])
    assert waiting(recipe, folder) == f"8 of {pool} demonstrations"
    demonstrate(folder, todo[5:])

    total = of_train(waiting(recipe, folder))
    todo = open_work(folder, Work("ranking", round=1, pool="reward_model"), "ada")
    assert len(todo) == total > 5 and all(2 <= len(responses) <= 3 for _, responses in todo)
    with open_store(folder / "store.db") as store:
        add_ranking(store, *[by_w1("ada", item, "train") for item in todo[:4]])
    held = len(open_work(folder, Work("ranking", round=1, pool="reward_model"), "kim"))
    both = f"4 of {total} rankings, 0 of {held} rankings by held-out labelers"
    assert waiting(recipe, folder) == both and 1 <= held < total
    works = people_work("round-1/rankings", json.loads((folder / "recipe.json").read_text()))
    assert judged_so_far(folder / "store.db", works) == (both, True)
    imported = [as_line(item, by_w1("ada", item, "train"), Labeler(id="ada")) for item in todo[4:]]
    (tmp_path / "labels.jsonl").write_text("".join(imported), encoding="utf-8")
    assert cli("label", "import", tmp_path / "labels.jsonl", "--store", folder / "store.db").exit_code == 0

    assert waiting(recipe, folder) == f"0 of {held} rankings by held-out labelers"
    assert by_held_out(folder) == held

    # Now the policies stand, and held-out people compare them; a training labeler's word does not count here.
    wanted = waiting(recipe, folder)
    judged = open_work(folder, Work("ranking", pool="evaluation", group="heldout", purpose="evaluation"), "kim")
    assert wanted == f"0 of {len(judged)} rankings by held-out labelers" and 2 <= len(judged) <= 6
    with open_store(folder / "store.db") as store:
        add_ranking(store, *[by_w1("ada", item, "evaluation") for item in judged])
    assert waiting(recipe, folder) == wanted
    with open_store(folder / "store.db") as store:
        add_ranking(store, *[by_w1("kim", item, "evaluation") for item in judged])
    result = run(recipe, folder)
    assert result.exit_code == 0, result.output
    finished(folder, len(judged))


def finished(folder: Path, judged: int) -> None:
    results = json.loads((folder / "results.json").read_text())
    assert set(results["policies"]) == {"start", "sft", "ppo_start", "ppo"}
    wins = results["policies"]["ppo"]["win_rate"]
    assert wins["num_prompts"] <= 6 and wins["wins"] + wins["ties"] + wins["losses"] >= 2
    # Nobody rated, and nobody knows the truth: null with a reason.
    for name, found in results["policies"].items():
        nulls = [key for key in ("likert", "gold", "lm_loss") if found[key] is None]
        assert nulls == ["likert", "gold", "lm_loss"], name
        assert all(found["reason"][key] for key in nulls)
    assert results["agreement"]["train"]["mean"] is None and results["agreement"]["train"]["reason"]
    snapshot = read_snapshot(folder / "evaluation" / "judgements" / "snapshot")
    assert {r.labeler for r in snapshot.rankings} == {"kim"} and len(snapshot.rankings) == judged
    counts = json.loads((folder / "data" / "done.json").read_text())["counts"]
    assert counts["same first 200 characters as an earlier prompt"] == 1
    trained = read_snapshot(folder / "round-1" / "rankings" / "snapshot")
    assert {ranking.labeler for ranking in trained.rankings} == {"ada", "kim"} and len(trained.rankings) >= judged
    split = {prompt.id: prompt.split for prompt in trained.prompts}
    assert {split[ranking.prompt_id] for ranking in trained.rankings if ranking.labeler == "kim"} == {"valid"}
    accuracy = results["reward_model"]["accuracy"]["heldout_labelers"]
    assert accuracy["mean"] is not None or accuracy["reason"] != "no held-out labeler's comparison was scored"


def label_everything(folder: Path, round: int) -> None:
    with open_store(folder / "store.db") as store:
        add_labeler(store, Labeler(id="ada"))
        todo = to_label(store, Work("ranking", round=round, pool="reward_model"), "ada")
        add_ranking(
            store, *[by_w1("ada", item, "train").model_copy(update={"id": f"{round}-{item[0].id}"}) for item in todo]
        )
    by_held_out(folder, round)


def test_a_later_round_waits_for_prompts_people_asked_since(recipe: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    settings = yaml.safe_load(recipe.read_text()) | {"rounds": 2, "new_prompts": 4}
    del settings["sft"]
    settings |= {"ppo_start": "start", "rankings": settings["rankings"] | {"policy": "start"}}
    settings |= {"evaluate": settings["evaluate"] | {"baseline": "start"}}
    recipe.write_text(yaml.safe_dump(settings), encoding="utf-8")
    waiting(recipe, folder)
    label_everything(folder, 1)
    rows = [{"text": f"w2 {text(random.Random(n))}", "user": f"new-{n}"} for n in range(6)]
    said = []
    for some, pool in ((slice(0, 2), "reward_model"), (slice(2, 3), "sft"), (slice(3, 6), "ppo")):
        result = run(recipe, folder)
        assert result.exit_code == 3, result.output
        said += [line for line in result.stdout.splitlines() if line.startswith("waiting for prompts of round 2: ")]
        (tmp_path / "new.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[some]), encoding="utf-8")
        given: Any = ("--store", folder / "store.db", "--round", 2, "--pool", pool, "--valid", 0, "--test", 0)
        assert cli("prompts", "import", tmp_path / "new.jsonl", *given).exit_code == 0
    assert [line.split(": ")[1].split(";")[0] for line in said] == ["0 of 4", "2 of 4", "2 of 4"]
    assert f"heedful serve {folder / 'round-1/ppo/model'} --collect FILE" in said[0]
    asked = read_snapshot(folder / "data" / "reward_model").prompts
    assert waiting(recipe, folder).startswith("0 of ")
    renewed = {pool: read_snapshot(folder / "round-2/prompts" / pool).prompts for pool in ("reward_model", "ppo")}
    assert renewed["reward_model"][: len(asked)] == asked
    assert {p.user for p in renewed["reward_model"][len(asked) :]} == {"new-0", "new-1"}
    assert {p.user for p in renewed["ppo"] if p.user.startswith("new")} == {"new-3", "new-4", "new-5"}
    sampled = read_snapshot(folder / "round-2/responses/responses")
    assert {"new-0", "new-1"} < {prompt.user for prompt in sampled.prompts}
    label_everything(folder, 2)
    run(recipe, folder)  # to its end, or up to the evaluation where the policies differ anywhere
    assert (folder / "round-2/ppo/done.json").exists()


def test_a_later_rounds_prompts_come_in_by_the_rules_of_the_run(recipe: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    waiting(recipe, folder)
    with open_store(folder / "store.db") as store:
        before = {prompt.user: prompt.split for prompt, _ in prompts_with_pool(store)}
    draw = random.Random(1)
    users = [*(f"new-{n}" for n in range(50)), *(user for user in before if user.startswith("customer"))]
    rows = [{"text": text(draw), "user": user} for user in users]
    (tmp_path / "new.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    wanted = built(recipe).intake
    given: Any = ("prompts", "import", tmp_path / "new.jsonl", "--store", folder / "store.db", "--round", 2)
    for more, told in (((), None), (("--cap", 150, "--test", 0.2), "--cap 150 is used for this file")):
        result = cli(*given, *more)
        assert result.exit_code == 0, result.output
        said = [line for line in result.stdout.splitlines() if "the run was begun with" in line]
        assert [line.split(";")[0] for line in said] == ([told] if told else [])
    with open_store(folder / "store.db") as store:
        came = {prompt.user: (prompt, pool) for prompt, pool in prompts_with_pool(store, round=2)}
    alone, _ = take_in([IncomingPrompt(**row) for row in rows], wanted)
    by_rule = {prompt.user: prompt.split for prompt in alone}
    assert {user: prompt.split for user, (prompt, _) in came.items()} == by_rule | {u: before[u] for u in users[50:]}
    assert len(set(by_rule.values())) == 3 and {pool for _, pool in came.values()} == {
        "reward_model",
        "ppo",
        "evaluation",
    }


def erase(folder: Path, kind: str, name: str) -> None:
    result = cli("store", "erase", folder / "store.db", f"--{kind}", name, "--yes")
    assert result.exit_code == 0, result.output


def test_a_run_goes_on_without_those_who_had_their_data_erased(recipe: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    total = int(waiting(recipe, folder).removeprefix("3 of ").removesuffix(" demonstrations"))
    asked = {prompt.id: prompt for prompt in read_snapshot(folder / "data" / "sft").prompts}
    with open_store(folder / "store.db") as store:
        brought = sorted({d.prompt_id for d in export_snapshot(store, pools=["sft"]).demonstrations})
    assert len(brought) == 3
    erase(folder, "labeler", "labeler-0")  # wrote the demonstrations that came with a few-shot prompt
    left = [prompt for prompt in asked.values() if prompt.user != "labeler-0"]
    assert waiting(recipe, folder) == f"0 of {len(left)} demonstrations" and len(left) < total
    demonstrate(folder, open_work(folder, Work("demonstration", pool="sft"), "ada"))

    ranked = of_train(waiting(recipe, folder))
    by_held_out(folder)
    todo = open_work(folder, Work("ranking", round=1, pool="reward_model"), "ada")
    with open_store(folder / "store.db") as store:
        add_ranking(store, *[by_w1("ada", item, "train") for item in todo[:2]])
    gone = [todo[0][0].user, todo[-1][0].user]
    for user in gone:
        assert user is not None
        erase(folder, "user", user)
    todo = [item for item in todo if item[0].user not in gone]
    assert waiting(recipe, folder) == f"1 of {len(todo)} rankings" and len(todo) < ranked
    with open_store(folder / "store.db") as store:
        add_ranking(store, *[by_w1("ada", item, "train") for item in todo[1:]])

    waiting(recipe, folder)
    work = Work("ranking", pool="evaluation", group="heldout", purpose="evaluation")
    judged = open_work(folder, work, "kim")
    erase(folder, "user", str(judged[0][0].user))
    judged = open_work(folder, work, "kim")
    assert waiting(recipe, folder) == f"0 of {len(judged)} rankings by held-out labelers"
    with open_store(folder / "store.db") as store:
        add_ranking(store, *[by_w1("kim", item, "evaluation") for item in judged])
    assert run(recipe, folder).exit_code == 0
    for step in ("demonstrations", "round-1/rankings", "evaluation/judgements"):
        assert json.loads((folder / step / "done.json").read_text())["counts"]["erased_on_request"] >= 3, step
    assert {p.user for p in read_snapshot(folder / "round-1/rankings/snapshot").prompts}.isdisjoint(gone)


def test_people_fill_in_forms(recipe: Path, tmp_path: Path) -> None:
    """The whole of it with nothing but a text editor."""
    folder, forms = tmp_path / "run", tmp_path / "forms.jsonl"
    store = ("--store", folder / "store.db")
    total = waiting(recipe, folder).split()[2]
    who = ("--labeler", "ada", "--task", "demonstration", "--pool", "sft")
    assert cli("label", "work", forms, *store, *who).exit_code == 0
    lines = [json.loads(line) for line in forms.read_text(encoding="utf-8").splitlines()]
    assert len(lines) == int(total) - 3
    unfilled = cli("label", "import", forms, *store)
    assert unfilled.exit_code == 0 and f"{len(lines)} forms not filled in" in unfilled.stdout
    for line in lines:
        line["text"] = "w1 w2 w3"
    forms.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    assert cli("label", "import", forms, *store).exit_code == 0
    assert " rankings" in waiting(recipe, folder)
    forgotten = cli("label", "work", forms, *store, "--labeler", "bea", "--pool", "reward_model").stdout
    assert forgotten.strip().endswith("there are none of round 0; the run waits for round 1 (--round 1)")
    who = ("--labeler", "bea", "--round", 1, "--pool", "reward_model", "--limit", 4)
    assert cli("label", "work", forms, *store, *who).exit_code == 0
    lines = [json.loads(line) for line in forms.read_text(encoding="utf-8").splitlines()]
    for line in lines[:3]:
        for place, shown in enumerate(line["responses"], start=1):
            assert shown["rank"] is None and set(shown) == {"alias", "text", "overall", "metadata", "rank"}
            shown["rank"] = place
    forms.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    assert cli("label", "import", forms, *store).exit_code == 0
    lines[0]["responses"][0]["rank"] = 2
    forms.write_text(json.dumps(lines[0]) + "\n", encoding="utf-8")
    assert "heedful label edit" in refuse("label", "import", forms, *store)
    assert ": 1 rankings" in cli("label", "edit", forms, *store).stdout
    assert "no such file" in refuse("label", "edit", tmp_path / "none.jsonl", *store)
    again = cli("label", "work", forms, *store, *who)
    assert again.stdout.split(": ")[1].startswith("4 rankings to fill in")  # one of the first four, and three more
    assert waiting(recipe, folder).startswith("3 of ")
    assert "no store is there" in refuse("label", "work", forms, "--store", tmp_path / "none.db", "--labeler", "ada")


def test_a_rate_is_of_all_who_were_shown_the_box(tmp_path: Path) -> None:
    """Four labelers' marks, one box ticked once, the others left as the form hands them out."""
    given = {f"p{n}": f"r{n}" for n in range(4)}
    path = tmp_path / "forms.jsonl"
    with open_store(tmp_path / "s.db") as store:
        for n, (prompt, response) in enumerate(given.items()):
            add_prompt(store, Prompt(id=prompt, text=f"Say {n}", user=prompt, split="test"), pool="evaluation")
            add_response(store, Response(id=response, prompt_id=prompt, text=f"{n}"))
        add_labeler(store, Labeler(id="kim", group="heldout"))
        write_forms(store, path, Work("rating", pool="evaluation", purpose="evaluation"), "kim")
        forms = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for form in forms:
            form["responses"][0]["overall"] = 4
        forms[0]["responses"][0]["metadata"]["hallucination"] = True
        forms[1]["responses"][0]["metadata"]["satisfies_constraint"] = None
        path.write_text("".join(json.dumps(form) + "\n" for form in forms), encoding="utf-8")
        assert import_jsonl(store, path) == {"ratings": 4}
        judged = export_snapshot(store, pools=["evaluation"], purpose="evaluation", heldout="include")
    (tmp_path / "done.json").write_text('{"results": {}, "counts": {}, "seconds": 1}', encoding="utf-8")
    found = policy(tmp_path, win_rate([], {"a": given, "b": given}, "a", "b"), judged.ratings, given, {})
    assert found["metadata"] == dict.fromkeys(METADATA_FLAGS, 0.0) | {"hallucination": 0.25}
    number = {flag: interval["num_ratings"] for flag, interval in found["metadata_interval"].items()}
    assert number == dict.fromkeys(METADATA_FLAGS, 4) | {"satisfies_constraint": 3}


def test_people_label_once_for_all_cells_of_a_sweep(recipe: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    settings = yaml.safe_load(recipe.read_text()) | {"matrix": {"sft.lr": [1e-3, 1e-2]}, "matrix_until": "sft"}
    recipe.write_text(yaml.safe_dump(settings), encoding="utf-8")
    assert waiting(recipe, folder / "cells" / "sft.lr=0.001", folder).startswith("3 of ")
    demonstrate(folder, open_work(folder, Work("demonstration", pool="sft"), "ada"))
    result = run(recipe, folder)
    assert result.exit_code == 0, result.output
    cells = json.loads((folder / "sweep.json").read_text())["cells"]
    assert len(cells) == 2 and all(cell["value"] is not None for cell in cells)
    hashes = {read_snapshot(path).hash for path in folder.glob("cells/*/demonstrations/snapshot")}
    assert len(hashes) == 1


def test_prompts_fall_to_their_pools_and_sizes_are_at_most(recipe: Path) -> None:
    everything = PeopleSource(built(recipe, pools={"evaluation": 1000})).prompts()
    assert {prompt.source for prompt in everything["sft"]} == {"labeler"}
    assert {prompt.source for pool in ("reward_model", "ppo") for prompt in everything[pool]} == {"customer"}
    assert {prompt.split for prompt in everything["evaluation"]} == {"test"}
    assert {prompt.split for prompt in everything["ppo"]} == {"train", "valid"}
    users = [{prompt.user for prompt in prompts} for prompts in everything.values()]
    assert not users[3] & (users[0] | users[1] | users[2])  # nobody who is tested on was trained on
    source = PeopleSource(built(recipe, pools={"evaluation": 4, "ppo": 3}))
    fewer = source.prompts()
    assert len(fewer["evaluation"]) == 4 and sum(prompt.split == "train" for prompt in fewer["ppo"]) == 3
    assert {prompt.id for prompt in fewer["ppo"]} < {prompt.id for prompt in everything["ppo"]}
    assert source.dropped["over pools.evaluation"] == len(everything["evaluation"]) - 4
    assert source.dropped["same first 200 characters as an earlier prompt"] == 1


def test_a_file_that_leaves_nothing_to_demonstrate_is_warned_of(recipe: Path, tmp_path: Path) -> None:
    draw = random.Random(2)
    rows = [{"text": text(draw), "user": f"customer-{n}"} for n in range(60)]
    path = tmp_path / "plain.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    def warned(**changes: Any) -> str:
        source = PeopleSource(built(recipe, prompts=str(path), **({"intake": {}} | changes)))
        pools = source.prompts()
        assert not source.warning or f": {len(pools['sft'])} of " in source.warning
        return source.warning

    assert "pool sft" in warned() and '"source": "labeler"' in warned()
    shares = re.findall(r"set intake\.shares, such as (.*)$", warned())
    assert not warned(intake={"shares": yaml.safe_load(shares[0])})  # the mend is one
    one = "{customer: {sft: 1, ppo: 40}}"  # too few to be divided: what the warning fears
    line = refuse("run", recipe, "--dry-run", "--set", f"prompts={path}", "--set", f"intake.shares={one}")
    assert f"{path}: sft needs " in line and '"source": "labeler"' in line
    no_sft = {"sft": {"variants": {}}, "ppo_start": "start", "rankings": RECIPE["rankings"] | {"policy": "start"}}
    assert not warned(**no_sft, evaluate=RECIPE["evaluate"] | {"baseline": "start"})
    rows[0]["source"] = "labeler"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert not warned()


def test_without_held_out_people_the_training_group_judges(recipe: Path) -> None:
    assert built(recipe, labelers={"judge": "people", "heldout": 0}).labelers.heldout == 0


def test_some_prompts_wait_for_a_second_labeler(recipe: Path, tmp_path: Path) -> None:
    settings = yaml.safe_load(recipe.read_text()) | {"labelers": {"judge": "people", "train": 3, "overlap": 0.5}}
    recipe.write_text(yaml.safe_dump(settings | {"sft": {"epochs": 1, "batch_size": 8, "lr": 1e-3}}), encoding="utf-8")
    folder = tmp_path / "run"
    waiting(recipe, folder)
    demonstrate(folder, open_work(folder, Work("demonstration", pool="sft"), "ada"))
    result = run(recipe, folder)
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("waiting for people: ")]
    prompts = read_snapshot(folder / "round-1" / "responses" / "responses").prompts
    held = sum(prompt.split != "train" for prompt in prompts)
    assert len(prompts) < of_train(line) < 2 * len(prompts)
    assert f"0 of {2 * held} rankings by held-out labelers" in line
    assert "--round 1 --overlap 1.5\n" in result.stdout and "--overlap 2 --heldout\n" in result.stdout


def test_an_empty_response_comes_last_and_stays_in_the_win_rate() -> None:
    made = {"a": ("w1", "", "w2"), "b": ("w1", "", ""), "c": ("", " ", ""), "d": ("w1", "w2", "w3")}
    items = [
        (
            Prompt(id=id, text="t", user=id),
            [Response(id=f"{id}{n}", prompt_id=id, text=text) for n, text in enumerate(dict.fromkeys(texts))],
        )
        for id, texts in made.items()
    ]
    kim = Labeler(id="kim", group="heldout")
    rankings = tuple(
        Ranking(id=id, prompt_id=id, labeler="kim", responses=ids, rank=(1,) * len(ids), order=ids)
        for id, ids in (("a", ("a0", "a2")), ("d", ("d0", "d1", "d2")))
    )
    rating = Rating(id="g", prompt_id="a", response_id="a0", labeler="kim", overall=5)
    judged = with_empty_last(items, Snapshot(labelers=(kim,), rankings=rankings, ratings=(rating,)))
    found = {ranking.prompt_id: dict(zip(ranking.responses, ranking.rank, strict=True)) for ranking in judged.rankings}
    assert found == {
        "a": {"a0": 1, "a2": 1, "a1": 2},
        "b": {"b0": 1, "b1": 2},
        "c": {"c0": 1, "c1": 1},
        "d": {"d0": 1, "d1": 1, "d2": 1},
    }
    assert {labeler.id for labeler in judged.labelers} == {"kim", "empty-last"}
    assert {(r.response_id, r.overall) for r in judged.ratings} == {
        ("a0", 5),
        ("a1", 1),
        ("b1", 1),
        ("c0", 1),
        ("c1", 1),
    }
    given = {
        name: {
            id: next(r.id for r in group if r.text == made[id][n]) for (_, group), id in zip(items, made, strict=True)
        }
        for n, name in enumerate(("talks", "silent", "third"))
    }
    wins = win_rate(judged.rankings, given, "talks", "silent")
    assert (wins.wins, wins.ties, wins.losses) == (2, 2, 0)  # a and b won, c and d tied: every prompt counts
    assert with_empty_last(items[3:], Snapshot(rankings=rankings[1:])).rankings == rankings[1:]


def test_an_empty_response_behind_a_comparison_leaves_a_ranking() -> None:
    two = Ranking(id="c", prompt_id="a", labeler="kim", responses=("a0", "a2"), rank=(2, 1), strength=3)
    three = behind(two, ("a1",))
    assert Ranking.model_validate(three.model_dump()) == three and three.rank == (2, 1, 3)


def test_who_judges_must_know_the_prompts(recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"labelers\.judge is world, .*; set labelers\.judge=people"):
        source_of(built(recipe, labelers={"judge": "world"}))
    line = refuse(
        "run", recipe, "--dir", tmp_path / "run", "--set", "prompts=world", "--set", "labelers.judge=sentiment"
    )
    assert "set labelers.judge=world" in line
    assert not (tmp_path / "run").exists()


def test_people_can_judge_the_worlds_prompts_too(recipe: Path) -> None:
    source = source_of(built(recipe, prompts="world", pools={"sft": 4, "reward_model": 4, "ppo": 4}))
    prompts = source.prompts()["sft"]
    assert prompts and source.demonstrations(prompts) == [] and source.labelers("train") == []
    source.calibrate([])
    assert source.utility(prompts[0], "yes") is not None


# What needs text is told before anybody labels.


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ppo": {"ptx_coef": 1.0}}, r"ppo\.ptx_coef \(of ppo\) needs pretraining text; name a file in documents"),
        ({"sft": {"pretraining_mix": 0.1}}, r"sft\.pretraining_mix \(of sft\) needs pretraining text"),
        ({"evaluate": {"prompted": True}}, r"evaluate\.prompted needs evaluate\.prefixes"),
        ({"evaluate": {"baseline": "ppo_ptx"}}, "evaluate.baseline is 'ppo_ptx', which is none of start, sft, ppo"),
        ({"evaluate": {"best_of": 4}, "reward_model": None, "ppo": {"variants": {}}}, "it needs a reward_model block"),
        ({"model": None, "pretrain": {"shape": {}}}, "a pretrain block needs prompts: world, found"),
    ],
)
def test_a_recipe_that_would_fail_late_is_refused_early(changes: dict[str, Any], words: str, recipe: Path) -> None:
    with pytest.raises(InputError, match=words):
        built(recipe, **changes)


def test_documents_come_from_a_file_with_some_held_out(recipe: Path, tmp_path: Path) -> None:
    path = tmp_path / "documents.jsonl"
    path.write_text("".join(json.dumps({"text": f"document {n}"}) + "\n" for n in range(500)), encoding="utf-8")
    found = PeopleSource(built(recipe, documents=str(path), ppo={"ptx_coef": 1.0})).documents()
    held = [document for document in found if document.split == "valid"]
    assert len(found) == 500 and 2 <= len(held) <= 25
    path.write_text('{"text": "a"}\n{"text": "b", "split": "valid"}\n', encoding="utf-8")
    assert [document.split for document in read_documents(str(path))] == ["train", "valid"]
    (tmp_path / "d.txt").write_text("one\n\ntwo \n", encoding="utf-8")
    assert [document.text for document in read_documents(str(tmp_path / "d.txt"))] == ["one", "two"]
    (tmp_path / "few.txt").write_text("\n".join(f"document {i}" for i in range(12)))
    assert [document.split for document in read_documents(str(tmp_path / "few.txt"))].count("valid") == 1
    assert read_documents(None) == []
    with pytest.raises(InputError, match="no such file"):
        read_documents(str(tmp_path / "none.txt"))
    with pytest.raises(InputError, match=r"read from .jsonl or .txt files"):
        read_documents(str(tmp_path / "d.pdf"))
