"""Classification by the choice of highest mean log-probability per token: HellaSwag, SST, RTE, WSC, BoolQ.

The wording of the prompts is ours in the manner of GPT-3 (arXiv 2005.14165, appendix G); InstructGPT does not print its
own. Chance is 25 % for HellaSwag and about half for the others, whose commonest label stands beside the accuracy.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from heedful.config import InputError
from heedful.evaluate.sets.item import Item, Part
from heedful.evaluate.sets.read import Row, Wanted, columns, each, find, need, read_rows, read_text, rows

SUPERGLUE = "it is in SuperGLUE, super.gluebenchmark.com/tasks"
HELLASWAG = Wanted(
    "hellaswag_val.jsonl|hellaswag.jsonl", "it is in github.com/rowanz/hellaswag, data", "Rowan/hellaswag:validation"
)
HELLASWAG_TRAIN = Wanted("hellaswag_train.jsonl", HELLASWAG.source, "Rowan/hellaswag:train")
SST = Wanted(
    "SST2/dev.tsv|sst2/dev.tsv|SST-2/dev.tsv", "SST-2 is in GLUE, gluebenchmark.com", "stanfordnlp/sst2:validation"
)
SST_TRAIN = Wanted("SST2/train.tsv|sst2/train.tsv|SST-2/train.tsv", SST.source, "stanfordnlp/sst2:train")
RTE = Wanted("RTE/val.jsonl", SUPERGLUE, "nyu-mll/glue:rte:validation")
RTE_TRAIN = Wanted("RTE/train.jsonl", SUPERGLUE, "nyu-mll/glue:rte:train")
WSC = Wanted("WSC/val.jsonl", SUPERGLUE)
WSC_TRAIN = Wanted("WSC/train.jsonl", SUPERGLUE)
BOOLQ = Wanted("BoolQ/val.jsonl", SUPERGLUE, "google/boolq:validation")
BOOLQ_TRAIN = Wanted("BoolQ/train.jsonl", SUPERGLUE, "google/boolq:train")


def hellaswag(data: Path | None) -> Part:
    """Which of four endings goes on with a text (Zellers et al. 2019)."""

    def item(row: Row, n: int) -> Item:
        context = f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}"
        choices = tuple(f" {_tidy(ending)}" for ending in row["endings"])
        return Item(str(n), _tidy(context), choices, (int(row["label"]),), cluster=row["source_id"])

    names = ("activity_label", "ctx_a", "ctx_b", "endings", "label", "source_id")
    return _part(data, HELLASWAG, HELLASWAG_TRAIN, names, item)


def _tidy(text: str) -> str:
    """WikiHow's marks of titles and steps as punctuation."""
    return " ".join(re.sub(r"\[.*?\]", "", text.replace(" [title]", ". ")).split())


def sst(data: Path | None) -> Part:
    """Whether a sentence of a film review is positive (Socher et al. 2013, in two classes)."""
    path = find(data, SST)
    if path is None and data is None:
        return _part(data, SST, SST_TRAIN, ("sentence", "label"), _sentiment)
    train = find(data, SST_TRAIN)
    items = [_sentiment(row, n) for n, row in enumerate(_labelled(need(data, SST)))]

    def examples() -> list[Item]:
        return [_sentiment(row, n, "train-") for n, row in enumerate(_labelled(train))] if train else items

    return Part(items, examples, str(path))


def _sentiment(row: Row, n: int, before: str = "") -> Item:
    prompt = f"Review: {row['sentence'].strip()}\nSentiment:"
    return Item(f"{before}{n}", prompt, (" negative", " positive"), (int(row["label"]),))


def _labelled(path: Path) -> list[Row]:
    """Sentence and label of a TSV, with GLUE's line of names or without one."""
    lines = [line.split("\t") for line in read_text(path).replace("\r\n", "\n").split("\n") if line]
    for i, line in enumerate(lines):
        if len(line) != 2 or (line[1] not in ("0", "1") and (i or line[1] != "label")):
            raise InputError(f"{path}: line {i + 1} is not a sentence, a tab and 0 or 1; it is not the original file")
    return [{"sentence": text, "label": label} for text, label in lines if label != "label"]


def rte(data: Path | None) -> Part:
    """Whether a premise entails a hypothesis (Dagan et al. 2006; SuperGLUE)."""

    def item(row: Row, n: int) -> Item:
        premise, hypothesis = (row[key] for key in (("premise", "hypothesis") if "premise" in row else GLUE))
        prompt = f"{premise}\nQuestion: {hypothesis} True or False?\nAnswer:"
        return Item(str(n), prompt, (" True", " False"), (int(row["label"] not in ("entailment", 0)),), cluster=premise)

    return _part(data, RTE, RTE_TRAIN, ("label",), item)


GLUE = ("sentence1", "sentence2")  # what GLUE calls premise and hypothesis


def wsc(data: Path | None) -> Part:
    """Whether a pronoun stands for a name (Levesque et al. 2012; SuperGLUE)."""

    def item(row: Row, n: int) -> Item:
        name, pronoun = row["target"]["span1_text"], row["target"]["span2_text"]
        prompt = f'{row["text"]}\nQuestion: Does "{pronoun}" in this text stand for "{name}"?\nAnswer:'
        return _yes_no(n, prompt, row["label"], row["text"])

    return _part(data, WSC, WSC_TRAIN, ("text", "target", "label"), item)


def boolq(data: Path | None) -> Part:
    """Yes or no behind a passage (Clark et al. 2019; SuperGLUE)."""

    def item(row: Row, n: int) -> Item:
        prompt = f"{row['passage']}\nQuestion: {row['question']}?\nAnswer:"
        return _yes_no(n, prompt, row["label"] if "label" in row else row["answer"], row["passage"])

    return _part(data, BOOLQ, BOOLQ_TRAIN, ("passage", "question"), item)


def _yes_no(n: int, prompt: str, label: Any, cluster: str) -> Item:
    """`label`: true or false, as a word or a value."""
    return Item(str(n), prompt, (" no", " yes"), (int(str(label).lower() in ("true", "1")),), cluster=cluster)


def _part(
    data: Path | None, wanted: Wanted, train: Wanted, names: tuple[str, ...], item: Callable[[Row, int], Item]
) -> Part:
    """Items of one file, examples of another; of the first where there is no other."""
    found, source = rows(data, wanted)
    items = each(columns(found, names, source), item, source)
    path = find(data, train)

    def examples() -> list[Item]:
        if path is None:
            return items
        more = each(columns(read_rows(path), names, str(path)), item, str(path))
        return [item._replace(id=f"train-{n}") for n, item in enumerate(more)]

    return Part(items, examples, source)
