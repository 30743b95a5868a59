"""Tokenizers: a word-level one for closed vocabularies, and what the loop asks of any tokenizer."""

import hashlib
import json
from collections.abc import Sequence

from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from heedful.config import InputError

PAD, BOS, EOS, UNKNOWN = "<pad>", "<bos>", "<eos>", "<unk>"


def word_tokenizer(vocabulary: Sequence[str]) -> PreTrainedTokenizerFast:
    """A tokenizer whose tokens are the words between single spaces; decoding joins them again.

    A line break is a word of its own when the vocabulary lists it.
    """
    words = [PAD, BOS, EOS, UNKNOWN, *vocabulary]
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = Split(Regex(" +"), behavior="removed")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNKNOWN,
        clean_up_tokenization_spaces=False,
    )


def fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Equal for tokenizers that give every text the same ids, however they were last asked to pad or truncate."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        described = repr(sorted(tokenizer.get_vocab().items()))
    else:
        described = json.dumps(json.loads(backend.to_str()) | {"padding": None, "truncation": None}, sort_keys=True)
    return hashlib.sha256(described.encode()).hexdigest()[:16]


def end_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that ends a response.

    Raises:
        InputError: the tokenizer has none, so no response could ever be finished.
    """
    if tokenizer.eos_token_id is None:
        raise InputError("the tokenizer has no end-of-sequence token; set eos_token in its tokenizer_config.json")
    return tokenizer.eos_token_id


def pad_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id written behind a row's end; never seen by a real token, so the end token serves where none is set."""
    return tokenizer.pad_token_id if tokenizer.pad_token_id is not None else end_id(tokenizer)
