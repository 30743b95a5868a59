"""What the scripts that fill pages share: tables in Markdown, and where on a page they stand."""

import re
from collections.abc import Mapping, Sequence


def number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{round(value, digits) + 0.0:.{digits}f}"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in (head, *rows)]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]])


def filled(page: str, subject: str, texts: Mapping[str, str]) -> str:
    """The page with the text of every name anew, between `<!-- SUBJECT:NAME -->` and `<!-- /SUBJECT -->`.

    Raises:
        LookupError: the page has no marker for a name.
    """
    for name, text in texts.items():
        pattern = rf"(<!-- {subject}:{name} -->\n).*?(<!-- /{subject} -->)"
        page, found = re.subn(pattern, lambda m, t=text: f"{m[1]}{t}\n{m[2]}", page, flags=re.DOTALL)
        if not found:
            raise LookupError(f"no <!-- {subject}:{name} --> on the page")
    return page
