"""A text before every prompt, such as worked examples or an instruction."""

from collections.abc import Sequence

from heedful.text.collate import Encoder


def with_prefix(tokens: Sequence[list[int]], prefix: str, encoder: Encoder) -> list[list[int]]:
    """The prefix's tokens after the begin token of each prompt (token ids)."""
    ids = encoder.tokenizer(prefix, add_special_tokens=False)["input_ids"]
    begin = 0 if encoder.tokenizer.bos_token_id is None else 1
    return [prompt[:begin] + ids + prompt[begin:] for prompt in tokens]
