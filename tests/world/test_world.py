"""The world as others use it: deterministic, in its vocabulary, in the paper's mix, with splits that share nothing."""

from collections import Counter

import pytest

from heedful.config import InputError
from heedful.types import Prompt
from heedful.world import LINE, PAIR_END, USE_CASES, World, check_disjoint, split_of
from heedful.world.documents import PAGES
from heedful.world.words import CATEGORIES, entities

WORLD = World(0)
SPLITS = ("train", "valid", "test")


def words_of(prompt: Prompt) -> list[str]:
    return " ".join([prompt.text, *(part for pair in prompt.examples for part in pair)]).split(" ")


@pytest.fixture(scope="module")
def prompts() -> list[Prompt]:
    pools = [("sft", "labeler"), ("rm", "customer")]
    return [p for split in SPLITS for pool, source in pools for p in WORLD.prompts(400, split, pool, source)]


def test_a_seed_gives_the_same_world_and_another_seed_another() -> None:
    again, other = World(0), World(1)
    assert again.vocabulary == WORLD.vocabulary == other.vocabulary
    assert again.documents(2000) == WORLD.documents(2000) != other.documents(2000)
    assert again.prompts(20) == WORLD.prompts(20) != other.prompts(20)
    assert again.town.facts == WORLD.town.facts != other.town.facts


def test_a_longer_list_of_prompts_starts_with_the_shorter_and_pools_share_no_user() -> None:
    assert WORLD.prompts(60, pool="rm")[:30] == WORLD.prompts(30, pool="rm")
    rm, ppo = ({p.user for p in WORLD.prompts(60, pool=pool)} for pool in ("rm", "ppo"))
    assert not rm & ppo


def test_every_word_of_every_text_is_in_the_vocabulary(prompts: list[Prompt]) -> None:
    vocabulary = set(WORLD.vocabulary)
    assert len(vocabulary) == len(WORLD.vocabulary) <= 350
    for document in WORLD.documents(60_000):
        assert set(document.text.split(" ")) <= vocabulary
    for prompt in prompts + WORLD.prompts(100, harm_share=1.0):
        assert set(words_of(prompt)) <= vocabulary
        for flaw_rate in (0.0, 1.0):
            assert set(WORLD.demonstrate(prompt, 3, flaw_rate).split(" ")) <= vocabulary


def test_copying_pages_hold_at_least_35_percent_of_the_tokens_and_shares_are_kept() -> None:
    assert sum(share for _, share, copies in PAGES if copies) / sum(share for _, share, _ in PAGES) >= 0.35
    documents = WORLD.documents(60_000)
    total = sum(len(d.text.split(" ")) + 1 for d in documents)
    assert 60_000 <= total < 60_200
    titled = sum(len(d.text.split(" ")) + 1 for d in documents if f": {LINE}" in d.text[:80] and "a" in d.text)
    assert titled / total > 0.3


def test_valid_documents_come_from_other_draws() -> None:
    train = {d.text for d in WORLD.documents(30_000)}
    valid = [d for d in WORLD.documents(10_000, "valid")]
    assert {d.split for d in valid} == {"valid"}
    assert sum(d.text in train for d in valid) < 0.1 * len(valid)  # short pages of days and insults recur


def test_splits_share_no_user_prompt_or_set_of_entities(prompts: list[Prompt]) -> None:
    check_disjoint(prompts)
    for prompt in prompts:
        assert split_of(prompt.user) == prompt.split
        assert split_of("+".join(entities(prompt.text))) == prompt.split


@pytest.mark.parametrize("shared", ["user", "text"])
def test_the_check_finds_a_leak(prompts: list[Prompt], shared: str) -> None:
    train = next(p for p in prompts if p.split == "train")
    test = next(p for p in prompts if p.split == "test")
    leak = test.model_copy(update={shared: getattr(train, shared)})
    with pytest.raises(InputError, match="stands in both"):
        check_disjoint([train, leak])


def test_the_check_finds_the_same_entities_under_other_words() -> None:
    make = {"id": "x", "use_case": "chat"}
    a = Prompt(text="write a story about ada and a red kite .", user="u", split="train", **make)
    b = Prompt(text="tell me a story about a blue kite and ada .", user="v", split="test", **make)
    with pytest.raises(InputError, match=r"ada\+kite"):
        check_disjoint([a, b])


def test_pages_hold_no_request_of_the_test_split() -> None:
    asked = {p.text for p in WORLD.prompts(600, "test", "eval") if len(p.text.split()) > 8}
    lines = {line for d in WORLD.documents(60_000) for line in d.text.split(f" {LINE} ")}
    assert not asked & lines


def test_use_cases_follow_the_table_and_kinds_their_shares() -> None:
    prompts = WORLD.prompts(3000)
    counts = Counter(p.use_case for p in prompts)
    for use_case, percent in USE_CASES.items():
        assert abs(counts[use_case] / 30 - percent) < 3
    kinds = Counter(p.kind for p in WORLD.prompts(1000, source="labeler"))
    assert abs(kinds["few_shot"] / 1000 - 0.25) < 0.05
    assert all(bool(p.examples) == (p.kind == "few_shot") for p in prompts)
    harmful = sum(p.task.get("harmful", False) for p in prompts)
    assert 0.015 < harmful / 3000 < 0.05
    assert all(p.task["harmful"] for p in WORLD.prompts(30, harm_share=1.0))


def test_users_are_heavy_tailed() -> None:
    counts = Counter(p.user for p in WORLD.prompts(3000))
    assert max(counts.values()) >= 30
    assert sorted(counts.values())[len(counts) // 2] <= 2


def test_lengths_fit_the_small_model(prompts: list[Prompt]) -> None:
    for prompt in prompts:
        assert len(words_of(prompt)) <= 110
        for index in range(3):
            assert 1 <= len(WORLD.demonstrate(prompt, index, 0.5).split()) <= 31
    for prefix in WORLD.few_shot_prefixes():
        assert 40 <= len(prefix.split(" ")) <= 102
        assert prefix.endswith(PAIR_END)


def test_flawed_demonstrations_come_at_their_rate() -> None:
    prompts = WORLD.prompts(500, pool="sft")
    clean = [WORLD.rate(p, WORLD.demonstrate(p)).utility for p in prompts]
    mixed = [WORLD.rate(p, WORLD.demonstrate(p, 0, 0.35)).utility for p in prompts]
    assert min(clean) > 2
    assert 0.2 < sum(u < 2.9 for u in mixed) / 500 < 0.36


def test_wrong_requests_to_the_world_are_refused() -> None:
    with pytest.raises(InputError, match="harm_share"):
        WORLD.prompts(3, harm_share=2.0)
    with pytest.raises(InputError, match="carries no truth"):
        WORLD.rate(Prompt(id="p", text="hello", user="u"), "hello .")


def test_truth_has_one_answer() -> None:
    town = WORLD.town
    assert len(town.people) == len(set(town.people)) == len(CATEGORIES["PERSON"]) and len(town.people) % 2 == 0
    assert len(town.owner) == len(town.keeper) == len(town.people)
    for person in town.people:
        friend = town.value(person, "friend")[0]
        assert friend != person and town.value(friend, "friend") == (person,)
        assert all(town.is_true(clause) for clause in town.facts[person].values())


def test_no_request_of_another_split_stands_in_a_page_or_within_a_training_prompt() -> None:
    world = World(0)
    pages = [" " + " ".join(page.text.split()) + " " for page in world.documents(150_000)]
    training = [f" {prompt.text} " for pool in ("sft", "rm", "ppo") for prompt in world.prompts(300, "train", pool)]
    read = "|".join(pages + training)
    asked = [p.text for pool in ("eval", "rm") for split in ("valid", "test") for p in world.prompts(200, split, pool)]
    assert [text for text in asked if f" {text} " in read] == []
    assert f" {training[0].strip()} " in read  # the search finds what is there
