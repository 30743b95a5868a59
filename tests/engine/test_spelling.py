"""Tokens become text as the tokenizer would write them, and stop texts are found wherever they fall."""

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from heedful.engine.spelling import Piece, Spelling, Writer
from heedful.models.load import load_tokenizer
from small_tokenizers import byte_tokenizer, piece_tokenizer
from toys import TOKENIZER

STORIES = Path(__file__).parents[3] / "shared" / "models" / "stories260K"
TOKENIZERS: dict[str, PreTrainedTokenizerBase] = {
    "words": TOKENIZER,
    "bytes": byte_tokenizer(),
    "pieces": piece_tokenizer(),
}
if STORIES.is_dir():
    TOKENIZERS["stories"] = load_tokenizer(STORIES)
SPELLINGS = {name: Spelling(tokenizer) for name, tokenizer in TOKENIZERS.items()}


def write(name: str, ids: list[int], stop: list[str], ended: bool = False, follows: bool = False) -> list[Piece]:
    """The pieces until the writer says that it is finished."""
    writer = Writer(SPELLINGS[name], stop, follows)
    pieces = []
    for i, id in enumerate(ids):
        finished = writer.add(id, False, i == len(ids) - 1 and not ended)
        pieces.append(writer.take())
        assert finished == (pieces[-1].finish is not None)
        if finished:
            return pieces
    assert writer.add(TOKENIZERS[name].eos_token_id, True, True)
    return [*pieces, writer.take()]


def text_of(pieces: list[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


@example(name="pieces", numbers=[3 + ord(" ")])  # a space as a byte, which the tokenizer strips in front
@given(name=st.sampled_from(sorted(TOKENIZERS)), numbers=st.lists(st.integers(0, 10**6), max_size=20))
def test_the_text_is_the_tokenizers_own(name: str, numbers: list[int]) -> None:
    """Of any tokens; of bytes that are no UTF-8, tokenizers lose different neighbours, and we none."""
    tokenizer = TOKENIZERS[name]
    ids = [number % len(tokenizer) for number in numbers]
    expected = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    pieces = write(name, ids, [], ended=True)
    if "\ufffd" not in expected:
        assert text_of(pieces) == expected
    told = [token for piece in pieces for token in piece.tokens]
    assert [token.id for token in told] == ids
    spelled = b"".join(SPELLINGS[name].of(token.id, token.first) for token in told)
    assert text_of(pieces) == spelled.decode(errors="replace")


@given(name=st.sampled_from(["bytes", "pieces"]), text=st.text("the boat é水😀\n\t", max_size=20))
def test_any_text_comes_back_whole(name: str, text: str) -> None:
    ids = TOKENIZERS[name](text, add_special_tokens=False)["input_ids"]
    pieces = write(name, ids, [], ended=True)
    assert text_of(pieces) == text
    assert b"".join(SPELLINGS[name].name(t.id, t.first) for p in pieces for t in p.tokens) == text.encode()
    assert all("\ufffd" not in piece.text for piece in pieces)  # half a character is never told


def test_a_word_that_follows_others_begins_with_a_space() -> None:
    ids = TOKENIZER.convert_tokens_to_ids(["w1", "w2"])
    assert text_of(write("words", ids, [])) == "w1 w2"
    assert text_of(write("words", ids, [], follows=True)) == " w1 w2"
    special = TOKENIZER.pad_token_id
    assert text_of(write("words", [special, *ids], [])) == "w1 w2"
    assert SPELLINGS["words"].name(special, True) == b"<pad>"


def test_ids_beyond_the_tokenizer_say_nothing() -> None:
    assert all(spelling.of(100_000, False) == b"" == spelling.name(100_000, True) for spelling in SPELLINGS.values())


def first_stop(text: str, stop: list[str]) -> int:
    """Of the stop texts, the one completed first; of several completed at once, the one that begins first."""
    for end in range(len(text) + 1):
        begins = [end - len(s) for s in stop if text[:end].endswith(s)]
        if begins:
            return min(begins)
    return len(text)


@given(text=st.text("abc水", max_size=14), stop=st.lists(st.text("abc水", min_size=1, max_size=4), max_size=4))
def test_stop_texts_are_found_across_tokens(text: str, stop: list[str]) -> None:
    """Byte tokens of one byte each, so that every stop text crosses borders."""
    ids = [i for b in text.encode() for i in TOKENIZERS["bytes"].convert_tokens_to_ids([spelled(b)])]
    pieces = write("bytes", ids, stop, ended=True)
    cut = first_stop(text, stop)
    assert text_of(pieces) == text[:cut]
    assert pieces[-1].finish == "stop" and all(piece.finish is None for piece in pieces[:-1])
    told = [token for piece in pieces for token in piece.tokens]
    assert len(told) == len(text[:cut].encode())
    assert [token.start for token in told] == [len(text.encode()[:i].decode(errors="ignore")) for i in range(len(told))]
    so_far = 0
    for piece in pieces:  # tokens come with their text, not before it
        so_far += len(piece.text)
        assert all(token.start <= so_far for token in piece.tokens)


def spelled(byte: int) -> str:
    from heedful.engine.spelling import byte_alphabet

    return {value: char for char, value in byte_alphabet().items()}[byte]


def test_text_is_held_back_only_while_it_may_become_a_stop_text() -> None:
    ids = [TOKENIZERS["bytes"].convert_tokens_to_ids(c) for c in "xabyab"]
    writer = Writer(SPELLINGS["bytes"], ["abc"])
    texts = []
    for id in ids:
        assert not writer.add(id, False, False)
        texts.append(writer.take().text)
    assert texts == ["x", "", "", "aby", "", ""]
    assert writer.add(ids[0], False, True)
    last = writer.take()
    assert (last.text, last.finish, len(last.tokens)) == ("abx", "length", 3)


@pytest.mark.parametrize(("ended", "finish"), [(True, "stop"), (False, "length")])
def test_the_end_token_is_no_part_of_the_response(ended: bool, finish: str) -> None:
    ids = TOKENIZER.convert_tokens_to_ids(["w1", "w2"])
    pieces = write("words", ids, ["never"], ended)
    assert pieces[-1].finish == finish and [t.id for p in pieces for t in p.tokens] == ids
