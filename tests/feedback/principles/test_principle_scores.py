"""Scores by principles: both orders as written out, nothing that failed is a score, and a pair is computed once."""

import doctest
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
import torch
import yaml

from heedful.config import InputError
from heedful.feedback.ai.labeler import AILabeler, Outcome
from heedful.feedback.ai.local import LocalAsk
from heedful.feedback.principles import collect as module
from heedful.feedback.principles.book import read_principles
from heedful.feedback.principles.collect import FOLDER, Pair, pairs_of, questions, read_form, score_pairs, templates
from heedful.models.load import from_scratch
from heedful.types import Labeler, Prompt, Response
from small_models import FAMILIES
from small_tokenizers import byte_tokenizer

WHO = Labeler(id="ai", kind="ai")
FORM = read_form("principle.en")
PRINCIPLES = read_principles("preference", "en")


@dataclass
class Says:
    """Answers by a function of the prompt; remembers what it was asked."""

    answer: Callable[[str], Outcome]
    asked: list[str] = field(default_factory=list)

    def choose(self, prompts: Sequence[str], labels: Sequence[str]) -> list[Outcome]:
        self.asked += prompts
        return [self.answer(prompt) for prompt in prompts]

    def write(self, *_: object) -> list[list[Outcome]]:
        raise AssertionError("nobody asks for a text")


def noise(prompt: str) -> Outcome:
    draws = [crc32(f"{label}{prompt}".encode()) / 2**32 for label in range(2)]
    return Outcome(logprobs=tuple(-5 * draw for draw in draws), prompt_tokens=7)


def pair(first: str = "one", second: str = "two", id: str = "p") -> Pair:
    texts = (Response(id=f"{id}{n}", prompt_id=id, text=text) for n, text in enumerate((first, second)))
    return Pair(Prompt(id=id, text=f"Say {id}", user="u"), *texts)


def test_the_examples() -> None:
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("name", [name for name in templates() if name != "world"])  # which shows no titles
def test_the_pair_stands_first_and_the_principle_last(name: str) -> None:
    form = read_form(name)
    nasty = pair("first {title}", "second {0}%")
    both = questions(form, read_principles("rl", form.language), nasty)
    assert len(both) == 14
    for principle, (one, other) in zip(read_principles("rl", form.language), both, strict=True):
        parts = (form.preamble, "Say p", "first {title}", "second {0}%", principle.definition)
        places = [one.index(text) for text in parts]
        assert places == sorted(places) and places[0] == 0 and one.endswith("=")
        assert other.index("second {0}%") < other.index("first {title}") and principle.title in one
        swapped = one.replace("first {title}", "~").replace("second {0}%", "first {title}").replace("~", "second {0}%")
        assert other == swapped
    shared = both[0][0][: both[0][0].index("second {0}%") + len("second {0}%")]
    assert all(one.startswith(shared) for one, _ in both)


def test_both_orders_as_written_out() -> None:
    judge = AILabeler(Says(noise), FORM, WHO)
    pairs = [pair(), pair("a", "b", "q")]
    found = score_pairs(judge, PRINCIPLES, pairs)
    assert not found.unscored and len(found.scores) == 22 and judge.counts["ok"] == 44
    assert judge.counts["prompt_tokens"] == 7 * 44
    for number, score in enumerate(found.scores):
        own, principle = pairs[number // 11], PRINCIPLES[number % 11]
        [(one, other)] = questions(FORM, [principle], own)
        a, b = noise(one).logprobs
        c, d = noise(other).logprobs
        assert score.orders == pytest.approx((a - b, d - c)) and score.gap == pytest.approx((a - b + d - c) / 2)
        assert (score.prompt_id, score.principle, score.labeler) == (own.prompt.id, principle.id, "ai")
        assert score.responses == (own.first.id, own.second.id)


def test_who_minds_the_place_alone_has_no_gap() -> None:
    judge = AILabeler(Says(lambda prompt: Outcome(logprobs=(-0.1, -3.0))), FORM, WHO)
    scores = score_pairs(judge, PRINCIPLES, [pair()]).scores
    assert all(score.gap == 0 and score.orders == pytest.approx((2.9, -2.9)) for score in scores)


def test_who_likes_a_response_likes_it_in_either_order() -> None:
    def likes(prompt: str) -> Outcome:
        return Outcome(logprobs=(-0.1, -3.0) if "1 - one" in prompt else (-3.0, -0.1))

    scores = score_pairs(AILabeler(Says(likes), FORM, WHO), PRINCIPLES, [pair()]).scores
    assert all(score.orders == pytest.approx((2.9, 2.9)) for score in scores)
    worse = FORM.model_copy(update={"asks_for": "worse"})
    turned = score_pairs(AILabeler(Says(likes), worse, WHO), PRINCIPLES, [pair()]).scores
    assert [score.orders for score in turned] == [(-a, -b) for score in scores for a, b in [score.orders]]


@pytest.mark.parametrize("kind", ["long", "parse", "refusal", "api"])
@pytest.mark.parametrize("order", [0, 1])
def test_what_failed_in_one_order_is_no_score(kind: Any, order: int) -> None:
    broken = questions(FORM, PRINCIPLES[2:4], pair())[0][order]
    says = Says(lambda prompt: Outcome(kind, message="no") if prompt == broken else noise(prompt))
    found = score_pairs(AILabeler(says, FORM, WHO), PRINCIPLES, [pair()])
    assert found.unscored == {kind: 1} and PRINCIPLES[2].id not in {score.principle for score in found.scores}
    assert len(found.scores) == 10


def test_an_impossible_label_is_no_score() -> None:
    says = Says(lambda prompt: Outcome(logprobs=(-math.inf, 0.0)) if "Concise" in prompt else noise(prompt))
    found = score_pairs(AILabeler(says, FORM, WHO), PRINCIPLES, [pair()])
    assert found.unscored == {"infinite": 1} and len(found.scores) == 10


def test_a_pair_in_two_sets_is_one_pair() -> None:
    prompt, first, second = pair()
    third = Response(id="p2", prompt_id="p", text="three")
    pairs = pairs_of([(prompt, [first, second, third]), (prompt, [second, first])])
    assert [(one.first.id, one.second.id) for one in pairs] == [("p0", "p1"), ("p0", "p2"), ("p1", "p2")]


def test_equal_questions_are_asked_once() -> None:
    says = Says(noise)
    found = score_pairs(AILabeler(says, FORM, WHO), PRINCIPLES, [pair(), pair()._replace(first=pair().first)])
    assert len(says.asked) == 22 and found.scores[:11] == found.scores[11:]


@pytest.mark.parametrize(
    ("ending", "says"),
    [
        ("{title}=", "it holds {definition}"),
        ("{definition} {name}=", "no other placeholder"),
        ("{definition=", "write a brace that is no placeholder twice"),
        ("{definition}= ", "ending ends in a blank"),
    ],
)
def test_a_template_that_does_not_ask_by_principle(ending: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    values = yaml.safe_load((FOLDER / "principle.en.yaml").read_text(encoding="utf-8")) | {"ending": ending}
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    with pytest.raises(InputError) as error:
        read_form(str(path))
    assert says in str(error.value)


def test_no_such_template() -> None:
    with pytest.raises(InputError, match=r"did you mean principle\.en"):
        read_form("principle.eng")


def test_a_local_model_computes_a_pair_once_for_all_principles() -> None:
    """Against a pass for every question alone; and fewer than half of their tokens went through the model."""
    tokenizer = byte_tokenizer()
    shape = {"vocab_size": len(tokenizer), "max_position_embeddings": 1600}
    ask = LocalAsk(from_scratch(FAMILIES["llama"] | shape, seed=1), tokenizer)
    seen: list[int] = []
    handle = ask.model.get_decoder().register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    pairs = [pair("a red boat " * 12, "no boat " * 12), pair("yes " * 25, "an oar " * 14, "q")]
    found = score_pairs(AILabeler(ask, FORM, WHO), PRINCIPLES[:6], pairs)
    handle.remove()
    asked = [both for one in pairs for both in questions(FORM, PRINCIPLES[:6], one)]
    assert sum(seen) < 0.45 * sum(len(tokenizer(text)["input_ids"]) for both in asked for text in both)
    for score, both in zip(found.scores, asked, strict=True):
        alone = [ask.choose([text], ("1", "2"))[0].logprobs for text in both]
        assert score.orders == pytest.approx((alone[0][0] - alone[0][1], alone[1][1] - alone[1][0]), abs=1e-4)
    assert torch.isfinite(torch.tensor([score.gap for score in found.scores])).all()
