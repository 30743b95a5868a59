"""From scores to advantages, token by token: the followed ranking's responses, and an episode of PPO's own."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from heedful.report.charts import ACCENT, MUTED, Dot, Series, interval_chart, legend, line_chart, mean
from heedful.report.evaluation import Panel
from heedful.report.folder import Json, RunFolder
from heedful.report.numbers import plain
from heedful.report.trace import Pair, RankingTrace
from heedful.types import Prompt

BEST, WORST = 4, 3  # colours: green and red, as the tokens'
SHOWN = {"Ġ": " ", "▁": " ", "Ċ": "↵", "<0x0A>": "↵"}  # how tokenizers write blanks and line breaks, and how we do
LETTERS = re.compile("|".join(SHOWN))
COLUMNS = ("logprob", "ref_logprob", "reward", "value", "returns", "advantage")


class Token(NamedTuple):
    text: str
    kl: float
    reward: float
    value: float
    returns: float
    advantage: float

    @property
    def shade(self) -> int:
        """−4 … 4: how far below or above the average step this token was, for its colour."""
        return max(-4, min(4, round(self.advantage * 2)))


class EpisodeTrace(NamedTuple):
    variant: str
    iteration: int
    prompt: Prompt | None
    prompts: str  # where the prompt was looked for
    text: str
    score: float
    kl_coef: float | None
    tokens: list[Token]
    panels: list[Panel]


class Judged(NamedTuple):
    """A ranked response as an episode: KL in nats, `reward` with the penalty, `value` before the first token."""

    letter: str
    rank: int
    score: float
    tokens: list[Token]

    @property
    def kl(self) -> float:
        return sum(token.kl for token in self.tokens)

    @property
    def reward(self) -> float:
        return sum(token.reward for token in self.tokens)

    @property
    def value(self) -> float:
        return self.tokens[0].value

    @property
    def advantage(self) -> float:
        return mean([token.advantage for token in self.tokens])


class Outcome(NamedTuple):
    """What PPO's arithmetic makes of the followed ranking; `reason` says why it is not known, or ""."""

    reason: str
    variant: str = ""
    kl_coef: float = 0.0
    whitened: bool = False  # advantages are scaled over these responses
    responses: Sequence[Judged] = ()
    left_out: int = 0  # responses that did not fit
    kept: tuple[int, int, int] = (0, 0, 0)  # comparisons; those in the labeler's order by score, by mean advantage
    chart: Markup = Markup("")
    legend: Markup = Markup("")
    panels: Sequence[Panel] = ()


def outcome(run: RunFolder, ranking: RankingTrace) -> Outcome:
    """The ranking's responses under the models that the round's PPO ended with, from its trace.json."""
    variants = [name for name in run.ppo_variants if run.has(f"{run.last_round}/{name}")]
    if run.variants and not run.ppo_variants:
        return Outcome("This recipe optimises without PPO, whose arithmetic is what is followed here.")
    if not variants:
        return Outcome("PPO has not begun in this round, so what it makes of this ranking is not known yet.")
    variant = variants[-1]
    place = f"{run.last_round}/{variant}"
    if not run.has(f"{place}/trace.json"):
        done = run.has(f"{place}/done.json")
        why = "it was written by an earlier version, or by a recipe that follows none" if done else "it is not finished"
        return Outcome(f"PPO's step {place} holds no trace.json ({why}), so the ranking's advantages are not known.")
    found = run.json(f"{place}/trace.json")
    if found is None or found["ranking_id"] != ranking.ranking.id:
        return Outcome(f"{place}/trace.json is damaged or follows another ranking, so its advantages are not known.")
    by_id = {row["response_id"]: row for row in found["responses"]}
    responses = [
        Judged(one.letter, one.rank, by_id[one.id]["score"], tokens(run, place, by_id[one.id]))
        for one in ranking.shown
        if one.id in by_id
    ]
    if not responses:
        return Outcome("None of its responses fits PPO's limits, so it has no advantages.")
    left_out = len(ranking.shown) - len(responses)
    best, worst = min(responses, key=lambda one: one.rank), max(responses, key=lambda one: one.rank)
    chosen = [(best, BEST), (worst, WORST)]
    names = legend([(f"{one.letter}, rank {one.rank}", colour) for one, colour in chosen])
    kept = in_order(ranking.pairs, responses)
    coefficient, whitened = found["kl_coef"], found["whiten_advantage"]
    chart = by_rank(responses)
    return Outcome("", variant, coefficient, whitened, responses, left_out, kept, chart, names, paths(chosen))


def in_order(pairs: Sequence[Pair], responses: Sequence[Judged]) -> tuple[int, int, int]:
    """How many of the labeler's comparisons there are, and how many stand in that order by score and by advantage."""
    by_letter = {one.letter: one for one in responses}
    both = [(by_letter[p.chosen], by_letter[p.rejected]) for p in pairs if {p.chosen, p.rejected} <= by_letter.keys()]
    return len(both), sum(a.score > b.score for a, b in both), sum(a.advantage > b.advantage for a, b in both)


def by_rank(responses: Sequence[Judged]) -> Markup:
    """Each response's mean advantage, and the span of its tokens', from the best rank to the worst."""
    spans = [[token.advantage for token in one.tokens] for one in responses]
    low, high = min(map(min, spans)), max(map(max, spans))
    room = 0.05 * (high - low) or 0.5
    dots = [
        Dot(f"{one.letter}, rank {one.rank}", mean(span), min(span), max(span), ACCENT, plain(mean(span), 2))
        for one, span in sorted(zip(responses, spans, strict=True), key=lambda pair: pair[0].rank)
    ]
    return interval_chart(dots, "Advantage by rank", low - room, high + room, rule=0)


def paths(chosen: Sequence[tuple[Judged, int]]) -> list[Panel]:
    """The best and the worst response over their tokens: KL, value and return, advantage."""

    def lines(key: str, style: str = "both") -> list[Series]:
        return [
            Series(f"{one.letter} {key}", steps(one.tokens), [getattr(t, key) for t in one.tokens], colour, style)
            for one, colour in chosen
        ]

    foreseen = [*lines("value", "dashed"), *lines("returns", "line")]
    return [
        Panel(
            "log π − log π_ref",
            line_chart(lines("kl"), "KL", "token", rules=[0]),
            "Nats; above 0 the policy says the token more readily than its start did.",
        ),
        Panel(
            "Value and return",
            line_chart(foreseen, "Value and return", "token"),
            "Dashed: what the value model foresaw; full: what came.",
        ),
        Panel("Advantage", line_chart(lines("advantage"), "Advantage", "token", rules=[0]), "What an update uses."),
    ]


def episode_trace(run: RunFolder) -> EpisodeTrace | None:
    """The episode that the followed PPO variant logged in its last iteration; None when it logged none."""
    names = [name for name in run.ppo_variants if run.has(f"{run.last_round}/{name}/samples.jsonl")]
    if not names:
        return None
    place = f"{run.last_round}/{names[-1]}"
    rows = [row for row in run.rows(f"{place}/samples.jsonl") if "advantage" in row]
    if not rows:
        return None
    row = rows[-1]
    metrics = {m["step"]: m for m in run.rows(f"{place}/metrics.jsonl")}
    pool = run.pool("ppo")
    prompts = run.snapshot(pool) if run.has(pool) else None
    prompt = prompts.prompt_by_id().get(row["prompt_id"]) if prompts else None
    said = tokens(run, place, row)
    kl_coef = metrics.get(row["iteration"], {}).get("kl_coef")
    panels = episode_panels(said)
    return EpisodeTrace(names[-1], row["iteration"], prompt, pool, row["text"], row["score"], kl_coef, said, panels)


def tokens(run: RunFolder, place: str, row: Json) -> list[Token]:
    """The logged columns, one token each."""
    columns = zip(token_texts(run, place, row), *(row[key] for key in COLUMNS), strict=True)
    return [Token(text, a - b, r, v, g, d) for text, a, b, r, v, g, d in columns]


def token_texts(run: RunFolder, place: str, row: Json) -> list[str]:
    """What each token says; its number where the model's tokenizer is not there. The end token stands last."""
    tokenizer = run.tokenizer(f"{place}/model")
    texts = []
    for id in row["tokens"]:
        piece = tokenizer.id_to_token(id) if tokenizer else None
        texts.append(str(id) if piece is None else LETTERS.sub(lambda found: SHOWN[found[0]], piece))
    return texts + ["⟨end⟩"] * (len(row["logprob"]) - len(texts))


def gap(said: Sequence[Token]) -> str:
    """What stands between two tokens: nothing where the tokenizer's own say where words begin."""
    return "" if any(token.text.startswith(" ") for token in said) else " "


def steps(said: Sequence[Token]) -> list[int]:
    return list(range(1, len(said) + 1))


def episode_panels(said: Sequence[Token]) -> list[Panel]:
    """KL, value and returns, advantage over the tokens of the response."""
    x = steps(said)
    kl = [Series("KL", x, [t.kl for t in said], ACCENT, "both")]
    foreseen = [
        Series("value", x, [t.value for t in said], MUTED),
        Series("return", x, [t.returns for t in said], ACCENT),
    ]
    advantage = [Series("advantage", x, [t.advantage for t in said], ACCENT, "both")]
    return [
        Panel("log π − log π_ref", line_chart(kl, "KL", "token", rules=[0]), "Nats; kl_coef times this is taken off."),
        Panel(
            "Value and return",
            line_chart(foreseen, "Value and return", "token"),
            "Grey: what the value model foresaw; blue: what came.",
        ),
        Panel(
            "Advantage",
            line_chart(advantage, "Advantage", "token", rules=[0]),
            "What the policy learns from (GAE).",
        ),
    ]
