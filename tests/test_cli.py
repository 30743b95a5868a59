"""The commands at work, each through the command line itself."""

import fcntl
import json
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
import typer

from heedful.cli import app
from heedful.cli.plan import Sizes, amounts, measure_documents, measure_sizes
from heedful.cli.talk import Talker
from heedful.config import RECIPES, read_recipe
from heedful.engine.engine import Engine, Request
from heedful.export.model import chat_template
from heedful.models.checkpoint import load_policy
from heedful.models.load import context_length, from_scratch
from heedful.pipeline.recipe import build
from heedful.pipeline.start import source_of
from heedful.snapshot import read_snapshot
from heedful.steps import planned_steps
from heedful.text.format import PromptFormat, prompt_tokens
from heedful.text.tokenizer import word_tokenizer
from heedful.types import Prompt
from small_models import VOCAB, small_model
from tiny import TINY, cli, refuse, succeed

HEEDFUL = Path(sys.executable).parent / "heedful"
ONE_CORE = ("--cores", "1")
POOLS = ("sft", "reward_model", "ppo", "evaluation")


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def commands() -> Iterator[tuple[str, Any]]:
    """Every command with its whole name, groups included."""

    def walk(name: str, command: Any) -> Iterator[tuple[str, Any]]:
        yield name, command
        for key, inner in getattr(command, "commands", {}).items():
            yield from walk(f"{name} {key}", inner)

    yield from walk("heedful", typer.main.get_command(app))


@pytest.mark.parametrize(("name", "command"), list(commands()), ids=[name for name, _ in commands()])
def test_every_command_and_option_has_help(name: str, command: Any) -> None:
    assert command.help, name
    for parameter in command.params:
        assert parameter.help, f"{name} {parameter.name}"
    shown = succeed(*name.split()[1:], "--help")
    assert "Usage: " in shown and " ".join(name.split()[1:]) in shown


def test_the_installed_command() -> None:
    shown = subprocess.run([HEEDFUL, "--version"], capture_output=True, text=True, check=True).stdout
    assert shown == f"heedful {version('heedful')}\n"


def test_the_package_is_the_command_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["heedful", "--version"])
    with pytest.raises(SystemExit, match="0"):
        runpy.run_module("heedful", run_name="__main__")
    assert capsys.readouterr().out == f"heedful {version('heedful')}\n"


def test_commands_that_train_nothing_do_not_wait_for_torch(tiny_run: Path, tiny_copy: Path, tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("one prompt\nanother prompt\n", encoding="utf-8")
    calls = [
        ["--help"],
        ["run", "--help"],
        ["recipes"],
        ["init", tmp_path / "new"],
        ["status", tiny_run],
        ["report", tiny_copy],
        ["prompts", "report", tiny_run],
        ["prompts", "import", tmp_path / "p.txt", "--store", tmp_path / "s.db"],
        ["snapshot", tiny_run, tmp_path / "snapshot"],
        ["label", "export", tmp_path / "l.jsonl", "--store", tiny_run],
        ["label", "import", tmp_path / "l.jsonl", "--store", tmp_path / "s2.db"],
        ["store", "backup", tiny_run, tmp_path / "b.gz"],
    ]
    code = """if True:
        import json, sys
        from typer.testing import CliRunner
        from heedful.cli import app
        for call in json.loads(sys.argv[1]):
            result = CliRunner().invoke(app, call)
            assert result.exit_code == 0, (call, result.output)
            assert "torch" not in sys.modules, call
    """
    text = json.dumps([[str(part) for part in call] for call in calls])
    result = subprocess.run([sys.executable, "-c", code, text], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


# Running.


def test_the_same_recipe_and_seed_give_the_same_results_stage_by_stage_or_at_once(
    tiny_run: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    done = []
    for command in ("pretrain", "sft", "reward", "ppo"):
        succeed(command, TINY, "--dir", folder, *ONE_CORE)
        done.append({str(path.parent.relative_to(folder)) for path in folder.rglob("done.json")})
    assert done[0] == {"data", "pretrain"}
    assert done[1] - done[0] == {"demonstrations", "sft", "ppo_init"}
    assert "round-1/reward_model" in done[2] and "round-1/ppo" not in done[2]
    assert done[3] - done[2] == {"round-1/ppo", "round-1/ppo_ptx"}
    shown = succeed("run", TINY, "--dir", folder, "--resume", *ONE_CORE)
    assert "ppo_ptx" in shown and "labeler agreement" in shown
    assert (folder / "report.html").read_text(encoding="utf-8").endswith("</html>\n")
    once, again = read(tiny_run / "results.json"), read(folder / "results.json")
    assert again.pop("seconds")["total"] > 0 and once.pop("seconds")
    assert again == once


def test_the_planned_steps_are_those_of_the_loop_in_its_order(tiny_run: Path) -> None:
    planned = planned_steps(read(tiny_run / "recipe.json"))
    begun = {str(p.parent.relative_to(tiny_run)): p.stat().st_mtime_ns for p in tiny_run.rglob("manifest.json")}
    assert planned == sorted(begun, key=begun.__getitem__)


def test_planned_steps_of_other_recipes() -> None:
    stories = planned_steps(build(read_recipe("stories_sentiment")).model_dump(mode="json"))
    assert stories == [
        "data",
        "round-1/responses",
        "round-1/rankings",
        "round-1/reward_model",
        "round-1/scores",
        "round-1/ppo",
        "round-1/ppo_no_kl",
        "evaluation/best_of_64",
        "evaluation/start",
        "evaluation/ppo",
        "evaluation/ppo_no_kl",
        "evaluation/judgements",
    ]
    twice = planned_steps(build(read_recipe(str(TINY), ["rounds=2"])).model_dump(mode="json"))
    assert [step for step in twice if step.startswith("round-2")] == [
        "round-2/prompts",
        *(step.replace("1", "2") for step in twice if step.startswith("round-1")),
    ]


def test_a_dry_run_shows_the_steps_in_order_and_makes_nothing(tmp_path: Path) -> None:
    shown = succeed("run", TINY, "--dir", tmp_path / "run", "--dry-run")
    steps = planned_steps(build(read_recipe(str(TINY))).model_dump(mode="json"))
    firsts = [line.split(" ")[0] for line in shown.splitlines()]
    assert [word for word in firsts if word in steps] == steps
    assert re.search(r"tiny: llama, [\d,]+ parameters", shown)
    assert "estimate" in shown and "MiB" in shown
    assert "warning: ppo.ema_decay 0.992 over" in shown  # two iterations move the average hardly at all
    assert not (tmp_path / "run").exists()


def test_the_plan_counts_what_the_run_did(tiny_run: Path) -> None:
    recipe = build(read_recipe(str(TINY)))
    source = source_of(recipe)
    tokenizer = source.tokenizer()
    assert recipe.pretrain is not None and tokenizer is not None
    model = from_scratch(recipe.pretrain.shape | {"vocab_size": len(tokenizer)})
    sizes = measure_sizes(recipe, source, tokenizer, model)
    plan = dict(amounts(recipe, sizes))
    trained, _ = load_policy(tiny_run / "pretrain" / "model")
    assert sizes.parameters == sum(p.numel() for p in trained.parameters())
    made = len((tiny_run / "pretrain" / "metrics.jsonl").read_text().splitlines())
    planned = int(plan["pretrain"].what.split()[1])
    assert planned <= made <= 1.1 * planned  # the last batch of a row length is not full
    for step, unit in (("sft", "steps"), ("ppo_init", "steps"), ("round-1/ppo", "updates")):
        logged = len((tiny_run / step / "metrics.jsonl").read_text().splitlines())
        per_line = 2 if unit == "updates" else 1  # two minibatches an iteration
        assert f"{logged * per_line} {unit}" in plan[step].what, step
    assert plan["round-1/ppo"].sampled == 2 * 8 * 12
    # tokens passed through the models while training: policy and value over prompt and response, at most 12 each
    episodes = 2 * 8
    assert plan["round-1/ppo"].trained == 2 * episodes * (sizes.prompt["ppo"] + 12)
    assert plan["round-1/ppo_ptx"].trained == plan["round-1/ppo"].trained + 4 * 2 * 64  # 2 windows of 64 an update
    prompts = read_snapshot(tiny_run / "data" / "ppo").prompts
    lengths = [len(prompt_tokens(prompt, recipe.format, tokenizer)) for prompt in prompts]
    assert sizes.prompt["ppo"] == pytest.approx(sum(lengths) / len(lengths))


def plain_sizes(number: int = 10, heldout: float = 0) -> Sizes:
    """Each pool has so many prompts of one token, all of them for training."""
    return Sizes(
        number={pool: {"train": number, "valid": 0, "test": 0} for pool in POOLS},
        prompt=dict.fromkeys(POOLS, 1.0),
        **{"demonstration": 1.0, "prefixes": 1, "prefix": 0.0, "document": 10.0, "heldout": heldout, "marks": 1},
        **{"parameters": 1000, "trunk": 900, "kept": 0.0, "adapters": 10, "linear": 640},
    )


def test_the_plan_counts_held_out_text_where_there_is_some(tmp_path: Path) -> None:
    recipe = build(read_recipe(str(TINY)))
    forward = [dict(amounts(recipe, plain_sizes(heldout=n)))["evaluation/sft"].forward for n in (0, 500)]
    # ten responses of at most 12 tokens behind a prompt of one
    assert forward == [10 * (1 + 13) + 2 * 10 * 13, forward[0] + 500]
    tokenizer = word_tokenizer(["a"])
    assert measure_documents(recipe, tokenizer)[1] > recipe.world.valid_document_tokens  # and the marks
    (tmp_path / "prompts.txt").write_text("a a\n")
    rows = [{"text": "a a a a"}, {"text": "a a", "split": "valid"}, {"text": "a", "split": "valid"}]
    (tmp_path / "text.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = [f"prompts={tmp_path / 'prompts.txt'}"]
    own += ["sft.variants.ppo_init.pretraining_mix=0", "ppo.variants.ppo_ptx.ptx_coef=0"]
    some = build(read_recipe("instructgpt", [*own, f"documents={tmp_path / 'text.jsonl'}"]))
    assert measure_documents(some, tokenizer) == (pytest.approx((6 + 4 + 3) / 3), 4 + 3, 2)
    none = build(read_recipe("instructgpt", [*own, "documents=null"]))
    assert measure_documents(none, tokenizer)[:2] == (0, 0)


def test_the_plan_says_one_epoch_and_two_epochs() -> None:
    settings = ["sft.variants.sft.epochs=1", "evaluate.labelers_per_prompt=1"]
    one, more = (dict(amounts(build(read_recipe(str(TINY), settings)), plain_sizes(number))) for number in (1, 9))
    assert one["sft"].what == "1 epoch, 1 step" and more["sft"].what == "1 epoch, 2 steps"
    assert one["demonstrations"].what == "1 demonstration by world"
    assert more["demonstrations"].what == "9 demonstrations by world"
    assert one["round-1/choose_epoch"].what == "1 epoch" and more["ppo_init"].what.startswith("1 epoch, ")
    assert one["evaluation/sft"].what == "1 response" and more["evaluation/sft"].what == "9 responses"
    assert one["evaluation/judgements"].what == "1 prompt, 1 held-out labeler each"
    assert more["evaluation/judgements"].what == "9 prompts, 1 held-out labeler each"
    assert one["evaluation/choose_prefix"].what == "1 few-shot prefix"
    settings = [*settings, "evaluate.labelers_per_prompt=2"]
    two = dict(amounts(build(read_recipe(str(TINY), settings)), plain_sizes()._replace(prefixes=2)))
    assert two["evaluation/judgements"].what == "10 prompts, 2 held-out labelers each"
    assert two["evaluation/choose_prefix"].what == "2 few-shot prefixes"


def test_the_plan_counts_adapters_as_what_trains() -> None:
    sizes = plain_sizes()

    def size(step: str, **changes: object) -> float:
        settings = [
            f"{stage}.{key}={value}" for stage in ("sft", "reward_model", "ppo") for key, value in changes.items()
        ]
        return dict(amounts(build(read_recipe(str(TINY), settings)), sizes))[step].size

    assert size("sft") == 16 * 1000
    assert size("sft", lora_rank=2) == 4 * 1000 + 16 * 2 * 10 + 4 * 1000  # weights, adapters that train, a merged copy
    assert size("round-1/reward_model") == 16 * 900
    assert size("round-1/reward_model", lora_rank=2) == 4 * 900 + 16 * 2 * 10 + 4 * 900
    # policy, value model, reward model, average, reference
    assert size("round-1/ppo") == 16 * 1000 + 16 * 900 + 4 * 900 + 2 * 4 * 1000
    adapters = 2 * 10
    policy, value = 4 * 1000 + 16 * adapters, 4 * 900 + 16 * adapters
    assert size("round-1/ppo", lora_rank=2) == policy + 4 * 1000 + value + 4 * 900 + 4 * adapters
    # 640 of each model's weights in 4 bits, with a byte for every 64 and 4 for every 64 · 256; the merged copy is whole
    saved = 640 * (4 - 0.5 - 1 / 64 - 4 / (64 * 256))
    in_4_bits = size("round-1/ppo", lora_rank=2, base_precision="nf4")
    assert in_4_bits == pytest.approx(size("round-1/ppo", lora_rank=2) - 3 * saved)


# Where a run stands.


def test_status_of_a_finished_run(tiny_run: Path) -> None:
    shown = succeed("status", tiny_run)
    steps = planned_steps(read(tiny_run / "recipe.json"))
    assert f"{len(steps)} of {len(steps)} steps done" in shown
    seconds = read(tiny_run / "pretrain" / "done.json")["seconds"]
    assert re.search(rf"pretrain +done +{seconds:.1f} ", shown)
    counts = read(tiny_run / "round-1" / "reward_model" / "done.json")["counts"]
    flat = " ".join(shown.split())
    assert all(f"{reason} {number}" in flat for reason, number in counts.items())


def test_status_of_a_run_at_work_and_of_one_that_stopped(tiny_copy: Path) -> None:
    for name in ("evaluation/judgements/manifest.json", "evaluation/judgements/done.json", "round-1/ppo/done.json"):
        (tiny_copy / name).unlink()
    (tiny_copy / "round-1" / "ppo" / "progress.json").write_text('{"step": 1, "total": 2}')
    (tiny_copy / "results.json").unlink()
    with (tiny_copy / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        busy = succeed("status", tiny_copy)
    assert re.search(r"round-1/ppo +running +1 of 2", busy)
    assert re.search(r"evaluation/judgements +not begun", busy)
    assert re.search(r"round-1/ppo_ptx +done", busy)
    assert re.search(r"round-1/ppo +stopped", succeed("status", tiny_copy))


def test_evaluate_computes_the_same_results_anew(tiny_copy: Path) -> None:
    before = read(tiny_copy / "results.json")
    (tiny_copy / "results.json").unlink()
    shown = succeed("evaluate", tiny_copy)
    assert read(tiny_copy / "results.json") == before
    for name, policy in before["policies"].items():
        assert re.search(rf"^{name} .*{policy['win_rate']['mean']:.3f}", shown, re.MULTILINE)
    (tiny_copy / "evaluation" / "judgements" / "done.json").unlink()
    assert "is not finished" in refuse("evaluate", tiny_copy)


def test_report_says_where_it_is(tiny_copy: Path) -> None:
    path = Path(succeed("report", tiny_copy).strip())
    assert path.is_relative_to(tiny_copy) and "<html" in path.read_text(encoding="utf-8")


# Starting out.


def test_a_new_project_holds_a_recipe_that_runs(tmp_path: Path) -> None:
    succeed("init", tmp_path / "mine")
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == [".gitignore", "README.md", "recipe.yaml"]
    assert (tmp_path / "mine" / "recipe.yaml").read_text() == (RECIPES / "quickstart.yaml").read_text()
    build(read_recipe(str(tmp_path / "mine" / "recipe.yaml")))
    assert "not an empty folder" in refuse("init", tmp_path / "mine")
    assert "did you mean stories_sentiment" in refuse("init", tmp_path / "x", "--recipe", "stories_sentimen")
    assert not (tmp_path / "x").exists()


def test_recipes_are_listed_with_their_first_sentence() -> None:
    shown = " ".join(succeed("recipes").split())
    for path in RECIPES.glob("*.yaml"):
        assert path.stem in shown
    assert "The whole loop on the embedded world" in shown


def test_doctor_finds_this_installation_well(tmp_path: Path) -> None:
    shown = succeed("doctor", "--dir", tmp_path / "not" / "yet")
    lines = [line for line in shown.splitlines() if line]
    assert all(line.startswith("ok ") for line in lines)
    named = {line.split()[1].rstrip(":") for line in lines}
    assert named >= {"python", "packages", "cores", "torch", "bf16", "sqlite", "disk", "writing"}
    assert list(tmp_path.iterdir()) == []


# Prompts and labels.


def test_prompts_go_in_by_the_rules_and_are_reported(tmp_path: Path) -> None:
    rows = [{"text": f"Prompt number {i} of its own", "user": f"u{i % 7}"} for i in range(40)]
    rows += [rows[0], {"text": "Mail me at ann@example.org", "user": "mail"}]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    arguments = ["prompts", "import", tmp_path / "p.jsonl", "--store", tmp_path / "s.db", "--cap", 5, "--valid", 0]
    shown = succeed(*arguments, "--test", 0)
    assert "42 prompts read, 36 kept" in shown
    assert "over 5 of one user: 5" in shown and "an earlier prompt: 1" in shown
    assert "email 1" in shown and "new in the store: 36 prompts" in shown
    assert "already in the store: 37" in succeed(*arguments, "--test", 0)
    report = succeed("prompts", "report", tmp_path / "s.db")
    for title in ("Prompts by pool and source", "Use cases", "Kinds", "Prompt lengths"):
        assert title in report


def test_a_run_folder_is_its_store(tiny_run: Path) -> None:
    assert "reward_model" in succeed("prompts", "report", tiny_run)


def test_labels_travel_from_store_to_store(tiny_run: Path, tmp_path: Path) -> None:
    for kind in ("ranking", "demonstration", "rating"):
        succeed("label", "export", tmp_path / f"{kind}.jsonl", "--store", tiny_run, "--kind", kind)
        succeed("label", "import", tmp_path / f"{kind}.jsonl", "--store", tmp_path / "s.db")
        succeed("label", "export", tmp_path / "again.jsonl", "--store", tmp_path / "s.db", "--kind", kind)
        assert (tmp_path / "again.jsonl").read_bytes() == (tmp_path / f"{kind}.jsonl").read_bytes()
    again = succeed("label", "import", tmp_path / "ranking.jsonl", "--store", tmp_path / "s.db")
    assert "nothing" in again


def test_snapshot_of_a_pool(tiny_run: Path, tmp_path: Path) -> None:
    shown = succeed("snapshot", tiny_run, tmp_path / "s", "--pool", "reward_model", "--heldout", "validation")
    made = read_snapshot(tmp_path / "s")
    assert made.hash in shown
    assert made.hash == read_snapshot(tiny_run / "round-1" / "rankings" / "snapshot").hash
    assert "holds another snapshot" in refuse("snapshot", tiny_run, tmp_path / "s", "--pool", "sft")
    assert "did you mean reward_model" in refuse("snapshot", tiny_run, tmp_path / "t", "--pool", "reward")


def test_a_backup_restores_and_a_person_is_erased(tiny_run: Path, tmp_path: Path) -> None:
    succeed("store", "backup", tiny_run, tmp_path / "b.gz")
    succeed("store", "restore", tmp_path / "b.gz", tmp_path / "s.db")
    assert "not empty" in refuse("store", "restore", tmp_path / "b.gz", tmp_path / "s.db")
    labeler = read_snapshot(tiny_run / "round-1" / "rankings" / "snapshot").labelers[0].id
    assert "whose data" in refuse("store", "erase", tmp_path / "s.db")
    asked = cli("store", "erase", tmp_path / "s.db", "--labeler", labeler, input="n\n")
    assert asked.exit_code == 1 and "cannot be undone" in asked.output
    shown = succeed("store", "erase", tmp_path / "s.db", "--labeler", labeler, "--yes")
    assert "rankings" in shown and "1 labelers" in shown
    succeed("label", "export", tmp_path / "left.jsonl", "--store", tmp_path / "s.db")
    assert labeler not in {json.loads(line)["labeler"]["id"] for line in (tmp_path / "left.jsonl").open()}


# Models.

LOAD = """if True:
    import json, sys
    from transformers import AutoModelForCausalLM, AutoTokenizer
    model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
    tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
    ids = tokenizer.apply_chat_template(json.loads(sys.argv[2]), return_tensors="pt", return_dict=True)["input_ids"]
    made = model.generate(ids, max_new_tokens=12, do_sample=False)[0]
    assert not any(name.startswith("heedful") for name in sys.modules)
    print(json.dumps([ids[0].tolist(), made[ids.shape[1]:].tolist(), str(model.dtype)]))
"""


def test_an_export_loads_without_heedful_and_answers_alike(tiny_run: Path, tmp_path: Path) -> None:
    folder = tiny_run / "round-1" / "ppo_ptx" / "model"
    succeed("export", folder, tmp_path / "out")
    prompt = next(p for p in read_snapshot(tiny_run / "data" / "evaluation").prompts)
    messages = json.dumps([{"role": "user", "content": prompt.text}])
    result = subprocess.run(
        [sys.executable, "-c", LOAD, str(tmp_path / "out"), messages], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    ids, made, dtype = json.loads(result.stdout)
    policy, tokenizer = load_policy(folder)
    format = build(read_recipe(str(TINY))).format
    assert ids == prompt_tokens(prompt.model_copy(update={"examples": ()}), format, tokenizer)
    ours = Engine(policy.decoder, [2]).generate([Request(ids, 1, 12, temperature=0)])[0][0].tokens
    assert made == ours
    assert dtype == "torch.float32"
    card = (tmp_path / "out" / "README.md").read_text()
    for word in ("recipe: tiny", "round-1/ppo_ptx", "reward_model_folder", "Labelers", "simulated", "| ppo_ptx |"):
        assert word in card, word
    assert read(folder / "heedful.json")["parents"]["policy_folder"] in card


TEXTS = ["Ada's kite", "a 'b' \"c\"", "{{ x }} {% y %}", "back\\slash \\n", "\u2028 说“好” 😀", "<eos>", ""]


@pytest.mark.parametrize(
    "format",
    [
        PromptFormat(),
        PromptFormat(template="{prompt} \n", example="{prompt} \n {response} \n "),
        PromptFormat(template="Q: '{prompt}'\\n\t😀 {{x}} {prompt}\nA:", example="{response} < {prompt}\n"),
    ],
)
@pytest.mark.parametrize("begins", [True, False])
def test_the_chat_template_writes_what_the_format_writes(format: PromptFormat, begins: bool) -> None:
    tokenizer = word_tokenizer(["a"])
    if not begins:
        tokenizer.bos_token = None
    tokenizer.chat_template = chat_template(format, begins)
    for number in range(3):
        for i, text in enumerate(TEXTS[:-1]):
            examples = tuple((TEXTS[(i + n) % 7], TEXTS[(i + n + 1) % 7]) for n in range(number))
            messages = []
            for question, answer in examples:
                messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
            messages.append({"role": "user", "content": text})
            written = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            shots = "".join(format.example.format(prompt=q, response=a) for q, a in examples)
            assert written == ("<bos>" if begins else "") + shots + format.template.format(prompt=text)
    whole = [*messages, {"role": "assistant", "content": "fin"}]
    assert tokenizer.apply_chat_template(whole, tokenize=False) == written + "fin<eos>"
    with pytest.raises(Exception, match="user and assistant messages in turn"):
        tokenizer.apply_chat_template([{"role": "system", "content": "x"}, *messages], tokenize=False)


def test_a_lora_adapter_is_merged(tiny_run: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    base = tiny_run / "pretrain" / "model"
    policy, _ = load_policy(base)
    before = policy.decoder.lm_head.weight.detach().clone()
    torch.manual_seed(0)
    tuned = get_peft_model(
        policy.decoder, LoraConfig(r=2, target_modules=["q_proj", "up_proj"], init_lora_weights=False)
    )
    tuned.peft_config["default"].base_model_name_or_path = str(base)
    tuned.save_pretrained(tmp_path / "adapter")
    tokens = torch.arange(9)[None]
    with torch.no_grad():
        wanted = tuned.eval()(input_ids=tokens).logits
    succeed("export", tmp_path / "adapter", tmp_path / "out", "--dtype", "float32")
    merged, _ = load_policy(tmp_path / "out")
    with torch.no_grad():
        found = merged.decoder(input_ids=tokens).logits
        plain = load_policy(base)[0].decoder(input_ids=tokens).logits
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    assert (found - plain).abs().max() > 1e-3
    assert torch.equal(merged.decoder.lm_head.weight, before)
    assert not (tmp_path / "out" / "adapter_config.json").exists()


def test_an_export_in_bf16(tiny_run: Path, tmp_path: Path) -> None:
    succeed("export", tiny_run / "sft" / "epoch-01", tmp_path / "out", "--dtype", "bfloat16")
    assert read(tmp_path / "out" / "config.json")["dtype"] == "bfloat16"


def talker(folder: Path, **change: Any) -> Talker:
    settings: dict[str, Any] = {"temperature": 0.0, "top_p": 1.0, "max_new_tokens": 11, "seed": 0} | change
    return Talker.load(str(folder), **settings)


@pytest.fixture(scope="module")
def babbler(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model of wide weights: what it says next depends on all that was said."""
    folder = tmp_path_factory.mktemp("babbler") / "model"
    small_model("llama").save_pretrained(folder)
    word_tokenizer([f"w{i}" for i in range(VOCAB - 4)]).save_pretrained(folder)
    return folder


def test_chat_answers_piece_by_piece_what_the_engine_answers_at_once(
    babbler: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    who = talker(babbler, max_new_tokens=19)
    answer = who.answer("w1 w2")
    ids = prompt_tokens(Prompt(id="p", text="w1 w2", user="u"), PromptFormat(), who.tokenizer)
    made = Engine(who.model, [2]).generate([Request(ids, 1, 19, temperature=0)])[0][0].tokens
    assert len(set(made)) > 4
    assert answer == who.tokenizer.decode(made, skip_special_tokens=True)
    assert capsys.readouterr().out == answer + "\n"
    assert len(list(who.pieces(ids))) == -(-len(made) // 4)


def test_every_piece_of_every_answer_draws_numbers_of_its_own(babbler: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = []
    generate = Engine.generate

    def noted(self: Engine, requests: list[Request]) -> Any:
        seeds.extend(request.seed for request in requests)
        return generate(self, requests)

    monkeypatch.setattr(Engine, "generate", noted)
    for seed in (0, 1):
        who = talker(babbler, temperature=1.0, seed=seed)
        for _ in range(2):
            who.answer("w3")
    assert len(seeds) == len(set(seeds)) > 8


def test_chat_remembers_and_forgets_aloud(tiny_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    who = talker(tiny_run / "pretrain" / "model", max_new_tokens=100)
    who.answer("who has a kite ?")
    twice = who.fit("and the boat ?")
    who.said.clear()
    assert len(twice) > len(who.fit("and the boat ?"))
    for _ in range(3):
        who.answer("the boat " * 20)
    assert "the oldest" in capsys.readouterr().err


def test_an_answer_without_a_limit_ends_where_the_context_does(babbler: Path, tiny_run: Path) -> None:
    who = talker(babbler, max_new_tokens=None)
    context = context_length(who.model)
    engine = Engine(who.model, [2])
    for left in (1, 6, context - 2):
        ids = [4 + i % 7 for i in range(context - left)]
        made = engine.generate([Request(ids, 1, left, temperature=0)])[0][0].tokens
        assert "".join(who.pieces(ids)) == who.tokenizer.decode(made, skip_special_tokens=True)
    asked = ("chat", tiny_run / "round-1" / "ppo" / "model", "--prompt", "who ?")
    assert succeed(*asked).startswith(succeed(*asked, "--max-new-tokens", 200).strip())


def test_a_conversation_without_a_limit_keeps_half_the_context_for_the_answer(babbler: Path) -> None:
    who = talker(babbler, max_new_tokens=None)
    context = context_length(who.model)
    assert len(who.fit("w1 " * (context - 9))) > context / 2  # nothing to forget: what is left is used
    who.said = [("w1 w2 w3", "w4 w5 w6")] * 9
    assert len(who.fit("w1")) <= context / 2
    assert 0 < len(who.said) < 9


def test_chat_by_the_command_line(tiny_run: Path) -> None:
    folder = tiny_run / "round-1" / "ppo" / "model"
    one = succeed("chat", folder, "--prompt", "who ?", "--seed", 1, "--max-new-tokens", 9)
    assert one == succeed("chat", folder, "--prompt", "who ?", "--seed", 1, "--max-new-tokens", 9)
    assert one != succeed("chat", folder, "--prompt", "who ?", "--seed", 2, "--max-new-tokens", 9)
    talk = succeed("chat", folder, "--max-new-tokens", 9, input="who ?\n/new\n\nwho ?\n/quit\nnever\n")
    assert talk.count("> ") == 5
