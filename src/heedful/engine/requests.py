"""What is asked of the engine, and what it answers."""

from dataclasses import dataclass
from typing import NamedTuple

from heedful.engine.odds import Odds
from heedful.engine.spelling import Piece


@dataclass(frozen=True)
class Request:
    """One prompt to be answered `num_samples` times; top_k 0 and top_p 1 keep every token.

    Temperature 0 is greedy, as are all below `draw.COLDEST`. `bias`: (token, number added to its logit). `logprobs`
    asks for the odds of each token with so many rivals, `prompt_logprobs` for those of the prompt's tokens; with them
    max_new_tokens may be 0. The response ends with the first of the `stop` texts that appears in it.
    """

    prompt: list[int]
    num_samples: int = 1
    max_new_tokens: int = 64
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    bias: tuple[tuple[int, float], ...] = ()
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    stop: tuple[str, ...] = ()


class Completion(NamedTuple):
    """One response. `logprob` is each token's at the sampling temperature (at 1 when greedy), over all tokens.

    Where a bias was asked for, `logprob` is that of the biased distribution; odds never are.
    """

    tokens: list[int]  # with the end token when one was produced, or those of the stop text
    logprob: list[float]
    finished: bool  # False where max_new_tokens cut it
    odds: list[Odds]  # of each token, where asked for
    prompt_odds: list[Odds]  # of the prompt's tokens after the first, where asked for
    failed: bool = False  # the logits behind these tokens are no distribution: NaN, +inf or all -inf
    close_draws: int = 0  # tokens that fp32 rounding could have made others (see `draw.CLOSE`)
    piece: Piece | None = None  # where stop texts were asked for: the text before one, and the tokens that begin in it


class NewToken(NamedTuple):
    """The token that a row has just got."""

    order: int
    sample: int
    token: int
    ends: bool  # it is an end token
    last: bool  # the row gets no more
    odds: Odds | None
    prompt_odds: list[Odds]
    failed: bool  # there is no token (0 stands for it): the logits are no distribution


class Unit(NamedTuple):
    """Samples of one request, of which as many are admitted at a time as there are free rows."""

    order: int  # the request's index
    request: Request
    first: int  # sample
    number: int


def first_units(queue: list[Unit], number: int) -> list[Unit]:
    """The first `number` samples, taken off the queue's end."""
    units: list[Unit] = []
    while queue and number:
        unit = queue.pop()
        taken = min(unit.number, number)
        if taken < unit.number:
            queue.append(unit._replace(first=unit.first + taken, number=unit.number - taken))
        units.append(unit._replace(number=taken))
        number -= taken
    return units
