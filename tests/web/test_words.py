"""Every word of the app is there in every language, and nothing is there twice or for nothing."""

import re
from pathlib import Path

import pytest
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po

import heedful.web
from heedful.web.words import FOLDER, LOCALES, accepted, best, translations

WEB = Path(heedful.web.__file__).parent
PLACES = re.compile(r"%\(\w+\)s|\{\w+\}")


def messages() -> set[str]:
    """All that the code and the templates mark."""
    found = extract_from_dir(
        str(WEB),
        method_map=[("**/templates/**.html", "jinja2"), ("**.py", "python")],
        options_map={"**/templates/**.html": {"newstyle_gettext": "true", "silent": "false"}},
        keywords={"_": None, "gettext": None, "N_": None, "ngettext": (1, 2)},
    )
    return {part for _, _, id, _, _ in found for part in ([id] if isinstance(id, str) else id)}


def catalogue(locale: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in sorted((FOLDER / locale).glob("*.po")):
        with path.open("rb") as file:
            for message in read_po(file, locale=locale):
                if message.id:
                    assert message.id not in found, f"{path.name}: {message.id!r} stands in two catalogues"
                    assert "fuzzy" not in message.flags, f"{path.name}: {message.id!r} is fuzzy"
                    found[message.id] = message.string
    return found


@pytest.mark.parametrize("locale", [locale for locale in LOCALES if locale != "en"])
def test_no_word_is_missing(locale: str) -> None:
    there, wanted = catalogue(locale), messages()
    assert len(wanted) > 100
    assert sorted(wanted - {id for id, said in there.items() if said}) == []
    assert sorted(there.keys() - wanted) == []
    for id, said in there.items():
        assert sorted(PLACES.findall(id)) == sorted(PLACES.findall(said)), id
        assert translations(locale).gettext(id) == said


@pytest.mark.parametrize(
    ("header", "locale"),
    [
        ("", "en"),
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh_Hans"),
        ("de,en;q=0.5,zh;q=0.7", "zh_Hans"),
        ("en-GB", "en"),
        ("fr", "en"),
        ("xx;q=nonsense,zh-TW", "zh_Hans"),
    ],
)
def test_the_browser_s_languages_choose(header: str, locale: str) -> None:
    assert accepted(header) == locale


def test_any_chinese_is_ours() -> None:
    assert best(["zh_SG"]) == "zh_Hans" and best([]) == "en"
