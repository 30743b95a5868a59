"""The benchmarks: what each does, what it is compared with, and what it should reach."""

from typing import NamedTuple


class Row(NamedTuple):
    """One line of the table. `target` is the least ratio ours / peer, or the most where `most` is set."""

    name: str
    family: str  # the module that does the work
    unit: str
    target: float
    work: str
    peer: str
    most: bool = False
    needs_trl: bool = True  # else the peer is transformers alone, which heedful's own environment has


TIMED = (
    Row(
        "reward_k9",
        "reward",
        "comparisons/s",
        14.0,
        "reward model, one update on 16 prompts × K = 9 (36 comparisons each), prompt 64 + response 32 tokens",
        "TRL RewardTrainer on the same pairs",
    ),
    Row(
        "reward_k4",
        "reward",
        "comparisons/s",
        4.5,
        "the same with K = 4 (6 comparisons each), three updates",
        "TRL RewardTrainer on the same pairs",
    ),
    Row(
        "ppo_1_epoch",
        "ppo",
        "episodes/s",
        3.0,
        "PPO iteration of 64 episodes, prompt 32, response at most 48 tokens and about 24 on average, one inner epoch",
        "TRL PPOTrainer",
    ),
    Row("ppo_4_epochs", "ppo", "episodes/s", 2.5, "the same with four inner epochs", "TRL PPOTrainer"),
    Row(
        "rollout",
        "rollout",
        "response tokens/s",
        3.5,
        "256 prompts of 32 tokens, one response each, lengths spread likewise",
        "transformers' model.generate",
        needs_trl=False,
    ),
    Row(
        "rollout_k9",
        "rollout",
        "response tokens/s",
        4.5,
        "64 prompts of 256 tokens, 9 responses each, lengths spread likewise",
        "transformers' model.generate with num_return_sequences",
        needs_trl=False,
    ),
    Row(
        "sft",
        "sft",
        "tokens/s",
        2.0,
        "supervised fine-tuning, 192 demonstrations of 8 to 256 tokens, six updates, loss on responses",
        "TRL SFTTrainer, grouped by length, without packing",
    ),
    Row("sft_packed", "sft", "tokens/s", 1.2, "the same", "TRL SFTTrainer with packing"),
    Row(
        "judge",
        "judge",
        "prompts/s",
        4.0,
        "200 pairs in both orders: 400 prompts of 400 shared tokens and 100 of their own, two labels",
        "transformers, one padded batched forward per prompt",
        needs_trl=False,
    ),
    Row(
        "principles",
        "judge",
        "prompts/s",
        5.0,
        "8 pairs in both orders by 16 principles: 256 prompts of 60 shared tokens, 400 of the pair and 40 of the "
        "principle, two labels",
        "transformers, one padded batched forward per prompt",
        needs_trl=False,
    ),
)
MEMORY = tuple(
    row._replace(
        name=f"memory_{row.name}",
        unit="MB",
        target=1.0,
        most=True,
        work=f"peak memory of a process that does {row.name}",
    )
    for row in TIMED
)
FLAT = (
    Row(
        "flat_cost",
        "flat",
        "µs/token",
        1.1,
        "tiny PPO iterations: cost of a token at 100,000 episodes against that at 1,000",
        "itself at 1,000 episodes",
        most=True,
        needs_trl=False,
    ),
    Row(
        "flat_memory",
        "flat",
        "MB",
        1.05,
        "the same run's memory at 100,000 episodes against that at 1,000",
        "itself at 1,000 episodes",
        most=True,
        needs_trl=False,
    ),
)
WHOLE = Row(
    "quickstart",
    "quickstart",
    "s",
    1.0,
    "the whole quickstart",
    "itself written plainly (benchmarks/plain): padded batches, no shared prompts, no threads by parts, model.generate",
    most=True,
    needs_trl=False,
)
ROWS = {row.name: row for row in (*TIMED, *MEMORY, *FLAT, WHOLE)}


def met(row: Row, ratio: float) -> bool:
    """Whether the target is reached."""
    return ratio <= row.target if row.most else ratio >= row.target


def target_text(row: Row) -> str:
    return f"{'≤' if row.most else '≥'} {row.target:g}×"
