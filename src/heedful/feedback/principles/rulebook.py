"""Rules for an assistant with worked examples, as a prefix that a first policy is distilled from (SELF-ALIGN).

SELF-ALIGN (arXiv 2305.03047), which SALMON's first policy comes from, shows a pretrained model its rules and a few
examples, lets it answer, and fine-tunes it on the answers without either. Here that is context distillation
(`stages.distil`), whose prefix `written` makes. Examples carry the names of the rules they show, not thoughts: what the
model would think aloud, it would learn to say.
"""

from pathlib import Path
from string import Formatter
from typing import Literal

from pydantic import Field

from heedful.config import Config, InputError, nearest, parse, read_mapping
from heedful.text.format import PromptFormat

FOLDER = Path(__file__).parent / "rules"
PLACES = {"number", "title", "text"}


class Rule(Config):
    title: str = Field(min_length=1)
    text: str = Field(min_length=1)


class Example(Config):
    """An exchange that keeps to the rules it names above all."""

    prompt: str = Field(min_length=1)
    response: str = Field(min_length=1)
    rules: tuple[str, ...] = ()


class RuleBook(Config):
    """A file: what stands first, how a rule is written ({number}, {title}, {text}), the rules by name, examples."""

    language: Literal["en", "zh"]
    preamble: str
    rule: str
    rules: dict[str, Rule] = Field(min_length=1)
    examples: tuple[Example, ...] = ()


def shipped_rules() -> list[str]:
    """The names of the books that come with heedful: name.language."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read_rules(name: str) -> RuleBook:
    """A shipped book, or a file of the same form.

    Raises:
        InputError: there is no such thing, an unknown or missing part, or an example of a rule that is not there.
    """
    known = shipped_rules()
    path = FOLDER / f"{name}.yaml" if name in known else Path(name)
    if not path.is_file():
        raise InputError(f"no rules {name!r}{nearest(name, known)}; name a YAML file or one of {', '.join(known)}")
    found = read_mapping(path, f"preamble, rule, rules and examples are expected; copy one of {FOLDER}")
    book = parse(RuleBook, found, str(path))
    try:
        places = {field for _, field, _, _ in Formatter().parse(book.rule) if field is not None}
    except ValueError:
        places = set()
    if "text" not in places or not places <= PLACES:
        raise InputError(f"{path}: rule: it holds {{text}}, may hold {{number}} and {{title}}, and nothing else")
    for number, example in enumerate(book.examples, start=1):
        if strangers := [rule for rule in example.rules if rule not in book.rules]:
            raise InputError(f"{path}: example {number}: no rule {strangers[0]!r}{nearest(strangers[0], book.rules)}")
    return book


def written(book: RuleBook, format: PromptFormat, shots: int) -> str:
    """The prefix: preamble, rules, and the first `shots` examples as the format writes worked pairs.

    Raises:
        InputError: the book has fewer examples.
    """
    if shots > len(book.examples):
        raise InputError(f"shots is {shots}, and the rules have {len(book.examples)} examples; lower it, or write more")
    rules = "".join(
        book.rule.format(number=number, title=rule.title, text=rule.text)
        for number, rule in enumerate(book.rules.values(), start=1)
    )
    pairs = (format.example.format(prompt=one.prompt, response=one.response) for one in book.examples[:shots])
    return f"{book.preamble}{rules}\n{''.join(pairs)}"
