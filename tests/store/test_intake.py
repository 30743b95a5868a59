"""The rules of intake, alone and into a store; everything dropped is counted."""

import json
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heedful.config import InputError
from heedful.store.database import Store
from heedful.store.erase import erase_user
from heedful.store.intake import (
    IncomingPrompt,
    IntakeConfig,
    expand_few_shot,
    import_prompts,
    read_prompts,
    take_in,
)
from heedful.store.pools import prompts_with_pool
from heedful.store.records import select_records
from heedful.types import Demonstration, Labeler, Prompt

ALL_TRAIN = {"valid": 0.0, "test": 0.0}


def incoming(text: str, user: str = "u", **more: object) -> IncomingPrompt:
    return IncomingPrompt(text=text, user=user, **more)


def few_shot(k: int, user: str = "ann", instruction: str = "Give the opposite.") -> IncomingPrompt:
    return IncomingPrompt(instruction=instruction, user=user, examples=[(f"q{i}", f"r{i}") for i in range(k)])


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_minimal_lines_get_ids_from_their_content(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", {"text": "hi", "user": "a"}, {"text": "hi", "user": "b"}, {"text": "hi", "user": "a", "id": "x"})  # fmt: skip  # noqa: E501
    first, second, third = read_prompts(path)
    assert first.id != second.id and third.id == "x"
    assert read_prompts(path)[0].id == first.id


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"text": "a", "user": "u"}\n{"text": \n', r"line 2: not valid JSON: \D* at character \d+; write"),
        (b'{"text": "a", "user": "u"}\n\n{"text": "", "user": "u"}', "line 3: text is empty; write the prompt"),
        (b'{"text": "  ", "user": "u"}', "line 1: text is empty; write the prompt, or take its line out"),
        (b'{"instruction": " ", "user": "u", "examples": [["q", "r"]]}', "line 1: text is empty"),
        (b'{"text": "a"}', "line 1: user"),
        (b'{"text": "a", "user": "u", "colour": 1}', "line 1: colour"),
        (b'{"text": "a", "user": "u", "split": "dev"}', "line 1: split"),
        (b"[1]", "line 1: "),
        (b'{"text": "a", "user": "u"}\n{"text": "caf\xe9", "user": "u"}', "line 2: not UTF-8"),
        (b'{"instruction": "i", "user": "u"}', "line 1: .*at least one"),
        (b'{"instruction": "i", "system": "s", "user": "u", "examples": [["q", "r"]]}', "system or instruction"),
        (b'{"instruction": "i", "text": "t", "user": "u", "examples": [["q", "r"]]}', "text or instruction"),
    ],
)
def test_broken_lines_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_prompts(path)


def test_text_files(tmp_path: Path) -> None:
    path = tmp_path / "p.txt"
    path.write_bytes("\ufeffone\r\n\r\ntwo\u2028still two\r\n".encode())
    rows = read_prompts(path)
    assert [row.text for row in rows] == ["one", "two\u2028still two"]
    assert rows[0].user != rows[1].user
    assert {row.user for row in read_prompts(path, user="me")} == {"me"}
    with pytest.raises(InputError, match="no such file"):
        read_prompts(tmp_path / "none.txt")
    with pytest.raises(InputError, match=r"from \.jsonl or \.txt"):
        read_prompts(tmp_path / "p.csv")


def test_duplicates_share_a_prefix_and_the_earliest_stays() -> None:
    long = "Write about the sea. " * 20
    rows = [
        incoming(long + "first"),
        incoming("short"),
        incoming(long.upper().replace(" ", "  ") + "second", "other"),
        incoming("SHORT ", "other"),
        incoming("short, but longer"),
        incoming("x" * 199 + "a"),
        incoming("x" * 199 + "b"),
    ]
    kept, report = take_in(rows, IntakeConfig(prefix=200))
    assert [row.id for row in kept] == [rows[i].id for i in (0, 1, 4, 5, 6)]
    assert report.dropped == {"same first 200 characters as an earlier prompt": 2}
    kept, _ = take_in(rows, IntakeConfig(prefix=199))
    assert [row.id for row in kept] == [rows[i].id for i in (0, 1, 4, 5)]


def test_cap_by_user_or_organisation() -> None:
    rows = [incoming(f"prompt {i}", f"u{i % 2}", organisation="o") for i in range(10)]
    kept, report = take_in(rows, IntakeConfig(cap=3))
    assert [row.text for row in kept] == [f"prompt {i}" for i in range(6)]
    assert report.dropped == {"over 3 of one user": 4}
    kept, report = take_in(rows, IntakeConfig(cap=3, key="organisation"))
    assert len(kept) == 3 and report.dropped == {"over 3 of one organisation": 7}
    with pytest.raises(InputError, match="has no organisation"):
        take_in([incoming("x")], IntakeConfig(key="organisation"))


def test_split_by_user_is_fixed_and_near_its_shares() -> None:
    rows = [incoming(f"{user} says {i}", f"user {user}") for user in range(600) for i in range(2)]
    kept, _ = take_in(rows, IntakeConfig(valid=0.2, test=0.1))
    splits = defaultdict(set)
    for row in kept:
        splits[row.user].add(row.split)
    assert all(len(found) == 1 for found in splits.values())
    share = Counter(row.split for row in kept)
    assert share["valid"] / len(kept) == pytest.approx(0.2, abs=0.05)
    assert share["test"] / len(kept) == pytest.approx(0.1, abs=0.04)
    again, _ = take_in(rows[::-1], IntakeConfig(valid=0.2, test=0.1))
    assert {row.id: row.split for row in again} == {row.id: row.split for row in kept}
    salted, _ = take_in(rows, IntakeConfig(valid=0.2, test=0.1, salt="2"))
    assert [row.split for row in salted] != [row.split for row in kept]


def test_a_users_split_is_the_same_in_every_version() -> None:
    """Another hash would move users between the splits of stores that exist."""
    rows = [incoming(f"{i}", f"user {i}") for i in range(12)]
    kept, _ = take_in(rows, IntakeConfig(valid=0.3, test=0.3))
    assert "".join(row.split[1] for row in kept) == "rerrrarreare"


def test_kept_splits_must_keep_users_apart() -> None:
    rows = [incoming("a", "u", split="valid"), incoming("b", "u", split="train")]
    with pytest.raises(InputError, match="user u falls into valid and train"):
        take_in(rows, IntakeConfig(split="keep"))
    kept, _ = take_in(rows[:1], IntakeConfig(split="keep"))
    assert kept[0].split == "valid"


def test_shares_that_leave_no_training_split_are_refused() -> None:
    with pytest.raises(ValueError, match="leave none for training"):
        IntakeConfig(valid=0.5, test=0.5)


def test_personal_data_goes_from_the_training_split_only() -> None:
    rows = [
        incoming("mail a@b.io or c@d.io", "u1", split="train"),
        incoming("mail e@f.io", "u2", split="test"),
        incoming("mail v@w.io", "u5", split="valid"),
        incoming("call 212-555-0123", "u3", split="train", examples=[("x@y.io", "ok")], kind="few_shot"),
        incoming("nothing here", "u4", split="train"),
    ]
    kept, report = take_in(rows, IntakeConfig(split="keep"))
    assert [row.text for row in kept] == [
        "mail [email] or [email]",
        "mail e@f.io",
        "mail v@w.io",
        "call [phone]",
        "nothing here",
    ]
    assert kept[3].examples == (("[email]", "ok"),)
    assert report.pii == {"email": 3, "phone": 1} and report.prompts_with_pii == 2 and not report.dropped["x"]
    kept, report = take_in(rows, IntakeConfig(split="keep", pii="drop"))
    assert [row.user for row in kept] == ["u2", "u5", "u4"]
    assert report.dropped["personal data in a training prompt"] == 2
    kept, report = take_in(rows, IntakeConfig(split="keep", pii="keep"))
    assert [row.text for row in kept] == [row.text for row in rows] and not report.pii
    kept, _ = take_in([incoming("Ask Ada")], IntakeConfig(**ALL_TRAIN), names=lambda text: [(4, 7)])
    assert kept[0].text == "Ask [name]"


def test_redaction_that_makes_two_prompts_equal_drops_the_second() -> None:
    kept, report = take_in([incoming("mail a@b.io"), incoming("mail c@d.io")], IntakeConfig(**ALL_TRAIN))
    assert len(kept) == 1 and sum(report.dropped.values()) == 1


texts = st.sampled_from(["a", "b", "mail a@b.io", "mail c@d.io", "c" * 30 + "1", "c" * 30 + "2", "tel 212-555-0123"])


@settings(max_examples=60)
@given(
    st.lists(st.tuples(texts, st.sampled_from("uvw")), max_size=25),
    st.integers(1, 40),
    st.integers(1, 5),
    st.sampled_from(["redact", "drop", "keep"]),
)
def test_every_prompt_is_kept_or_counted(rows: list, prefix: int, cap: int, pii: str) -> None:
    config = IntakeConfig(prefix=prefix, cap=cap, pii=pii)
    kept, report = take_in([incoming(text, user) for text, user in rows], config)
    assert report.read == len(rows) == len(kept) + sum(report.dropped.values())
    assert report.kept == len(kept)
    assert max(Counter(row.user for row in kept).values(), default=0) <= cap
    again, second = take_in(kept, config)
    assert second.kept == report.kept and [row.text for row in again] == [row.text for row in kept]


def test_few_shot_prompts_expand_to_k_examples() -> None:
    expanded = expand_few_shot(few_shot(3))
    assert [demonstration.text for _, demonstration in expanded] == ["r0", "r1", "r2"]
    assert [prompt.text for prompt, _ in expanded] == ["q0", "q1", "q2"]
    first, second = expanded[0][0].examples, expanded[1][0].examples
    assert first == (("Give the opposite.\n\nq1", "r1"), ("q2", "r2"))
    assert second == (("Give the opposite.\n\nq0", "r0"), ("q2", "r2"))
    assert len({prompt.id for prompt, _ in expanded}) == 3
    (alone, _), = expand_few_shot(few_shot(1))  # fmt: skip
    assert (alone.text, alone.examples) == ("Give the opposite.\n\nq0", ())


def test_import_assigns_pools_and_writes_few_shot_prompts_out(store: Store) -> None:
    rows = [few_shot(3, user) for user in ("ann", "bob")] + [incoming("plain", "cy")]
    rows[1] = few_shot(3, "bob", "Name the colour.")
    shares = {"labeler": {"sft": 1.0}, "customer": {"ppo": 1.0}}
    report = import_prompts(store, rows, IntakeConfig(shares=shares, **ALL_TRAIN))
    assert (report.kept, report.stored, report.demonstrations) == (3, 7, 6)
    pools = Counter(pool for _, pool in prompts_with_pool(store))
    assert pools == {"sft": 6, "ppo": 1}
    with store.read() as connection:
        assert [labeler.id for labeler in select_records(connection, Labeler)] == ["ann", "bob"]
        assert len(select_records(connection, Demonstration)) == 6
    assert "few-shot prompts written out: 6 demonstrations" in "\n".join(report.lines())


def test_a_few_shot_prompt_elsewhere_asks_its_last_query(store: Store) -> None:
    report = import_prompts(store, [few_shot(3)], IntakeConfig(**ALL_TRAIN), pool="reward_model")
    ((prompt, pool),) = prompts_with_pool(store)
    assert (prompt.text, len(prompt.examples), pool) == ("q2", 2, "reward_model")
    assert (report.demonstrations, report.unused_answers) == (0, 1)


def test_importing_again_changes_nothing(store: Store) -> None:
    rows = [few_shot(2), incoming("mail a@b.io", "x"), *(incoming(f"say {i}", f"u{i % 3}") for i in range(9))]
    config = IntakeConfig(cap=2, **ALL_TRAIN)
    first = import_prompts(store, rows, config)
    before = prompts_with_pool(store)
    second = import_prompts(store, rows, config)
    assert prompts_with_pool(store) == before
    assert (second.kept, second.stored, second.demonstrations) == (0, 0, 0)
    assert second.dropped == {"already in the store": 8, "over 2 of one user": 3}
    assert first.dropped == {"over 2 of one user": 3}


def test_a_second_file_meets_what_is_stored(store: Store) -> None:
    config = IntakeConfig(cap=3, **ALL_TRAIN)
    import_prompts(store, [incoming("mail a@b.io", "x"), incoming("one", "u"), incoming("two", "u")], config)
    import_prompts(store, [few_shot(5, "lab")], config, pool="sft")
    rows = [incoming("ONE", "v"), incoming("three", "u"), incoming("four", "u"), incoming("mail c@d.io", "y")]
    rows += [incoming("more", "lab"), incoming("yet more", "lab"), incoming("too many", "lab")]
    report = import_prompts(store, rows, config)
    assert report.dropped == {
        "same first 200 characters as an earlier prompt": 2,
        "over 3 of one user": 2,
    }
    assert report.kept == 3


def test_a_user_who_comes_again_keeps_their_split(store: Store) -> None:
    import_prompts(store, [incoming("one", "u")], IntakeConfig(**ALL_TRAIN))
    rows = [incoming("one", "u"), incoming("two", "u"), incoming("three", "v"), incoming("mail a@b.io", "u")]
    report = import_prompts(store, rows, IntakeConfig(valid=0.0, test=0.999999))
    found = {prompt.text: (prompt.split, pool == "evaluation") for prompt, pool in prompts_with_pool(store)}
    train = ("train", False)
    assert found == {"one": train, "two": train, "three": ("test", True), "mail [email]": train}
    assert report.resplit == 2 and "where the rules give another: 2" in "\n".join(report.lines())


def test_a_file_that_brings_splits_cannot_move_a_user(store: Store) -> None:
    import_prompts(store, [incoming("one", "u", split="valid")], IntakeConfig(split="keep"))
    assert import_prompts(store, [incoming("two", "u")], IntakeConfig(split="keep")).resplit == 1  # brings none
    with pytest.raises(InputError, match="user u would stand in two splits"):
        import_prompts(store, [incoming("three", "u", split="test")], IntakeConfig(split="keep"))
    assert [(prompt.text, prompt.split) for prompt, _ in prompts_with_pool(store)] == [
        ("one", "valid"),
        ("two", "valid"),
    ]


SYSTEM = "You are the harbour's assistant; be kind, be brief, write to desk@harbour.io. " * 4


def test_prompts_under_one_instruction_are_told_apart_by_their_own_text(store: Store) -> None:
    config = IntakeConfig(prefix=10, **ALL_TRAIN)
    rows = [incoming(f"{i} boats, where are they?", f"u{i}", system=SYSTEM) for i in range(5)]
    rows += [incoming("4 boats, w… no", "x", system=SYSTEM), incoming("4  BOATS, why?", "y", system=SYSTEM)]
    rows += [incoming("and 2?", "z", system=SYSTEM, examples=[(f"so {i} it is", "ok")]) for i in range(3)]
    rows += [incoming("4 boats, where are they?", "w", system="Be brief."), incoming("4 boats, where?", "v")]
    kept, report = take_in(rows, config)
    assert [row.user for row in kept] == ["u0", "u1", "u2", "u3", "u4", "z", "z", "z", "w", "v"]
    assert report.dropped == {"same first 10 characters as an earlier prompt": 2}
    assert import_prompts(store, rows[:4], config).kept == 4
    later = import_prompts(store, rows, config)  # two of their own, those of z, w and v
    assert (later.kept, later.dropped["already in the store"]) == (6, 4)
    again = [row.model_copy(update={"id": f"other{i}", "user": "other"}) for i, row in enumerate(rows)]
    assert import_prompts(store, again, config).kept == 0
    stored = {prompt.user: prompt for prompt, _ in prompts_with_pool(store)}
    opening = SYSTEM.replace("desk@harbour.io", "[email]")
    assert stored["u0"].text == f"{opening}\n\n0 boats, where are they?" and stored["w"].text.startswith("Be brief.")
    assert (stored["z"].text, stored["z"].examples) == ("and 2?", ((f"{opening}\n\nso 2 it is", "ok"),))


def test_an_erased_users_prompts_stay_out(store: Store) -> None:
    rows = [incoming("one", "u"), incoming("two", "v")]
    import_prompts(store, rows, IntakeConfig(**ALL_TRAIN))
    erase_user(store, "u")
    report = import_prompts(store, rows, IntakeConfig(**ALL_TRAIN))
    assert report.dropped == {"erased on request": 1, "already in the store": 1}
    assert [prompt.user for prompt, _ in prompts_with_pool(store)] == ["v"]


def test_prompts_of_other_sources_pass_through(store: Store) -> None:
    prompts = [Prompt(id=f"w{i}", text=f"t{i}", user=f"u{i}", split="valid", task={"truth": i}) for i in range(3)]
    import_prompts(store, prompts, IntakeConfig(split="keep"), pool="ppo")
    assert [prompt for prompt, _ in prompts_with_pool(store)] == prompts
