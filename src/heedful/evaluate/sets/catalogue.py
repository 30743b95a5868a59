"""The public sets, by name, and one model through one of them.

A set is a reader of its files and a measure of what came back; which of three kinds of question it asks says how the
model answers: by choosing, by writing, or by nothing but its loss.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from heedful.config import InputError, nearest
from heedful.evaluate.sets import bias, labels, reading, toxicity, truthfulqa, writing
from heedful.evaluate.sets.answer import Wish, answers, prompts
from heedful.evaluate.sets.answer import fits as prompt_fits
from heedful.evaluate.sets.choose import Chances, Track, accuracy, accuracy_of_labels, chances, encoded, fits
from heedful.evaluate.sets.item import Item, Measured, Part, Tools, drawn, misfit, unscored, with_examples
from heedful.evaluate.sets.language import Texts, language_loss, stories, wikitext
from heedful.evaluate.sets.read import noting


class ChoiceSet(NamedTuple):
    """Choices of given texts; the first metric stands for the set in a table."""

    read: Callable[[Path | None], Part]
    measure: Callable[[Sequence[Item], Sequence[Chances], Tools], Measured]
    metrics: tuple[str, ...]


class AnswerSet(NamedTuple):
    """Answers to be generated."""

    read: Callable[[Path | None], Part]
    measure: Callable[[Sequence[Item], Sequence[Sequence[str]], Tools], Measured]
    metrics: tuple[str, ...]
    wish: Wish
    draw: Callable[[Sequence[Item], int, int], list[Item]] | None = None  # (items, limit, seed); None: any
    of_tokens: Callable[[Sequence[Item], Sequence[Sequence[list[int]]], Tools], Measured] | None = (
        None  # further numbers
    )


class TextSet(NamedTuple):
    """Plain text, of which the loss is measured."""

    read: Callable[[Path | None], Texts]
    metrics: tuple[str, ...]


PublicSet = ChoiceSet | AnswerSet | TextSet

ALL = "all"  # every set that is to be had

JUDGED = ("both", "truthful", "informative")
LABELS = ("accuracy", "majority")
LOSS = ("loss", "perplexity", "bits_per_byte")
WINOGENDER = ("entropy", "male_share")
CROWS = ("entropy", "stereotype")
COREFERENCE = (
    *("accuracy", "accuracy_male", "accuracy_female", "accuracy_neutral"),
    *("female_gap", "correlation"),
)
SENTENCE, SPAN, LONG = Wish(50), Wish(32), Wish(100)
CONTINUATIONS = Wish(20, samples=25, temperature=1.0, top_p=0.9, one_line=False)

SETS: Mapping[str, PublicSet] = {
    "truthfulqa_mc": ChoiceSet(truthfulqa.choices, truthfulqa.mc, ("mc1", "mc2", "mc1_mean")),
    "truthfulqa_qa": AnswerSet(truthfulqa.qa, truthfulqa.judged, JUDGED, SENTENCE),
    "truthfulqa_instruction": AnswerSet(truthfulqa.instruction, truthfulqa.judged, JUDGED, SENTENCE),
    "truthfulqa_qa_instruction": AnswerSet(truthfulqa.qa_instruction, truthfulqa.judged, JUDGED, SENTENCE),
    **{
        f"real_toxicity{'_' * bool(prefix)}{prefix}": AnswerSet(
            partial(toxicity.prompts, prefix=prefix),
            toxicity.toxicity,
            (*toxicity.METRICS, "continuity"),
            CONTINUATIONS,
            toxicity.evenly,
            toxicity.continuity,
        )
        for prefix in bias.PREFIXES
    },
    **{
        f"winogender{'_' * bool(prefix)}{prefix}": ChoiceSet(
            partial(bias.winogender, prefix=prefix), bias.winogender_scores, WINOGENDER
        )
        for prefix in bias.PREFIXES
    },
    "winogender_coreference": ChoiceSet(bias.coreference, bias.coreference_scores, COREFERENCE),
    **{
        f"crows_pairs{'_' * bool(prefix)}{prefix}": ChoiceSet(
            partial(bias.crows_pairs, prefix=prefix), bias.crows_scores, CROWS
        )
        for prefix in bias.PREFIXES
    },
    "hellaswag": ChoiceSet(labels.hellaswag, accuracy, ("accuracy",)),
    "sst": ChoiceSet(labels.sst, accuracy_of_labels, LABELS),
    "rte": ChoiceSet(labels.rte, accuracy_of_labels, LABELS),
    "wsc": ChoiceSet(labels.wsc, accuracy_of_labels, LABELS),
    "boolq": ChoiceSet(labels.boolq, accuracy_of_labels, LABELS),
    "squad": AnswerSet(reading.squad, reading.squad_scores, ("f1", "exact", "f1_answerable", "f1_unanswerable"), SPAN),
    "drop": AnswerSet(reading.drop, reading.drop_scores, ("f1",), SPAN),
    "quac": AnswerSet(reading.quac, reading.quac_scores, ("f1", "people"), SPAN),
    "fr_en": AnswerSet(writing.french, writing.bleu, ("bleu",), LONG),
    "tldr": AnswerSet(writing.tldr, writing.rouge, ("rouge_l",), LONG),
    "cnn_dm": AnswerSet(writing.news, writing.rouge, ("rouge_l",), LONG),
    "wikitext": TextSet(wikitext, LOSS),
    "tinystories": TextSet(stories, LOSS),
}


class Options(NamedTuple):
    """How a set is asked."""

    data: Path | None = None  # the folder of local files; None: the hub
    shots: int = 0  # worked examples before each item
    limit: int | None = None  # most items, drawn by the seed
    seed: int = 0


def named_sets(names: Sequence[str]) -> list[str]:
    """The names, each once; "all" stays as it is.

    Raises:
        InputError: no such set.
    """
    for name in names:
        if name not in SETS and name != ALL:
            raise InputError(f"no public set {name!r}{nearest(name, SETS)}; there are {', '.join(SETS)}, and all")
    return list(dict.fromkeys(names))


class NoExamples(InputError):
    """Worked examples are asked of a set that has none."""


def read_set(name: str, options: Options) -> Part | Texts:
    """What will be asked: the items drawn, each behind its worked examples.

    Raises:
        InputError: a file is missing, broken or empty.
        NoExamples: worked examples are asked of a set that has none.
    """
    wanted = SETS[name]
    with noting() as files:
        part = wanted.read(options.data)
        if isinstance(part, Texts):
            if not any(text.strip() for text in part.documents):
                raise InputError(f"{part.source} holds no text; fetch the original file again")
            return part._replace(files=files)
        if options.shots and part.examples is None:
            raise NoExamples(f"{name} has no worked examples; ask it with --shots 0")
        examples = part.examples() if options.shots and part.examples else []
    if not part.items:
        raise InputError(f"{part.source} holds no items; fetch the original file again")
    draw = (wanted.draw if isinstance(wanted, AnswerSet) else None) or drawn
    items = part.items if options.limit is None else draw(part.items, options.limit, options.seed)
    asked, fewer = with_examples(items, examples, options.shots, options.seed)
    return part._replace(items=asked, files=files, fewer_examples=fewer)


def evaluate_set(name: str, part: Part | Texts, tools: Tools, options: Options, track: Track) -> dict[str, Any]:
    """One model through one set, as plain data: metrics with interval, n and clusters; what was left out, by reason."""
    wanted = SETS[name]
    if isinstance(wanted, TextSet) and isinstance(part, Texts):
        measured, num = language_loss(tools.model, part.documents, options.limit)
        return told(measured, num, num, part, Counter())
    assert isinstance(part, Part) and not isinstance(wanted, TextSet)
    if isinstance(wanted, ChoiceSet):
        return _choose(wanted, part, tools, track)
    return _answer(wanted, part, tools, options.seed, track)


def _choose(wanted: ChoiceSet, part: Part, tools: Tools, track: Track) -> dict[str, Any]:
    context, rows = tools.model.context, encoded(tools.model, part.items)
    fitting = sum(fits(row, context) for row in rows)
    if why := misfit(fitting, len(rows), context):
        return _unfit(wanted, part, fitting, why)
    items, scores, missing = chances(tools.model, part.items, rows, track)
    measured = wanted.measure(items, scores, tools) if items else unscored(wanted.metrics, "nothing was scored")
    return told(measured, len(part.items), len(items), part, missing)


def _answer(wanted: AnswerSet, part: Part, tools: Tools, seed: int, track: Track) -> dict[str, Any]:
    ids, wish = prompts(tools.model, part.items), wanted.wish
    fitting = sum(prompt_fits(tools.model, row, wish) for row in ids)
    if why := misfit(fitting, len(ids), tools.model.context):
        return _unfit(wanted, part, fitting, why)
    given = answers(tools.model, part.items, ids, wish, seed, track)
    measured = wanted.measure(given.items, given.texts, tools)
    if wanted.of_tokens is not None:
        more = wanted.of_tokens(given.items, given.tokens, tools)
        counts = Counter(measured.unscored) + Counter(more.unscored)
        measured = Measured(measured.metrics | more.metrics, counts)
    return told(measured, len(part.items), len(given.items), part, given.missing)


def _unfit(wanted: ChoiceSet | AnswerSet, part: Part, fitting: int, why: str) -> dict[str, Any]:
    """A set of which too little fits: the items that do not, and the others, which are left with them."""
    missing = Counter(too_long=len(part.items) - fitting, too_few_others_fit=fitting)
    return told(unscored(wanted.metrics, why), len(part.items), 0, part, missing)


def told(measured: Measured, num: int, scored: int, part: Part | Texts, missing: Counter[str]) -> dict[str, Any]:
    """A set's row of sets.json. `too_long` items are counted among `unscored`."""
    return {
        "metrics": {name: estimate._asdict() for name, estimate in measured.metrics.items()},
        "num_items": num,
        "num_scored": scored,
        "unscored": dict(missing + Counter(measured.unscored)),
        "left_out": dict(part.left_out) if isinstance(part, Part) else {},
        "fewer_examples": part.fewer_examples if isinstance(part, Part) else 0,
        "source": part.source,
    }
