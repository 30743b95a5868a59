"""Which language a text is in, as far as its letters tell."""

from collections import Counter

# First and last code point of the letters that name a language; all other letters are Latin's, which tell none apart.
SCRIPTS = (
    (0x3040, 0x30FF, "ja"),
    (0x4E00, 0x9FFF, "zh"),
    (0x3400, 0x4DBF, "zh"),
    (0xAC00, 0xD7A3, "ko"),
    (0x0400, 0x04FF, "ru"),
    (0x0590, 0x05FF, "he"),
    (0x0600, 0x06FF, "ar"),
    (0x0900, 0x097F, "hi"),
    (0x0E00, 0x0E7F, "th"),
    (0x0370, 0x03FF, "el"),
)
IDEOGRAPH = 4  # one of them says about as much as so many Latin letters
KANA_SHARE = 0.05  # of a text's ideographs and kana: a Chinese text has none


def language_of(text: str) -> str:
    """An ISO 639-1 code by the script of most of the text; "en" for Latin letters, "" for a text without letters."""
    found: Counter[str] = Counter()
    for character in text:
        if character.isalpha():
            found[_script(ord(character))] += 1
    if found["ja"] > KANA_SHARE * (found["ja"] + found["zh"]):
        found["ja"] += found.pop("zh", 0)
    for language in ("zh", "ja"):
        found[language] *= IDEOGRAPH
    return max(found, key=lambda language: (found[language], language)) if found.total() else ""


def _script(point: int) -> str:
    return next((language for first, last, language in SCRIPTS if first <= point <= last), "en")
