"""Principles as data: a YAML file of texts by language and of weighted collections, which a person may copy and edit.

Shipped collections (the texts are ours; which principles there are, and the weights, are SALMON's, arXiv 2310.05910,
appendix and released configuration; which nine are `non_evasive` is our choice):

    preference      11, by which responses are compared; three of them are never drawn
    rl              14, drawn by weight while a policy is trained
    harmless, honest, non_evasive     to steer a policy one way
    interventions   3, always in force, against self-praise, advice in place of solutions, lessons nobody asked for

Those called world and world_… are the embedded world's, in English alone: whether a text keeps to them is known exactly
(`world.principles`).
"""

from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field

from heedful.config import Config, InputError, nearest, parse
from heedful.principles import Language, Principle

SHIPPED = Path(__file__).parent / "principles.yaml"
OF_THE_WORLD = Path(__file__).parent / "world.yaml"
WHOLE = "file:collection"
HEAVIEST = 1e9  # a sum of weights stays finite
Weight = Annotated[float, Field(strict=True)]  # or `yes` were 1


class Wording(Config):
    """A principle in one language: see `principles.Principle`."""

    title: str
    definition: str
    negative: str


class Texts(Config):
    en: Wording | None = None
    zh: Wording | None = None


LANGUAGES, PARTS = " or ".join(Texts.model_fields), ", ".join(Wording.model_fields)


class Book(Config):
    """A file: texts, and collections with the weight of each principle in them; none: all alike."""

    principles: dict[str, Texts] = Field(min_length=1)
    collections: dict[str, dict[str, Weight]] = Field(default={})


TEXT = "tag:yaml.org,2002:str"


class _Strict(yaml.SafeLoader):
    """YAML in which a name is what is written (`true` and `1` are names), and one that stands twice is an error: the
    first would be lost."""

    def mapping(self, node: yaml.MappingNode) -> dict[Any, Any]:
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                key.tag = TEXT
        names = [key.value for key, _ in node.value]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise yaml.constructor.ConstructorError(None, None, f"{twice!r} stands twice", node.start_mark)
        return self.construct_mapping(node, deep=True)


_Strict.add_constructor("tag:yaml.org,2002:map", _Strict.mapping)


def shipped() -> list[str]:
    """The names of the collections that come with heedful, those of the embedded world apart."""
    return list(read_book(SHIPPED).collections)


def read_principles(name: str, language: Language) -> tuple[Principle, ...]:
    """A shipped collection, a file's only one (all its principles where it has none), or `file.yaml:collection`.

    Raises:
        InputError: there is no such thing, it lacks the language, or whatever `read_book` finds.
    """
    path, book, collection = _find(name)
    weights = book.collections[collection] if collection else dict.fromkeys(book.principles, 1.0)
    found = []
    for id, weight in weights.items():
        wording: Wording | None = getattr(book.principles[id], language)
        if wording is None:
            raise InputError(f"{path}: {id} has no text in {language!r}; write one, or judge in another language")
        found.append(Principle(id=id, language=language, weight=weight, **wording.model_dump()))
    return tuple(found)


def _find(name: str) -> tuple[Path, Book, str]:
    """The file, what it holds, and the collection that is meant; "": all."""
    known: list[str] = []
    for shipped_book in (SHIPPED, OF_THE_WORLD):
        if name in (book := read_book(shipped_book)).collections:
            return shipped_book, book, name
        known += book.collections
    file, _, collection = (name, "", "") if Path(name).is_file() else name.rpartition(":")
    path = Path(file)
    if not file or not path.is_file():
        raise InputError(
            f"no principles {name!r}{nearest(name, known)}; name a YAML file, {WHOLE}, or one of {', '.join(known)}"
        )
    book = read_book(path)
    if not collection and len(book.collections) > 1:
        raise InputError(f"{path} has several collections; say which: {path}:{next(iter(book.collections))}")
    if collection and collection not in book.collections:
        there = ", ".join(book.collections) or "none"
        raise InputError(f"{path}: no collection {collection!r}{nearest(collection, book.collections)}; it has {there}")
    return path, book, collection or next(iter(book.collections), "")


def read_book(path: Path) -> Book:
    """The file of principles.

    Raises:
        InputError: no YAML in UTF-8, an unknown or missing part, or whatever `check` finds, by the file's name.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: no YAML in UTF-8: {error}") from None
    return book_of(text, str(path))


def book_of(text: str, name: str) -> Book:
    """The book that stands in a text, which errors call by the name; else as `read_book`."""
    try:
        found = yaml.load(text, _Strict)
        repeats = any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text))
    except (yaml.YAMLError, RecursionError) as error:
        raise InputError(f"{name}: no YAML: {_told(error)}") from None
    if repeats:  # a few lines of them could stand for millions
        raise InputError(f"{name}: it repeats a part by an alias (*); write the part out")
    if not isinstance(found, dict):
        raise InputError(f"{name}: expected is principles:, below it names with {LANGUAGES}, below those {PARTS}")
    book = parse(Book, found, name)
    if problem := check(book):
        raise InputError(f"{name}: {problem}")
    return book


def _told(error: Exception) -> str:
    """What is wrong, after the line where it was found: this is said in one line."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return " ".join(str(error).split())
    return f"line {mark.line + 1}, column {mark.column + 1}: {getattr(error, 'problem', '')}"


def check(book: Book) -> str:
    """What is wrong with the book, and the mend, in one line; "" where nothing is."""
    problems = [_text_problem(id, texts) for id, texts in book.principles.items()]
    problems += [_collection_problem(book, name) for name in book.collections]
    problems += [_same_title(book, language) for language in Texts.model_fields]
    return next(filter(None, problems), "")


def _text_problem(id: str, texts: Texts) -> str:
    if not id or not all(character.isalnum() or character in "_-" for character in id):
        return f"{id!r}: a principle's name is made of letters, digits, _ and -"
    written = {language: wording for language, wording in texts if wording is not None}
    if not written:
        return f"{id}: no text; write {LANGUAGES}"
    for language, wording in written.items():
        for part, text in wording:
            if text != text.strip() or not text:
                return f"{id}.{language}.{part}: it is empty, or has blanks around it"
            if len(text.splitlines()) > 1:
                return f"{id}.{language}.{part}: it has several lines; write one, for it stands in a list"
        if wording.definition == wording.negative:
            return f"{id}.{language}: definition and negative are the same; negative says the opposite"
    return ""


def _collection_problem(book: Book, name: str) -> str:
    weights = book.collections[name]
    if not weights:
        return f"{name}: an empty collection; name principles and weights, such as {next(iter(book.principles))}: 1"
    for id, weight in weights.items():
        if id not in book.principles:
            return f"{name}.{id}: no such principle{nearest(id, book.principles)}; write its texts under principles"
        if not 0 <= weight <= HEAVIEST:
            return f"{name}.{id}: a weight is 0 or more and at most {HEAVIEST:,.0f}, found {weight:g}"
    return ""


def _same_title(book: Book, language: str) -> str:
    owner: dict[str, str] = {}
    for id, texts in book.principles.items():
        wording: Wording | None = getattr(texts, language)
        if wording is not None and (other := owner.setdefault(wording.title, id)) != id:
            return f"{id}.{language}.title: {wording.title!r} is {other}'s title; a labeler could not tell them apart"
    return ""
