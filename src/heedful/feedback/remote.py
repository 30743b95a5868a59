"""A simulated labeler who works in the labelling app, by its JSON API like any program: to try an app out or load it.

It sees what a person sees, so its utility is of texts alone. What it does not know how to do it leaves to others.

Command: heedful label simulate
"""

import hashlib
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from heedful.client import Client, Refused
from heedful.feedback.sentiment import sentiment
from heedful.feedback.simulated import Purpose, SimulatedLabeler, Utility
from heedful.types import Labeler, Prompt, Response

# What a simulated labeler may like, and the utilities that are marked 1 and 7.
UTILITIES: Mapping[str, tuple[Utility, tuple[float, float]]] = {
    "sentiment": (sentiment, (-1.0, 1.0)),
    "brevity": (lambda prompt, text: -float(len(text.split())), (-100.0, 0.0)),
}
TAKEN = 409


def remote_labeler(client: Client, likes: str = "sentiment", noise_sd: float = 0.0, seed: int = 0) -> SimulatedLabeler:
    """The labeler whose account the client's token is of."""
    utility, marked = UTILITIES[likes]
    told = client.me()
    labeler = Labeler(id=told["id"], group=told["group"], kind="simulated")
    return SimulatedLabeler(labeler, utility, noise_sd, range=marked, seed=seed)


def work_through(
    client: Client, labeler: SimulatedLabeler, answer: str = "", limit: int | None = None, pause: float = 0.0
) -> Counter[str]:
    """Judge whatever is on offer until nothing is left, or `limit` items are done; returns task → number.

    Args:
        answer: What it writes as a demonstration; without one it writes none.
        pause: Seconds of thinking before each judgement.
    """
    done: Counter[str] = Counter()
    for work in client.works():
        if work["task"] not in ("ranking", "rating", "comparison", *(["demonstration"] if answer else [])):
            continue
        while (limit is None or done.total() < limit) and (item := client.next(work["work"])):
            time.sleep(pause)
            try:
                client.submit(item, **judged(labeler, item, answer))
            except Refused as refused:
                if refused.status != TAKEN:
                    raise
                done["taken by others meanwhile"] += 1
            else:
                done[work["task"]] += 1
    return done


def judged(labeler: SimulatedLabeler, item: Mapping[str, Any], answer: str = "") -> dict[str, Any]:
    """What it says of an item, as `Client.submit` takes it."""
    if item["task"] == "demonstration":
        return {"text": answer}
    prompt, responses = as_records(item)
    purpose: Purpose = "evaluation" if item["purpose"] == "evaluation" else "train"
    marks: dict[str, dict[str, Any]] = {}
    for response in responses:
        rating = labeler.rate(prompt, response, purpose)
        ticked = [box for box, applies in rating.flags.items() if applies]
        marks[response.id] = {"overall": rating.overall, "boxes": ticked}
    if item["task"] == "rating":
        return {"marks": marks}
    ranking = labeler.rank(prompt, responses, purpose)
    if item["task"] == "comparison":
        first, second = ranking.rank
        return {"fields": {"choice": "0" if first == second else "a2" if first < second else "b2"}}
    for id, rank in zip(ranking.responses, ranking.rank, strict=True):
        marks[id]["rank"] = rank
    return {"marks": marks, "seconds": ranking.seconds}


def as_records(item: Mapping[str, Any]) -> tuple[Prompt, Sequence[Response]]:
    """The item's texts under ids of their own: a prompt's is a hash, a response's its letter."""
    text = item["prompt"]["text"]
    id = hashlib.sha256(text.encode()).hexdigest()[:16]
    prompt = Prompt(id=id, text=text, user="unknown", examples=tuple(map(tuple, item["prompt"]["examples"])))
    return prompt, [Response(id=shown["letter"], prompt_id=id, text=shown["text"]) for shown in item["responses"]]
