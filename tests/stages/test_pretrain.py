"""Pretraining: every token once an epoch, the mean per token, and an exact way back after a kill."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from heedful.batch import Texts
from heedful.config import InputError
from heedful.engine.sample import mean_language_loss
from heedful.models.checkpoint import load_policy
from heedful.models.heads import Policy
from heedful.run import Run
from heedful.snapshot import Snapshot, write_snapshot
from heedful.stages.pretrain import PretrainConfig, backward, epoch_batches, main, train
from heedful.text.collate import Encoded
from heedful.text.format import PromptFormat
from heedful.types import Document
from toys import BEGIN, PAD, SHAPE, TOKENIZER, assert_resumes, make_policy, open_run, plain_logprob, read_log

CONFIG = PretrainConfig(shape=SHAPE, window=8, batch_tokens=32, epochs=2, lr=1e-2, warmup_steps=3, precision="fp32")


def make_texts(number: int = 12, seed: int = 0) -> Texts:
    """Rows that go round and round through the words, of 2 to 8 tokens."""
    generator = torch.Generator().manual_seed(seed)
    length = torch.randint(2, 9, (number,), generator=generator)
    start = torch.randint(0, 8, (number, 1), generator=generator)
    tokens = 4 + (start + torch.arange(8)[None]) % 8
    return Texts(tokens.masked_fill(torch.arange(8)[None] >= length[:, None], PAD), length)


def plain_mean(policy: Policy, texts: Texts) -> float:
    rows = [row[:n].tolist() for row, n in zip(texts.tokens, texts.length.tolist(), strict=True)]
    return float(-torch.cat([plain_logprob(policy, Encoded(row[:1], row[1:])) for row in rows]).mean().detach())


def test_the_loss_is_the_mean_over_every_token_after_the_first() -> None:
    policy, texts = make_policy(), make_texts()
    plain = plain_mean(policy, texts)
    for max_tokens in (1, 20, 1000):
        config = CONFIG.model_copy(update={"max_tokens": max_tokens})
        assert float(backward(policy, texts, config)) == pytest.approx(plain, abs=1e-5)
        assert mean_language_loss(policy, texts, max_tokens, "fp32") == pytest.approx(plain, abs=1e-5)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(st.integers(2, 30), min_size=1, max_size=30), st.integers(2, 90), st.integers(0, 9))
def test_an_epoch_reads_every_row_once(lengths: list[int], batch_tokens: int, seed: int) -> None:
    batches = epoch_batches(torch.tensor(lengths), batch_tokens, seed)
    assert sorted(i for batch in batches for i in batch.tolist()) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch.tolist()) <= batch_tokens
    # every epoch has as many steps: the schedule and a resumed run count on it
    assert len(batches) == len(epoch_batches(torch.tensor(lengths), batch_tokens, seed + 1))


def test_it_learns_and_its_log_says_how(tmp_path: Path) -> None:
    policy, data, valid = make_policy(), make_texts(40), make_texts(10, seed=1)
    before = mean_language_loss(policy, valid, 100, "fp32")
    train(PretrainConfig(**(CONFIG.model_dump() | {"epochs": 6})), policy, data, valid, open_run(tmp_path))
    log = read_log(tmp_path)
    assert log[-1]["valid_loss"] < before / 4
    assert log[-1]["valid_loss"] == pytest.approx(mean_language_loss(policy, valid, 100, "fp32"), abs=1e-6)
    assert sum(row["tokens"] for row in log) == 6 * int(data.length.sum())
    assert log[0]["lr"] < log[3]["lr"] == pytest.approx(1e-2) and log[-1]["lr"] < 0.1 * 1e-2
    assert not policy.training


def test_a_killed_run_ends_with_the_same_weights_and_log(tmp_path: Path) -> None:
    def learn(run: Run) -> Policy:
        policy = make_policy()
        train(CONFIG, policy, make_texts(20), make_texts(5, seed=1), run)
        return policy

    assert_resumes(learn, tmp_path, kills=(0, 4, 5))


def test_main_writes_a_model_with_its_tokenizer_and_counts_what_is_left_over(tmp_path: Path) -> None:
    pieces = [Document(text="w0 w1 w2 w3 w4", split=split) for split in ("train", "train", "train", "valid", "valid")]
    write_snapshot(tmp_path / "data", Snapshot(documents=tuple(pieces)))
    run = Run.open(tmp_path / "pretrain", "pretrain", {}, 0, {"documents": "d"})
    main(CONFIG, run, TOKENIZER, tmp_path / "data", PromptFormat())
    assert run.counts == {"pretraining_tokens_left_over": 3 * 7 % 8 + 2 * 7 % 8}
    assert run.results["tokens"] == 16
    policy, tokenizer = load_policy(run.folder / "model")
    assert tokenizer.get_vocab() == TOKENIZER.get_vocab()
    assert policy.decoder.config.vocab_size == len(TOKENIZER)
    found = Texts(torch.tensor([[BEGIN, *range(4, 9), 2, BEGIN]]), torch.tensor([8]))
    assert mean_language_loss(policy, found, 100, "fp32") == pytest.approx(run.results["valid_loss"], abs=1e-6)


def test_too_little_text_is_said(tmp_path: Path) -> None:
    write_snapshot(tmp_path / "data", Snapshot(documents=(Document(text="w0"),)))
    with pytest.raises(InputError, match="0 training and 0 validation rows"):
        main(CONFIG, open_run(tmp_path / "pretrain"), TOKENIZER, tmp_path / "data", PromptFormat())
