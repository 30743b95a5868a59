"""What came of each question, out of a server's replies. Tokens stand with the outcome they were spent for."""

from collections.abc import Sequence
from dataclasses import replace

from heedful.feedback.ai.calls import Failure, Json, Reply
from heedful.feedback.ai.labeler import Kind, Outcome
from heedful.feedback.ai.reading import DENIALS, NAMED, Chances, chosen, log, read_echo, read_label, said_in, verdict

DOUBT = 0.05  # by which a label's share may be off and still be taken
SHOWN = 80  # characters of an answer that is no answer

Answer = Reply | Failure


def of_failure(failure: Failure) -> Outcome:
    return Outcome(failure.kind, message=failure.message)


def counted(outcome: Outcome, reply: Reply) -> Outcome:
    """The outcome with the reply's tokens on top of its own."""
    prompt, new = reply.prompt_tokens or 0, reply.new_tokens or 0
    return replace(outcome, prompt_tokens=outcome.prompt_tokens + prompt, new_tokens=outcome.new_tokens + new)


def of_label(answer: Answer, labels: Sequence[str], complete: bool) -> Outcome:
    """A label's log-probabilities from the tokens listed at its place."""
    if isinstance(answer, Failure):
        return of_failure(answer)
    said = said_in(answer.choices[0])
    if said.refusal:
        return counted(Outcome("refusal", message=said.refusal), answer)
    found = read_label(answer.choices[0], labels, DOUBT, complete)
    sure = isinstance(found, Chances) and sum(found.told) >= NAMED
    if DENIALS.search(said.text) and not sure:
        return counted(Outcome("refusal", message=shown(said.text)), answer)
    if isinstance(found, Chances) and found.doubt <= DOUBT:
        return counted(Outcome(logprobs=found.logprobs()), answer)
    why = f"the labels are not among the likeliest tokens; it began {shown(said.text)}"
    return counted(Outcome("parse", message=found if isinstance(found, str) else why), answer)


def of_echo(answer: Answer, forms: Sequence[tuple[int, str]], num_labels: int) -> Outcome:
    """The same from the log-probabilities of echoed prompts with a label behind each."""
    if isinstance(answer, Failure):
        return of_failure(answer)
    found = read_echo(answer.choices, forms, num_labels)
    if isinstance(found, Chances) and any(found.told):
        return counted(Outcome(logprobs=found.logprobs()), answer)
    why = found if isinstance(found, str) else "no token tells the labels apart"
    return counted(Outcome("parse", message=why), answer)


def of_votes(answers: Sequence[tuple[Answer, int]], labels: Sequence[str], forced: bool) -> tuple[Outcome, int]:
    """The labels' shares of the votes that name one, and how many name none.

    A question of which a call failed is not answered; one of which half the votes name none is not either. Of several
    failures that counts which will stay one.
    """
    failures = [answer for answer, _ in answers if isinstance(answer, Failure)]
    texts = [text for answer, asked in answers for text in of_texts(answer, asked)]
    if failures:
        return total(of_failure(min(failures, key=lambda failure: failure.kind == "api")), texts), 0
    votes = [named(text.text, labels, forced) if text.kind == "ok" else None for text in texts]
    counts = [votes.count(n) for n in range(len(labels))]
    unread = [text for text, vote in zip(texts, votes, strict=True) if vote is None]
    if 2 * len(unread) >= len(votes):
        refused = sum(text.kind == "refusal" or DENIALS.search(text.text) is not None for text in unread)
        why = f"{len(unread)} of {len(votes)} votes name no label, such as {unread[0].message or shown(unread[0].text)}"
        kind: Kind = "refusal" if 2 * refused > len(unread) else "parse"
        return total(Outcome(kind, message=why), texts), len(unread)
    return total(Outcome(logprobs=tuple(log(count / sum(counts)) for count in counts)), texts), len(unread)


def total(outcome: Outcome, parts: Sequence[Outcome]) -> Outcome:
    """The outcome with the tokens of all its parts."""
    prompt, new = sum(part.prompt_tokens for part in parts), sum(part.new_tokens for part in parts)
    return replace(outcome, prompt_tokens=prompt, new_tokens=new)


def named(text: str, labels: Sequence[str], forced: bool) -> int | None:
    if forced:
        return chosen(text, labels)
    found = verdict(text, labels)
    return None if found is None else found[0]


def of_texts(answer: Answer, asked: int) -> list[Outcome]:
    """As many outcomes as samples were asked for."""
    if isinstance(answer, Failure):
        return [of_failure(answer)] * asked
    found = [of_text(choice) for choice in answer.choices[:asked]]
    found += [Outcome("parse", message=f"{len(found)} of {asked} samples came")] * (asked - len(found))
    return [counted(found[0], answer), *found[1:]]


def of_text(choice: Json) -> Outcome:
    said = said_in(choice)
    if said.refusal:
        return Outcome("refusal", message=said.refusal)
    if not said.text.strip():
        return Outcome("parse", message="cut while it was thinking" if said.thought and said.cut else "nothing written")
    return Outcome(text=said.text, cut=said.cut)


def shown(text: str) -> str:
    return repr(" ".join(text.split())[:SHOWN])
