"""The report's pages: templates that extend base.html, with one style sheet inside each page."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from heedful.report.numbers import plain

HERE = Path(__file__).parent


def laid_out(template: str, **content: Any) -> str:
    """A whole page as HTML; a name that the template uses and `content` lacks is an error."""
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    style = Markup((HERE / "report.css").read_text(encoding="utf-8"))
    return environment.get_template(template).render(style=style, plain=plain, **content)
