"""Bad input ends in one line that names the thing and the mend, with its exit code and nothing half-written."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from heedful.snapshot import Snapshot, read_snapshot, write_snapshot
from heedful.text.tokenizer import word_tokenizer
from processes import Forked, wait_until
from small_models import small_model
from tiny import TINY, cli, refuse, succeed

ONE_CORE = ("--cores", "1")


def words_in(line: str, words: Iterable[str]) -> None:
    assert all(word in line for word in words), line


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file with its content; the lock and the database's own files aside."""
    skipped = ("lock", "store.db", "store.db-wal", "store.db-shm")
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file() and p.name not in skipped}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "quikstart"], ["quikstart", "did you mean quickstart"]),
        (["run", "/no/such.yaml"], ["/no/such.yaml", "give a path"]),
        (["run", TINY, "--set", "ppo.kl_cof=1"], ["ppo.kl_cof", "did you mean kl_coef", "known here"]),
        (["run", TINY, "--set", "ppo.lr=-1"], ["ppo.lr", "greater than 0", "-1"]),
        (["run", TINY, "--set", "rankings.min_k=1"], ["rankings.min_k", "greater than or equal to 2"]),
        (["run", TINY, "--set", "seed"], ["--set seed", "write --set block.key=value"]),
        (["run", TINY, "--set", "prompts=missing.txt"], ["prompts", "missing.txt"]),
        (["sft", "stories_sentiment"], ["no sft block", "reward, ppo"]),
        (["run", "stories_sentiment", "--set", "prompts=/no/stories.txt"], ["/no/stories.txt", "no such file"]),
        (["run", "stories_sentiment"], ["stories.txt: no such file", "--set prompts=FILE"]),
        (["run", TINY, "--dry-run", "--set", "pretrain.shape.hidden_size=33"], ["hidden size (33)", "hidden_size 33"]),
        (["run", TINY, "--dry-run", "--set", "pretrain.shape.model_type=lama"], ["model_type", "lama"]),
    ],
)
def test_wrong_settings_leave_no_folder(arguments: list[object], words: list[str], tmp_path: Path) -> None:
    words_in(refuse(*arguments, "--dir", tmp_path / "run"), words)
    assert not (tmp_path / "run").exists()


def test_a_missing_model_is_noticed_before_a_folder_is_made(tmp_path: Path) -> None:
    stories = tmp_path / "stories.txt"
    stories.write_text("word " * 40, encoding="utf-8")
    settings = ["--set", f"prompts={stories}", "--set", f"model={tmp_path}/nothing"]
    words_in(refuse("run", "stories_sentiment", *settings, "--dir", tmp_path / "run"), ["nothing", "no such folder"])
    assert not (tmp_path / "run").exists()


def test_a_mistake_met_by_the_first_steps_leaves_no_folder_in_the_way(tmp_path: Path) -> None:
    line = refuse("run", TINY, "--set", "pretrain.window=200000", "--dir", tmp_path / "run", *ONE_CORE)
    words_in(line, ["0 training and 0 validation", "add text"])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"- a\n", ["mapping", "list"]), (b"a: [1\n", ["YAML"]), (b"name: \xe9\n", ["UTF-8"])],
)
def test_a_file_that_is_no_recipe(content: bytes, words: list[str], tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content)
    words_in(refuse("run", path, "--dir", tmp_path / "run"), [str(path), *words])


def test_another_run_in_the_folder_is_left_untouched(tiny_copy: Path) -> None:
    before = files_of(tiny_copy)
    line = refuse("run", TINY, "--dir", tiny_copy, "--set", "seed=1")
    words_in(line, [str(tiny_copy), "seed = 0", "now 1", "use another --dir"])
    assert files_of(tiny_copy) == before


def test_a_folder_that_was_there_before_is_never_taken_away(tmp_path: Path) -> None:
    (tmp_path / "note").write_text("mine")
    for settings in ("prompts=missing.txt", "pretrain.window=200000"):
        refuse("run", TINY, "--set", settings, "--dir", tmp_path, *ONE_CORE)
        assert (tmp_path / "note").read_text() == "mine"


def test_resume_needs_a_run(tmp_path: Path) -> None:
    words_in(refuse("run", TINY, "--resume", "--dir", tmp_path / "none"), ["holds no run", "--dir"])
    assert not (tmp_path / "none").exists()


# Files of prompts and labels.


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            b'{"text": "a", "user": "u"}\n\n{"text": "b" "user": "u"}\n',
            ["line 3: not valid JSON", "at character 14; write"],
        ),
        (b'{"text": "a", "user": "u"}\n{"text": "b"}\n', ["line 2", "user", "is missing"]),
        (b'{"text": "", "user": "u"}\n', ["line 1: text is empty", "take its line out"]),
        (b'{"text": "a", "user": "u", "usr": 1}\n', ["line 1", "usr"]),
        (b'{"text": "caf\xe9", "user": "u"}\n', ["line 1", "UTF-8"]),
        (b'{"text": "a", "user": "u"}\n["b"]\n', ["line 2"]),
    ],
)
def test_a_broken_line_of_prompts_is_named_and_nothing_taken_in(
    content: bytes, words: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_bytes(content)
    words_in(refuse("prompts", "import", path, "--store", tmp_path / "s.db"), [str(path), *words])
    assert not (tmp_path / "s.db").exists()


def test_a_file_that_marks_no_prompt_as_a_labelers_is_warned_of(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"

    def take_in(store: str, *options: object) -> str:
        return succeed("prompts", "import", path, "--store", tmp_path / store, *options)

    rows = [{"text": f"Prompt number {n} of its own", "user": f"u{n}"} for n in range(50)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    words_in(take_in("s.db"), ["warning: ", '"source": "labeler"', "--pool sft"])
    assert "warning" not in take_in("later.db", "--round", 2) and "warning" not in take_in("ppo.db", "--pool", "ppo")
    rows = [{"text": f"Prompt of a labeler, number {n}", "user": f"l{n}", "source": "labeler"} for n in range(50)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert "warning" not in take_in("s.db")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--cap", 0], ["cap", "greater than or equal to 1"]),
        (["--pii", "shred"], ["pii", "'redact', 'drop' or 'keep'"]),
        (["--key", "house"], ["key", "'user' or 'organisation'"]),
        (["--key", "organisation"], ["has no organisation"]),
        (["--valid", 0.7, "--test", 0.4], ["leave none for training"]),
    ],
)
def test_impossible_rules_of_intake(options: list[object], words: list[str], tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("one\n", encoding="utf-8")
    words_in(refuse("prompts", "import", tmp_path / "p.txt", "--store", tmp_path / "s.db", *options), words)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    store = tmp_path / "s.db"
    words_in(refuse("prompts", "import", tmp_path / "p.jsonl", "--store", store), ["p.jsonl", "no such file"])
    words_in(refuse("prompts", "import", tmp_path / "p.csv", "--store", store), ["p.csv", ".jsonl or .txt"])
    words_in(refuse("label", "import", tmp_path / "l.jsonl", "--store", store), ["l.jsonl", "no such file"])
    for command in (["prompts", "report"], ["store", "backup"], ["snapshot"]):
        out = [] if command[-1] == "report" else [tmp_path / "out"]
        words_in(refuse(*command, store, *out), [str(store), "no store is there"])
    words_in(refuse("store", "restore", tmp_path / "b.gz", store), ["b.gz", "no such file"])
    words_in(refuse("status", tmp_path), [str(tmp_path), "holds no run"])
    words_in(refuse("evaluate", tmp_path), ["holds no run"])
    words_in(refuse("chat", tmp_path / "model"), ["no such folder"])
    words_in(refuse("export", tmp_path / "model", tmp_path / "out"), ["no such folder"])
    assert list(tmp_path.iterdir()) == []


def label_line(texts: list[str], rank: list[int]) -> dict[str, object]:
    responses = [{"id": f"r{i}", "prompt_id": "p", "text": text} for i, text in enumerate(texts)]
    ids = [response["id"] for response in responses]
    return {
        "schema": "ranking/1",
        "prompt": {"id": "p", "text": "Say a word.", "user": "u"},
        "responses": responses,
        "labeler": {"id": "ann"},
        "ranking": {"id": "k", "prompt_id": "p", "labeler": "ann", "responses": ids, "rank": rank},
        "pool": "reward_model",
    }


@pytest.mark.parametrize(
    ("texts", "rank", "words"),
    [
        (["a"], [1], ["line 2", "ranking: responses: must have at least 2 items"]),
        (["a", "b"], [1], ["line 2", "1 entries for 2 responses"]),
        (["a", "b"], [1, 3], ["line 2", "1..2"]),
        (["a", ""], [1, 2], ["response r1 is empty", "leave it out"]),
        (["a", " \n"], [1, 2], ["response r1 is empty"]),
    ],
)
def test_impossible_rankings_are_not_taken_in(
    texts: list[str], rank: list[int], words: list[str], tmp_path: Path
) -> None:
    path, store = tmp_path / "labels.jsonl", tmp_path / "s.db"
    path.write_text("\n" + json.dumps(label_line(texts, rank)) + "\n", encoding="utf-8")
    words_in(refuse("label", "import", path, "--store", store), words)
    if store.exists():  # the whole file is refused: the store holds no prompt of it either
        words_in(refuse("prompts", "report", store), ["holds no prompts"])


def test_a_broken_line_of_labels_is_named(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    path.write_text(json.dumps(label_line(["a", "b"], [1, 2])) + "\n{oops\n", encoding="utf-8")
    line = refuse("label", "import", path, "--store", tmp_path / "s.db")
    words_in(line, [f"{path}, line 2: not valid JSON", "at character 2; write one whole JSON object on each line"])


def test_an_all_tied_ranking_is_kept_counted_and_cannot_be_trained_on(tmp_path: Path) -> None:
    path, store = tmp_path / "labels.jsonl", tmp_path / "s.db"
    path.write_text(json.dumps(label_line(["a", "b", "c"], [1, 1, 1])) + "\n", encoding="utf-8")
    succeed("label", "import", path, "--store", store)
    words_in(succeed("snapshot", store, tmp_path / "snapshot"), ["1 rankings", "left out: 1", "all tied"])


def test_only_ties_stop_the_reward_model_with_the_mend(tiny_copy: Path) -> None:
    folder = tiny_copy / "round-1" / "rankings" / "snapshot"
    found = read_snapshot(folder)
    tied = tuple(r.model_copy(update={"rank": (1,) * len(r.rank)}) for r in found.rankings)
    shutil.rmtree(folder)
    write_snapshot(folder, Snapshot(found.prompts, found.responses, found.labelers, (), tied))
    for later in ("reward_model", "scores", "choose_epoch", "ppo", "ppo_ptx"):
        shutil.rmtree(tiny_copy / "round-1" / later)
    shutil.rmtree(tiny_copy / "evaluation")
    line = refuse("reward", TINY, "--dir", tiny_copy, *ONE_CORE)
    words_in(line, [str(folder), "no ranking of a training prompt with an untied pair", "rank some first"])


# Models.


def test_a_prompt_over_the_context(tiny_run: Path) -> None:
    model = tiny_run / "pretrain" / "model"
    line = refuse("chat", model, "--prompt", "who " * 300, "--max-new-tokens", "20")
    words_in(line, ["302 tokens", "256", "236", "shorten the prompt or lower --max-new-tokens"])
    line = refuse("chat", model, "--prompt", "who " * 300)
    words_in(line, ["302 tokens", "fill the context of 256", "shorten the prompt"])


@pytest.mark.parametrize("prompt", ["", " \n"])
def test_an_empty_prompt(prompt: str, tiny_run: Path) -> None:
    words_in(refuse("chat", tiny_run / "pretrain" / "model", "--prompt", prompt), ["the prompt is empty", "write"])


def test_a_checkpoint_of_another_architecture(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    small_model("llama").save_pretrained(folder)
    word_tokenizer(["a"]).save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    other = small_model("gpt_neox").config.to_dict()
    (folder / "config.json").write_text(json.dumps(other | {"vocab_size": config["vocab_size"]}))
    line = refuse("chat", folder, "--prompt", "a")
    words_in(line, [str(folder), "not those of a gpt_neox"])


def test_a_reward_model_is_no_policy(tiny_run: Path, tmp_path: Path) -> None:
    model = tiny_run / "round-1" / "reward_model" / "model"
    for command in (["chat", model, "--prompt", "a"], ["export", model, tmp_path / "out"]):
        words_in(refuse(*command), [str(model), "holds a reward model, not a policy"])
    assert not (tmp_path / "out").exists()


def test_an_export_does_not_write_over_anything(tiny_run: Path, tmp_path: Path) -> None:
    (tmp_path / "note").write_text("mine")
    words_in(refuse("export", tiny_run / "pretrain" / "model", tmp_path), [str(tmp_path), "there already"])
    assert [path.name for path in tmp_path.iterdir()] == ["note"]


# Places.


def test_a_file_where_a_folder_is_needed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    words_in(refuse("run", TINY, "--dir", tmp_path / "file" / "run"), ["file/run", "choose another"])
    words_in(refuse("init", tmp_path / "file"), ["not an empty folder"])
    words_in(refuse("init", tmp_path / "file" / "project"), ["Not a directory", "choose another place"])
    (tmp_path / "p.txt").write_text("one\n")
    words_in(refuse("prompts", "import", tmp_path / "p.txt", "--store", tmp_path / "file" / "s.db"), ["file"])


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    words_in(refuse("run", TINY, "--dir", "/proc/heedful"), ["/proc/heedful", "choose another folder"])
    words_in(refuse("init", "/proc/heedful"), ["/proc/heedful", "name a place that exists"])
    result = cli("doctor", "--dir", "/proc")
    assert result.exit_code == 1
    words_in(result.stdout, ["problem writing: /proc", "choose another --dir"])


def test_a_store_that_is_something_else(tmp_path: Path) -> None:
    (tmp_path / "s.db").write_text("this is not a database, but it is long enough to be read as one " * 20)
    words_in(refuse("prompts", "report", tmp_path / "s.db"), ["s.db", "not a database"])


def test_a_full_disk_is_said_and_the_same_command_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    command = ["pretrain", TINY, "--dir", folder, "--set", "pretrain.shape.hidden_size=256", *ONE_CORE]
    command += ["--set", "world.document_tokens=4000"]
    process = Forked(tmp_path / "said", *command, file_limit=1_000_000)  # all but the weights and states are shorter
    code, said = process.wait(200), (tmp_path / "said").read_text()
    assert code == 2, said
    assert "Traceback" not in said
    words_in(said.splitlines()[-1], ["error:", "run the same command again"])
    assert not list(folder.rglob("*.partial"))
    assert not (folder / "pretrain" / "model").exists()
    words_in(succeed(*command), ["pretrain", "done"])


def test_a_state_that_cannot_be_written_is_said_as_well(tmp_path: Path) -> None:
    code = """if True:
        import resource, sys, torch, typer
        from pathlib import Path
        from heedful.cli.common import friendly
        from heedful.run import Run
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            with friendly():
                Run.open(Path(sys.argv[1]), "sft", {}, 0).save(1, model=torch.nn.Linear(300, 300))
        except typer.Exit as end:
            sys.exit(end.exit_code)
    """
    result = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert result.returncode == 2, result.stderr
    words_in(result.stderr, ["error: a model or state could not be written: File too large", "the same command again"])
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


# Runs that end early.


def test_a_loss_that_is_no_number_stops_with_its_place(tmp_path: Path) -> None:
    line = refuse("pretrain", TINY, "--dir", tmp_path / "run", "--set", "pretrain.lr=1e30", *ONE_CORE, code=1)
    words_in(line, ["stopped: pretrain: ", "became", "at step ", "lower" if "lower" in line else "Lower"])
    step = int(line.split("at step ")[1].split(";")[0])
    logged = (tmp_path / "run" / "pretrain" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["step"] for row in logged] == list(range(step))  # no step was skipped


def test_ctrl_c_ends_at_once_and_says_how_to_go_on(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    said = tmp_path / "said"
    process = Forked(said, "run", TINY, "--dir", folder, "--set", "ppo.iterations=100000", *ONE_CORE)
    try:
        wait_until(lambda: (folder / "round-1" / "ppo" / "metrics.jsonl").exists() or process.poll() is not None)
        words_in(succeed("status", folder), ["running"])
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130, said.read_text()
    finally:
        process.kill()
    assert "Traceback" not in said.read_text()
    last = said.read_text().splitlines()[-1]
    words_in(last, ["stopped: by Ctrl-C", "go on with: heedful run", f"--dir {folder}"])
    words_in(succeed("status", folder), ["stopped", "go on with the command that started it"])


def test_waiting_for_people_exits_3_and_says_how_far_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from heedful.pipeline.world import WorldSource

    monkeypatch.setattr(WorldSource, "demonstrations", lambda self, prompts: [])
    arguments = ["run", TINY, "--dir", tmp_path / "run", "--set", "labelers.judge=people", *ONE_CORE]
    for _ in range(2):  # the same command again waits again
        result = cli(*arguments)
        assert result.exit_code == 3, result.output
        words_in(result.stdout, ["0 of 27 demonstrations", "run the same command again"])
    words_in(succeed("status", tmp_path / "run"), ["waiting", "0 of 27 demonstrations"])
