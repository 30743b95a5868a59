"""Tokenizers: what the loop asks of any of them, and the word-level one of closed vocabularies."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from heedful.config import InputError
from heedful.text.tokenizer import end_id, fingerprint, pad_id, word_tokenizer
from small_tokenizers import byte_tokenizer

WORDS = ["ada", "has", "a", "boat", ".", "\n"]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(WORDS), max_size=8))
def test_words_survive_encoding_and_decoding(words: list[str]) -> None:
    tokenizer = word_tokenizer(WORDS)
    ids = tokenizer(" ".join(words), add_special_tokens=False)["input_ids"]
    assert len(ids) == len(words)
    assert tokenizer.decode(ids) == " ".join(words)


def test_a_line_break_is_a_word_and_spaces_are_none() -> None:
    tokenizer = word_tokenizer(WORDS)
    assert len(tokenizer("ada \n  boat", add_special_tokens=False)["input_ids"]) == 3
    assert tokenizer("zeppelin", add_special_tokens=False)["input_ids"] == [tokenizer.unk_token_id]


@pytest.mark.parametrize("make", [lambda: word_tokenizer(WORDS), byte_tokenizer])
def test_the_fingerprint_survives_disk_and_use(make: Callable[[], PreTrainedTokenizerBase], tmp_path: Path) -> None:
    tokenizer = make()
    known = fingerprint(tokenizer)
    for turn in ("first", "second"):
        tokenizer.save_pretrained(tmp_path / turn)
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / turn)
        assert fingerprint(tokenizer) == known
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    tokenizer(["a", "a boat"], padding=True, truncation=True, max_length=2)
    assert fingerprint(tokenizer) == known  # padding and truncation are how it was asked, not what it is


def test_another_vocabulary_has_another_fingerprint() -> None:
    assert fingerprint(word_tokenizer(["a", "b"])) != fingerprint(word_tokenizer(["b", "a"]))
    assert fingerprint(word_tokenizer(["a", "b"])) == fingerprint(word_tokenizer(["a", "b"]))


def test_without_an_end_token_no_response_could_be_finished() -> None:
    tokenizer = word_tokenizer(WORDS)
    tokenizer.eos_token = None
    with pytest.raises(InputError, match="no end-of-sequence token; set eos_token"):
        end_id(tokenizer)


def test_the_end_token_pads_where_there_is_no_other() -> None:
    tokenizer = word_tokenizer(WORDS)
    assert pad_id(tokenizer) == tokenizer.pad_token_id != end_id(tokenizer)
    tokenizer.pad_token = None
    assert pad_id(tokenizer) == end_id(tokenizer)
