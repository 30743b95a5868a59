"""Guidelines: Markdown for each task, purpose and language, in versions; a judgement names the one it was made by.

The version that comes with heedful is 0; what a project's leads write begins at 1.
"""

from pathlib import Path
from typing import NamedTuple

from sqlalchemy import Connection, select

from heedful.store.database import Store, timestamp
from heedful.store.schema import guidelines

SHIPPED = Path(__file__).parent / "guidelines"
FALLBACK = "en"


class Guideline(NamedTuple):
    id: str  # task/purpose/language/version: what judgements keep
    text: str


def current_guideline(connection: Connection, task: str, purpose: str, language: str) -> Guideline:
    """The newest in the language, else in English, else the one that comes with heedful; "none" where there is none."""
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
    if not version.isdigit() or not (task + purpose + language).replace("_", "").isalnum():
        return None
    if version == "0":
        path = SHIPPED / f"{task}-{purpose}.{language}.md"
        return Guideline(id, path.read_text(encoding="utf-8")) if path.exists() else None
    named = [guidelines.c.task == task, guidelines.c.purpose == purpose, guidelines.c.language == language]
    text = connection.execute(select(guidelines.c.text).where(*named, guidelines.c.version == int(version))).scalar()
    return None if text is None else Guideline(id, text)


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
