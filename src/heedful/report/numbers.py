"""Numbers of results.json as they stand in the page: each carries its place in the file, so it can be checked."""

from collections.abc import Callable

from markupsafe import Markup

from heedful.report.folder import RunFolder

Show = Callable[..., Markup]


def shower(run: RunFolder) -> Show:
    """`show(pointer, digits=3, percent=False, tag="span")`: the value as HTML (`tag="tspan"` inside a drawing).

    A value that is null, or not in the file, is a dash.
    """

    def show(pointer: str, digits: int = 3, percent: bool = False, tag: str = "span") -> Markup:
        value = run.at(pointer)
        form = Markup('<{tag} data-key="{key}"{more}>{text}</{tag}>')
        if isinstance(value, bool) or not isinstance(value, int | float):
            return form.format(tag=tag, key=pointer, more="", text="–" if value is None else str(value))
        exact = Markup(' data-exact="{}"').format(value)
        return form.format(tag=tag, key=pointer, more=exact, text=plain(value, digits, percent))

    return show


def plain(value: float | None, digits: int = 3, percent: bool = False) -> str:
    """A number as text, with a true minus sign; a dash for none; whole numbers with thin thousands."""
    if value is None:
        return "–"
    if isinstance(value, int) and not percent:
        return f"{value:,}".replace(",", "\u2009").replace("-", "−")
    text = f"{100 * value:.{digits}f} %" if percent else f"{value:.{digits}f}"
    return text.replace("-", "−") if float(text.removesuffix(" %")) else text.replace("-", "")


def duration(seconds: float) -> str:
    """4 min 12 s."""
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{seconds:.1f} s"
