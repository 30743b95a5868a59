"""Many answers at once: a ranking with everything in one flat row, UltraFeedback's ratings, the arena's battles."""

from collections.abc import Iterator, Mapping
from typing import Any

from heedful.ranks import dense, rank_of
from heedful.store.formats.chat import Turn, messages_of, prompt_turns, talk_of, turns_of
from heedful.store.formats.item import (
    Answer,
    BadRow,
    Item,
    LeftOut,
    Reading,
    Tally,
    Writing,
    is_number,
    is_seconds,
    list_of,
    mark_of,
    name_of,
    single_text,
    strength_of,
    text_of,
)

ROLE_OF_GROUP = {"train": "train", "heldout": "held_out"}
WINNERS = {"model_a": (1, 2), "model_b": (2, 1), "tie": (1, 1)}
BOTH_BAD = ("tie (bothbad)", "both_bad")  # as the arena said it first, and says it now


def read_ranking(row: Mapping[str, Any], how: Reading, tally: Tally) -> Iterator[Item]:
    """{"prompt": messages, "responses": [{"text", "source": {"model"}}], "ranks", "scores": {"overall"}, "labeler"}."""
    if row.get("not_rankable"):
        raise LeftOut("responses that cannot be ranked")
    talk = talk_of(turns_of(row.get("prompt"), "prompt", tally))
    if talk.answer is not None:
        raise LeftOut("prompts that end with the assistant")
    responses, ranks = list_of(row, "responses"), list_of(row, "ranks")
    if len(ranks) != len(responses) or len(ranks) < 2 or any(type(rank) is not int for rank in ranks):
        raise BadRow("ranks: one whole number for each of two or more responses")
    scores = row.get("scores") or {}
    overall = scores.get("overall") or [None] * len(responses) if isinstance(scores, dict) else None
    if not isinstance(overall, list) or len(overall) != len(responses):
        raise BadRow("scores.overall: one mark or null for each response")
    pairs = enumerate(zip(responses, overall, strict=True))
    answers = tuple(_response(response, mark, number) for number, (response, mark) in pairs)
    order = row.get("presented_order") or []
    if order and sorted(order) != list(range(len(answers))):
        raise BadRow("presented_order: each response's position once, from 0")
    role, seconds, strength = name_of(row.get("role")), row.get("active_seconds"), row.get("strength")
    if seconds is not None and not is_seconds(seconds):
        raise BadRow("active_seconds: a number from 0 on")
    if strength is not None and strength_of(strength, ranks) is None:
        raise BadRow("strength: 1, 2 or 3, of two responses of which one is better")
    both_bad = row.get("both_bad") or False
    if both_bad is not False and (both_bad is not True or dense(ranks) != (1, 1)):
        raise BadRow("both_bad: true or false; true of two responses that tie")
    yield Item(
        talk.text,
        talk.examples,
        talk.system,
        answers=answers,
        rank=dense(ranks),
        order=tuple(order),
        labeler=name_of(row.get("labeler")),
        group="heldout" if role == "held_out" else None,
        kind="ai" if role == "ai" else None,
        strength=strength,
        both_bad=both_bad,
        preference=_preference(row.get("preference") or [], ranks),
        seconds=seconds,
        guideline=name_of(row.get("guidelines_version")),
    )


def _preference(value: Any, ranks: list[int]) -> tuple[tuple[float, float], ...]:
    """Raises BadRow where it is not two probabilities for each pair of the responses, or contradicts the ranks."""
    pairs: list[Any] = value if isinstance(value, list) else [None]
    number = len(ranks)
    whole = all(isinstance(pair, list) and len(pair) == 2 and all(map(_is_share, pair)) for pair in pairs)
    if not whole or len(pairs) not in (0, number * (number - 1) // 2):
        raise BadRow("preference: two numbers from 0 to 1 for each pair of responses, or none at all")
    found = tuple((float(first), float(second)) for first, second in pairs)
    if found and rank_of(found, number) != dense(ranks):
        raise BadRow("preference: it says another order than ranks")
    return found


def _is_share(value: Any) -> bool:
    return is_number(value) and 0 <= value <= 1


def _response(response: Any, mark: Any, number: int) -> Answer:
    if not isinstance(response, dict) or not isinstance(response.get("text"), str):
        raise BadRow(f"responses.{number}: no text")
    if mark is not None and mark_of(mark) is None:
        raise BadRow(f"scores.overall.{number}: marks are from 1 to 7")
    source = response.get("source")
    return Answer(response["text"], name_of(source.get("model")) if isinstance(source, dict) else "", mark_of(mark))


def write_ranking(item: Item, how: Writing, tally: Tally) -> Iterator[dict[str, Any]]:
    if not item.rank:
        raise LeftOut("items without a ranking")
    role = "ai" if item.kind in ("ai", "principles") else ROLE_OF_GROUP[item.group or "train"]
    yield {
        "schema": "ranking/1",
        "id": item.id,
        "prompt": messages_of(prompt_turns(item)),
        "responses": [{"text": answer.text, "source": {"model": answer.model}} for answer in item.answers],
        "ranks": list(dense(item.rank)),
        "scores": {"overall": [answer.overall for answer in item.answers]},
        "strength": item.strength,
        "both_bad": item.both_bad,
        "preference": [list(pair) for pair in item.preference],
        "presented_order": list(item.order),
        "labeler": item.labeler,
        "role": role,
        "guidelines_version": item.guideline,
        "active_seconds": item.seconds,
        "split": item.split or "train",
    }


def read_ultrafeedback(row: Mapping[str, Any], how: Reading, tally: Tally) -> Iterator[Item]:
    """{"instruction", "generations": [K], "ratings": [K]}: a ranking by rating, equal ratings tied."""
    generations, ratings = list_of(row, "generations"), list_of(row, "ratings")
    models = row.get("generation_models") or [""] * len(generations)
    if not len(generations) == len(ratings) == len(models):
        raise BadRow(f"{len(generations)} generations, {len(ratings)} ratings, {len(models)} models")
    rated = []
    for number, (text, rating, model) in enumerate(zip(generations, ratings, models, strict=True)):
        if rating is None or text is None:
            tally.left_out["generations without a text or a rating"] += 1
            continue
        if not isinstance(text, str) or not is_number(rating):
            raise BadRow(f"generations.{number}: a text and its rating, a number")
        if how.overall and mark_of(rating) is None:
            raise BadRow(f"ratings.{number}: {rating} is no mark from 1 to 7; import without --overall")
        rated.append((Answer(text, name_of(model), mark_of(rating) if how.overall else None), rating))
    if not how.overall:
        tally.changed["ratings that became ranks (--overall keeps them: they are marks from 1 to 7)"] += len(rated)
    if len(rated) < 2:
        raise LeftOut("rows with fewer than two rated generations")
    rank = dense([-rating for _, rating in rated])
    yield Item(text_of(row, "instruction"), answers=tuple(answer for answer, _ in rated), rank=rank, kind="ai")


def write_ultrafeedback(item: Item, how: Writing, tally: Tally) -> Iterator[dict[str, Any]]:
    instruction = single_text(item, tally)
    if len(item.answers) < 2:
        raise LeftOut("items with fewer than two responses")
    if any(answer.overall is None for answer in item.answers):
        raise LeftOut("rankings whose responses are not all rated")
    marks = [answer.overall for answer in item.answers]
    if dense([-(mark or 0) for mark in marks]) != dense(item.rank):
        tally.changed["rankings that say more or other than their ratings, which alone are written"] += 1
    yield {
        "instruction": instruction,
        "generations": [answer.text for answer in item.answers],
        "ratings": [float(mark or 0) for mark in marks],
        "generation_models": [answer.model for answer in item.answers],
    }


def read_arena(row: Mapping[str, Any], how: Reading, tally: Tally) -> Iterator[Item]:
    """{"model_a", "model_b", "winner", "conversation_a", "conversation_b", "judge"}."""
    winner = text_of(row, "winner")
    rank = WINNERS["tie"] if winner in BOTH_BAD else WINNERS.get(winner)
    if rank is None:
        raise BadRow(f"winner: {winner!r} is none of {', '.join((*WINNERS, *BOTH_BAD))}")
    turns_a, turns_b = (turns_of(row.get(name), name, tally) for name in ("conversation_a", "conversation_b"))
    if len(turns_a) != len(turns_b) or turns_a[:-1] != turns_b[:-1]:
        raise LeftOut("pairs whose conversations part before the last answer")
    a, b = talk_of(turns_a), talk_of(turns_b)
    if a.answer is None or b.answer is None:
        raise BadRow("a conversation ends with the assistant")
    answers = (Answer(a.answer, name_of(row.get("model_a"))), Answer(b.answer, name_of(row.get("model_b"))))
    labeler = name_of(row.get("judge"))
    bad = winner in BOTH_BAD
    yield Item(a.text, a.examples, a.system, answers=answers, rank=rank, both_bad=bad, labeler=labeler)


def write_arena(item: Item, how: Writing, tally: Tally) -> Iterator[dict[str, Any]]:
    """A battle for each pair of a ranking, ties included."""
    if not item.rank:
        raise LeftOut("items without a ranking")
    prompt = prompt_turns(item)
    talks = [messages_of([*prompt, Turn("assistant", answer.text)]) for answer in item.answers]
    for a in range(len(talks)):
        for b in range(a + 1, len(talks)):
            better, worse = item.rank[a], item.rank[b]
            tie = BOTH_BAD[0] if item.both_bad else "tie"
            yield {
                "question_id": item.prompt_id,
                "model_a": item.answers[a].model,
                "model_b": item.answers[b].model,
                "winner": tie if better == worse else "model_a" if better < worse else "model_b",
                "judge": item.labeler,
                "conversation_a": talks[a],
                "conversation_b": talks[b],
                "turn": len(item.examples) + 1,
                "group_id": item.id,
            }
