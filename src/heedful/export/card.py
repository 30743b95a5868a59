"""The card of an exported model: what it was made from, by whom it was judged, and what it reached."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from heedful.snapshot import read_snapshot

HEAD = """---
library_name: transformers
pipeline_tag: text-generation
tags:
- heedful
- rlhf
---
"""

USE = """## Use

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("{name}")
tokenizer = AutoTokenizer.from_pretrained("{name}")
"""

CHAT_USE = """messages = [{"role": "user", "content": "…"}]
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=64)[0]))
```
"""

PLAIN_USE = """inputs = tokenizer("…", return_tensors="pt")
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=64)[0]))
```
"""


def model_card(folder: Path, run: Path | None, name: str) -> str:
    """Markdown for the model in `folder`, to be called `name`; `run` is the run it lies in, if any."""
    parts = [
        HEAD,
        f"# {name}\n",
        "Written by heedful, which turns people's judgements of a model's answers into a better model.\n",
    ]
    parts.append(USE.format(name=name) + (PLAIN_USE if run is None else CHAT_USE))
    if run is None:
        parts.append("The model lies in no run of heedful: what it was trained on is not known here.\n")
    else:
        recipe, own = read_json(run / "recipe.json"), step_of(folder, run)
        for title, lines in (
            ("Origin", origin(run, own, recipe)),
            ("Data", data(run)),
            ("Labelers", labelers(run, recipe)),
            ("Figures", figures(run, own)),
            ("Dropped, cut or skipped on the way", dropped(run)),
            ("Settings of its last training step", settings(own)),
        ):
            parts.append(f"## {title}\n\n" + "\n".join(lines) + "\n")
    return "\n".join(parts)


def step_of(folder: Path, run: Path) -> Path:
    """The step of the run that made the model."""
    places = [folder.resolve(), *folder.resolve().parents]
    return next((place for place in places if (place / "manifest.json").is_file()), run)


def origin(run: Path, own: Path, recipe: Mapping[str, Any]) -> Iterator[str]:
    """Recipe, seed, versions, and the hashes of everything the step read."""
    manifest = read_json(own / "manifest.json") if own != run else {}
    environment = manifest.get("environment", {})
    yield f"- recipe: {recipe.get('name') or 'unnamed'}, seed {recipe['seed']}, {recipe['rounds']} round(s)"
    yield f"- step: {own.relative_to(run) if own != run else 'not known'} ({manifest.get('stage', 'not known')})"
    yield f"- starting model: {recipe['model'] or 'pretrained by the same run'}"
    versions = ", ".join(f"{package} {version}" for package, version in environment.get("versions", {}).items())
    yield f"- made with {versions or 'versions not known'}; commit {environment.get('commit') or 'not known'}"
    for parent, value in manifest.get("parents", {}).items():
        if not value.startswith("{"):  # settings by value stand below
            yield f"- read {parent}: {value}"


def data(run: Path) -> Iterator[str]:
    """The prompts of each pool by split and by source, and the pools of later rounds with what came in since."""
    found = False
    known: dict[str, set[str]] = {}
    for place in [*sorted((run / "data").glob("*/snapshot.json")), *later_prompts(run)]:
        snapshot, pool = read_snapshot(place.parent), place.parent.name
        if snapshot.prompts:
            found = True
            ids = {prompt.id for prompt in snapshot.prompts}
            since = f", in {place.parent.parent.parent.name}" if pool in known else ""
            new = f", {len(ids - known[pool]):,} of them new" if pool in known else ""
            known[pool] = ids | known.get(pool, set())
            splits = joined(Counter(prompt.split for prompt in snapshot.prompts))
            sources = joined(Counter(prompt.source for prompt in snapshot.prompts))
            uses = joined(dict(Counter(prompt.use_case for prompt in snapshot.prompts).most_common()))
            yield f"- {pool}{since}: {len(ids):,} prompts{new} ({splits}; written by: {sources}). {uses}"
        if snapshot.documents:
            found = True
            yield f"- {pool}: {len(snapshot.documents):,} pretraining texts"
    if not found:
        yield "Not recorded in this run."


def later_prompts(run: Path) -> list[Path]:
    """The snapshots of the pools in rounds after the first, in order."""
    return sorted(run.glob("round-*/prompts/*/snapshot.json"), key=lambda place: (round_of(place, run), place))


def round_of(place: Path, run: Path) -> int:
    return int(place.relative_to(run).parts[0].removeprefix("round-"))


def labelers(run: Path, recipe: Mapping[str, Any]) -> Iterator[str]:
    """Who judged, how much, and how far they agree."""
    rankings = sorted(run.glob("round-*/rankings/snapshot"), key=lambda place: round_of(place, run))
    yield f"- judged by: {recipe['labelers']['judge']}"
    if rankings:
        snapshot = read_snapshot(rankings[-1])
        group = snapshot.labeler_by_id()
        people = Counter(f"{labeler.kind}, {labeler.group} group" for labeler in snapshot.labelers)
        judged = Counter(str(group[ranking.labeler].group) for ranking in snapshot.rankings)
        yield f"- {joined(people)}"
        yield f"- rankings by group: {joined(judged)}"
    results = read_json(run / "results.json") if (run / "results.json").is_file() else None
    for name, found in (results or {}).get("agreement", {}).items():
        if found["mean"] is not None:
            yield f"- agreement within the {name} group: {found['mean']:.3f} ± {found['stderr']:.3f} (standard error)"


def figures(run: Path, own: Path) -> Iterator[str]:
    """The run's results table."""
    if not (run / "results.json").is_file():
        yield "The run had no results when the model was exported."
        return
    results = read_json(run / "results.json")
    yield f"Win rate against {results['baseline']} with 95 % intervals clustered by prompt; this model is {own.name}.\n"
    columns = {"likert": "likert", "score": "score", "gold": "gold", "kl": "KL", "distinct_2": "distinct-2"}
    columns["lm_loss"] = "LM loss"
    yield f"| policy | win rate | {' | '.join(columns.values())} |"
    yield "|" + "---|" * (len(columns) + 2)
    for name, policy in results["policies"].items():
        wins = policy["win_rate"]
        rate = "–" if wins["mean"] is None else f"{wins['mean']:.3f}"
        if wins["low"] is not None and name != results["baseline"]:
            rate += f" ({wins['low']:.3f}…{wins['high']:.3f})"
        cells = ["–" if policy[key] is None else f"{policy[key]:.3f}" for key in columns]
        yield f"| {name} | {rate} | {' | '.join(cells)} |"


def dropped(run: Path) -> Iterator[str]:
    """What each step left out, by reason."""
    found = False
    for path in sorted(run.rglob("done.json")):
        if counts := read_json(path)["counts"]:
            found = True
            yield f"- {path.parent.relative_to(run)}: {joined(counts)}"
    if not found:
        yield "Nothing."


def settings(own: Path) -> Iterator[str]:
    """The configuration of the step that made the model."""
    if not (own / "manifest.json").is_file():
        yield "Not known."
        return
    yield "```json"
    yield json.dumps(read_json(own / "manifest.json")["config"], indent=2)
    yield "```"


def joined(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
