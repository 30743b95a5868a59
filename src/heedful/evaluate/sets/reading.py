"""Questions about a passage, scored by F1: SQuAD 2, DROP, QuAC.

Prompts have the shapes of InstructGPT's released outputs: `Title: Background: Q: A:` with the passage's earlier
questions and their answers, "Not in background." where there is none; `Passage: Question: Answer:` for DROP.
"""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from heedful.config import InputError
from heedful.evaluate.sets.item import Item, Measured, Part, Tools, clusters
from heedful.evaluate.sets.overlap import NO_ANSWER, best_f1, best_match, drop_f1, human_f1, normalized, quac_f1
from heedful.evaluate.sets.read import Row, Wanted, find, need, read_text
from heedful.evaluate.statistics import clustered_proportion

ABSENT = "Not in background."
LEAST_HUMAN = 0.4  # QuAC: questions on which people agree less are not scored (Choi et al. 2018)
SQUAD = Wanted("dev-v2.0.json", "it is on rajpurkar.github.io/SQuAD-explorer")
SQUAD_TRAIN = Wanted("train-v2.0.json", SQUAD.source)
DROP = Wanted("drop_dataset_dev.json", "it is in drop_dataset.zip on allenai.org/data/drop")
DROP_TRAIN = Wanted("drop_dataset_train.json", DROP.source)
QUAC = Wanted("val_v0.2.json", "it is on quac.ai")
QUAC_TRAIN = Wanted("train_v0.2.json", QUAC.source)


def squad(data: Path | None) -> Part:
    """SQuAD 2 (Rajpurkar et al. 2018); questions of one article are a cluster."""
    path, train = need(data, SQUAD), find(data, SQUAD_TRAIN)
    items = _squad_items(path)
    return Part(items, lambda: _squad_items(train) if train else items, str(path))


def _squad_items(path: Path) -> list[Item]:
    return _read(path, lambda found: [item for article in found["data"] for item in _article(article)])


def _article(article: Row) -> list[Item]:
    items = []
    for paragraph in article["paragraphs"]:
        prompt = f"Title: {article['title']}\n\nBackground: {paragraph['context']}\n\n"
        for question in paragraph["qas"]:
            references = tuple(dict.fromkeys(answer["text"] for answer in question["answers"])) or (ABSENT,)
            asked = f"{prompt}Q: {question['question']}\n\nA:"
            about = {"answerable": not question["is_impossible"]}
            items.append(Item(question["id"], asked, references=references, cluster=article["title"], about=about))
            prompt = f"{asked} {references[0]}\n\n"
    return items


def squad_scores(items: Sequence[Item], texts: Sequence[Sequence[str]], tools: Tools) -> Measured:
    """`f1` and `exact` with the nearest reference, and F1 of questions with and without an answer."""
    f1 = [best_f1(text, item.references) for item, [text] in zip(items, texts, strict=True)]
    exact = [best_match(text, item.references) for item, [text] in zip(items, texts, strict=True)]
    found = {"f1": clustered_proportion(f1, clusters(items)), "exact": clustered_proportion(exact, clusters(items))}
    for name, wanted in (("f1_answerable", True), ("f1_unanswerable", False)):
        part = [n for n, item in enumerate(items) if item.about["answerable"] is wanted]
        found[name] = clustered_proportion([f1[n] for n in part], [items[n].group for n in part])
    return Measured(found)


def drop(data: Path | None) -> Part:
    """DROP, questions that want counting and sorting (Dua et al. 2019); those of one passage are a cluster."""
    path, train = need(data, DROP), find(data, DROP_TRAIN)
    found = _drop_items(path)
    items = [item for item in found if item.references]
    left_out = +Counter({"no_answer_known": len(found) - len(items)})

    def examples() -> list[Item]:
        return [item for item in _drop_items(train) if item.references] if train else items

    return Part(items, examples, str(path), left_out)


def _drop_items(path: Path) -> list[Item]:
    return _read(path, lambda found: [item for key, passage in found.items() for item in _passage(key, passage)])


def _passage(key: str, passage: Row) -> list[Item]:
    items = []
    for pair in passage["qa_pairs"]:
        answers = [_spans(answer) for answer in (pair["answer"], *pair.get("validated_answers", ()))]
        known = list(dict.fromkeys(answer for answer in answers if answer))
        prompt = f"Passage: {passage['passage']}\nQuestion: {pair['question']}\nAnswer:"
        texts = tuple(", ".join(answer) for answer in known)
        items.append(Item(pair["query_id"], prompt, references=texts, cluster=key, about={"spans": known}))
    return items


def _spans(answer: Row) -> tuple[str, ...]:
    """A number, some spans or a date, as texts."""
    if answer["number"]:
        return (str(answer["number"]),)
    if answer["spans"]:
        return tuple(answer["spans"])
    date = " ".join(answer["date"][key] for key in ("day", "month", "year") if answer["date"].get(key))
    return (date,) if date else ()


def drop_scores(items: Sequence[Item], texts: Sequence[Sequence[str]], tools: Tools) -> Measured:
    """`f1`, the set's own, with the best of its answers. A text is read as spans parted by ", " and as one span that
    may hold a comma; the better reading counts."""
    value = [
        max(drop_f1(read, spans) for read in (text.split(", "), [text]) for spans in item.about["spans"])
        for item, [text] in zip(items, texts, strict=True)
    ]
    return Measured({"f1": clustered_proportion(value, clusters(items))})


def quac(data: Path | None) -> Part:
    """QuAC, a student's questions in a row about a hidden text (Choi et al. 2018); a dialogue is a cluster."""
    path, train = need(data, QUAC), find(data, QUAC_TRAIN)
    items, left_out = _quac_items(path)
    return Part(items, lambda: _quac_items(train)[0] if train else items, str(path), left_out)


def _quac_items(path: Path) -> tuple[list[Item], Counter[str]]:
    found = _read(
        path, lambda found: [item for s in found["data"] for p in s["paragraphs"] for item in _dialogue(s, p)]
    )
    kept = [item for item in found if human_f1(item.references) >= LEAST_HUMAN]
    return kept, +Counter({"people_disagree": len(found) - len(kept)})


def _dialogue(section: Row, paragraph: Row) -> list[Item]:
    passage = paragraph["context"].removesuffix(NO_ANSWER).strip()
    title = f"{section['title']}, {section['section_title']}"
    prompt = f"Title: {title}\n\nBackground: {passage}\n\n"
    items = []
    for question in paragraph["qas"]:
        asked = f"{prompt}Q: {question['question']}\n\nA:"
        references = tuple(answer["text"] for answer in question["answers"])
        items.append(Item(question["id"], asked, references=references, cluster=paragraph["id"]))
        prompt = f"{asked} {said(question['orig_answer']['text'])}\n\n"
    return items


def said(answer: str) -> str:
    """How a prompt writes an answer: QuAC's word for none is not language."""
    return ABSENT if answer == NO_ANSWER else answer


def quac_scores(items: Sequence[Item], texts: Sequence[Sequence[str]], tools: Tools) -> Measured:
    """`f1` as QuAC computes it, and `people`, that of its annotators on the same questions."""
    given = [NO_ANSWER if normalized(text) == normalized(ABSENT) else text for [text] in texts]
    value = [quac_f1(text, item.references) for text, item in zip(given, items, strict=True)]
    people = [human_f1(item.references) for item in items]
    group = clusters(items)
    return Measured({"f1": clustered_proportion(value, group), "people": clustered_proportion(people, group)})


def _read(path: Path, items: Any) -> list[Item]:
    try:
        found: list[Item] = items(json.loads(read_text(path)))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        line = f"{type(error).__name__} {error}"
        raise InputError(f"{path} is not the original file of the set ({line}); fetch it again") from None
    return found
