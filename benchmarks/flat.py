"""Very many tiny PPO iterations: what a token costs and what memory is held, early and late."""

import gc
from collections.abc import Sequence
from itertools import pairwise
from statistics import median
from typing import Any

import torch
from common import SHAPE, Done, Work, clock, random_tokens, resident, tokenizer
from timing import quartiles

MARKS = (1_000, 10_000, 100_000)  # episodes
EPISODES, PROMPT, RESPONSE = 10, 8, 8
TINY = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
WINDOW = 100  # iterations before each mark whose costs are taken


def ours(name: str) -> Work:
    from ours import new_run

    from heedful.engine.sample import Sampled, Sampler
    from heedful.models.heads import Policy, RewardModel, ValueModel
    from heedful.models.load import from_scratch
    from heedful.stages import ppo as stage
    from heedful.types import Prompt

    shape = {"model_type": "llama", **SHAPE, **TINY, "num_key_value_heads": 2, "vocab_size": 64}
    config = stage.PPOConfig(
        iterations=MARKS[-1] // EPISODES,
        batch_size=EPISODES,
        minibatch_size=EPISODES,
        ema_decay=0,
        ptx_coef=0,
        max_new_tokens=RESPONSE,
        precision="fp32",
    )

    def run(layout: None, seed: int, trial: bool) -> Done:
        policy, ref_policy = Policy(from_scratch(shape)), Policy(from_scratch(shape))
        value_model = ValueModel.from_reward_model(RewardModel.from_decoder(from_scratch(shape)))
        sampler = Sampler(policy.decoder, tokenizer(), RESPONSE)
        prompts = (random_tokens((1000, PROMPT), seed) % 60 + 4).tolist()
        times: list[tuple[float, int, float]] = []  # at each iteration: the time, tokens so far, memory

        def generate(index: Sequence[int], first: int) -> Sampled:
            return sampler([prompts[i] for i in index], [first + n for n in range(len(index))])

        def score(asked: Sequence[Prompt], sampled: Sampled) -> torch.Tensor:
            before = times[-1][1] if times else 0
            times.append((clock(), before + int(sampled.rows.length.sum()), resident()))
            return sampled.rows.response_length.float()

        asked = [Prompt(id=str(i), text=str(i), user=str(i)) for i in range(len(prompts))]
        stage.train(config, policy, ref_policy, value_model, asked, generate, score, None, new_run("ppo"))
        gc.collect()
        return Done(times[-1][0] - times[0][0], MARKS[-1], times[-1][1], notes=at_marks(times))

    return Work((None,), run)


def at_marks(times: Sequence[tuple[float, int, float]]) -> dict[str, Any]:
    """Microseconds per token, median and quartiles over the iterations of the window before each mark; MB at it."""
    found = {}
    for mark in MARKS:
        last = mark // EPISODES - 1
        window = times[max(0, last - WINDOW) : last + 1]
        cost = [(b[0] - a[0]) / (b[1] - a[1]) * 1e6 for a, b in pairwise(window)]
        found[f"cost_{mark}"] = median(cost)
        found[f"lower_{mark}"], found[f"upper_{mark}"] = quartiles(cost)
        found[f"memory_{mark}"] = window[-1][2]
    return found
