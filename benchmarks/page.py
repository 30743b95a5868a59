"""docs/benchmarks.md, written from results.json and session.json."""

import json
from pathlib import Path
from typing import Any

from rows import FLAT, MEMORY, TIMED, WHOLE, Row, met, target_text
from timing import quartiles

RULES = """
What a figure on this page has to meet:

1. Both sides run on the same machine, model, weights and data, and take turns: A B A B …, five repeats or more after a
   warm-up, each on data of its own seed. The ratio is the median of the pairs' ratios; beside it stand the quartiles.
   Each row names the place, the versions and the commit it was measured with: rows may be of different days.
2. It counts tokens processed as well as seconds (positions that went through a model's trunk, padding included), and
   says what the machine could do at most: the fastest product of two square matrices, measured in the same session.
3. Both sides compute the same, and that is checked: losses, log-probabilities or tokens from the same data before the
   row is timed, and the mean length of what is sampled. A row whose sides disagree counts as not met.
4. Each side runs as well as it can: it takes the fastest of its layouts, each tried twice in turns (but not again where
   the first trial came to less than two thirds of the fastest) and the two best once more. The peer is tried on all
   threads and on one. It logs, saves and evaluates nothing, and keeps all activations. A layout is a batch size: a
   peer's code is its library's own, and no prefix is kept in it that the library's call does not keep.
5. No side is told anything of threads from outside. heedful tells its own process that threads sleep while they wait;
   the peer's wait as they do in any process of its library.
6. Reward models are compared at an equal number of prompts per update, with validation loss and accuracy beside the
   time. Whoever trains on pairs gets the same comparisons written out as pairs.
7. Memory is the peak of a process that does nothing else, imports included, each side in the smallest layout that is at
   most a tenth slower than its fastest; the median of three processes, whose peaks hardly differ. The ratio of what
   each side needs above its imports stands beside it.
"""
MISSING = """
No GPU was at hand. Not measured, therefore: CUDA graphs for decoding (there are none yet), the share of a GPU's
floating-point operations in training, the share of its memory bandwidth in decoding, and PPO against TRL on a GPU.
Throughput on clusters is not compared: heedful does not run on one yet.
"""
VOID = """
Rows marked void were measured before rule 5 held: the peer's process had been told, as heedful's is, that threads sleep
while they wait, which costs it speed that it has elsewhere; and TRL's PPO made an optimiser step at every micro-batch
instead of one an epoch. They say nothing until they are measured again. Memory and the rows without a peer stand.
"""
METHOD = """
The model: Llama's shape, 256 wide, 6 layers, 4 heads, vocabulary 4,096, 5.8 million random parameters, fp32. For PPO
and sampling the head has a bias under which responses end by themselves, 24 tokens long on average when 48 are the
most. heedful's side is the code of the stages (`stages.reward_model.train`, `stages.ppo.train`, `stages.sft.train`,
`engine.sample.Sampler`, `engine.score.score_continuations`), called as a recipe does.

```
make bench
```

measures everything again and writes this page; the figures are also in
[benchmarks/results.json](../benchmarks/results.json).
"""

WHOLE_SAID = """
One run of `make quickstart`, and one, before or after it, of the same written plainly (benchmarks/plain): batches
padded to their longest row, a forward pass for every response whatever prompts they share, one batch after the other;
"""
TRIED = {
    "ppo_1_epoch": """
Both sides make the same passes over the episodes: sampling, reference, values, scores, and the update of two models;
heedful clips the norm of gradients besides, which the peer does not. The table says how much of an iteration is
sampling. Beside the products of matrices, which the profile below counts, the time goes to what a layer does between
them (norms, rotary positions, residual sums), one small operation after the other. The last layer is computed where
responses are predicted, which makes an iteration 1.06 times as fast in one thread's processor time. heedful samples all
responses before it scores the first; scoring some while others are sampled was not tried. Nor was keeping the
activations of the pass that takes values for the first update, which would leave out one pass in eleven (an update
counts three for each model), nor compiling the layers, which takes longer than many a run of this size.""",
    "ppo_4_epochs": "As ppo_1_epoch, with more of the time in updates; nothing else was tried for it alone.",
    "rollout": """
Each of two threads samples half of the prompts. One such half alone, on one thread, takes 1.7 to 1.9 s; both at once
take 2.1 to 2.6 s, 74 to 83% of twice the speed. Of the half's time 47% are products with weights, which run at the
speed of large ones (140 GFLOP/s a thread at 128 rows, 105 at 32), and 18% read the keys and values of 128 rows, 125 MB:
more than the caches hold, so that the two threads wait for one memory. Tried without gain: memory that the allocator
keeps between calls; bf16, which this processor only emulates (2.5 times as long).""",
    "sft": """
Both sides leave padding out or nearly so: the peer groups rows by length, heedful lays them end to end. What is left to
gain is in the layers themselves, which run alike on both sides but for the last: heedful computes it where responses
are predicted, which makes an update 1.06 times as fast in one thread's processor time. Nothing else was tried.""",
    "judge": """
In passes of 512 to 1,536 tokens heedful answers 95 to 100 prompts a second, in longer ones 86, measured in turns; so a
pass has 1,024 now. The row stood at 3.3 and 3.9 times, on another machine, before two changes: in processor time of one
thread, side by side over 20 to 40 prompts on two machines, computing the last layer where it is read alone makes it
1.08 to 1.09 times as fast, attending to the shared prefix apart, whose keys and values were copied before every row's,
1.07 to 1.14 times. On GPUs, under autocast to bf16, with soft caps or sinks, and where a window cuts the prefix, keys
are copied as before. Most of the ratio is the prefix, which the peer computes anew with every prompt.""",
    "memory_rollout": """
heedful's two engines, one on each thread, keep all 256 rows side by side, each with its keys and values; the peer's
smallest layout that is at most a tenth slower than its fastest holds 128.""",
    "memory_rollout_k9": """
heedful keeps as many rows side by side as their storage allows (`engine.sample.rows_that_fit`), each with the keys and
values of its prompt.""",
    "memory_sft_packed": """
heedful runs parts of an update side by side, one on each thread, so two parts' activations are held at a time.""",
}


def write_page(results: Path, session: Path, page: Path) -> None:
    entries = json.loads(results.read_text(encoding="utf-8"))
    details = json.loads(session.read_text(encoding="utf-8"))
    page.write_text(text(entries, details), encoding="utf-8")


def text(entries: dict[str, Any], details: dict[str, Any]) -> str:
    """The page; rows not measured yet say so."""
    parts = ["# Benchmarks", METHOD.strip(), RULES.strip(), "## Results", *tables(entries, details)]
    if any(any(detail.get("waiting", [])[1:]) for detail in details.values()):
        parts.append(VOID.strip())
    parts += ["## Not measured", MISSING.strip(), *machine(details)]
    for row in TIMED:
        if row.name in entries:
            parts += section(row, entries[row.name], details.get(row.name, {}))
    parts += [*long_run(details), *whole(details)]
    return "\n\n".join(parts) + "\n"


def tables(entries: dict[str, Any], details: dict[str, Any]) -> list[str]:
    head = ["| name | ours | peer | unit | ratio | target | | tokens ours | tokens peer |", "|---" * 9 + "|"]
    groups = TIMED, (*MEMORY, *FLAT, WHOLE)
    return [
        "\n".join([*head, *(line(row, entries.get(row.name), details.get(row.name, {})) for row in rows)])
        for rows in groups
    ]


def line(row: Row, entry: dict[str, Any] | None, detail: dict[str, Any]) -> str:
    """One row of a table."""
    if entry is None:
        return f"| {row.name} | not measured | | {row.unit} | | {target_text(row)} | | | |"
    if entry["ratio"] is None:
        return (
            f"| {row.name} | {number(entry['ours'])} | not measured | {row.unit} | | {target_text(row)} | | "
            f"{counted(entry['tokens_ours'])} | |"
        )
    cells = [
        row.name,
        number(entry["ours"]),
        number(entry["peer"]),
        row.unit,
        f"{entry['ratio']:.2f}×{beside(detail)}",
        target_text(row),
        verdict(row, entry, detail),
        counted(entry["tokens_ours"]),
        counted(entry["tokens_peer"]),
    ]
    return f"| {' | '.join(cells)} |"


def beside(detail: dict[str, Any]) -> str:
    """What stands beside a ratio: the quartiles of the pairs, or for memory the ratio above the imports."""
    if detail.get("pairs"):
        lower, upper = quartiles(detail["pairs"])
        return f" ({lower:.2f}…{upper:.2f})"
    if len(detail.get("grown", ())) == 2:
        ours, peer = detail["grown"]
        return f" ({ours / peer:.2f}× above imports)"
    return ""


def verdict(row: Row, entry: dict[str, Any], detail: dict[str, Any]) -> str:
    if any(detail.get("waiting", [])[1:]):
        return "**void**"  # rule 5 did not hold yet
    if detail.get("agree") is False:
        return "**not met: the sides disagree**"
    return "met" if met(row, entry["ratio"]) else "**not met**"


def counted(tokens: int | None) -> str:
    return "" if tokens is None else f"{tokens:,}"


def number(x: float) -> str:
    return f"{x:,.0f}" if x >= 100 else f"{x:.3g}"


def machine(details: dict[str, Any]) -> list[str]:
    """What was measured where; one line for each set of rows that were measured in one place."""
    together: dict[str, list[str]] = {}
    for name, detail in details.items():
        versions = ", ".join(f"{package} {version}" for package, version in detail.get("versions", {}).items())
        said = (
            f"{detail['cpu']}, {detail['threads']} threads; {detail['date']}, commit {detail['commit']}; "
            f"{versions or 'versions not recorded'}; peak of fp32 products {detail['peak_flops'] / 1e9:.0f} GFLOP/s"
        )
        together.setdefault(said, []).append(name)
    return ["## Where", "\n".join(f"- {', '.join(names)}: {said}." for said, names in together.items())]


def section(row: Row, entry: dict[str, Any], detail: dict[str, Any]) -> list[str]:
    """What was compared, whether it is the same thing, and where heedful's time goes."""
    said = f"{row.work[0].upper()}{row.work[1:]}. Peer: {row.peer}."
    if detail.get("pairs"):
        said += f" Ratios of the pairs: {', '.join(f'{x:.2f}' for x in sorted(detail['pairs']))}."
    parts = [f"## {row.name}", said, *agreement(detail)]
    if "flops" in detail:
        parts.append(
            f"heedful reaches {detail['flops'] / 1e9:.1f} GFLOP/s in products with weights, "
            f"{detail['share_of_peak']:.0%} of the peak of {detail['peak_flops'] / 1e9:.0f}."
        )
        if detail.get("arithmetic"):
            parts.append(made_of(detail["arithmetic"], detail["share_of_peak"], detail["peer_share_of_peak"]))
        parts.append(f"Layouts: {layouts(detail)}.")
        parts.append(f"Told to the thread libraries: {waiting(detail)}.")
    if "profile" in detail:
        parts += profile(detail["profile"])
    return [*parts, *(TRIED[name].strip() for name in (row.name, f"memory_{row.name}") if name in TRIED)]


def made_of(arithmetic: float, share: float, peer_share: float) -> str:
    """The ratio as work left out and work done faster, and how far it could go with the work there is."""
    return (
        f"The peer computes {arithmetic:.2f} times as many products, at {peer_share:.0%} of the peak; heedful computes "
        f"its own {share / peer_share:.2f} times as fast as the peer does. At the whole peak heedful would be "
        f"{arithmetic / peer_share:.2f} times as fast as the peer was."
    )


def layouts(detail: dict[str, Any]) -> str:
    """Of each side what was chosen, and what every trial of every layout reached."""
    said = []
    for side, chosen, tried in zip(("heedful", "peer"), detail["layouts"], detail["tried"], strict=False):
        trials = ((choice(json.loads(key)), " ".join(map(number, reached))) for key, reached in tried.items())
        told = ", ".join(f"{key} {reached}" for key, reached in trials if reached)
        said.append(f"{side} {choice(chosen)}" + (f" (tried: {told})" if told else ""))
    return "; ".join(said)


def choice(chosen: Any) -> str:
    """A layout, and on how many threads."""
    layout = "" if chosen["layout"] is None else f"{json.dumps(chosen['layout'])} "
    return f"{layout}on {chosen['threads']} thread{'s' if chosen['threads'] > 1 else ''}"


def waiting(detail: dict[str, Any]) -> str:
    """As each process said."""
    sides = zip(("heedful", "peer"), detail["waiting"], strict=False)
    return "; ".join(f"{side} {', '.join(f'{k}={v}' for k, v in told.items()) or 'nothing'}" for side, told in sides)


def agreement(detail: dict[str, Any]) -> list[str]:
    """What both computed of the same data, what the timed repeats were on average, and whether the sides agree."""
    rows = []
    for what, found in (("the same data", detail.get("checks", [{}])), ("timed, mean", detail.get("notes", [{}]))):
        theirs = found[1] if len(found) > 1 else {}
        for name, mine in found[0].items():
            rows.append(f"| {what} | {name.replace('_', ' ')} | {mine:.5g} | {told(theirs.get(name))} |")
    said = {True: "The sides agree.", False: "**The sides disagree.**", None: "Not compared."}[detail.get("agree")]
    table = ["\n".join(["| | | heedful | peer |", "|---|---|---|---|", *rows])] if rows else []
    return [*table, said]


def told(x: float | None) -> str:
    return "" if x is None else f"{x:.5g}"


def profile(found: dict[str, Any]) -> list[str]:
    """Two lines: kinds of work, and the largest operations."""
    kinds = ", ".join(f"{kind} {share:.0%}" for kind, share in found["kinds"].items() if share >= 0.01)
    largest = ", ".join(
        f"`{name}` {each['share']:.0%} ({each['calls']:,} calls)" for name, each in found["operations"].items()
    )
    return [
        f"Where heedful's time goes (one repeat, profiled on one thread; the timed repeats take all): {kinds}.",
        f"Largest operations: {largest}.",
    ]


def whole(details: dict[str, Any]) -> list[str]:
    if WHOLE.name not in details:
        return []
    mine, plain = details[WHOLE.name]["notes"]
    rows = [f"| {name} | {mine[name]:.0f} | {plain[name]:.0f} |" for name in sorted(plain, key=plain.get, reverse=True)]
    return [
        "## quickstart",
        f"{WHOLE_SAID.strip()} {details[WHOLE.name]['plain']}. Steps that run side by side share the cores, in both.",
        "\n".join(["| seconds | heedful | plain |", "|---|---|---|", *rows]),
    ]


def long_run(details: dict[str, Any]) -> list[str]:
    name = FLAT[0].name
    if name not in details:
        return []
    notes = details[name]["notes"][0]
    marks = sorted(int(key.partition("_")[2]) for key in notes if key.startswith("cost_"))
    rows = [
        f"| {mark:,} | {notes[f'cost_{mark}']:.1f}{spread(notes, mark)} | {notes[f'memory_{mark}']:.0f} |"
        for mark in marks
    ]
    return [
        "## flat",
        "Tiny PPO iterations: cost of a token, the median (quartiles) of the hundred iterations before each mark.",
        "\n".join(["| episodes | µs/token | MB |", "|---|---|---|", *rows]),
    ]


def spread(notes: dict[str, float], mark: int) -> str:
    return f" ({notes[f'lower_{mark}']:.1f}…{notes[f'upper_{mark}']:.1f})" if f"lower_{mark}" in notes else ""
