"""What a server's reply says: the labels' probabilities where the answer stands, a verdict in words, or a text.

A list of the likeliest tokens leaves some of a label's probability untold: tokens that are not listed, and listed ones
that begin it when it is not known what follows them. It is summed, so that whoever reads a share knows how far it may
be off, and no label is taken for impossible because it was not listed.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

Json = dict[str, Any]

# What may stand before an answer and is no part of it: blanks (▁ is SentencePiece's), quotes, brackets, emphasis.
LEAD = " \t\r\n\u00a0\u2581\u3000*_`\"'“”‘’「『【〈《([{<#:：="
LEADS = re.compile(b"(?:" + b"|".join(re.escape(c.encode()) for c in LEAD) + b")*")
CLOSES = ("</think>", "</thinking>", "</reasoning>", "[/THINK]")
REASONING = ("reasoning_content", "reasoning", "thinking")
BYTES = re.compile(r"\\x([0-9a-fA-F]{2})")
LOUDEST = 1e-3  # nats above 0 that rounding may leave; more is no log-probability
SUM_OVER = 0.02  # above 1 that the probabilities of a place may sum to: logits in bf16 are rounded so
NAMED = 0.5  # of probability that labels must have where a chat begins, unless it names one
DENIALS = re.compile(
    r"\bI(['’]m| am) (sorry|unable)\b|\bI (can't|can’t|cannot|won't|won’t|will not|must decline)\b|\bas an AI\b"
    r"|\bI (have|hold) no (preference|opinion)\b"
    r"|抱歉|对不起|(无法|不能|不便)(回答|选择|提供|协助|帮助|判断|评价)|作为(一个)?(AI|人工智能)",
    re.I,
)
# What stands before a label that a sentence chooses: a word for what is judged; or a sign or a verb, behind which a
# number may also count something ("is 2 sentences long").
NOUNS = r"\b(?:response|summary|answer|option|number)|回答|回复|回应|摘要|总结|选项"
VERBS = r"[=:：]|\b(?:is|prefer|choose|pick|select|give it an?)|选择?|是"
TURNED = re.compile(  # a sentence that may say the opposite
    r"\b(?:not|no|neither|nor|never|cannot|worse|worst|less|least|without|lacks?|fails?|wrong|bad|harmful|unsafe)\b"
    r"|n['’]t\b|不|没|無|无|非|差",
    re.I,
)
WORD = "A-Za-z0-9_０-９"  # Chinese stands beside a number without a blank
BEHIND_OTHER = re.compile(r"\b(?:than|over|instead|rather|unlike|against|between|both)\b|比", re.I)  # it lost


def spellings(label: str) -> list[str]:
    """How a label may be written behind a prompt: bare, behind a blank, full width."""
    wide = "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in label)
    return list(dict.fromkeys([label, f" {label}", wide]))


class Place(NamedTuple):
    """One token of a reply: its bytes, and the log-probabilities of the tokens listed there, itself among them."""

    token: bytes
    listed: Mapping[bytes, float]


class Chances(NamedTuple):
    """The probability of each label that is told, and at most how much of each is untold."""

    told: list[float]
    untold: list[float]

    @property
    def doubt(self) -> float:
        """By how much a label's share among the labels may be off."""
        untold = sum(self.untold)
        return untold / (sum(self.told) + untold) if sum(self.told) else 1.0

    def logprobs(self) -> tuple[float, ...]:
        """Nats; a label of which nothing is told is as likely as it may be."""
        return tuple(log(told or untold) for told, untold in zip(*self, strict=True))


def log(probability: float) -> float:
    return math.log(probability) if probability else -math.inf


class Said(NamedTuple):
    """The words of a choice: its answer, without what was thought before it."""

    text: str
    thought: bool
    refusal: str
    cut: bool  # the limit ended it


def said_in(choice: Json) -> Said:
    """The answer in a choice of either form of the API."""
    told = choice.get("message")
    message = told if isinstance(told, dict) else {}
    text = message.get("content") if message else choice.get("text")
    if isinstance(text, list):  # parts
        text = "".join(str(part.get("text") or "") for part in text if isinstance(part, dict))
    text = clean(text) if isinstance(text, str) else ""
    thought = any(isinstance(message.get(name), str) and message[name] for name in REASONING)
    opened = re.match(r"\s*(<think(ing)?>|<reasoning>|\[THINK\])", text)
    end = max((text.rfind(close) + len(close) for close in CLOSES if close in text), default=0)
    if opened and not end:
        text, thought = "", True
    elif end:
        text, thought = text[end:], True
    how = choice.get("finish_reason")
    refusal = message.get("refusal")
    said = clean(refusal) if isinstance(refusal, str) else ""
    if how == "content_filter":
        said = said or "the server's content filter"
    return Said(text, thought, said, how == "length")


def clean(text: str) -> str:
    """No database takes NUL, and no file half a character."""
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()


def places_in(choice: Json) -> list[Place]:
    """The tokens of a choice with their rivals, in either form of the API; none where none are told.

    Raises:
        ValueError: what is told are no log-probabilities.
    """
    told = choice.get("logprobs")
    if not isinstance(told, dict):
        return []
    try:
        if isinstance(told.get("content"), list):
            return [
                _place(_name(one), one["logprob"], [(_name(rival), rival["logprob"]) for rival in _rivals(one)])
                for one in told["content"]
            ]
        tokens = told.get("tokens") or []
        rivals = told.get("top_logprobs") or [None] * len(tokens)
        return [
            _place(_bytes(token), logprob, [(_bytes(rival), one) for rival, one in (others or {}).items()])
            for token, logprob, others in zip(tokens, told.get("token_logprobs") or [], rivals, strict=True)
            if logprob is not None  # the first token of a text has none
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"log-probabilities in no known form ({error!r})") from None


def _rivals(entry: Json) -> list[Json]:
    return entry.get("top_logprobs") or []


def _place(token: bytes, logprob: Any, rivals: Sequence[tuple[bytes, Any]]) -> Place:
    chances: dict[bytes, float] = {}
    for rival, value in rivals:  # several tokens may be spelled alike
        chances[rival] = chances.get(rival, 0.0) + math.exp(_checked(value))
    chances.setdefault(token, math.exp(_checked(logprob)))
    if (whole := sum(chances.values())) > 1 + SUM_OVER:
        raise ValueError(f"probabilities that sum to {whole:.3g} are none")
    return Place(token, {name: log(chance) for name, chance in chances.items()})


def _checked(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value) or value > LOUDEST:
        raise ValueError(f"{value!r} is no log-probability")
    return min(float(value), 0.0)


def _name(entry: Json) -> bytes:
    told = entry.get("bytes")
    return bytes(told) if isinstance(told, list) and told else _bytes(entry["token"])


def _bytes(token: str) -> bytes:
    """Completions write a token that is no UTF-8 as bytes:\\xe6."""
    if token.startswith("bytes:"):
        return bytes(int(digits, 16) for digits in BYTES.findall(token))
    return token.encode(errors="replace")


def bare(said: bytes) -> bytes:
    """Without what may stand before an answer."""
    found = LEADS.match(said)
    return said[found.end() :] if found else said


def read_chances(places: Sequence[Place], labels: Sequence[str], complete: bool = False) -> Chances:
    """How likely each label is at the first of the places.

    A label of several tokens is followed along the tokens that were written. `complete`: every token that begins a
    label is listed.
    """
    forms = [[form.encode() for form in dict.fromkeys(map(str.strip, spellings(label)))] for label in labels]
    found = Chances([0.0] * len(labels), [0.0] * len(labels))
    _follow(places, b"", 0.0, forms, found, complete)
    return found


def _follow(
    places: Sequence[Place],
    before: bytes,
    logprob: float,
    forms: Sequence[Sequence[bytes]],
    found: Chances,
    complete: bool,
) -> None:
    """Add what the first place tells of the labels, `before` being written already."""
    place = places[0]
    there = [any(bare(before + token) in spelled for token in place.listed) for spelled in forms]
    for token, one in place.listed.items():
        said, chance = bare(before + token), math.exp(logprob + one)
        begun = [n for n, spelled in enumerate(forms) if token and any(_begins(said, form) for form in spelled)]
        whole = [n for n, spelled in enumerate(forms) if any(_is(said, form) for form in spelled)]
        if begun and token == place.token and len(places) > 1:
            further = Chances([0.0] * len(forms), [0.0] * len(forms))
            _follow(places[1:], before + token, logprob + one, forms, further, complete)
            longer = [n for n in range(len(forms)) if n not in whole]
            for n in longer:
                found.told[n] += further.told[n]
                found.untold[n] += further.untold[n]
            for n in whole:  # what does not go on to another label
                found.told[n] += max(chance - sum(further.told[m] for m in longer), 0.0)
            continue
        for n in whole:
            found.told[n] += chance
        for n in begun if said else ():  # a tokenizer that has 10 as a token does not write it as 1 and 0
            found.untold[n] += 0.0 if whole and there[n] else chance
    if not complete:
        missing = max(1.0 - sum(map(math.exp, place.listed.values())), 0.0)
        least = math.exp(min(place.listed.values()))
        for n, spelled in enumerate(forms):
            unlisted = len(_ways(bare(before), spelled[0]) - place.listed.keys())
            found.untold[n] += math.exp(logprob) * min(missing, unlisted * least)


def _begins(said: bytes, form: bytes) -> bool:
    return form.startswith(said) and said != form


def _is(said: bytes, form: bytes) -> bool:
    return said.startswith(form) and not said[len(form) :].decode(errors="ignore")[:1].isalnum()


def _ways(said: bytes, form: bytes) -> set[bytes]:
    """The tokens that would make a label of what is said, its plain spellings alone: others are rare."""
    leads = [b""] if said else [b"", b" "]
    return {lead + form[len(said) :] for lead in leads} if _begins(said, form) else set()


def verdict(text: str, labels: Sequence[str]) -> tuple[int, int] | None:
    """The label that a text chooses, and where; None where it chooses none, or will not.

    Its last line consists of the label, or ends in it behind = or a colon. Or a sentence names it behind a word such as
    Response, the text names no other, and nothing in the sentence may turn it round ("not", "worse", "than 1").
    """
    if DENIALS.search(text):
        return None
    by_form = {form.strip(): n for n, label in enumerate(labels) for form in spellings(label)}
    either = "|".join(re.escape(form) for form in sorted(by_form, key=len, reverse=True))
    begin = text.rstrip().rfind("\n") + 1
    last = re.search(rf"(?:^|[=:：])\W*({either})\W*$", text[begin:])
    if last is not None and not TURNED.search(text[begin:]):
        return by_form[last[1]], begin + last.start(1)
    named = {by_form[one[0]] for one in re.finditer(rf"(?<![{WORD}.])(?:{either})(?![{WORD}]|\.\d)", text)}
    here = rf"[^\w.。!?！？\n-]*({either})(?![{WORD}]|\.\d|\s*[/%-])"
    found = re.search(rf"(?:{NOUNS}){here}|(?:{VERBS}){here}(?!\s+\w+s\b)", text, re.I)
    if found is None or len(named) != 1:
        return None
    which = 1 if found[1] else 2
    before = re.split(r"[.。!?！？\n]", text[: found.start(which)])[-1]
    after = re.split(r"[.。!?！？\n]", text[found.end(which) :])[0]
    if TURNED.search(before) or TURNED.search(after) or BEHIND_OTHER.search(before):
        return None
    return by_form[found[which]], found.start(which)


def chosen(text: str, labels: Sequence[str]) -> int | None:
    """The label that a constrained choice names, as JSON or bare."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = text
    if isinstance(found, dict) and len(found) == 1:
        [found] = found.values()
    said = str(found).strip()
    return labels.index(said) if said in labels else None


def start_of(places: Sequence[Place], text: str, at: int = 0) -> int | None:
    """Which token holds the character `at` of the answer's text; None where the tokens do not end in that text."""
    joined = b"".join(place.token for place in places)
    stripped = text.strip()
    begin = joined.rfind(stripped.encode())
    if not stripped or begin < 0:
        return None
    offset = begin + len(text[: max(at, len(text) - len(text.lstrip()))].lstrip().encode())
    end = 0
    for n, place in enumerate(places):
        end += len(place.token)
        if end > offset:
            return n
    return None


def read_label(choice: Json, labels: Sequence[str], enough: float, complete: bool = False) -> Chances | str:
    """The labels' chances where a choice answers; otherwise what is wrong with it, in a few words.

    The answer stands at the first token, or behind the thoughts of a model that thinks. Where labels are unlikely
    there, or their shares in doubt beyond `enough`, it stands where the text names a label, if it names one. A chat
    that was cut before it could name one, and in which labels are unlikely at the first token, has none.
    """
    said = said_in(choice)
    try:
        places = places_in(choice)
    except ValueError as error:
        return str(error)
    if not places:
        return "the reply holds no log-probabilities"
    start = start_of(places, said.text) if said.thought else 0
    if start is None:
        return "its limit ended it while it was thinking" if said.cut else "no answer behind what it thought"
    found = read_chances(places[start:], labels, complete)
    named = verdict(said.text, labels)
    if named is not None and (found.doubt > enough or sum(found.told) < NAMED):
        later = start_of(places, said.text, named[1])
        if later is not None and later > start:
            return read_chances(places[later:], labels, complete)
    if named is None and said.cut and "message" in choice and sum(found.told) < NAMED:
        return "its limit ended it before it named a label"
    return found


def read_echo(choices: Sequence[Json], forms: Sequence[tuple[int, str]], num_labels: int) -> Chances | str:
    """The labels' chances from prompts that were echoed with a label's form behind each: `forms` tells which.

    Each form's log-probability is that of all tokens from where the texts first part, so nothing depends on how a
    label's first character and the prompt's last are tokenized. Where the tokens of one label begin another's, as 1
    begins 10, what belongs to the longer one is taken off. Forms that no token tells apart (unknown characters) count
    for nothing.
    """
    rows = []
    for choice in choices:
        told = choice.get("logprobs")
        if not isinstance(told, dict) or len(told.get("tokens") or []) != len(told.get("token_logprobs") or [None]):
            return "the reply holds no log-probabilities of its prompt"
        rows.append(list(zip(told["tokens"], told["token_logprobs"], strict=True)))
    if len(rows) != len(forms):
        return f"{len(rows)} texts echoed of {len(forms)}"
    names = [tuple(token for token, _ in row) for row in rows]
    shared = next((n for n, heads in enumerate(zip(*names, strict=False)) if len(set(heads)) > 1), 0)
    if not shared:
        return "the echoed texts are all alike"
    try:
        chance = [math.exp(sum(_checked(logprob) for _, logprob in row[shared:])) for row in rows]
    except ValueError as error:
        return str(error)
    found = Chances([0.0] * num_labels, [0.0] * num_labels)
    for n, (label, _) in enumerate(forms):
        if names.count(names[n]) == 1:
            own = names[n]
            longer = [m for m, (other, _) in enumerate(forms) if other != label and names[m][: len(own)] == own]
            found.told[label] += max(chance[n] - sum(chance[m] for m in longer), 0.0)
    return found
