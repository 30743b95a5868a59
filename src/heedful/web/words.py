"""The app's own words in the labeler's language: gettext catalogues, read as they stand in locales/LOCALE/*.po."""

import gettext
import io
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from babel import Locale, negotiate_locale
from babel.messages.catalog import Catalog
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po

FOLDER = Path(__file__).parent / "locales"
LOCALES = ("en", "zh_Hans")
NAMES = {"en": "English", "zh_Hans": "简体中文"}
LANGUAGES = {  # in which labelers may judge; more are found in prompts, and go to whoever chose none
    **{"en": "English", "zh": "中文", "es": "Español", "fr": "Français", "de": "Deutsch"},
    **{"pt": "Português", "it": "Italiano"},
    **{"ja": "日本語", "ko": "한국어", "ru": "Русский", "ar": "العربية", "hi": "हिन्दी"},
}


def N_(message: str) -> str:
    """Marks a message for the catalogue that is translated later, where it is shown."""
    return message


@cache
def translations(locale: str) -> gettext.NullTranslations:
    """All catalogues of the locale as one; English is what stands in the code."""
    whole = Catalog(locale=locale)
    for path in sorted((FOLDER / locale).glob("*.po")):
        with path.open("rb") as file:
            for message in read_po(file, locale=locale):
                if message.id:
                    whole[message.id] = message
    compiled = io.BytesIO()
    write_mo(compiled, whole)
    compiled.seek(0)
    return gettext.GNUTranslations(compiled)


def accepted(header: str) -> str:
    """The locale that fits an Accept-Language header best."""
    wanted = []
    for part in header.split(","):
        tag, _, quality = part.strip().partition(";q=")
        try:
            wanted.append((float(quality or 1), tag.replace("-", "_")))
        except ValueError:
            continue
    ordered = [tag for _, tag in sorted(wanted, key=lambda pair: -pair[0])]
    return best(ordered)


def best(wanted: Sequence[str]) -> str:
    """The first of the wanted locales that there is; any Chinese finds the one we have."""
    ours = ["zh_Hans" if tag.lower().startswith("zh") else tag for tag in wanted]
    return negotiate_locale(ours, LOCALES) or "en"


def language_tag(locale: str) -> str:
    """For the page's lang attribute."""
    return str(Locale.parse(locale)).replace("_", "-")
