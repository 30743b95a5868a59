"""Which language a text is in, as far as its letters tell, and of Latin letters the commonest words."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

LATIN = "latin"  # in Latin letters, of which language nobody can say: for whoever reads one of those
WORD = re.compile(r"[^\W\d_]+")
LOOKED_AT = 2000  # characters at the beginning of a text
COMMON = {  # short words that every text has, and those that requests begin with; some are several languages'
    "en": """the of and to in is that it for on with as are was be this by from or an at not you your have has can will
        what which who how why when where do does if but they their there about into a i my me we would should please
        write give explain list name tell describe say make find summarize""",
    "es": """el la los las de que y en un una es por con para no se su al lo como más pero sus le ya o este sí porque
        esta entre cuando muy sin sobre también me hasta hay donde quien desde qué cuál cómo dónde cuándo quién mi a
        son está escribe explica dime dame nombra haz describe una""",
    "fr": """le la les de des et en un une est que qui dans pour pas sur au aux du ce cette il elle ne se par plus avec
        sont mais ou où comme vous je nous mon ma mes votre quel quelle quels quelles comment pourquoi a à être
        écris écrivez explique donne nomme fais décris""",
    "de": """der die das und in den von zu mit sich des auf für ist im dem nicht ein eine einen einer als auch es an
        werden aus er hat dass sie nach wird bei um am sind noch wie einem über so zum war was wer wo warum ich du
        mir mein schreibe schreib erkläre nenne gib beschreibe sag""",
    "pt": """o a os as de que e do da em um uma para com não no na por mais dos das se como mas ao ele foi à seu sua ou
        quando muito há nos já eu também só pelo pela até isso ela entre é são está qual quais onde quem porque meu
        minha escreva explique dê liste descreva diga""",
    "it": """il lo la i gli le di che e un una in è per con non si da del della dei delle al alla nel nella sono come
        ma anche più o se ha questo questa dove quando chi cosa perché quale quali mi mio mia dal sul
        scrivi spiega elenca dimmi descrivi fai""",
}
WORDS = {language: frozenset(words.split()) for language, words in COMMON.items()}

# First and last code point of the letters that name a language; all other letters are Latin's.
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
    """An ISO 639-1 code by the script of most of the text, among Latin letters by its commonest words.

    "latin" where those do not tell (a text of few words, or of a language that is not in WORDS), "" for a text without
    letters.
    """
    found: Counter[str] = Counter()
    for character in text:
        if character.isalpha():
            found[_script(ord(character))] += 1
    if found["ja"] > KANA_SHARE * (found["ja"] + found["zh"]):
        found["ja"] += found.pop("zh", 0)
    for language in ("zh", "ja"):
        found[language] *= IDEOGRAPH
    if not found.total():
        return ""
    most = max(found, key=lambda language: (found[language], language))
    return _by_words(text) if most == LATIN else most


def _by_words(text: str) -> str:
    said = WORD.findall(text[:LOOKED_AT].lower())
    hits = {language: sum(word in words for word in said) for language, words in WORDS.items()}
    best, second = sorted(hits, key=lambda language: -hits[language])[:2]
    return best if hits[best] > hits[second] else LATIN


def language_to_read(text: str, task: Mapping[str, Any]) -> str:
    """Of a prompt: what its `task` says under "language" (de, or de-AT), else what its text tells."""
    said = task.get("language")
    return str(said).lower().replace("_", "-").partition("-")[0] if said else language_of(text)


def readable(languages: Sequence[str]) -> list[str]:
    """What comes to somebody who reads these languages: theirs, what has no letters, and Latin letters of a language
    that cannot be told, if they read one of those."""
    others = {language for _, _, language in SCRIPTS}
    return ["", *languages, *([LATIN] if set(languages) - others else [])]


def _script(point: int) -> str:
    return next((language for first, last, language in SCRIPTS if first <= point <= last), LATIN)
