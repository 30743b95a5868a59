"""What is scored is what labelers saw."""

import torch

from heedful.batch import Rows
from heedful.engine.sample import Sampled
from heedful.pipeline.measure import without_prefix
from heedful.text.collate import Encoder
from heedful.text.format import PromptFormat
from toys import TOKENIZER


def test_a_few_shot_prefix_is_not_scored() -> None:
    encoder = Encoder(TOKENIZER, PromptFormat())
    behind_prefix = Rows(torch.full((2, 20), 5), torch.tensor([17, 18]), torch.tensor([19, 20]))
    texts = [[7, 8], [9]]
    sampled = Sampled(behind_prefix, texts, ["g h", "i"], torch.tensor([True, False]), torch.zeros(2, 2))
    rows = without_prefix([[4, 5, 6], [4]], sampled, encoder)
    assert rows.tokens[0, : rows.length[0]].tolist() == [4, 5, 6, 7, 8, encoder.end]
    assert rows.tokens[1, : rows.length[1]].tolist() == [4, 9]  # cut off: no end token
    assert rows.prompt_length.tolist() == [3, 1]
