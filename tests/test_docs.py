"""The documents say what the code does: commands, links, names, settings, metrics, numbers and the results tables."""

import doctest
import importlib
import inspect
import json
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import pytest
import typer.main
from typer.core import TyperGroup

from heedful.config import RECIPES, Config, InputError, read_recipe
from heedful.run import read_jsonl

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
SOURCE = ROOT / "src" / "heedful"
READMES = [ROOT / "README.md", ROOT / "README.zh-CN.md"]
PAGES = [*READMES, ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
WRONG_USAGE = typer.BadParameter.__base__
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def script(name: str) -> ModuleType:
    """One of the scripts in docs/, imported."""
    sys.path.insert(0, str(DOCS))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(DOCS))


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def prose(page: Path) -> str:
    """The page without its code blocks."""
    return BLOCK.sub("", read(page))


def page_id(page: Path) -> str:
    return page.name


# Commands.


def command_lines(page: Path) -> Iterator[str]:
    """Every line of a code block that calls heedful or make, without its comment."""
    for _, block in BLOCK.findall(read(page)):
        for line in block.splitlines():
            if re.match(r"(HF_HUB_OFFLINE=1 )?(\.venv/bin/)?(heedful|make) ", line):
                yield line


def resolve(words: list[str]) -> tuple[Any, list[str]]:
    """The command that the words after `heedful` name, and its arguments."""
    from heedful.cli import app

    command: Any = typer.main.get_command(app)
    while isinstance(command, TyperGroup) and words:
        found = command.commands.get(words[0])
        assert found is not None, f"no command {words[0]!r} in {sorted(command.commands)}"
        command, words = found, words[1:]
    return command, words


def check_command(line: str) -> None:
    """The command exists and takes these arguments; settings of a shipped recipe fit it."""
    words = shlex.split(line, comments=True)
    words = words[next(i for i, word in enumerate(words) if word.endswith(("heedful", "make"))) :]
    if words[0] == "make":
        targets = re.findall(r"^([\w-]+):", read(ROOT / "Makefile"), re.MULTILINE)
        assert set(words[1:]) <= set(targets), f"{line}: make knows {targets}"
        return
    command, arguments = resolve(words[1:])
    with command.make_context(words[1], arguments) as context:  # parses, and calls nothing
        recipe = context.params.get("recipe")
        if recipe in {path.stem for path in RECIPES.glob("*.yaml")}:
            from heedful.pipeline.recipe import build
            from heedful.pipeline.sweep import read_sweep

            raw = read_recipe(recipe, context.params.get("overrides") or [])
            read_sweep(raw) if "matrix" in raw else build(raw)


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_commands_exist(page: Path) -> None:
    for line in command_lines(page):
        if not {"RECIPE", "…"} & set(line.split()):
            check_command(line)


@pytest.mark.parametrize("page", READMES, ids=page_id)
def test_readmes_show_the_main_commands(page: Path) -> None:
    lines = list(command_lines(page))
    assert any(line.startswith("make quickstart") for line in lines)
    assert any("stories_sentiment" in line for line in lines)


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_commands_in_prose_exist(page: Path) -> None:
    for found in re.findall(r"`heedful ([a-z][^`]*)`", prose(page)):
        if "·" in found:
            continue
        words = [word.strip("[]") for word in found.split()]
        command, rest = resolve(words)
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in rest if word.startswith("--")} <= known, found


@pytest.mark.parametrize(
    "line",
    [
        "heedful quickstrat",
        "heedful run quickstart --no-such-option",
        "heedful run quickstart --set ppo.no_such_key=1",
        "heedful prompts import file.txt",  # lacks --store
        "make coffee",
    ],
)
def test_wrong_commands_are_noticed(line: str) -> None:
    with pytest.raises((AssertionError, InputError, WRONG_USAGE)):
        check_command(line)


# Links.


def anchors(page: Path) -> set[str]:
    """The headings as GitHub links to them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_resolve(page: Path) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", prose(page)) + re.findall(r'(?:src|href)="([^"]+)"', prose(page))
    for target in targets:
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors(found), f"{page.name} links to {target}; there are {anchors(found)}"


def test_every_page_is_reached() -> None:
    linked = {
        (page.parent / target.split("#")[0]).resolve()
        for page in PAGES
        for target in re.findall(r"\]\(([^)\s]+)\)", read(page))
    }
    assert set(PAGES) <= linked


# Names.


def named(page: Path) -> Iterator[tuple[str, str]]:
    """Dotted names in backticks, such as `losses.ppo.gae(reward, value)`, with what stands in their parentheses."""
    packages = "|".join(sorted(path.stem for path in SOURCE.iterdir() if path.suffix == ".py" or path.is_dir()))
    for name, arguments in re.findall(rf"`((?:{packages})\.[\w.]+)(?:\(([\w, ]*)\))?`", prose(page)):
        if not name.endswith((".py", ".json", ".jsonl", ".yaml", ".md", ".db")):
            yield name, arguments


def look_up(name: str) -> Any:
    """The object of a dotted name below heedful."""
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(["heedful", *parts[:cut]]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            fields = getattr(found, "model_fields", {}) | getattr(found, "__annotations__", {})
            found = fields[part] if part in fields and not hasattr(found, part) else getattr(found, part)
        return found
    raise AttributeError(name)


def check_name(name: str, arguments: str) -> None:
    found = look_up(name)
    wanted = {argument.strip() for argument in arguments.split(",") if argument.strip()}
    if wanted:
        assert wanted <= set(inspect.signature(found).parameters), f"{name}({arguments})"


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_names_exist(page: Path) -> None:
    blocks = recipe_blocks()
    for name, arguments in named(page):
        block, _, key = name.partition(".")
        if block not in blocks or key not in blocks[block].model_fields:  # world.document_tokens is a setting
            check_name(name, arguments)


def test_the_walk_names_enough() -> None:
    assert len(set(named(DOCS / "data_flow.md"))) > 40


@pytest.mark.parametrize("call", [("losses.ppo.gea", ""), ("losses.ppo.gae", "reward, no_such"), ("stages.dqn", "")])
def test_wrong_names_are_noticed(call: tuple[str, str]) -> None:
    with pytest.raises((AttributeError, AssertionError)):
        check_name(*call)


def recipe_blocks() -> dict[str, type[Config]]:
    """The blocks of a recipe that have settings of their own, by name."""
    from heedful.pipeline.recipe import Recipe

    found = {name: config_of(info.annotation) for name, info in Recipe.model_fields.items()}
    return {name: model for name, model in found.items() if model is not None}


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_settings_in_prose_exist(page: Path) -> None:
    blocks = recipe_blocks()
    results = {"accuracy", "num_comparisons", "calibration", "demonstration_score_mean", "cross_validation"}
    results |= {"valid_loss"}  # of a step, which bears its block's name
    for block, key in re.findall(r"`(\w+)\.(\w+)(?:=[^`]*)?`", prose(page)):
        if block in blocks and key not in {"py", "md", *results}:
            assert key in {*blocks[block].model_fields, "variants"}, f"{page.name}: {block}.{key}"


def test_worked_numbers() -> None:
    """The examples run; each block goes on where the last one ended."""
    text = "\n".join(block for language, block in BLOCK.findall(read(DOCS / "data_flow.md")) if language == "python")
    examples = doctest.DocTestParser().get_doctest(text, {}, "data_flow.md", None, 0)
    outcome = doctest.DocTestRunner().run(examples)
    assert outcome.attempted > 8 and not outcome.failed


# Settings.


def config_of(annotation: Any) -> type[Config] | None:
    """The configuration class within an annotation, if there is one."""
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, Config):
            return kind
    return None


def blocks_of(model: type[Config]) -> set[type[Config]]:
    """The class and every one its fields hold."""
    found = {model}
    for info in model.model_fields.values():
        inner = config_of(info.annotation)
        if inner is not None:
            found |= blocks_of(inner)
    return found


def test_settings_tables_are_current() -> None:
    assert not script("generate").stale(), "run: python docs/generate.py"


def test_every_setting_has_a_table() -> None:
    from heedful.pipeline.recipe import Recipe

    shown = {name for page in DOCS.glob("*.md") for name in re.findall(r"<!-- settings:([\w.]+) -->", read(page))}
    assert {f"{model.__module__}.{model.__qualname__}" for model in blocks_of(Recipe)} <= shown


# Metrics.


def keys_of(value: Any) -> set[str]:
    """Every key of nested JSON, but for names of things: policies, labeler flags, folders."""
    if isinstance(value, list):
        return {key for item in value for key in keys_of(item)}
    if not isinstance(value, dict):
        return set()
    found = set(value)
    for key, inner in value.items():
        if key in ("policies", "seconds", "metadata", "metadata_interval"):
            inner = list(inner.values()) if isinstance(inner, dict) else inner
        found |= keys_of(inner)
    return found


def explained() -> set[str]:
    """Words in backticks in docs/metrics.md; `reward_model.accuracy` explains both."""
    return {part for found in re.findall(r"`([\w.]+)`", read(DOCS / "metrics.md")) for part in found.split(".")}


def test_every_logged_metric_is_explained(tiny_run: Path) -> None:
    logs = [path for name in ("metrics.jsonl", "samples.jsonl") for path in tiny_run.rglob(name)]
    logged = {key for path in logs for row in read_jsonl(path) for key in row}
    assert {"kl_k1", "valid_accuracy", "ptx_loss"} <= logged  # the run has logged what it should
    assert logged - explained() <= {"policy", "response_id", "utility"}  # which response was whose, and its gold


def test_every_result_is_explained(tiny_run: Path) -> None:
    results = json.loads(read(tiny_run / "results.json"))
    pools = {"sft", "reward_model", "ppo", "evaluation"}
    groups = {"train", "heldout", "mean", "low", "high", "total", "policies"}
    assert keys_of(results) - set(results["policies"]) - groups <= explained()
    for path in tiny_run.rglob("done.json"):
        assert keys_of(json.loads(read(path))["results"]) - pools <= explained(), path


def test_every_reason_to_drop_is_explained() -> None:
    reasons: set[str] = set()
    for path in SOURCE.rglob("*.py"):
        if path.parts[-2] in ("stages", "pipeline", "text"):
            text = read(path)
            reasons |= set(re.findall(r'run\.count\("(\w+)"', text)) | set(re.findall(r'dropped\["(\w+)"\]', text))
    assert len(reasons) > 5
    assert reasons <= explained()


# The README files.


def tree(page: Path) -> list[str]:
    """Paths of the file tree, each line's first word, below the folder that heads the tree."""
    block = next(block for _, block in BLOCK.findall(read(page)) if block.startswith("src/heedful/"))
    return [line.split()[0] for line in block.splitlines()]


@pytest.mark.parametrize("page", READMES, ids=page_id)
def test_the_file_tree_is_the_one_there_is(page: Path) -> None:
    shown = {name for line in tree(page) for name in re.split(r"[,]", line) if name}
    inside = {name.rstrip("/") for name in shown if (SOURCE / name).exists()}
    assert {name for name in shown if not (SOURCE / name).exists() and not (ROOT / name).exists()} == set()
    packages = {path.parent.name for path in SOURCE.glob("*/*.py") if path.name != "__init__.py"}
    modules = {path.name for path in SOURCE.glob("*.py") if path.name != "__init__.py"}
    assert packages | modules <= inside


@pytest.mark.parametrize("page", READMES, ids=page_id)
def test_the_core_stays_an_afternoon(page: Path) -> None:
    section = read(page).split("<!-- reading -->")[1].split("<!-- /reading -->")[0]
    files = {SOURCE / name for name in re.findall(r"\]\(src/heedful/([\w/]+\.py)\)", section)}
    assert len(files) >= 10 and all(path.is_file() for path in files)
    assert sum(read(path).count("\n") for path in files) <= 2300


def test_readmes_say_the_same() -> None:
    english, chinese = (read(page) for page in READMES)
    assert re.findall(r"^<!-- .*? -->", english, re.MULTILINE) == re.findall(r"^<!-- .*? -->", chinese, re.MULTILINE)
    assert [*command_lines(READMES[0])] == [*command_lines(READMES[1])]
    assert tree(READMES[0]) == tree(READMES[1])


@pytest.mark.parametrize("page", READMES, ids=page_id)
def test_the_python_example_trains(page: Path, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [example] = [block for language, block in BLOCK.findall(read(page)) if language == "python"]
    monkeypatch.chdir(tmp_path)
    Path("snapshots").mkdir()
    Path("snapshots/rankings").symlink_to(tiny_run / "round-1" / "rankings" / "snapshot")
    Path("my-model").symlink_to(tiny_run / "sft" / "epoch-01")
    exec(example, {})
    assert (tmp_path / "runs" / "people" / "model").is_dir()


@pytest.mark.parametrize("name", ["quickstart", "stories"])
def test_results_are_filled_in(name: str, tiny_run: Path, tmp_path: Path) -> None:
    fill_results = script("fill_results")
    recipe = {marker: recipe for recipe, marker in fill_results.NAMES.items()}[name]
    paths, pages = [], {}
    for seed in (1, 0):
        folder = tmp_path / str(seed)
        shutil.copytree(tiny_run / "evaluation" / "judgements", folder / "evaluation" / "judgements")
        results = json.loads(read(tiny_run / "results.json")) | {"seed": seed, "recipe": recipe}
        results["policies"]["ppo"]["win_rate"] |= {"mean": 0.6 + 0.1 * seed, "low": 0.5, "high": 0.8}
        (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")
        paths.append(folder / "results.json")
    for page in READMES:
        shutil.copy(page, tmp_path / page.name)
        pages[tmp_path / page.name] = fill_results.PAGES[page]
    fill_results.fill(paths, pages)
    once = [read(page) for page in pages]
    for text in once:
        table = text.split(f"<!-- results:{name} -->")[1]
        row = next(line for line in table.splitlines() if line.startswith("| ppo |"))
        assert row.startswith("| ppo | 0.650 | 0.600 (0.500…0.800) | 0.700 (0.500…0.800) |")
        note = next(line for line in table.splitlines() if "ppo_ptx" in line and "ppo_init" in line)
        wins = [float(value) for value in re.findall(r"(0\.\d{3}) \(", note)]
        assert len(wins) == 2 and wins[0] == wins[1]  # both seeds are copies of one run
        assert table.splitlines()[1].count("ppo_init") == 1  # the column of KL says from what
    fill_results.fill(paths, pages)
    assert [read(page) for page in pages] == once


def test_the_speed_of_the_quickstart_is_filled_in(tmp_path: Path) -> None:
    fill_results = script("fill_results")
    pages = {tmp_path / page.name: fill_results.PAGES[page] for page in READMES}
    for page in READMES:
        shutil.copy(page, tmp_path / page.name)
    fill_results.fill_speed({"ours": 250.0, "peer": 800.0}, pages)
    for page, found in zip(READMES, pages, strict=True):
        speed = re.search("<!-- speed -->(.*?)<!-- /speed -->", read(found))
        assert speed and "3.2" in speed[1]
        assert re.search("<!-- speed -->(.*?)<!-- /speed -->", read(page)), "the page itself says nothing of speed"
    fill_results.fill_speed({"ours": 60.0, "peer": 60.0}, pages)
    assert all("1.0" in read(page) and "3.2 times" not in read(page) for page in pages)


def test_salmon_70b_holds_the_papers_numbers() -> None:
    """SALMON (arXiv 2310.05910) and its released script; its rewards are all times ten."""
    from heedful.pipeline.recipe import build

    recipe = build(read_recipe("salmon_70b"))
    ppo, before = recipe.ppo["mended"], recipe.principles and recipe.principles.preference
    assert (ppo.lr, ppo.kl_coef, ppo.clamp_kl, ppo.batch_size, ppo.minibatch_size) == (2e-5, 0.1, True, 576, 288)
    assert (ppo.inner_epochs, ppo.temperature, ppo.gae_lambda, ppo.max_new_tokens) == (2, 0.7, 1, 1024)
    assert (ppo.warmup_iterations, ppo.no_eos_penalty, ppo.lora_rank) == (5, 60, 64)
    assert before and (before.lr, before.batch_size, before.epochs, before.lora_rank) == (5e-5, 64, 1, 64)
    salmon, reward = recipe.further_reward_models["salmon"], recipe.principle_rewards["mended"]
    assert (salmon.lr, salmon.batch_size, salmon.epochs, salmon.lora_rank) == (3e-5, 64, 1, 64)
    assert {ppo.base_precision, before.base_precision, salmon.base_precision} == {"nf4"}
    assert (reward.number, reward.length_bonus, reward.length_tokens, reward.length_cap) == (3, 5, 1024, 0.8)
    assert reward.length_multiplier == {"reasoning": -0.4} and reward.scale == 10
    assert reward.always == "interventions" and set(reward.more_weight) == {"reasoning", "red_team"}
    assert recipe.principle_rewards["plain"].always is None


def test_instructgpt_holds_the_papers_numbers() -> None:
    """InstructGPT (arXiv 2203.02155), section 3.5 and appendix C."""
    from heedful.pipeline.recipe import build

    recipe = build(read_recipe("instructgpt"))
    ppo, plain = recipe.ppo["ppo_ptx"], recipe.ppo["ppo"]
    assert ppo.iterations * ppo.batch_size == 256_000
    assert (ppo.batch_size, ppo.minibatch_size, ppo.inner_epochs) == (512, 64, 1)
    assert (ppo.kl_coef, ppo.ptx_coef, ppo.ptx_examples, ppo.ema_decay, ppo.clip_range) == (0.02, 27.8, 8, 0.992, 0.2)
    assert (plain.ptx_coef, ppo.discount, ppo.temperature, ppo.warmup_iterations, ppo.value_lr) == (0, 1, 1, 10, 9e-6)
    assert 2.55e-6 <= ppo.lr <= 8.05e-6
    sft, start = recipe.sft["sft"], recipe.sft["ppo_init"]
    assert (sft.epochs, sft.lr, sft.batch_size, sft.residual_dropout, sft.final_lr) == (16, 9.65e-6, 32, 0.2, 0.1)
    assert (start.epochs, start.pretraining_mix, start.lr) == (2, 0.1, 5e-6)
    reward = recipe.reward_model
    assert reward is not None and (reward.epochs, reward.batch_size, reward.lr, reward.init) == (1, 64, 9e-6, "sft")
    assert (recipe.rankings.min_k, recipe.rankings.max_k, recipe.labelers.judge) == (4, 9, "people")
