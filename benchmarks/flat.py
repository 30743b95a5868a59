"""Very many tiny PPO iterations: what a token costs and what memory is held, early and late."""

import gc
from collections.abc import Sequence
from typing import Any

import torch
from common import SHAPE, Done, Work, clock, random_tokens, resident, tokenizer

MARKS = (1_000, 10_000, 100_000)  # episodes
EPISODES, PROMPT, RESPONSE = 100, 8, 8
TINY = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
WINDOW = 500  # episodes before each mark whose cost is taken


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
    """Microseconds per token over the window before each mark, and memory in MB at it."""
    found = {}
    for mark in MARKS:
        last = mark // EPISODES - 1
        first = max(0, last - WINDOW // EPISODES)
        (began, before, _), (ended, after, memory) = times[first], times[last]
        found[f"cost_{mark}"] = (ended - began) / (after - before) * 1e6
        found[f"memory_{mark}"] = memory
    return found
