"""Markdown of guidelines and of models' answers as HTML that can do no harm.

Texts come from models and strangers: raw HTML is shown as it is written, and what is left is sanitized once more.
Prompts are no Markdown: they stand as they were typed, since what labelers judge by is what the model was given.
"""

from functools import lru_cache

import nh3
from markdown_it import MarkdownIt
from markupsafe import Markup, escape

MARKDOWN = MarkdownIt("commonmark", {"html": False, "breaks": True}).enable(["table", "strikethrough"]).disable("image")
TAGS = {
    *("p", "br", "hr", "h1", "h2", "h3", "h4", "h5", "h6", "blockquote", "pre", "code", "em", "strong", "s", "a"),
    *("ul", "ol", "li", "table", "thead", "tbody", "tr", "th", "td"),
}
ATTRIBUTES = {"a": {"href"}, "ol": {"start"}}
SCHEMES = {"http", "https", "mailto"}
LONGEST, MOST_BRACKETS = 50_000, 5_000  # a parser's time grows with the square of what opens and never closes


@lru_cache(500)  # a guideline stands on every page of its task
def html_of(text: str) -> Markup:
    """The text as safe HTML; links open elsewhere and tell nothing of us. Very long ones stay as they are."""
    if len(text) > LONGEST or text.count("[") > MOST_BRACKETS:
        return Markup('<div class="plain-text">{}</div>').format(escape(text))
    made = MARKDOWN.render(text)
    return Markup(
        nh3.clean(made, tags=TAGS, attributes=ATTRIBUTES, url_schemes=SCHEMES, link_rel="noopener noreferrer nofollow")
    )


def writable(text: str) -> str:
    """Without the lone surrogates that JSON can name and UTF-8 cannot write."""
    return text.encode("utf-8", "replace").decode()
