"""Chats of labelers with served models: what was said, and for chats of two answers a turn, what they preferred.

A chat is a row that grows by turns: a message, then one answer or two (A and B), then the labeler's choice. The
choice is a judgement like any other and is stored at once: the turn's prompt (the turns before it are its worked
pairs), the two responses, and a ranking of two, whose ids follow from chat and turn, so that nothing is stored twice.
Until the next message is sent the choice may be changed: that is a new version of the ranking.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

from pydantic import Field
from sqlalchemy import Connection, select

from heedful.config import InputError
from heedful.store.database import Store, timestamp
from heedful.store.labels import revise
from heedful.store.pii import find_pii, redact
from heedful.store.pools import insert_prompts
from heedful.store.records import Entry, erased_ids, insert
from heedful.store.schema import chats, labelers, prompts
from heedful.types import UNKNOWN_GUIDELINE, Prompt, Purpose, Ranking, Record, Response, Split

Kind = Literal["red_team", "pairs"]
LETTERS = "ab"
VOTE = "playground vote"  # the event of somebody who said which of two answers is better


class Answer(Record):
    """What a model answered, and what it takes to ask it the same again."""

    text: str
    model: str
    seed: int
    finished: bool


class Turn(Record):
    """A message, the answers to it by letter, and the choice among two: a letter, "tie" or "neither" (both are bad).

    `began` is where the page's count of seconds stood when the message was sent.
    """

    text: str
    answers: dict[str, Answer] = Field(default_factory=dict)
    choice: str = ""
    strength: int | None = None
    began: float | None = None

    @property
    def went_on(self) -> str:
        """The letter of the answer with which the chat goes on; of equal ones the first."""
        return "a" if self.choice in ("tie", "neither") else self.choice or next(iter(self.answers), "")


class Chat(NamedTuple):
    id: str
    labeler: str
    kind: Kind
    models: tuple[str, ...]
    round: int
    turns: tuple[Turn, ...]
    marks: Mapping[str, Any]

    @property
    def letters(self) -> str:
        return LETTERS if self.kind == "pairs" else LETTERS[0]

    def answered(self, turn: int) -> bool:
        return set(self.turns[turn].answers) == set(self.letters)

    @property
    def open(self) -> bool:
        """Whether a new message can be sent: every turn so far is answered, and chosen from."""
        return all(
            self.answered(i) and (self.kind == "red_team" or turn.choice != "") for i, turn in enumerate(self.turns)
        )

    def history(self, turn: int) -> list[tuple[str, str]]:
        """What went before the turn: (message, the answer with which the chat went on)."""
        return [(before.text, before.answers[before.went_on].text) for before in self.turns[:turn]]


class Stale(InputError):
    """The chat has moved on since the page was made, in another window."""

    def __init__(self) -> None:
        super().__init__("the chat has moved on meanwhile; look at it once more")


def find_chat(connection: Connection, id: str) -> Chat | None:
    row = connection.execute(select(chats).where(chats.c.id == id)).first()
    return None if row is None else _chat(row)


def all_chats(connection: Connection) -> list[Chat]:
    """Every chat, in the order they were begun."""
    return [_chat(row) for row in connection.execute(select(chats).order_by(chats.c.created, chats.c.id))]


def _chat(row: Any) -> Chat:
    turns = tuple(Turn.model_validate(turn) for turn in row.messages)
    return Chat(row.id, row.labeler, row.kind, tuple(row.model.split("\n")), row.round, turns, row.marks)


def say(store: Store, chat: Chat, turn: int, text: str, began: float | None = None) -> Chat:
    """Add the message as that turn, beginning the chat with it. The same again changes nothing; another text takes the
    place of one that got no answer.

    Raises:
        Stale: the turn is answered already, or the one before it waits for an answer or a choice.
        InputError: the chat was erased.
    """

    def add(connection: Connection) -> Chat:
        now = find_chat(connection, chat.id) or chat
        if turn == len(now.turns) and now.open:
            turns = (*now.turns, Turn(text=text, began=began))
        elif turn == len(now.turns) - 1 and now.turns[turn].text == text:
            return now
        elif turn == len(now.turns) - 1 and not now.answered(turn):
            turns = (*now.turns[:-1], Turn(text=text, began=began))
        else:
            raise Stale
        if not now.turns:
            if erased_ids(connection, chats, [now.id]):
                raise InputError("this chat was erased on request; go on with another item")
            row: dict[str, Any] = {
                "id": now.id,
                "labeler": now.labeler,
                "kind": now.kind,
                "model": "\n".join(now.models),
            }
            row |= {"marks": dict(now.marks), "messages": [], "round": now.round, "created": timestamp()}
            connection.execute(chats.insert().values(row))
        return _put(connection, now._replace(turns=turns))

    return store.write(add)


def _put(connection: Connection, chat: Chat) -> Chat:
    messages = [turn.model_dump(mode="json") for turn in chat.turns]
    connection.execute(chats.update().where(chats.c.id == chat.id).values(messages=messages, marks=dict(chat.marks)))
    return chat


def _changed(store: Store, id: str, change: Callable[[Connection, Chat], Chat]) -> Chat:
    def work(connection: Connection) -> Chat:
        now = find_chat(connection, id)
        if now is None:
            raise Stale
        new = change(connection, now)
        return now if new == now else _put(connection, new)

    return store.write(work)


def put_answer(store: Store, id: str, turn: int, text: str, letter: str, answer: Answer) -> Chat:
    """Keep the answer to the message; the first one to come stays.

    Raises:
        Stale: the turn has another text by now.
    """

    def put(connection: Connection, now: Chat) -> Chat:
        if turn >= len(now.turns) or now.turns[turn].text != text:
            raise Stale
        if letter in now.turns[turn].answers:
            return now
        answers = dict(sorted({**now.turns[turn].answers, letter: answer}.items()))
        return _with_turn(now, now.turns[turn].model_copy(update={"answers": answers}))

    return _changed(store, id, put)


def _with_turn(chat: Chat, last: Turn) -> Chat:
    return chat._replace(turns=(*chat.turns[:-1], last))


def choose(
    store: Store,
    id: str,
    turn: int,
    choice: str,
    strength: int | None,
    purpose: Purpose = "train",
    guideline: str = UNKNOWN_GUIDELINE,
    seconds: float | None = None,
) -> Chat:
    """Keep the choice of the last turn and store it as a ranking with all it speaks of; another one takes its place.

    `seconds` is where the page's count of seconds stands.

    Raises:
        Stale: the next message was sent already, or the turn is not answered.
    """

    def put(connection: Connection, now: Chat) -> Chat:
        if turn != len(now.turns) - 1 or not now.answered(turn) or now.kind != "pairs":
            raise Stale
        last = now.turns[turn].model_copy(update={"choice": choice, "strength": strength})
        if last == now.turns[turn]:
            return now
        chosen = _with_turn(now, last)
        spent = None if seconds is None or last.began is None else max(0.0, seconds - last.began)
        write_turn(connection, chosen, turn, purpose, guideline, spent)
        return chosen

    return _changed(store, id, put)


def write_turn(
    connection: Connection, chat: Chat, turn: int, purpose: Purpose, guideline: str, seconds: float | None
) -> None:
    """The turn's prompt, responses and ranking.

    What labelers in training write trains, without personal data (docs/store.md); held-out labelers' chats are for
    validation. Somebody whose prompts stand in a split already keeps it.
    """
    split = split_of(connection, chat.labeler)
    place = {"round": chat.round}
    prompt = prompt_of(chat, turn, split)
    pool = "evaluation" if split == "test" else "reward_model"
    insert_prompts(connection, [Entry(prompt, place | {"pool": pool})])
    said = chat.turns[turn]
    made = [
        Response(
            id=f"{prompt.id}/{letter}",
            prompt_id=prompt.id,
            text=said.answers[letter].text,
            model=said.answers[letter].model,
            finished=said.answers[letter].finished,
        )
        for letter in LETTERS
    ]
    insert(connection, [Entry(response, place) for response in made])
    ids = tuple(response.id for response in made)
    ranking = Ranking(
        id=f"comparison/{purpose}/{chat.round}/{chat.labeler}/{prompt.id}",
        prompt_id=prompt.id,
        labeler=chat.labeler,
        responses=ids,
        rank={"a": (1, 2), "b": (2, 1), "tie": (1, 1), "neither": (1, 1)}[said.choice],
        both_bad=said.choice == "neither",
        order=ids,
        strength=said.strength,
        purpose=purpose,
        guideline=guideline,
        seconds=seconds,
    )
    revise(connection, Entry(ranking, place), must_exist=False)


def split_of(connection: Connection, labeler: str) -> Split:
    """In which split the labeler's own prompts stand."""
    known = connection.execute(select(prompts.c.split).where(prompts.c.user == labeler).limit(1)).scalar()
    group = connection.execute(select(labelers.c.group).where(labelers.c.id == labeler)).scalar()
    return known or ("valid" if group == "heldout" else "train")


def prompt_of(chat: Chat, turn: int, split: Split) -> Prompt:
    """The turn as a prompt: its message, with the turns before it as worked pairs."""

    def clean(text: str) -> str:
        return redact(text, find_pii(text)) if split == "train" else text

    pairs = tuple((clean(text), answer) for text, answer in chat.history(turn))
    text = clean(chat.turns[turn].text)
    redacted = (text, *(query for query, _ in pairs)) != tuple(chat.turns[i].text for i in (turn, *range(turn)))
    return Prompt(
        id=f"{chat.id}/{turn}",
        text=text,
        user=chat.labeler,
        source="labeler",
        use_case="chat",
        split=split,
        examples=pairs,
        task={"redacted": True} if redacted else {},
    )


def mark(connection: Connection, id: str, marks: Mapping[str, Any]) -> Chat:
    """Set what the labeler says of the whole chat.

    Raises:
        InputError: there is no such chat.
    """
    now = find_chat(connection, id)
    if now is None:
        raise InputError("the chat has not begun; send a message first")
    return _put(connection, now._replace(marks={**now.marks, **marks}))
