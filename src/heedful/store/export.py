"""From the store to a snapshot, the only thing training reads. Everything left out is counted by reason."""

from collections import Counter
from collections.abc import Callable, Collection
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection, func, select

from heedful.snapshot import Snapshot
from heedful.store.database import Store, timestamp
from heedful.store.pools import Pool
from heedful.store.records import NO_TRAINING, TOXICITY, is_current, select_entries
from heedful.store.schema import TABLE_OF, tombstones
from heedful.types import Demonstration, Labeler, Prompt, Ranking, Rating, Response

Row = tuple[Any, dict[str, Any]]  # a record and its columns
Rule = tuple[str, Callable[[Any, dict[str, Any]], bool]]  # a reason to leave out, and whether the row may stay

OF_TASK: Rule = ("of the toxicity task", lambda record, row: not record.id.startswith(TOXICITY))
NO_TEST: Rule = ("for another purpose", lambda record, row: not record.id.startswith(NO_TRAINING))


def export_snapshot(
    store: Store,
    *,
    as_of: datetime | None = None,
    pools: Collection[Pool] | None = None,
    purpose: Literal["train", "evaluation"] | None = "train",
    rounds: Collection[int] | None = None,
    heldout: Literal["exclude", "validation", "include"] = "exclude",
) -> Snapshot:
    """The current view as a snapshot in memory; `write_snapshot` puts it on disk.

    Judgements of toxicity order responses by something else than rankings and comparisons do: they stay in the store.

    Args:
        as_of: the store as it stood at that moment; what was erased since is gone all the same.
        pools: prompts of these pools, with what was made from them; None takes all, those in no pool included.
        purpose: rankings and ratings made for it; None takes both. What measures a labeler (screening) trains nothing.
        rounds: responses and judgements of these rounds, prompts that came in them or that those speak of.
        heldout: held-out labelers' judgements: none; only those of prompts outside the training split; or all, for
            evaluation (in training they would spoil the measure of generalisation, InstructGPT section 3.4).
    """
    dropped: Counter[str] = Counter()
    found = _read(store, as_of, dropped)
    in_pools: Rule = ("of other pools", lambda prompt, row: pools is None or row["pool"] in pools)
    prompts = {record.id: (record, row) for record, row in _keep(found[Prompt], [in_pools], dropped)}
    group = {labeler.id: labeler.group for labeler, _ in found[Labeler]}

    def may_train(judgement: Any, row: dict[str, Any]) -> bool:
        outside = heldout == "validation" and prompts[judgement.prompt_id][0].split != "train"
        return heldout == "include" or outside or group[judgement.labeler] != "heldout"

    of_prompts: Rule = ("of other pools' prompts", lambda record, row: record.prompt_id in prompts)
    of_rounds: Rule = ("of other rounds", lambda record, row: rounds is None or row["round"] in rounds)
    by_group: Rule = ("by held-out labelers", may_train)
    purposes = (purpose,) if purpose else ("train", "evaluation")
    for_purpose: Rule = ("for another purpose", lambda record, row: row["purpose"] in purposes)
    demonstrations = _keep(found[Demonstration], [of_prompts, of_rounds, NO_TEST, by_group], dropped)
    ratings = _keep(found[Rating], [of_prompts, of_rounds, OF_TASK, for_purpose, by_group], dropped)
    rankings = _keep(found[Ranking], [of_prompts, of_rounds, OF_TASK, for_purpose, by_group], dropped)
    judgements = [record for record, _ in (*demonstrations, *ratings, *rankings)]

    # What a kept judgement speaks of stays, whatever its own round.
    judged = {id for ranking, _ in rankings for id in ranking.responses} | {rating.response_id for rating, _ in ratings}
    sampled: Rule = ("of other rounds", lambda response, row: response.id in judged or of_rounds[1](response, row))
    responses = _keep(found[Response], [of_prompts, sampled], dropped)
    spoken_of = {record.prompt_id for record in judgements} | {response.prompt_id for response, _ in responses}
    asked: Rule = ("of other rounds", lambda prompt, row: prompt.id in spoken_of or of_rounds[1](prompt, row))
    who = {judgement.labeler for judgement in judgements}

    tied = sum(len(set(ranking.rank)) == 1 for ranking, _ in rankings)
    dropped["rankings: all tied (kept, but without a pair to learn from)"] = tied
    return Snapshot(
        prompts=tuple(record for record, _ in _keep(list(prompts.values()), [asked], dropped)),
        responses=tuple(record for record, _ in responses),
        labelers=tuple(labeler for labeler, _ in found[Labeler] if labeler.id in who),
        demonstrations=tuple(record for record, _ in demonstrations),
        ratings=tuple(record for record, _ in ratings),
        rankings=tuple(record for record, _ in rankings),
        dropped=dict(sorted((+dropped).items())),
    )


def _read(store: Store, as_of: datetime | None, dropped: Counter[str]) -> dict[type, list[Row]]:
    with store.read() as connection:
        for table, number in connection.execute(select(tombstones.c.kind, func.count()).group_by(tombstones.c.kind)):
            dropped[f"{table}: erased on request"] += number
        moment = None if as_of is None else timestamp(as_of)
        return {kind: _standing(connection, kind, moment, dropped) for kind in TABLE_OF}


def _standing(connection: Connection, kind: type[Any], moment: str | None, dropped: Counter[str]) -> list[Row]:
    """The rows that stand at the moment; those superseded by then are counted, those written later did not exist."""
    table = TABLE_OF[kind]
    written = [] if moment is None else [table.c.created <= moment]
    if "supersedes" not in table.c:
        return select_entries(connection, kind, *written)
    rows = select_entries(connection, kind, is_current(table, moment))
    total = connection.execute(select(func.count()).select_from(table).where(*written)).scalar_one()
    dropped[f"{table.name}: superseded by an edit"] += total - len(rows)
    return rows


def _keep(rows: list[Row], rules: list[Rule], dropped: Counter[str]) -> list[Row]:
    """The rows that meet every rule; each other one is counted under the first it fails."""
    kept = []
    for record, row in rows:
        reason = next((reason for reason, stays in rules if not stays(record, row)), None)
        if reason is None:
            kept.append((record, row))
        else:
            dropped[f"{TABLE_OF[type(record)].name}: {reason}"] += 1
    return kept
