"""Ten thousand requests of random lengths through one session: each as if alone, and nothing left behind."""

import random
import resource
from typing import Any

import pytest

from heedful.engine.engine import Engine
from heedful.engine.requests import Completion, Request
from small_models import VOCAB, small_model

pytestmark = pytest.mark.accept
ROWS, END = 48, 2
CONTEXT = 64
LEAST_LEFT = 0.02  # share of requests cancelled midway


def random_request(draw: random.Random, seed: int) -> Request:
    length = draw.randint(1, CONTEXT - 2)
    return Request(
        [draw.randrange(3, VOCAB) for _ in range(length)],
        num_samples=draw.choice([1, 1, 1, 2, 5]),
        max_new_tokens=draw.randint(1, CONTEXT - length),
        temperature=draw.choice([0.0, 0.7, 1.0]),
        top_k=draw.choice([0, 0, 5]),
        top_p=draw.choice([1.0, 1.0, 0.8]),
        seed=seed,
    )


@pytest.mark.parametrize(("family", "number"), [("mistral", 10_000), ("gemma3_text", 1_000)])
def test_ten_thousand_requests_are_each_answered_as_if_alone(family: str, number: int, record_property: Any) -> None:
    record_property(
        "claim",
        f"{number:,} requests of random lengths come and go over {ROWS} rows ({family}): each gets the tokens and "
        "log-probabilities it gets alone (float64, past sliding windows), those who leave free their rows, and storage "
        "stays bounded",
    )
    draw = random.Random(0)
    model = small_model(family).double()
    engine = Engine(model, [END], max_rows=ROWS)
    requests = [random_request(draw, n) for n in range(number)]
    gone = {n: draw.randint(0, 12) for n in range(number) if draw.random() < 2 * LEAST_LEFT}  # steps until they leave
    found: dict[tuple[int, int], Completion] = {}
    leaving: dict[int, list[int]] = {}
    left: set[int] = set()
    columns = alive = step = asked = 0
    memory = 0
    with engine.session() as session:
        while asked < number or session.busy:
            for _ in range(draw.choice([0, 0, 1, 2, 6])):
                if asked < number:
                    session.add(asked, requests[asked])
                    if asked in gone:
                        leaving.setdefault(step + gone[asked], []).append(asked)
                    asked += 1
            for order in leaving.pop(step, []):
                if any((order, sample) not in found for sample in range(requests[order].num_samples)):
                    session.cancel(order)
                    left.add(order)
            if session.busy:
                session.step()
                found |= {(order, sample): answer for order, sample, answer in session.collect()}
            alive = max(alive, session.alive)
            columns = max(columns, session._slots._cache.columns)
            if asked >= number // 10 and not memory:
                memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            step += 1
        assert session.alive == 0 and not any(session._slots._owner)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / memory - 1
    wrong, off = 0, 0.0
    for order, request in enumerate(requests):
        if order not in left:
            for sample, alone in enumerate(engine.generate([request])[0]):
                answer = found[order, sample]
                wrong += answer.tokens != alone.tokens
                off = max([off, *(abs(x - y) for x, y in zip(answer.logprob, alone.logprob, strict=False))])
    record_property(
        "measured",
        f"{step:,} steps, {len(found):,} responses, {len(left)} requests left midway, {wrong} answered otherwise than "
        f"alone, log-probabilities at most {off:.0e} off; "
        f"at most {alive} rows and {columns} columns of storage; peak memory after the first tenth grew by "
        f"{100 * grown:.1f} %",
    )
    assert wrong == 0 and off < 1e-9 and len(left) >= LEAST_LEFT * number / 2
    assert alive <= ROWS and columns <= 4 * CONTEXT
    assert grown < 0.05
