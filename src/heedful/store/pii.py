"""Personal data in text: found by form and checksum, replaced by a placeholder, counted by kind.

InstructGPT (section 3.2) removes personally identifiable information from the training prompts. Numbers count as ID
or card numbers only when their check digits fit, so that years, prices and order numbers stay. Names need a model or
a list: give a function that returns their (start, end), or where it is importable from (`load_names`).
"""

import re
import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import date
from importlib import import_module
from typing import NamedTuple

from heedful.config import InputError

Names = Callable[[str], Iterable[tuple[int, int]]]

# Full-width forms, common in Chinese text, and typographers' dashes and spaces as their ASCII twins; one character
# each, so places stay true.
_ASCII = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
_ASCII |= dict.fromkeys((0x2010, 0x2011, 0x2012, 0x2013, 0x2212), 0x2D)
_ASCII |= dict.fromkeys((0xA0, 0x2007, 0x2009, 0x202F, 0x3000), 0x20)

# Letters of addresses: Latin with its accents, Greek, Cyrillic; Chinese may stand right before and after an address.
_LETTER = "A-Za-z\u00c0-\u024f\u0370-\u04ff"
_EMAIL = re.compile(
    rf"(?<![{_LETTER}0-9._%+-])[{_LETTER}0-9._%+-]{{1,64}}(?:@| ?(?:\[at\]|\(at\)) ?)"
    rf"(?:[{_LETTER}0-9-]{{1,63}}(?:\.| ?(?:\[dot\]|\(dot\)) ?)){{1,8}}"
    rf"(?!(?:png|jpe?g|gif|svg|webp)(?![{_LETTER}]))[{_LETTER}]{{2,24}}",
    re.IGNORECASE,
)
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]){11,30}")
_CN_ID = re.compile(r"(?<![0-9A-Za-z])[1-9][0-9]{16}[0-9Xx](?![0-9A-Za-z])")
_CARD = re.compile(r"(?<![0-9])[2-6](?:[ -]?[0-9]){12,18}(?![0-9])")
_US_SSN = re.compile(r"(?<![0-9-])(?!000|666|9)[0-9]{3}-(?!00)[0-9]{2}-(?!0000)[0-9]{4}(?![0-9-])")
_PHONE = re.compile(
    r"(?<![0-9A-Za-z.+-])(?:"
    r"(?!\+[0-9]{1,3}(?:[.][0-9]{3})+(?![0-9]))\+[1-9][0-9]{0,2}(?:[ .-]?\(?[0-9]{1,5}\)?){2,6}"  # +44 20 7946 0958
    r"|(?:1[ .-])?\([2-9][0-9]{2}\) ?[0-9]{3}[ .-][0-9]{4}"  # (212) 555-0123
    r"|(?:1[ .-])?[2-9][0-9]{2}([ .-])[0-9]{3}\1[0-9]{4}"  # 212-555-0123
    r"|1[3-9][0-9]([ -]?)[0-9]{4}\2[0-9]{4}"  # Chinese mobile: 138 1234 5678
    r"|(?<!ISBN )(?<!ISBN-10: )(?<!ISBN: )[2-9][0-9]{2}[2-9][0-9]{6}"  # 2125550123
    r"|0[1-9](?:[ .-][0-9]{2}){4}"  # 06 12 34 56 78
    r"|\(?0[1-9][0-9]{1,4}\)?(?:[ -][0-9]{3,4}[ -]?[0-9]{4}|[ /-][0-9]{5,8})"  # 020 7946 0958, 030/1234567
    r"|00[1-9][0-9]{0,2}(?: [0-9]{2,8}){2,4}"  # 0049 170 1234567
    r")(?![0-9])"
)
# Papers whose numbers have no check digits: only behind their name.
_PAPER = re.compile(
    r"(?:passport|driver'?s? licen[cs]e|national insurance|护照)(?: ?(?:number|no\.?|id|#|号码?))?(?: is)?[ :#：]{0,3}"
    r"(?=[A-Z]{0,5}[0-9])([A-Z]{0,5}[0-9][A-Z0-9]{5,13})(?![A-Z0-9])",
    re.IGNORECASE,
)
# ISO 13616: the whole length of an IBAN by country.
_IBAN_LENGTH = {
    country: int(length)
    for length, countries in {
        "15": "NO", "16": "BE", "18": "DK FI FO GL NL SD", "19": "MK SI", "20": "AT BA EE KZ LT LU MN XK",
        "21": "CH HR LI LV", "22": "BG BH CR DE GB GE IE ME RS VA", "23": "AE GI IL IQ OM SO TL",
        "24": "AD CZ ES MD PK RO SA SE SK TN VG", "25": "LY PT ST", "26": "IS TR",
        "27": "BI DJ FR GR IT MC MR SM", "28": "AL AZ BY CY DO GT HU LB NI PL SV",
        "29": "BR EG PS QA UA", "30": "JO KW MU", "31": "MT SC", "32": "LC", "33": "RU",
    }.items()
    for country in countries.split()
}  # fmt: skip


class Span(NamedTuple):
    """A piece of text: [start, end) and what it is."""

    start: int
    end: int
    kind: str


def find_pii(text: str, names: Names | None = None) -> list[Span]:
    """What the text holds, from left to right, without overlaps; the more certain kind wins."""
    plain = text.translate(_ASCII)
    found: list[Span] = []
    for span in _candidates(plain):
        _keep(found, span)
    for start, end in names(text) if names else ():
        _keep(found, Span(start, end, "name"))
    return sorted(found)


def load_names(place: str) -> Names:
    """The function at "module:function", such as one over a named-entity model of yours.

    Raises:
        InputError: there is none.
    """
    module, _, name = place.partition(":")
    if "" not in sys.path:
        sys.path.append("")  # a module in the folder where the command is run
    try:
        found = getattr(import_module(module), name)
    except (ImportError, ValueError, AttributeError) as error:
        raise InputError(f"names: {place}: {error}; write module:function of an importable module") from None
    if not callable(found):
        raise InputError(f"names: {place} is no function; it must take a text and return the (start, end) of names")
    return found


def redact(text: str, spans: Iterable[Span]) -> str:
    """The text with a placeholder such as [email] in place of each span."""
    pieces, place = [], 0
    for span in spans:
        pieces += [text[place : span.start], f"[{span.kind}]"]
        place = span.end
    return "".join([*pieces, text[place:]])


def _keep(found: list[Span], span: Span) -> None:
    if span.start < span.end and all(span.end <= other.start or other.end <= span.start for other in found):
        found.append(span)


def _candidates(text: str) -> Iterator[Span]:
    for match in _EMAIL.finditer(text):
        yield Span(*match.span(), "email")
    for match in _IBAN.finditer(text):
        end = match.start() + _iban_end(match.group())
        yield Span(match.start(), end, "iban")
    for match in _CN_ID.finditer(text):
        if is_cn_id(match.group()):
            yield Span(*match.span(), "cn_id")
    for match in _CARD.finditer(text):
        if is_card(match.group()):
            yield Span(*match.span(), "card")
    for match in _US_SSN.finditer(text):
        yield Span(*match.span(), "us_ssn")
    for match in _PAPER.finditer(text):
        yield Span(*match.span(1), "id")
    for match in _PHONE.finditer(text):
        if 8 <= sum(character.isdigit() for character in match.group()) <= 15:
            yield Span(*match.span(), "phone")


def is_card(text: str) -> bool:
    """The Luhn check (ISO/IEC 7812-1) over the digits of the text."""
    digits = [int(character) for character in text if character.isdigit()]
    doubled = [digit if place % 2 == 0 else 2 * digit - 9 * (digit > 4) for place, digit in enumerate(digits[::-1])]
    return 13 <= len(digits) <= 19 and sum(doubled) % 10 == 0


def is_cn_id(text: str) -> bool:
    """A resident ID of the People's Republic of China: a possible birthday and the check character of GB 11643."""
    try:
        born = date(int(text[6:10]), int(text[10:12]), int(text[12:14]))
    except ValueError:
        return False
    total = sum(int(digit) * pow(2, 17 - place, 11) for place, digit in enumerate(text[:17]))
    return 1850 <= born.year <= 2100 and "10X98765432"[total % 11] == text[17].upper()


def is_iban(text: str) -> bool:
    """ISO 13616: the country's length, and 1 modulo 97 with the first four characters moved to the end."""
    text = text.replace(" ", "")
    if _IBAN_LENGTH.get(text[:2]) != len(text):
        return False
    return int("".join(str(int(character, 36)) for character in text[4:] + text[:4])) % 97 == 1


def _iban_end(text: str) -> int:
    """Where the IBAN at the start of the text ends; 0 when there is none. Capitals may follow after a space."""
    wanted, length = _IBAN_LENGTH.get(text[:2], 0), 0
    for place, character in enumerate(text):
        length += character != " "
        if length == wanted and is_iban(text[: place + 1]):
            following = text[place + 1 : place + 2]
            return place + 1 if following in ("", " ") else 0
    return 0
