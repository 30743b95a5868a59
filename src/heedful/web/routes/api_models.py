"""What the JSON API takes and gives. Its texts hold what a database can keep: no NUL, no lone surrogate."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from heedful.store.accounts import Role
from heedful.store.incoming import IncomingPrompt
from heedful.store.pools import Pool
from heedful.store.progress import Task
from heedful.types import LabelerGroup, Purpose
from heedful.web.tasks.base import LETTERS

MOST_ROUND = 10_000


Letter = Annotated[str, Field(pattern=f"^[{LETTERS}]$")]
Round = Annotated[int, Field(ge=0, le=MOST_ROUND, description="The turn of the loop; 0 is its start.")]


class Message(BaseModel):
    """An unknown key is an error that names it."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _texts_can_be_kept(cls, values: Any) -> Any:
        left = [values]
        while left:
            value = left.pop()
            if isinstance(value, dict):
                left += [*value.keys(), *value.values()]
            elif isinstance(value, list):
                left += value
            elif isinstance(value, str) and ("\0" in value or any("\ud800" <= c <= "\udfff" for c in value)):
                raise ValueError("a text cannot hold NUL characters or halves of surrogate pairs")
        return values


class Error(Message):
    """What every refusal says; `problems` are of the fields of a judgement."""

    error: str
    problems: list["FieldProblem"] = []


class FieldProblem(Message):
    field: str
    message: str


class Me(Message):
    """Whose token it is."""

    id: str
    role: Role
    group: LabelerGroup = Field(description="Held-out labelers' judgements never reach training.")
    languages: list[str] = Field(description="Of prompts they are given; none: any.")


class WorkOnOffer(Message):
    """A piece of work that labelers can take items of."""

    work: str = Field(description="Its name, as `next` takes it: ranking/train/1.")
    task: Task
    purpose: Purpose
    round: int
    done: int = Field(description="Judgements made, of `total` wanted.")
    total: int
    own: int = Field(description="Made by you.")
    held: int = Field(description="Items that are yours right now.")
    others: int = Field(description="Judgements, beside `total`, of prompts in languages that you did not choose.")


class WorkProgress(Message):
    """How far a work is, of any group."""

    task: Task
    purpose: Purpose
    round: int
    group: LabelerGroup
    pool: Pool | None
    overlap: float
    done: int
    total: int


class NewWork(Message):
    """Work to put on offer, or to bring up to date: what came in since is put on offer, too."""

    task: Task
    purpose: Purpose = "train"
    round: Round = 0
    group: LabelerGroup = "train"
    pool: Pool | None = None
    overlap: float = Field(default=1, ge=1, le=100, description="Labelers who judge each item; 1.15 is a mean.")
    number: int | None = Field(default=None, ge=1, le=100_000, description="Of items that labelers make: prompts.")


class Offered(Message):
    open: int = Field(description="Slots that nobody has filled yet.")


class ShownPrompt(Message):
    text: str
    examples: list[tuple[str, str]] = Field(description="Worked pairs before it: query, response.")


class ShownResponse(Message):
    letter: str
    text: str
    finished: bool = Field(description="False where the length limit cut it.")


class ShownGuideline(Message):
    id: str = Field(description="The version; send it back with the judgement.")
    text: str


class ShownItem(Message):
    """An item as its labeler sees it: not who wrote a response, nor which split a prompt is of.

    `fields` are those of the page's form: what was submitted, or the draft.
    """

    key: str
    work: str
    task: Task
    purpose: Purpose
    prompt: ShownPrompt | None = Field(description="None where labelers make the item.")
    responses: list[ShownResponse]
    boxes: dict[str, str] = Field(description="What can be ticked of a response: name, and what it means.")
    guideline: ShownGuideline
    fields: dict[str, str]
    shown: str = Field(description="A hash of what is shown; sent back, a judgement of other responses is refused.")
    done: bool


class Next(Message):
    item: ShownItem | None = Field(description="None: nothing is left for you at the moment.")


class Ask(Message):
    work: str = Field(default="", description="The work's name; empty: whatever comes first.")
    only: bool = Field(default=False, description="Nothing else where that work has nothing left.")


class Mark(Message):
    """What is said of one response."""

    rank: int | None = Field(default=None, ge=1, le=len(LETTERS), description="1 is best, equal ranks tie.")
    overall: int | None = Field(default=None, ge=1, le=7)
    boxes: list[str] = Field(default=[], description="Names of the boxes that apply.")


class Submission(Message):
    """A judgement, or as much of it as there is: a `text`, `marks` by letter, any field of the page's form by name."""

    text: str | None = Field(default=None, description="Of a demonstration.")
    marks: dict[Letter, Mark] = {}
    fields: dict[str, str] = Field(default={}, description="Of other tasks: see docs/api.md.")
    guideline: str = Field(default="", description="The version it was made by.")
    shown: str = Field(default="", description="The item's `shown`.")
    seconds: float | None = Field(default=None, description="Of work on it.")


class Saved(Message):
    new: bool = Field(description="False: it stands in place of what you submitted before, or says the same.")


class DraftSaved(Message):
    saved: str
    yours: bool = Field(description="False: others have finished the item meanwhile.")


class Skip(Message):
    """`cannot` is a judgement: the item cannot be judged."""

    reason: str = Field(default="other", description="unclear, language, knowledge, upsetting, other, or cannot.")
    note: str = ""


class Done(Message):
    """It is done."""


class NewPrompts(Message):
    """Prompts to take in by the rules of intake; each needs `text` and `user`."""

    prompts: list[IncomingPrompt]
    pool: Pool | None = Field(default=None, description="All into this one; none: each falls to its own.")
    round: Round = 0


class TakenIn(Message):
    read: int
    kept: int
    dropped: dict[str, int] = Field(description="Reason, and number.")
    stored: int
    report: list[str] = Field(description="For a person, a fact a line.")


class NewResponse(Message):
    prompt_id: str = Field(min_length=1)
    text: str = Field(min_length=1)
    model: str = Field(default="", description="Who wrote it; labelers never see it.")
    finished: bool = True
    id: str = Field(default="", description="Without one it is a hash of the rest.")


class NewResponses(Message):
    responses: list[NewResponse]
    round: Round = 0


class Added(Message):
    new: int = Field(description="The others were there already.")


ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": Error, "description": "What is asked cannot be done."},
    401: {"model": Error, "description": "No token, or one that does not hold."},
    403: {"model": Error, "description": "Not for your role."},
    404: {"model": Error, "description": "Not there, or not yours."},
    409: {"model": Error, "description": "Others have finished the item meanwhile."},
    422: {"model": Error, "description": "Something is missing or wrong; `problems` say what."},
}
