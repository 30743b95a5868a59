"""Teaching a judge: labels alone are learned, questions behind one page do not see each other, a kill is nothing."""

from pathlib import Path

import pytest
import torch

from heedful.config import InputError
from heedful.models.checkpoint import load_policy, save_policy
from heedful.models.heads import Policy
from heedful.run import Run
from heedful.snapshot import Snapshot, read_snapshot, write_snapshot
from heedful.stages.judge import Page, TeachConfig, backward, main, mean_loss, read_pages, train
from heedful.text.collate import Encoded, Encoder
from heedful.text.format import PromptFormat
from heedful.types import Demonstration, Prompt, Split
from toys import (
    BEGIN,
    FIRST,
    PAD,
    TOKENIZER,
    assert_resumes,
    assert_same,
    gradients,
    make_policy,
    make_rows,
    open_run,
    plain_logprob,
)

CONFIG = TeachConfig(batch_size=4, lr=1e-2, precision="fp32")
FORMAT = PromptFormat(template="{prompt}")
LABELS = (FIRST + 6, FIRST + 7)


def make_pages(number: int) -> list[Page]:
    """Pages of one to four questions; the label of one tells whether question and page begin with the same word."""
    drawn = make_rows(4 * number)
    pages = []
    for n in range(number):
        page = [BEGIN, *drawn[4 * n].response]
        asked = [row.response for row in drawn[4 * n : 4 * n + 1 + n % 4]]
        pages.append([Encoded(page, [*words, LABELS[words[0] == page[1]]]) for words in asked])
    return pages


@pytest.mark.parametrize("max_tokens", [1, 17, 10_000])
def test_the_gradient_is_that_of_the_labels_mean_whatever_the_parts(max_tokens: int) -> None:
    policy, pages = make_policy(), make_pages(7)
    config = TeachConfig(**(CONFIG.model_dump() | {"max_tokens": max_tokens}))
    loss = backward(policy, pages, PAD, config)
    mine = gradients(policy)
    plain = -torch.stack([plain_logprob(policy, row)[-1] for page in pages for row in page]).mean()
    plain.backward()
    assert float(loss) == pytest.approx(float(plain.detach()), abs=1e-5)
    assert mean_loss(policy, pages, PAD, config) == pytest.approx(float(plain.detach()), abs=1e-5)
    assert_same(mine, gradients(policy))


def test_it_learns_and_a_kill_changes_nothing(tmp_path: Path) -> None:
    pages, config = make_pages(24), TeachConfig(**(CONFIG.model_dump() | {"epochs": 6}))

    def taught(run: Run) -> Policy:
        policy = make_policy()
        told = train(config, policy, pages, pages, PAD, run)
        assert len(told) == 6 and told[-1] < 0.8 < told[0] and not policy.training
        return policy

    assert_resumes(taught, tmp_path, (2, 9))


def write_pages(folder: Path, *pages: tuple[Split, str, tuple[str, ...]]) -> Path:
    prompts = [Prompt(id=f"p{n}", text=text, user=f"u{n}", split=split) for n, (split, text, _) in enumerate(pages)]
    answers = [
        Demonstration(id=f"p{n}-{k}", prompt_id=f"p{n}", text=text, labeler="people")
        for n, (_, _, asked) in enumerate(pages)
        for k, text in enumerate(asked)
    ]
    write_snapshot(folder / "pages", Snapshot(prompts=tuple(prompts), demonstrations=tuple(answers)))
    return folder / "pages"


def test_pages_are_read_with_their_questions_and_the_model_is_kept(tmp_path: Path) -> None:
    save_policy(tmp_path / "start", make_policy(), TOKENIZER, {})
    pages = write_pages(
        tmp_path, ("train", "w0 w1", (" w2 w6", " w3 w7")), ("valid", "w1", (" w2 w7",)), ("train", "w4", (" w5 w6",))
    )
    run = open_run(tmp_path / "judge")
    main(CONFIG, run, tmp_path / "start", pages, FORMAT)
    assert run.results["num_pages"] == 2 and run.results["num_questions"] == 3
    policy, tokenizer = load_policy(tmp_path / "judge" / "model")
    encoder = Encoder(tokenizer, FORMAT, 64)
    start = encoder.prompt(Prompt(id="x", text="w1", user="u")) or []
    assert read_pages(read_snapshot(pages), "valid", encoder) == (valid := [[Encoded(start, [FIRST + 2, FIRST + 7])]])
    assert run.results["valid_loss"] == [pytest.approx(mean_loss(policy, valid, PAD, CONFIG), abs=1e-5)]


def test_nothing_to_learn_from_is_refused(tmp_path: Path) -> None:
    save_policy(tmp_path / "start", make_policy(), TOKENIZER, {})
    pages = write_pages(tmp_path, ("train", "w0", (" w1 w6",)))
    with pytest.raises(InputError, match="1 training and 0 validation pages"):
        main(CONFIG, open_run(tmp_path / "judge"), tmp_path / "start", pages, FORMAT)
