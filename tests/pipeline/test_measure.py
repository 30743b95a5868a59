"""What is scored is what labelers saw; what little held-out text there is counts."""

from pathlib import Path

import pytest
import torch

from heedful.batch import Rows
from heedful.engine.sample import Sampled
from heedful.pipeline.measure import MeasureConfig, heldout_loss, without_prefix
from heedful.snapshot import Snapshot, write_snapshot
from heedful.text.collate import Encoder
from heedful.text.format import PromptFormat
from heedful.types import Document
from toys import TOKENIZER, make_policy


def test_a_few_shot_prefix_is_not_scored() -> None:
    encoder = Encoder(TOKENIZER, PromptFormat())
    behind_prefix = Rows(torch.full((2, 20), 5), torch.tensor([17, 18]), torch.tensor([19, 20]))
    texts = [[7, 8], [9]]
    sampled = Sampled(behind_prefix, texts, ["g h", "i"], torch.tensor([True, False]), torch.zeros(2, 2))
    rows = without_prefix([[4, 5, 6], [4]], sampled, encoder)
    assert rows.tokens[0, : rows.length[0]].tolist() == [4, 5, 6, 7, 8, encoder.end]
    assert rows.tokens[1, : rows.length[1]].tolist() == [4, 9]  # cut off: no end token
    assert rows.prompt_length.tolist() == [3, 1]


@pytest.mark.parametrize("packed", [True, False])
def test_held_out_text_shorter_than_a_window_is_measured(packed: bool, tmp_path: Path) -> None:
    pieces = [Document(text="w0 w1 w2"), Document(text="w3 w4", split="valid")]
    write_snapshot(tmp_path / "documents", Snapshot(documents=tuple(pieces)))
    encoder = Encoder(TOKENIZER, PromptFormat(pack_documents=packed))
    config = MeasureConfig(name="a", temperature=1, max_new_tokens=4, window=16, precision="fp32")
    policy = make_policy()
    found = heldout_loss(policy, tmp_path / "documents", encoder, config)
    begin, words = TOKENIZER.bos_token_id, TOKENIZER("w3 w4", add_special_tokens=False)["input_ids"]
    row = torch.tensor([[begin, *words, encoder.end]])
    with torch.no_grad():
        logits = policy.decoder(row).logits[0, :-1]
    assert found == pytest.approx(float(torch.nn.functional.cross_entropy(logits, row[0, 1:])), abs=1e-5)
    assert not +encoder.dropped


def test_without_held_out_text_there_is_no_loss(tmp_path: Path) -> None:
    write_snapshot(tmp_path / "documents", Snapshot(documents=(Document(text="w0 w1 w2"),)))
    config = MeasureConfig(name="a", temperature=1, max_new_tokens=4)
    for documents in (None, tmp_path / "documents"):
        assert heldout_loss(make_policy(), documents, Encoder(TOKENIZER, PromptFormat()), config) is None
