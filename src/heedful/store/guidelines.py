"""Guidelines: Markdown for each task, purpose and language, in versions; a judgement names the one it was made by.

The version that comes with heedful is 0; what a project's leads write begins at 1.
"""

import re
from difflib import SequenceMatcher
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import Connection, select

from heedful.store.database import Store, timestamp
from heedful.store.schema import guidelines

SHIPPED = Path(__file__).parent / "guidelines"
FALLBACK = "en"
WORD = re.compile(r"\s+|[\u3400-\u9fff]|\w+?(?=[\u3400-\u9fff]|\b)|.", re.DOTALL)
MOST_WORDS = 3000  # in a changed stretch, beyond which it is shown as a whole: matching takes their square


class Guideline(NamedTuple):
    id: str  # task/purpose/language/version: what judgements keep
    text: str


def current_guideline(connection: Connection, task: str, purpose: str, language: str) -> Guideline:
    """The newest in the language, else in English, else the one that comes with heedful; "none" where there is none.

    Who is screened goes by the guideline for training.
    """
    if purpose == "screening":
        purpose = "train"
    for tongue in (language, FALLBACK):
        own = [guidelines.c.task == task, guidelines.c.purpose == purpose, guidelines.c.language == tongue]
        newest = select(guidelines).where(*own).order_by(guidelines.c.version.desc()).limit(1)
        row = connection.execute(newest).first()
        if row is not None:
            return Guideline(f"{task}/{purpose}/{tongue}/{row.version}", row.text)
        path = SHIPPED / f"{task}-{purpose}.{tongue}.md"
        if path.exists():
            return Guideline(f"{task}/{purpose}/{tongue}/0", path.read_text(encoding="utf-8"))
    return Guideline("none", "")


def read_guideline(connection: Connection, id: str) -> Guideline | None:
    """That version; None where there is none of that name."""
    task, _, rest = id.partition("/")
    purpose, _, rest = rest.partition("/")
    language, _, version = rest.partition("/")
    if (
        not (version.isascii() and version.isdigit() and len(version) < 10)
        or not (task + purpose + language).replace("_", "").isalnum()
    ):
        return None
    if version == "0":
        path = SHIPPED / f"{task}-{purpose}.{language}.md"
        return Guideline(id, path.read_text(encoding="utf-8")) if path.exists() else None
    named = [guidelines.c.task == task, guidelines.c.purpose == purpose, guidelines.c.language == language]
    text = connection.execute(select(guidelines.c.text).where(*named, guidelines.c.version == int(version))).scalar()
    return None if text is None else Guideline(id, text)


class Version(NamedTuple):
    """A version without its text. `author` and `created` are empty where it came with heedful."""

    number: int
    author: str
    created: str


def versions(connection: Connection, task: str, purpose: str, language: str) -> list[Version]:
    """All there are, the newest first."""
    own = [guidelines.c.task == task, guidelines.c.purpose == purpose, guidelines.c.language == language]
    asked = select(guidelines.c.version, guidelines.c.author, guidelines.c.created).where(*own)
    found = [Version(*row) for row in connection.execute(asked.order_by(guidelines.c.version.desc()))]
    shipped = (SHIPPED / f"{task}-{purpose}.{language}.md").exists()
    return found + ([Version(0, "", "")] if shipped else [])


def changes(old: str, new: str) -> list[tuple[str, str]]:
    """How one text becomes another: pieces of both ("same"), of the old alone ("old"), of the new ("new")."""
    found: list[tuple[str, str]] = []
    for one, other in _lines(old.splitlines(keepends=True), new.splitlines(keepends=True)):
        pieces = [WORD.findall("".join(lines)) for lines in (one, other)]
        if one == other or max(map(len, pieces)) > MOST_WORDS or not all(pieces):
            pieces = [["".join(one)], ["".join(other)]]
        for before, after in _lines(*pieces):
            if before == after:
                found.append(("same", "".join(before)))
            else:
                found += [(kind, "".join(text)) for kind, text in (("old", before), ("new", after)) if "".join(text)]
    return found


def _lines(old: list[str], new: list[str]) -> list[tuple[list[str], list[str]]]:
    """Stretches of the two that belong together, equal ones and others by turns."""
    found = SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
    return [(old[a:b], new[c:d]) for _, a, b, c, d in found]


def add_guideline(store: Store, task: str, purpose: str, language: str, text: str, author: str) -> int:
    """A new version; returns its number. The same text as the newest changes nothing."""
    own = [guidelines.c.task == task, guidelines.c.purpose == purpose, guidelines.c.language == language]

    def put(connection: Connection) -> int:
        newest = select(guidelines).where(*own).order_by(guidelines.c.version.desc()).limit(1)
        row = connection.execute(newest).first()
        if row is not None and row.text == text:
            return row.version
        version = row.version + 1 if row is not None else 1
        key = {"task": task, "purpose": purpose, "language": language, "version": version}
        connection.execute(guidelines.insert().values(key | {"text": text, "author": author, "created": timestamp()}))
        return version

    return store.write(put)
