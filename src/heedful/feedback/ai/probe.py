"""What a server can do, found by asking it: a handful of tiny requests, once for each server and model.

Servers take fields that they do not heed. So nothing counts as done because it was accepted: of log-probabilities the
list must come, of a choice that is forced the answer must be one that nobody would give freely, of several samples so
many must come and differ. And nothing counts as not done but by an answer without it or a plain no: where the server is
busy or fails, nothing is found out, and the probe ends.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from heedful.config import InputError
from heedful.feedback.ai.calls import CHAT, COMPLETIONS, Call, Caller, Failure, Json, Reply
from heedful.feedback.ai.reading import Place, chosen, places_in, read_echo, said_in

Way = Literal["token_ids", "top", "forced", "votes"]
Forcing = Literal["", "json_schema", "structured_outputs", "guided_choice"]

ASKED = "Which is larger, 1 or 2? Answer with 1 or 2.\nAnswer:"
STORY = "Tell a story about a red boat and a small dog."
NEVER = ("quince", "walrus")  # answers to ASKED that are only given where nothing else may be
FEW = 16  # tokens
NO = (400, 404, 405, 413, 422, 501)  # statuses of a plain no to what was asked
BROKEN = 500  # an error within the server
RIVALS = (20, 5)  # tokens listed beside one: the API's limit for chats, and for texts


@dataclass(frozen=True)
class Able:
    """What a server can do with a model, and so how it is asked for a label.

    token_ids: the labels' own log-probabilities. top: those of the likeliest tokens. forced: samples that can be
    nothing but labels. votes: samples that are read.
    """

    route: str = CHAT
    way: Way = "votes"
    length: str = "max_tokens"  # the field that limits a response
    greedy: bool = True  # takes a temperature
    seeded: bool = True  # takes a seed
    thinks: bool = False
    rivals: int = 0
    echoes: bool = False  # gives log-probabilities of a prompt
    forcing: Forcing = ""
    many: bool = False  # several samples by one request
    samples: bool = True  # samples differ

    def told(self, votes: int) -> str:
        """One line on how labels are got."""
        place = "chat" if self.route == CHAT else "text"
        read = ", behind its thoughts" if self.thinks else ""
        if self.way == "token_ids":
            return f"the labels' own log-probabilities ({place}{read})"
        if self.way == "top":
            rest = "; labels beyond it from echoed prompts" if self.echoes else ""
            return f"log-probabilities of the {self.rivals} likeliest tokens ({place}{read}){rest}"
        kind = "choices forced by " + self.forcing if self.way == "forced" else "answers in words"
        if votes == 1 or not self.samples:
            return f"one verdict, no probability: {kind} ({place}{read})"
        return f"shares of {votes} votes: {kind} ({place}{read})"


def read_able(values: Json) -> Able | None:
    """What a ledger kept; None where another version of heedful wrote it."""
    try:
        found = Able(**values)
    except TypeError:
        return None
    return found if found.way in get_args(Way) and found.forcing in get_args(Forcing) else None


def as_json(able: Able) -> Json:
    return asdict(able)


def with_prompt(able: Able, model: str, prompt: str, max_tokens: int) -> Json:
    """The body of a request as this server takes it, without what is asked beside the prompt."""
    asked = {"messages": [{"role": "user", "content": prompt}]} if able.route == CHAT else {"prompt": prompt}
    return {"model": model, **asked, able.length: max_tokens}


def how_drawn(able: Able, temperature: float | None, seed: int) -> Json:
    """Fields of drawing that the server takes; without a temperature, its own."""
    drawn = {"temperature": temperature} if able.greedy and temperature is not None else {}
    return drawn | ({"seed": seed} if able.seeded else {})


def with_rivals(able: Able) -> Json:
    return {"logprobs": True, "top_logprobs": able.rivals} if able.route == CHAT else {"logprobs": able.rivals}


def forced(forcing: Forcing, labels: list[str]) -> Json:
    """The fields that let an answer be one of the labels only."""
    if forcing == "json_schema":
        label = {"type": "string", "enum": labels}
        shape = {"properties": {"label": label}, "required": ["label"], "additionalProperties": False}
        named = {"name": "label", "strict": True, "schema": {"type": "object", **shape}}
        return {"response_format": {"type": "json_schema", "json_schema": named}}
    return {"structured_outputs": {"choice": labels}} if forcing == "structured_outputs" else {forcing: labels}


class Probe:
    """A server and model that are being found out about."""

    def __init__(self, caller: Caller, model: str, extra: Json, thinking_tokens: int) -> None:
        self.caller, self.model, self.extra, self.thinking_tokens = caller, model, extra, thinking_tokens

    def run(self, route: str = "") -> Able:
        """What it can do, by the route that is given, or by chat where it can chat.

        Raises:
            InputError: it cannot be asked at all, or failed before all was found out.
        """
        able = self._basics([route] if route else [CHAT, COMPLETIONS])
        able = self._listing(able)
        if able.way == "top" and self._by_ids(able):
            able = replace(able, way="token_ids")
        if able.way == "top" and able.route == COMPLETIONS and self._echo(able):
            able = replace(able, echoes=True)
        if able.way == "votes":
            able = self._forcing(able)
        return self._sampling(able)

    def ask(
        self, able: Able, prompt: str, max_tokens: int, turn: int = 0, *, no: Sequence[int] = NO, **more: Any
    ) -> Reply | Failure:
        length = self.thinking_tokens if able.thinks else max_tokens
        body = with_prompt(able, self.model, prompt, length) | more | self.extra
        return self.call(Call(able.route, body, prompt, turn), no)

    def call(self, call: Call, no: Sequence[int] = NO) -> Reply | Failure:
        """The reply, or the server's no to such a call, which the statuses `no` are.

        Raises:
            InputError: it was no answer to what was asked.
        """
        [found] = self.caller.ask([call])
        if isinstance(found, Failure) and found.kind == "api":
            if found.status not in no:
                again = "; what it can do is not found out yet: run the same command again later"
                raise InputError(f"{self.caller.address}: {found.message}{again}")
            self.caller.over = None  # a route that is not there, or nobody there who can do that
        return found

    def _basics(self, routes: list[str]) -> Able:
        """Which route answers, and which fields of length and drawing it takes.

        A route that keeps failing within the server, as a chat with a model without a template does in some, cannot
        either, if the next one answers; the last one has to.
        """
        said = ""
        for route in routes:
            able = Able(route=route)
            no = NO if route == routes[-1] else (*NO, BROKEN)
            for _ in range(4):
                found = self.ask(able, ASKED, FEW, no=no, **how_drawn(able, 0.0, 0))
                if isinstance(found, Reply):
                    return replace(able, thinks=_thinks(found))
                said = found.message
                if (next_one := _without(able, said)) == able:
                    break
                able = next_one
        raise InputError(f"{self.caller.address} does not answer as {self.model}: {said}")

    def _listing(self, able: Able) -> Able:
        for number in RIVALS:
            listing = replace(able, way="top", rivals=number)
            found = self.ask(listing, ASKED, FEW, **how_drawn(able, 0.0, 0), **with_rivals(listing))
            if isinstance(found, Reply) and _listed(found) > 1:
                return listing
        return able

    def _by_ids(self, able: Able) -> bool:
        """Whether a token comes with its log-probability because it was asked for by its id, however unlikely."""
        [ids] = self.caller.tokenize(self.model, [NEVER[0]])
        if not ids:
            return False
        drawn = how_drawn(able, 0.0, 0)
        plain = self.ask(able, ASKED, FEW, **drawn, **with_rivals(able))
        asked = self.ask(able, ASKED, FEW, **drawn, **with_rivals(able), logprob_token_ids=ids)
        if isinstance(plain, Failure) or isinstance(asked, Failure):
            return False
        if not (_places(plain) and _places(asked)):
            return False
        one, other = (_places(reply)[0].listed for reply in (plain, asked))
        return one.keys() != other.keys() and len(other) <= len(ids) + 1

    def _echo(self, able: Able) -> bool:
        found = self.call(echo_call(self.model, [f"{ASKED} {n}" for n in (1, 2)], self.extra))
        if isinstance(found, Failure):
            return False
        read = read_echo(found.choices, [(0, " 1"), (1, " 2")], 2)
        return not isinstance(read, str) and all(0 < chance < 1 for chance in read.told)

    def _forcing(self, able: Able) -> Able:
        for forcing in get_args(Forcing)[1:]:
            found = self.ask(able, ASKED, 2 * FEW, **how_drawn(able, 0.0, 0), **forced(forcing, list(NEVER)))
            if isinstance(found, Reply) and chosen(said_in(found.choices[0]).text, NEVER) is not None:
                return replace(able, way="forced", forcing=forcing)
        return able

    def _sampling(self, able: Able) -> Able:
        found = self.ask(able, STORY, FEW, n=2, **how_drawn(able, 1.0, 1))
        if isinstance(found, Reply) and len(found.choices) == 2:
            one, other = (said_in(choice) for choice in found.choices)
            return replace(able, many=True, samples=one.text != other.text or able.thinks)
        drawn = [self.ask(able, STORY, FEW, turn=seed, **how_drawn(able, 1.0, seed)) for seed in (1, 2)]
        texts = [said_in(reply.choices[0]).text for reply in drawn if isinstance(reply, Reply)]
        return replace(able, samples=len(set(texts)) > 1 or able.thinks)


def echo_call(model: str, texts: list[str], extra: Json) -> Call:
    """Texts whose own log-probabilities are asked for."""
    body = {"model": model, "prompt": texts, "max_tokens": 0, "echo": True, "logprobs": 0, **extra}
    return Call(COMPLETIONS, body, "".join(texts))


def _without(able: Able, said: str) -> Able:
    """Without the field that a refusal names."""
    if "max_completion_tokens" in said and able.length == "max_tokens":
        return replace(able, length="max_completion_tokens")
    if "temperature" in said and able.greedy:
        return replace(able, greedy=False)
    if "seed" in said and able.seeded:
        return replace(able, seeded=False)
    return able


def _thinks(reply: Reply) -> bool:
    """Whether the model thinks before it answers, for all to see or not."""
    return reply.reasoning_tokens > 0 or said_in(reply.choices[0]).thought


def _listed(reply: Reply) -> int:
    """How many tokens are listed at every place; 0 where nowhere two of them are possible: then nothing is told."""
    places = _places(reply)
    possible = max((sum(one > -math.inf for one in place.listed.values()) for place in places), default=0)
    return min(len(place.listed) for place in places) if possible > 1 else 0


def _places(reply: Reply) -> list[Place]:
    try:
        return places_in(reply.choices[0])
    except ValueError:
        return []
