"""Learning curves of every stage, and reward against KL."""

from collections.abc import Sequence
from math import sqrt

from heedful.report.charts import ACCENT, MUTED, Mark, Series, line_chart
from heedful.report.evaluation import Panel
from heedful.report.folder import Json, RunFolder, pointer
from heedful.steps import optimised_in

# Logged by PPO in every iteration: key, heading, what it tells.
PPO_PANELS = (
    ("score", "Score", "What the reward model gives the sampled responses, on average; the KL penalty is not in it."),
    ("kl_k1", "KL from the reference (k1)", "Nats per response: the mean of log π − log π_ref over what was sampled."),
    ("kl_k3", "KL from the reference (k3)", "The same KL by an estimator that is never negative."),
    ("entropy", "Entropy", "Nats per token. A fall towards 0 is a policy that has come to say one thing."),
    (
        "clip_fraction",
        "Clip fraction",
        "Share of tokens whose ratio left the clipping range; large means steps too big.",
    ),
    ("explained_variance", "Explained variance", "How much of the returns the value model foresaw: 1 all, 0 nothing."),
    ("value_loss", "Value loss", "Squared error of the value model, clipped."),
    ("length", "Length", "Tokens per response, the end token included."),
    ("unfinished", "Unfinished", "Share of responses that the length limit cut."),
    ("ptx_loss", "Pretraining loss", "Nats per token of pretraining text, in the same update; PPO-ptx only."),
    ("kl_coef", "KL coefficient", "What a nat of KL costs in score; constant unless a target is set."),
    ("engine_mismatch", "Engine mismatch", "Largest gap between log-probabilities as sampled and as recomputed."),
    ("score_sd", "Spread of scores", "Standard deviation of the score within a rollout."),
    ("gradient_norm", "Gradient norm", "Of the policy, before clipping."),
    ("accuracy", "Accuracy (DPO)", "Share of untied pairs that the implied reward has in the labelers' order."),
    ("best_logratio", "Log-ratio of the best (DPO)", "Nats: log π − log π_ref of the responses ranked first."),
)


def column(rows: Sequence[Json], key: str) -> tuple[list[float], list[float]]:
    """Steps and values of one logged key, where it was logged."""
    kept = [row for row in rows if row.get(key) is not None]
    return [row["step"] for row in kept], [row[key] for row in kept]


def pretraining(run: RunFolder) -> list[Panel]:
    """Training loss and the validation loss at its end; [] without a pretraining stage."""
    if not run.has("pretrain"):
        return []
    rows = run.rows("pretrain/metrics.jsonl")
    series = [
        Series("training", *column(rows, "loss"), MUTED),
        Series("validation", *column(rows, "valid_loss"), ACCENT, "both"),
    ]
    chart = line_chart(series, "Pretraining loss", "step")
    return [Panel("Pretraining loss", chart, "Nats per token of pretraining text.")]


def fine_tuning(run: RunFolder) -> list[Panel]:
    """Validation loss and reward-model score by epoch with the chosen epochs ringed; training loss by step."""
    variants = [name for name in run.recipe.get("sft", {}) if run.has(name)]
    if not variants:
        return distillation(run)
    valid, train, marks = [], [], []
    for name in variants:
        rows, colour = run.rows(f"{name}/metrics.jsonl"), run.colour(name)
        checked = [row for row in rows if row.get("valid_loss") is not None]
        valid.append(Series(name, [r["epoch"] for r in checked], [r["valid_loss"] for r in checked], colour, "both"))
        train.append(Series(name, *column(rows, "loss"), colour))
        lowest = ((run.done(name) or {}).get("results") or {}).get("lowest_loss_epoch")
        marks += [Mark(r["epoch"], r["valid_loss"], "lowest loss", colour) for r in checked if r["epoch"] == lowest]
    panels = [
        Panel("Training loss", line_chart(train, "SFT training loss", "step"), "Nats per response token."),
        Panel(
            "Validation loss",
            line_chart(valid, "SFT validation loss", "epoch", marks=marks, x_names=epochs(valid)),
            "On demonstrations of users not trained on. Rankings are collected from the ringed epoch.",
        ),
    ]
    panels += [panel for round in run.rounds if (panel := epoch_scores(run, round))]
    return panels + distillation(run)


def distillation(run: RunFolder) -> list[Panel]:
    """How far each distilled model is from the prompted one while it learns."""
    series = []
    for name in run.recipe.get("distil", {}):
        if run.has(name):
            series.append(Series(name, *column(run.rows(f"{name}/metrics.jsonl"), "loss"), run.colour(name)))
    title = "Context distillation"
    text = "KL from the model behind its prefix, nats per response token, on fresh responses."
    return [Panel(title, line_chart(series, title, "update"), text)] if series else []


def epoch_scores(run: RunFolder, round: int) -> Panel | None:
    """Mean reward-model score of each SFT epoch's responses; None when the round did not choose."""
    place = f"round-{round}/choose_epoch"
    found = (run.done(place) or {}).get("results") if run.has(place) else None
    if not found:
        return None
    name = run.recipe.get("rankings", {}).get("policy", "sft")
    scores = [row[0] for row in found["scores"]]
    best = found["best_policy"]
    series = [Series(name, list(range(1, len(scores) + 1)), scores, run.colour(name), "both")]
    mark = Mark(best + 1, scores[best], "chosen", run.colour(name))
    title = "Reward-model score" + (f", round {round}" if len(run.rounds) > 1 else "")
    chart = line_chart(series, title, "epoch", marks=[mark], x_names=epochs(series))
    return Panel(title, chart, "Of responses to validation prompts. The ringed epoch is evaluated as the SFT policy.")


def epochs(series: Sequence[Series]) -> list[tuple[float, str]]:
    numbers = sorted({int(x) for one in series for x in one.x})
    return [(n, str(n)) for n in numbers[:: -(-len(numbers) // 8) or 1]]


def reward_model_curves(run: RunFolder) -> list[Panel]:
    """Loss and accuracy on training and validation rankings, for each round."""
    panels = []
    for round in run.rounds:
        place = f"round-{round}/reward_model"
        if not run.has(place):
            continue
        rows = run.rows(f"{place}/metrics.jsonl")
        for key, title, text, rules in (
            (
                "loss",
                "Reward model loss",
                "Mean of −log σ(margin) over the pairs of a ranking; guessing gives ln 2.",
                [0.6931],
            ),
            (
                "accuracy",
                "Reward model accuracy",
                "Share of untied pairs ordered as the labeler did, while training.",
                [0.5],
            ),
        ):
            series = [
                Series("training rankings", *column(rows, key), MUTED),
                Series("validation rankings", *column(rows, f"valid_{key}"), ACCENT, "both"),
            ]
            heading = title + (f", round {round}" if len(run.rounds) > 1 else "")
            panels.append(Panel(heading, line_chart(series, heading, "step", rules=rules), text))
    return panels


def ppo_logs(run: RunFolder, round: int) -> dict[str, list[Json]]:
    """The metrics of every optimised policy of the round."""
    names = [name for name in optimised_in(run.recipe) if run.has(f"round-{round}/{name}")]
    return {name: run.rows(f"round-{round}/{name}/metrics.jsonl") for name in names}


def ppo_curves(run: RunFolder, round: int) -> list[Panel]:
    """One panel per logged quantity, the variants in one frame."""
    logs = ppo_logs(run, round)
    panels = []
    for key, title, text in PPO_PANELS:
        series = [Series(name, *column(rows, key), run.colour(name)) for name, rows in logs.items()]
        if any(one.x for one in series):
            panels.append(Panel(title, line_chart(series, title, "iteration"), text))
    return panels


def frontier(run: RunFolder) -> list[Panel]:
    """What was gained against how far a policy went: while training, and of the policies evaluated."""
    found = [*(reward_and_kl(run, round) for round in run.rounds), gold_and_kl(run)]
    return [panel for panel in found if panel]


def reward_and_kl(run: RunFolder, round: int) -> Panel | None:
    """Score against √KL while training; None when the round has no PPO log."""
    series, below = [], 0
    for name, rows in ppo_logs(run, round).items():
        kept = [row for row in rows if row.get("kl_k1") is not None and row.get("score") is not None]
        below += sum(row["kl_k1"] < 0 for row in kept)
        x = [sqrt(max(row["kl_k1"], 0)) for row in kept]
        series.append(Series(name, x, [row["score"] for row in kept], run.colour(name), "both"))
    if not any(one.x for one in series):
        return None
    title = "Score against √KL, training" + (f", round {round}" if len(run.rounds) > 1 else "")
    text = "One point per iteration: what each step away from the reference bought."
    if below:
        text += f" Estimates of KL below 0 ({below} of them) stand at 0."
    return Panel(title, line_chart(series, title, "√KL, √nats per response"), text)


def gold_and_kl(run: RunFolder) -> Panel | None:
    """The evaluated policies: true utility, or score where there is none, against √KL."""
    for key, name in (("gold", "utility"), ("score", "score")):
        series = []
        for policy in run.policies:
            kl, value = run.at(pointer("policies", policy, "kl")), run.at(pointer("policies", policy, key))
            kl = run.at(pointer("policies", policy, "kl_bound")) if kl is None else kl  # of the best of n
            if kl is not None and value is not None:
                series.append(Series(policy, [sqrt(max(kl, 0))], [value], run.colour(policy), "points"))
        if len(series) > 1:
            title = f"{name.capitalize()} against √KL, evaluation"
            text = (
                "The policies on held-out prompts. Score rising where this falls means the reward model is exploited."
            )
            return Panel(title, line_chart(series, title, "√KL, √nats per response"), text)
    return None
