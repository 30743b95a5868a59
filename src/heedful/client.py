"""A labelling app from a program: take items, judge them, read what was judged.

    client = Client("http://localhost:8200", token)
    while item := client.next():
        client.submit(item, marks={"A": {"rank": 1, "overall": 6}, "B": {"rank": 2, "overall": 3}})

Everything goes through the app's JSON API (docs/api.md): the same leases, checks and blindness as on its pages.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import httpx

from heedful.config import InputError

SECONDS = 60.0  # without an answer after which a request has failed


class Refused(InputError):
    """The app says no; `status` is HTTP's, `problems` are of the fields of a judgement."""

    def __init__(self, message: str, status: int, problems: Sequence[Mapping[str, str]] = ()) -> None:
        super().__init__(message)
        self.status, self.problems = status, list(problems)


class Client:
    """One account of the app at the address, by its token. Use it in one thread."""

    def __init__(self, address: str, token: str, transport: httpx.BaseTransport | None = None) -> None:
        if not address.startswith(("http://", "https://")):
            raise InputError(f"{address}: give the app's address, such as http://localhost:8200")
        if not (token.isascii() and token.isprintable() and token):
            raise InputError("the token holds what no token can; heedful label token makes one")
        headers = {"Authorization": f"Bearer {token}"}
        base = f"{address.rstrip('/')}/api/v1"
        self.http = httpx.Client(base_url=base, headers=headers, timeout=SECONDS, transport=transport)
        self.address = address

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self.http.close()

    def me(self) -> dict[str, Any]:
        """id, role, group and languages of the token's account."""
        return self._ask("GET", "/me")

    def works(self) -> list[dict[str, Any]]:
        """What is on offer to this labeler: work (its name), task, purpose, round, done, total, own, held."""
        return self._ask("GET", "/works")

    def next(self, work: str = "") -> dict[str, Any] | None:
        """The next item, leased; None where there is nothing left, of the work that is named if one is."""
        found: dict[str, Any] | None = self._ask("POST", "/next", {"work": work, "only": bool(work)})["item"]
        return found

    def item(self, key: str) -> dict[str, Any]:
        """An item by its key."""
        return self._ask("GET", f"/items/{key}")

    def submit(self, item: Mapping[str, Any], seconds: float | None = None, **judged: Any) -> bool:
        """Judge the item: text="…", or marks={"A": {"rank": 1, "overall": 6, "boxes": ["opinion"]}, …}, or
        fields={…} of the page's form. Again, it is a correction. True where it is the first.

        Raises:
            Refused: something is missing (status 422, see `problems`), or others finished the item (409).
        """
        body = {"guideline": item["guideline"]["id"], "shown": item["shown"], "seconds": seconds, **judged}
        new: bool = self._ask("POST", f"/items/{item['key']}", body)["new"]
        return new

    def draft(self, item: Mapping[str, Any], **judged: Any) -> bool:
        """Keep what there is so far, as `submit` takes it; False where others have finished the item."""
        yours: bool = self._ask("PUT", f"/items/{item['key']}/draft", {"shown": item["shown"], **judged})["yours"]
        return yours

    def skip(self, item: Mapping[str, Any], reason: str = "other", note: str = "") -> None:
        """Pass the item over; the reason "cannot" says, as a judgement, that it cannot be judged."""
        self._ask("POST", f"/items/{item['key']}/skip", {"reason": reason, "note": note})

    def unskip(self, item: Mapping[str, Any]) -> None:
        """Undo that."""
        self._ask("POST", f"/items/{item['key']}/unskip")

    def progress(self) -> list[dict[str, Any]]:
        """For leads and researchers: every work on offer with done and total."""
        return self._ask("GET", "/progress")

    def offer(self, task: str, **work: Any) -> int:
        """For leads: put work on offer (purpose, round, group, pool, overlap, number); returns its open slots."""
        open_slots: int = self._ask("POST", "/works", {"task": task, **work})["open"]
        return open_slots

    def rankings(self, since: str = "") -> Iterator[dict[str, Any]]:
        """For leads and researchers: every current ranking, with prompt, responses and labeler."""
        return self.judgements("ranking", since)

    def judgements(self, kind: str, since: str = "") -> Iterator[dict[str, Any]]:
        """Lines of `heedful label export` as they come: of kind demonstration, rating or ranking."""
        try:
            with self.http.stream("GET", f"/judgements/{kind}", params={"since": since}) as answer:
                if answer.is_error:
                    answer.read()
                    raise self._refusal(answer)
                rest = b""
                for part in answer.iter_bytes():
                    *whole, rest = (rest + part).split(b"\n")  # not by iter_lines: texts may hold other line ends
                    yield from map(json.loads, whole)
        except httpx.TransportError as error:
            raise self._unreachable(error) from None

    def add_prompts(self, prompts: Sequence[Mapping[str, Any]], **how: Any) -> dict[str, Any]:
        """For leads: take prompts (text, user, …) in by the rules of intake; `how`: pool, round. Says what was kept."""
        return self._ask("POST", "/prompts", {"prompts": list(prompts), **how})

    def add_responses(self, responses: Sequence[Mapping[str, Any]], round: int = 0) -> int:
        """For leads: responses (prompt_id, text, model) to judge; returns the number of new ones."""
        new: int = self._ask("POST", "/responses", {"responses": list(responses), "round": round})["new"]
        return new

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        try:
            answer = self.http.request(method, path, json=body)
        except httpx.TransportError as error:
            raise self._unreachable(error) from None
        if answer.is_error:
            raise self._refusal(answer)
        return answer.json()

    def _unreachable(self, error: Exception) -> InputError:
        why = " ".join(str(error).split()) or type(error).__name__
        return InputError(f"{self.address}: no labelling app answers ({why}); heedful label serve starts one")

    def _refusal(self, answer: httpx.Response) -> Refused:
        try:
            told = answer.json()
            return Refused(f"{told['error']}", answer.status_code, told.get("problems", []))
        except (ValueError, KeyError, TypeError):
            return Refused(f"{self.address} says {answer.status_code}; is it a labelling app?", answer.status_code)
