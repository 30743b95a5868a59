"""Models of a few thousand weights over a dozen words, and the plainest way to compute what they say."""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from heedful.models.heads import Policy, RewardModel, ValueModel
from heedful.models.load import from_scratch
from heedful.models.threads import use_threads
from heedful.run import WALL_CLOCK, Run, read_jsonl
from heedful.text.collate import Encoded, EncodedRanking
from heedful.text.tokenizer import word_tokenizer

torch.set_num_threads(1)  # models this small only lose by threads

WORDS = [f"w{i}" for i in range(8)]
TOKENIZER: PreTrainedTokenizerFast = word_tokenizer([*WORDS, "\n"])
PAD, BEGIN, END = TOKENIZER.pad_token_id, TOKENIZER.bos_token_id, TOKENIZER.eos_token_id
FIRST, VOCABULARY = TOKENIZER.convert_tokens_to_ids("w0"), len(TOKENIZER)
SHAPE: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
}


def make_policy(seed: int = 0, **changes: Any) -> Policy:
    return Policy(from_scratch(SHAPE | changes, seed)).eval()


def make_reward_model(seed: int = 0, **changes: Any) -> RewardModel:
    return RewardModel.from_decoder(from_scratch(SHAPE | changes, seed), seed).eval()


def make_value_model(seed: int = 1, **changes: Any) -> ValueModel:
    return ValueModel.from_reward_model(make_reward_model(seed, **changes)).eval()


def words(number: int, draw: random.Random) -> list[int]:
    return [FIRST + draw.randrange(len(WORDS)) for _ in range(number)]


def make_rows(number: int, seed: int = 0) -> list[Encoded]:
    """Prompts of 1 to 6 tokens with responses of 1 to 7."""
    draw = random.Random(seed)
    return [Encoded([BEGIN, *words(draw.randrange(6), draw)], words(draw.randint(1, 7), draw)) for _ in range(number)]


def make_rankings(
    number: int, seed: int = 0, utility: Callable[[Encoded], float] | None = None
) -> list[EncodedRanking]:
    """2 to 6 responses each, ranked at random with ties, or by a utility."""
    draw = random.Random(seed)
    rankings = []
    for n in range(number):
        prompt = [BEGIN, *words(draw.randrange(4), draw)]
        rows = [Encoded(prompt, [*words(draw.randint(1, 6), draw), END]) for _ in range(draw.randint(2, 6))]
        rank = [draw.randint(1, len(rows)) for _ in rows]
        if utility is not None:
            value = [utility(row) for row in rows]
            rank = [1 + sum(other > mine for other in value) for mine in value]
        rankings.append(EncodedRanking(rows, tuple(rank), f"ranking-{n}"))
    return [ranking for ranking in rankings if len(set(ranking.rank)) > 1]


# One row at a time, without padding: what every batch must agree with.


def plain_logprob(policy: Policy, row: Encoded, temperature: float = 1.0) -> torch.Tensor:
    """Log-probability of each response token, (R,)."""
    tokens = torch.tensor([row.prompt + row.response])
    logits = policy.decoder(input_ids=tokens, use_cache=False).logits[0] / temperature
    before = range(len(row.prompt) - 1, len(row.prompt) + len(row.response) - 1)
    return torch.stack([logits[t].log_softmax(0)[row.response[n]] for n, t in enumerate(before)])


def plain_values(model: RewardModel | ValueModel, row: Encoded) -> torch.Tensor:
    """The head's number at every position, (T,)."""
    tokens = torch.tensor([row.prompt + row.response])
    return model.head(model.trunk(input_ids=tokens, use_cache=False).last_hidden_state[0]).squeeze(1)


def plain_score(model: RewardModel, row: Encoded) -> torch.Tensor:
    return plain_values(model, row)[-1]


def plain_value(model: ValueModel, row: Encoded) -> torch.Tensor:
    """The value before each response token, (R,)."""
    return plain_values(model, row)[len(row.prompt) - 1 : -1]


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A copy of the gradients; they are cleared."""
    found = {n: torch.zeros_like(p) if p.grad is None else p.grad.clone() for n, p in model.named_parameters()}
    model.zero_grad()
    return found


def assert_same(mine: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor], tolerance: float = 1e-5) -> None:
    assert mine.keys() == theirs.keys()
    for name in mine:
        torch.testing.assert_close(
            mine[name], theirs[name], rtol=tolerance, atol=tolerance, msg=lambda m, n=name: n + m
        )


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: x.clone() for name, x in model.state_dict().items()}


@contextmanager
def base_stays(model: torch.nn.Module) -> Iterator[None]:
    """There is a base behind the adapters, and what is done here leaves it as it is, to the bit."""
    base = {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}
    yield
    now = dict(model.named_parameters())
    assert base and all(torch.equal(p, now[name]) for name, p in base.items())


# Runs.


def open_run(folder: Path, checkpoint_seconds: float = 1000.0, seed: int = 3) -> Run:
    return Run.open(folder, "toy", {}, seed, checkpoint_seconds=checkpoint_seconds)


class Killed(Exception):
    pass


@contextmanager
def killed_at(run: Run, step: int) -> Iterator[None]:
    """The run is left as a kill leaves it when it is about to log the step."""
    log = run.log

    def logged(at: int, **metrics: Any) -> None:
        if at == step:
            raise Killed
        log(at, **metrics)

    run.log = logged  # type: ignore[method-assign]
    try:
        yield
    except Killed:
        return
    raise AssertionError(f"step {step} was never reached")


def assert_resumes(train: Callable[[Run], torch.nn.Module], folder: Path, kills: Sequence[int]) -> None:
    """`train` ends with the same weights and log when it is killed at these steps and goes on from its states."""

    def attempt(run: Run) -> torch.nn.Module:
        torch.manual_seed(run.seed)  # as a job does
        return train(run)

    whole = weights(attempt(open_run(folder / "whole", 0.0)))
    for step in kills:
        run = open_run(folder / "cut", 0.0)
        with killed_at(run, step):
            attempt(run)
    cut = weights(attempt(open_run(folder / "cut", 0.0)))
    assert all(torch.equal(cut[name], whole[name]) for name in whole)
    assert read_log(folder / "cut") == read_log(folder / "whole")


def assert_threads_change_nothing(train: Callable[[Run], torch.nn.Module], folder: Path) -> None:
    """`train` ends with the same weights and log on one thread and on three."""
    before, found = torch.get_num_threads(), []
    try:
        for number in (1, 3):
            use_threads(number)
            found.append(weights(train(open_run(folder / str(number)))))
    finally:
        use_threads(before)
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    assert read_log(folder / "1") == read_log(folder / "3")


def read_log(folder: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k not in WALL_CLOCK} for row in read_jsonl(folder / "metrics.jsonl")]
