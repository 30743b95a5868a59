"""Samples side by side: the same prompt, every policy, with scores and the labelers' ranks."""

import hashlib
from typing import NamedTuple

from heedful.report.folder import RunFolder
from heedful.types import Prompt, Ranking

EACH = 4  # prompts of each kind
GAIN, LOSS, DRAWN = "biggest gains", "biggest losses", "drawn at random"


class Answer(NamedTuple):
    """One response, and which policies gave it."""

    policies: list[str]
    text: str
    score: float | None
    gold: float | None
    ranks: list[str]  # one for each labeler, "2 of 5"


class Sample(NamedTuple):
    """A prompt with every policy's response; `change` is the chosen measure, policy minus baseline."""

    kind: str
    prompt: Prompt
    change: float | None
    answers: list[Answer]


class Samples(NamedTuple):
    """What is shown and the rule it was chosen by."""

    policy: str
    baseline: str
    measure: str  # "gold" or "score"
    found: list[Sample]
    total: int


def samples(run: RunFolder) -> Samples | None:
    """A dozen prompts by a rule that looks at nothing but numbers; None where nothing was evaluated."""
    judged = "evaluation/judgements"
    snapshot = run.snapshot(f"{judged}/snapshot")
    rows = run.rows(f"{judged}/samples.jsonl")
    if snapshot is None or not rows:
        return None
    given: dict[str, dict[str, str]] = {}
    gold: dict[tuple[str, str], float | None] = {}
    for row in rows:
        given.setdefault(row["policy"], {})[row["prompt_id"]] = row["response_id"]
        gold[row["policy"], row["prompt_id"]] = row.get("gold")
    score = {
        (name, row["prompt_id"]): row.get("score")
        for name in given
        for row in run.rows(f"evaluation/{name}/samples.jsonl")
    }
    followed = [name for name in run.variants if name in given]
    policy, baseline = (followed or list(given))[-1], run.results.get("baseline") or next(iter(given))
    measure = "gold" if any(value is not None for value in gold.values()) else "score"
    table = gold if measure == "gold" else score
    change = {}
    for prompt in snapshot.prompts:
        ours, theirs = table.get((policy, prompt.id)), table.get((baseline, prompt.id))
        change[prompt.id] = ours - theirs if ours is not None and theirs is not None else None
    texts = {response.id: response.text for response in snapshot.responses}
    ranked: dict[str, list[Ranking]] = {}
    for ranking in snapshot.rankings:
        ranked.setdefault(ranking.prompt_id, []).append(ranking)
    prompts = snapshot.prompt_by_id()
    found = []
    for kind, id in choose(change):
        answers: dict[str, Answer] = {}
        for name in given:
            response = given[name].get(id)
            if response is None:
                continue
            if response in answers:
                answers[response].policies.append(name)
                continue
            ranks = [place for ranking in ranked.get(id, ()) if (place := rank_of(ranking, response))]
            text = texts.get(response, "")
            answers[response] = Answer([name], text, score.get((name, id)), gold[name, id], ranks)
        found.append(Sample(kind, prompts[id], change[id], list(answers.values())))
    return Samples(policy, baseline, measure, found, len(snapshot.prompts))


def choose(change: dict[str, float | None]) -> list[tuple[str, str]]:
    """(kind, prompt id): the largest gains, the largest losses, then the smallest hashes of the ids that are left."""
    known = sorted((value, id) for id, value in change.items() if value is not None)
    gains = [(GAIN, id) for value, id in reversed(known) if value > 0][:EACH]
    losses = [(LOSS, id) for value, id in known if value < 0][:EACH]
    taken = {id for _, id in (*gains, *losses)}
    rest = sorted((id for id in change if id not in taken), key=lambda id: hashlib.sha256(id.encode()).hexdigest())
    return [*gains, *losses, *((DRAWN, id) for id in rest[:EACH])]


def rank_of(ranking: Ranking, response: str) -> str:
    """ "2 of 5", or "" where the labeler did not see it."""
    places = dict(zip(ranking.responses, ranking.rank, strict=True))
    return f"{places[response]} of {len(places)}" if response in places else ""
