"""A model behind an OpenAI-compatible server as one that can be asked (`labeler.Ask`).

What the server can do is found once (`probe`) and decides how a label is got, in this order: the labels' own
log-probabilities; those of the likeliest tokens, with echoed prompts where labels are not among them and the server
echoes; samples that can be nothing but labels; samples that are read. `told` says which it is.

A model that thinks is read where its answer begins. A reply that cannot be read, a refusal, a prompt that is too long
and a server that fails are outcomes of their own kinds, never probabilities.

    with Ledger("judge.db") as ledger:
        model = ServedModel("http://127.0.0.1:8000/v1", ledger)
        model.choose(prompts, ["1", "2"])
"""

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import httpx

from heedful.config import InputError
from heedful.feedback.ai.calls import CHAT, COMPLETIONS, Call, Caller, Json, Limits, address_of
from heedful.feedback.ai.labeler import Outcome
from heedful.feedback.ai.ledger import Estimate, Ledger, Spent
from heedful.feedback.ai.outcomes import Answer, of_echo, of_label, of_texts, of_votes, total
from heedful.feedback.ai.probe import (
    NO,
    Able,
    Probe,
    as_json,
    echo_call,
    forced,
    how_drawn,
    read_able,
    with_prompt,
    with_rivals,
)
from heedful.feedback.ai.reading import spellings

AROUND = 16  # tokens of a chat's answer beside the label and the prompt's last line, which some repeat
BYTES_OF_LINE = 3  # of that line per token: few in English, a character in Chinese
FORCED = 24  # tokens of the JSON around a label
WORDS = 16  # tokens of a vote in words beside the label
PROBE_TRIES = 4
KEY_FROM = "HEEDFUL_JUDGE_KEY"  # the variable that is looked at where none is named

NOTHING: Json = {}
Route = Literal["", "chat", "text"]
ROUTES = {"": "", "chat": CHAT, "text": COMPLETIONS}


class ServedModel:
    """One model of one server; what it says is kept in the ledger and not asked again."""

    def __init__(
        self,
        address: str,
        ledger: Ledger,
        model: str = "",
        key: str = "",
        limits: Limits | None = None,
        votes: int = 8,
        thinking_tokens: int = 4096,
        route: Route = "",
        extra: Mapping[str, Any] | None = None,
        probe_again: bool = False,
    ) -> None:
        """Finds out what the server can do, unless the ledger knows.

        Args:
            model: Its name there; none: the only one there is.
            key: The API key, which goes nowhere but to the server.
            votes: Samples that make a share where there are no log-probabilities.
            thinking_tokens: The limit of a response of a model that thinks, thoughts included.
            route: chat, or text that is gone on with; none: chat where it can chat.
            extra: Fields for every request, such as {"chat_template_kwargs": {"enable_thinking": False}}.

        Raises:
            InputError: nothing answers there, the key is not taken, or the name is not known.
        """
        if in_the_open(where := address_of(address), key):
            logging.getLogger(__name__).warning("%s: the key goes there unencrypted; use https", where)
        self.caller = Caller(where, ledger, key, limits or Limits())
        self.votes, self.thinking_tokens = votes, thinking_tokens
        self.extra: Json = dict(extra or {})
        self.model = model or only_model(self.caller)
        self.able = self._able(route, probe_again)
        self._ids: dict[tuple[str, ...], list[int]] = {}

    def _able(self, route: Route, again: bool) -> Able:
        caller = self.caller
        name = "\n".join((self.model, route, *map(str, sorted(self.extra.items()))))
        kept = None if again else caller.ledger.able(caller.address, name)
        found = None if kept is None else read_able(kept)
        if found is None:
            patient = replace(caller.limits, tries=PROBE_TRIES, in_flight=64)  # no run of failures ends it
            trying = Caller(caller.address, Ledger(), caller.key, patient)
            found = Probe(trying, self.model, self.extra, self.thinking_tokens).run(ROUTES[route])
            caller.ledger.keep_able(caller.address, name, as_json(found))
            caller.spent = caller.spent.plus(trying.spent)
            caller.counts["probed"] += trying.counts["asked"]
        return found

    @property
    def told(self) -> str:
        """One line on how labels are got, for reports."""
        return self.able.told(self.votes)

    @property
    def settings(self) -> Json:
        """What decides its answers beside the model and what is asked, and neither where it stands nor how fast it is
        asked. Of the model a server tells no more than `root` (vLLM: where it was loaded from)."""
        found: Json = {"server.labels": self.told, "server.fields": self.extra}
        found |= {"server.thinking_tokens": self.thinking_tokens} if self.able.thinks else {}
        return found | {"server.root": root_of(self.caller, self.model)}

    @property
    def spent(self) -> Spent:
        """Calls of this object that were answered, and their tokens; what the ledger knew costs nothing."""
        return self.caller.spent

    def check(self) -> None:
        """Raises InputError where no more calls are made: going on would only count what was not asked."""
        if self.caller.over is not None:
            raise InputError(
                f"{self.caller.address}: {self.caller.over}; what was answered is kept: run the same command again"
            )

    def choose(self, prompts: Sequence[str], labels: Sequence[str]) -> list[Outcome]:
        """`labeler.Ask.choose`."""
        if self.able.way in ("forced", "votes"):
            return self._vote(prompts, labels)
        answers = self.caller.ask([self._label_call(prompt, labels) for prompt in prompts])
        found = [of_label(answer, labels, self.able.way == "token_ids") for answer in answers]
        unread = [n for n, outcome in enumerate(found) if outcome.kind == "parse" and self.able.echoes]
        for n, outcome in zip(unread, self._echo([prompts[n] for n in unread], labels), strict=True):
            found[n] = total(outcome, (outcome, found[n]))
        return found

    def write(
        self, prompts: Sequence[str], n: int, temperature: float, max_tokens: int, seed: int
    ) -> list[list[Outcome]]:
        """`labeler.Ask.write`."""
        groups = [self._samples(prompt, n, temperature, max_tokens, seed) for prompt in prompts]
        return [
            [outcome for answer, asked in group for outcome in of_texts(answer, asked)]
            for group in self._ask_groups(groups)
        ]

    def estimate_choose(self, prompts: Iterable[str], labels: Sequence[str]) -> Estimate:
        """What `choose` would take; echoed prompts, if labels are not among the likeliest tokens, come on top."""
        if self.able.way in ("forced", "votes"):
            return self._estimate(call for prompt in prompts for call in self._vote_calls(prompt, labels))
        return self._estimate(self._label_call(prompt, labels) for prompt in prompts)

    def estimate_write(
        self, prompts: Iterable[str], n: int, temperature: float, max_tokens: int, seed: int
    ) -> Estimate:
        """What `write` would take."""
        return self._estimate(
            call for prompt in prompts for call in self._samples(prompt, n, temperature, max_tokens, seed)
        )

    def _estimate(self, calls: Iterable[Call]) -> Estimate:
        ledger = self.caller.ledger
        number = kept = new_tokens = size = 0
        for key, call in {call.key: call for call in calls}.items():
            if ledger.knows(key):
                kept += 1
                continue
            number += 1
            size += len(call.prompt.encode(errors="replace"))
            new_tokens += int(call.body[self.able.length]) * int(call.body.get("n", 1))
        return Estimate(number, kept, size / ledger.bytes_per_token(self.model), new_tokens)

    def _body(self, prompt: str, max_tokens: int) -> Json:
        length = self.thinking_tokens if self.able.thinks else max_tokens
        return with_prompt(self.able, self.model, prompt, length)

    def _label_call(self, prompt: str, labels: Sequence[str]) -> Call:
        """Greedy; a model that thinks is drawn as its server sets, for many of them run in circles when greedy."""
        length = max(map(len, labels)) + (around(prompt) if self.able.route == CHAT else 0)
        drawn = how_drawn(self.able, None if self.able.thinks else 0.0, 0)
        body = self._body(prompt, length) | drawn | with_rivals(self.able)
        if self.able.way == "token_ids":
            body["logprob_token_ids"] = self._label_ids(labels)
        return Call(self.able.route, body | self.extra, prompt)

    def _label_ids(self, labels: Sequence[str]) -> list[int]:
        """The tokens that begin a label, however it is spelled."""
        if (key := tuple(labels)) not in self._ids:
            found = self.caller.tokenize(self.model, [form for label in labels for form in spellings(label)])
            if not all(found):
                raise InputError(f"{self.caller.address}: /tokenize worked for the probe and does not now; probe again")
            self._ids[key] = sorted({ids[0] for ids in found})
        return self._ids[key]

    def _echo(self, prompts: Sequence[str], labels: Sequence[str]) -> list[Outcome]:
        forms = [(n, form) for n, label in enumerate(labels) for form in spellings(label)]
        calls = [echo_call(self.model, [prompt + form for _, form in forms], self.extra) for prompt in prompts]
        return [of_echo(answer, forms, len(labels)) for answer in self.caller.ask(calls)]

    def _vote(self, prompts: Sequence[str], labels: Sequence[str]) -> list[Outcome]:
        groups = [self._vote_calls(prompt, labels) for prompt in prompts]
        found = [of_votes(group, labels, bool(self.able.forcing)) for group in self._ask_groups(groups)]
        self.caller.counts["unread votes"] += sum(unread for _, unread in found)
        return [outcome for outcome, _ in found]

    def _vote_calls(self, prompt: str, labels: Sequence[str]) -> list[Call]:
        number = self.votes if self.able.samples else 1
        fields = forced(self.able.forcing, list(labels)) if self.able.forcing else NOTHING
        length = max(map(len, labels)) + (FORCED if self.able.forcing else WORDS)
        return self._samples(prompt, number, 1.0 if number > 1 else 0.0, length, 0, fields)

    def _samples(
        self, prompt: str, n: int, temperature: float, max_tokens: int, seed: int, fields: Json = NOTHING
    ) -> list[Call]:
        """Calls for n samples: one where the server draws several at once, else one for each."""
        body = self._body(prompt, max_tokens) | fields
        turns = {seed: {"n": n}} if self.able.many and n > 1 else {turn: NOTHING for turn in range(seed, seed + n)}
        return [
            Call(self.able.route, body | how_drawn(self.able, temperature, turn) | many | self.extra, prompt, turn)
            for turn, many in turns.items()
        ]

    def _ask_groups(self, groups: Sequence[Sequence[Call]]) -> list[list[tuple[Answer, int]]]:
        """The answers to each group's calls, all asked side by side, with how many samples each was to hold."""
        answers = iter(self.caller.ask([call for group in groups for call in group]))
        return [[(next(answers), int(call.body.get("n", 1))) for call in group] for group in groups]


def around(prompt: str) -> int:
    """Tokens of a chat's answer beside the label: the prompt's last line over again, and a sentence's words."""
    return AROUND + len(prompt.rsplit("\n", 1)[-1].encode(errors="replace")) // BYTES_OF_LINE


def only_model(caller: Caller) -> str:
    """The name of the only model that the server has.

    Raises:
        InputError: it has several, or does not say.
    """
    models = models_of(caller)
    if models is None:
        raise InputError(f"{caller.address} does not say which models it has; name one by --server model=NAME")
    if len(models) != 1:
        listed = ", ".join(list(models)[:20]) or "none"
        raise InputError(f"{caller.address} has {len(models)} models ({listed}); name one by --server model=NAME")
    return next(iter(models))


def root_of(caller: Caller, model: str) -> str:
    """Where the server says that it loaded the model from; "" where it does not say.

    Raises:
        InputError: it does not answer.
    """
    root = (models_of(caller) or {}).get(model, {}).get("root")
    return root if isinstance(root, str) else ""


def models_of(caller: Caller) -> dict[str, Json] | None:
    """What the server says of each model it has, by name; None where it says nothing that can be read.

    Raises:
        InputError: it does not answer, or takes the question amiss.
    """
    try:
        with caller.plain() as client:
            answer = client.get(f"{caller.address}/models")
            if answer.status_code in NO:
                return None
            return {str(one["id"]): one for one in answer.raise_for_status().json()["data"]}
    except httpx.HTTPError as error:
        said = caller.hidden(str(error) or repr(error))
        raise InputError(f"{caller.address}: {said}; is it a model server, and is the key right?") from None
    except (ValueError, KeyError, TypeError):
        return None


def read_key(source: str = "") -> str:
    """The API key from a variable of the environment or a file; none: from HEEDFUL_JUDGE_KEY where that is set.

    Raises:
        InputError: there is no such variable or file, or what it holds is no key. It does not say what was given,
            which may be the key itself.
    """
    key = os.environ.get(source or KEY_FROM, "")
    if not key and source:
        try:
            key = Path(source).read_text(encoding="utf-8")
        except (OSError, ValueError):
            said = "what it names is neither a variable of the environment nor a file; give the name, not the key"
            raise InputError(f"--server key_from: {said}") from None
    key = key.strip()
    if not all("!" <= character <= "~" for character in key) or (source and not key):
        place = "what it names" if source else KEY_FROM
        raise InputError(f"--server key_from: {place} holds no key, which is one word of ASCII")
    return key


def in_the_open(address: str, key: str) -> bool:
    """Whether the key would leave this machine unencrypted."""
    url = httpx.URL(address)
    inside = url.host in ("localhost", "::1") or url.host.startswith("127.")
    return bool(key) and url.scheme == "http" and not inside
