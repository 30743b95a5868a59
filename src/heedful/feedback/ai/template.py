"""What an AI labeler reads: preamble, exemplars, sample, ending (RLAIF, arXiv 2309.00267, section 2.1 and appendix B).

    You judge summaries. …                     preamble
    >>>> Example >>>>                          exemplars, as many as are asked for
    Text - …  Summary 1 - …  Summary 2 - …
    Preferred Summary=1
    …
    Text - …  Summary 1 - …  Summary 2 - …     sample
    Preferred Summary=                         ending, whose next token is the label

With a chain of thought the sample is followed by `rationale_ending`; what the model writes there and the ending behind
it make the second prompt. A template is a YAML file that a person may copy and edit; `check` finds what is wrong with
it before anything is spent.
"""

from collections.abc import Sequence
from pathlib import Path
from string import Formatter
from typing import Literal

from heedful.config import Config, InputError, nearest, parse, read_mapping
from heedful.types import Prompt

FOLDER = Path(__file__).parent / "templates"
SCORES = tuple(str(score) for score in range(1, 11))  # of a form that asks for a mark (RLAIF, section 2.3)

TURN = {"prompt", "response"}
PAIR = {"history", "prompt", "first", "second"}
ALONE = {"history", "prompt", "response"}


class Exemplar(Config):
    """A worked pair; `label` is the right answer to what is asked for, `history` earlier exchanges."""

    history: tuple[tuple[str, str], ...] = ()
    prompt: str
    first: str
    second: str
    label: str
    rationale: str = ""


class ScoreForm(Config):
    """A mark from 1 to 10 for one response, 10 the best; `sample` holds {history}, {prompt} and {response}."""

    labels: tuple[str, ...] = SCORES  # the marks' words, the lowest first
    preamble: str
    sample: str
    ending: str


class Template(Config):
    """Texts are written as they stand, but for `turn` ({prompt}, {response}: an earlier exchange, which is written into
    {history}) and `sample` ({history}, {prompt}, {first}, {second})."""

    task: str
    language: Literal["en", "zh"]
    asks_for: Literal["better", "worse"] = "better"  # worse: the label names the worse response, and is turned round
    labels: tuple[str, str] = ("1", "2")  # the first response, the second
    preamble: str
    example: str  # the line before an exemplar
    follow: str  # the line behind the last one
    turn: str
    sample: str
    rationale_ending: str | None = None  # none: no chain of thought
    ending: str
    exemplars: tuple[Exemplar, ...] = ()
    score: ScoreForm | None = None


def marks_of(template: Template) -> tuple[str, ...]:
    """The marks' words, the lowest first; none where the template has no form for them."""
    return template.score.labels if template.score else ()


def marks_around(template: Template, by: Literal["pairs", "scores"] = "pairs") -> set[str]:
    """What tells the reader of a page where it is: the words before prompt and responses, and the ending."""
    form = template.score if by == "scores" and template.score else template
    lines = [part.strip().rpartition("\n")[2] for part, *_ in Formatter().parse(form.sample)]
    ending = template.rationale_ending if by == "pairs" and template.rationale_ending else form.ending
    return {mark for mark in (*lines, form.ending.strip(), ending.strip().rpartition("\n")[2]) if mark}


def shipped() -> list[str]:
    """The names of the templates that come with heedful: task.detail.language."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read_template(name: str, shots: int = 0, think: bool = False) -> Template:
    """The template of that name, or in that file, with its first `shots` exemplars; `think`: with chain of thought.

    Raises:
        InputError: there is none, it has too few exemplars, or whatever `check` finds.
    """
    path = FOLDER / f"{name}.yaml" if name in shipped() else Path(name)
    if not path.is_file():
        known = shipped()
        raise InputError(f"no template {name!r}{nearest(name, known)}; name a YAML file or one of {', '.join(known)}")
    found = read_mapping(path, f"a template is a mapping of its parts; copy one of those in {FOLDER}")
    template = parse(Template, found, str(path))
    if shots > len(template.exemplars):
        raise InputError(
            f"{path}: {shots} exemplars asked for, and it has {len(template.exemplars)}; write more of them"
        )
    if think and template.rationale_ending is None:
        raise InputError(f"{path}: no rationale_ending, which a chain of thought begins with; write one")
    ending = template.rationale_ending if think else None
    template = template.model_copy(update={"exemplars": template.exemplars[:shots], "rationale_ending": ending})
    if problem := check(template):
        raise InputError(f"{path}: {problem}")
    return template


def check(template: Template) -> str:
    """What is wrong with the template, and the mend, in one line; "" where nothing is."""
    first, second = template.labels
    if not first or not second or first.startswith(second) or second.startswith(first):
        return f"labels: {first!r} and {second!r} must differ, and neither begin the other"
    if blank := next((label for label in (*template.labels, *marks_of(template)) if label != label.strip()), None):
        return f"labels: {blank!r} has a blank at its edge; write it without, both spellings count"
    if template.score is not None and len(set(template.score.labels)) < max(2, len(template.score.labels)):
        return "score.labels: two or more different marks, the lowest first"
    forms = {"turn": (template.turn, TURN), "sample": (template.sample, PAIR)}
    endings = {"ending": template.ending, "rationale_ending": template.rationale_ending}
    if template.score is not None:
        forms["score.sample"] = (template.score.sample, ALONE)
        endings["score.ending"] = template.score.ending
    problems = [_misses(name, form, wanted) for name, (form, wanted) in forms.items()]
    problems += [_ends_badly(name, text) for name, text in endings.items() if text is not None]
    problems += [_exemplar_problem(template, number) for number in range(len(template.exemplars))]
    return next(filter(None, problems), "")


def _misses(name: str, form: str, wanted: set[str]) -> str:
    try:
        parts = [part[1:] for part in Formatter().parse(form) if part[1] is not None]
    except ValueError as error:
        return f"{name}: {error}; write a brace that is no placeholder twice"
    shown = ", ".join(f"{{{field}}}" for field in sorted(wanted))
    found = sorted(str(field) if not (form or turned) else "" for field, form, turned in parts)  # {first:d}, {first!r}
    return "" if found == sorted(wanted) else f"{name}: it holds each of {shown} once and no other placeholder"


def _ends_badly(name: str, text: str) -> str:
    if not text.strip():
        return f"{name} is empty; write what stands before the answer"
    return f"{name} ends in a blank, which belongs to the answer; take it off" if text != text.rstrip() else ""


def _exemplar_problem(template: Template, number: int) -> str:
    exemplar, name = template.exemplars[number], f"exemplar {number + 1}"
    if exemplar.label not in template.labels:
        return f"{name}: its label {exemplar.label!r} is none of {', '.join(template.labels)}"
    if not all(text.strip() for text in (exemplar.prompt, exemplar.first, exemplar.second)):
        return f"{name}: prompt, first or second is empty"
    if template.rationale_ending is not None and not exemplar.rationale.strip():
        return f"{name} has no rationale, which a chain of thought needs; write one"
    return ""


def texts_of(template: Template) -> str:
    """Everything that a page may take from the template."""
    page = Prompt(id="page", text=".", user="page")
    thought = None if template.rationale_ending is None else ""
    text = write(template, page, "", "", rationale=thought)
    return text if template.score is None else text + write_score(template, page, "")


def write(template: Template, prompt: Prompt, first: str, second: str, rationale: str | None = None) -> str:
    """The prompt that asks which of the two responses is the better (or worse) one, up to where the label stands.

    With a chain of thought and no `rationale`, up to where the rationale begins.
    """
    history = tuple(prompt.examples)
    text = _opening(template) + _sample(template, history, prompt.text, first, second)
    if template.rationale_ending is None:
        return text + template.ending
    if rationale is None:
        return text + template.rationale_ending
    return f"{text}{template.rationale_ending}{rationale}\n{template.ending}"


def trimmed(template: Template, rationale: str) -> str:
    """The rationale up to where the model goes on to answer, or to make up a further example."""
    for text in (template.ending, template.example.strip()):
        rationale = rationale.split(text)[0] if text else rationale
    return rationale.rstrip()


def write_score(template: Template, prompt: Prompt, response: str) -> str:
    """The prompt that asks for a mark from 1 to 10 of one response, up to where the mark stands.

    Raises:
        InputError: the template has no form for it.
    """
    if template.score is None:
        raise InputError(f"the template for {template.task} has no score block; write one, or judge pairs")
    form, history = template.score, _history(template, prompt.examples)
    sample = form.sample.format(history=history, prompt=prompt.text, response=response)
    return f"{form.preamble}\n{sample}\n{form.ending}"


def _opening(template: Template) -> str:
    """Preamble and exemplars: what all prompts begin with."""
    shown = [f"{template.example}\n{_worked(template, exemplar)}\n" for exemplar in template.exemplars]
    return "\n".join([template.preamble, *shown, *([f"{template.follow}\n"] if shown else []), ""])


def _worked(template: Template, exemplar: Exemplar) -> str:
    text = _sample(template, exemplar.history, exemplar.prompt, exemplar.first, exemplar.second)
    if template.rationale_ending is not None:
        gap = "" if template.language == "zh" else " "
        text += f"{template.rationale_ending}{gap}{exemplar.rationale}\n"
    return f"{text}{template.ending}{exemplar.label}"


def _sample(template: Template, history: Sequence[tuple[str, str]], prompt: str, first: str, second: str) -> str:
    turns = _history(template, history)
    return template.sample.format(history=turns, prompt=prompt, first=first, second=second) + "\n"


def _history(template: Template, turns: Sequence[tuple[str, str]]) -> str:
    return "".join(template.turn.format(prompt=prompt, response=response) for prompt, response in turns)
