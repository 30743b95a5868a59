"""PPO iterations: sampling, scoring, log-probabilities, values, advantages, updates, whole on both sides.

Both take the log-probabilities of sampling for the old ones (`logprobs: engine`), as the peer always does; neither
averages weights. Sampling differs between the sides' random numbers, so their lengths agree in distribution only.

Losses of the timed runs differ by more than that: the peer puts the score behind the end token, on one position more
than there are tokens, and takes means of micro-batches' means. Where all responses are equally long and none ends, the
two conventions are one; the check gives both sides such responses, the same ones, and compares what they compute. It
lets heedful's gradients unclipped, as the peer's are; without that, losses part from the third epoch on.
"""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from common import (
    FIRST,
    LR,
    MAX_RESPONSE,
    PAD,
    VOCABULARY,
    Done,
    Work,
    clock,
    count_head,
    count_tokens,
    decoder,
    flops,
    make_it_end,
    random_tokens,
    response_lengths,
    restorer,
    score_head,
    spread,
    tokenizer,
)

EPISODES, PROMPT, ITERATIONS = 64, 32, 1
KL_COEF = 0.05


def inner_epochs(name: str) -> int:
    return 4 if name == "ppo_4_epochs" else 1


CHECKED = {"score": "score", "kl_k1": "kl", "policy_loss": "policy_loss", "value_loss": "value_loss"}


def parted(seconds: float, sampling: Sequence[float]) -> dict[str, float]:
    return {"seconds_sampling": sum(sampling), "seconds_of_the_rest": seconds - sum(sampling)}


def prompts(seed: int) -> list[list[int]]:
    return random_tokens((ITERATIONS * EPISODES, PROMPT), seed).tolist()


def given(prompts: torch.Tensor) -> torch.Tensor:
    """Responses (N, 48) without an end, one for each prompt (N, 32) and made of it alone."""
    t = torch.arange(MAX_RESPONSE)
    return FIRST + (31 * prompts[:, t % PROMPT] + 7 * t) % (VOCABULARY - FIRST)


def ours(name: str) -> Work:
    from ours import new_run, of_scratch

    from heedful.engine.sample import Sampled, Sampler, score_rows
    from heedful.models.heads import Policy, RewardModel, ValueModel
    from heedful.stages import ppo as stage
    from heedful.text.collate import Encoded, to_rows
    from heedful.types import Prompt

    epochs = inner_epochs(name)
    policy, ref_policy = Policy(of_scratch()), Policy(of_scratch())
    reward_model = RewardModel.from_decoder(of_scratch())
    value_model = ValueModel.from_reward_model(reward_model)
    make_it_end(policy.decoder)
    make_it_end(ref_policy.decoder)
    restore, tell = restorer(policy, value_model), count_tokens()
    sampler = Sampler(policy.decoder, tokenizer(), MAX_RESPONSE)

    def config(max_tokens: int, **more: float) -> stage.PPOConfig:
        return stage.PPOConfig(
            iterations=ITERATIONS,
            batch_size=EPISODES,
            minibatch_size=EPISODES,
            inner_epochs=epochs,
            lr=LR,
            value_lr=LR,
            warmup_iterations=0,
            kl_coef=KL_COEF,
            ema_decay=0,
            ptx_coef=0,
            max_new_tokens=MAX_RESPONSE,
            logprobs="engine",
            max_tokens=max_tokens,
            precision="fp32",
            **more,
        )

    def train(layout: int, tokens: list[list[int]], generate: stage.Generate, **more: float) -> tuple[float, Any]:
        """Seconds of the whole loop, and its log."""
        asked = [Prompt(id=str(i), text=str(i), user=str(i)) for i in range(len(tokens))]

        def score(prompts: list[Prompt], sampled: Sampled) -> torch.Tensor:
            return score_rows(reward_model, sampled.rows, layout, "fp32")

        restore()
        log = new_run("ppo")
        tell()
        began = clock()
        stage.train(config(layout, **more), policy, ref_policy, value_model, asked, generate, score, None, log)
        return clock() - began, log

    def run(layout: int, seed: int, trial: bool) -> Done:
        tokens = prompts(seed)
        lengths: list[int] = []
        sampling: list[float] = []

        def generate(index: Sequence[int], first: int) -> Sampled:
            began = clock()
            sampled = sampler([tokens[i] for i in index], [(seed << 32) + first + n for n in range(len(index))])
            sampling.append(clock() - began)
            lengths.extend(sampled.rows.response_length.tolist())
            return sampled

        seconds, _ = train(layout, tokens, generate)
        counted, read = tell(), sum(lengths)
        work = flops(counted, 2 * read, epochs * read)  # sampled, read by the reference, and trained on
        notes = spread(lengths) | parted(seconds, sampling)
        return Done(seconds, ITERATIONS * EPISODES, counted.tokens, work, notes)

    def check() -> dict[str, float]:
        tokens = prompts(0)
        responses = given(torch.tensor(tokens)).tolist()

        @torch.no_grad()
        def generate(index: Sequence[int], first: int) -> Sampled:
            rows = to_rows([Encoded(tokens[i], responses[i]) for i in index], PAD)
            finished = torch.zeros(len(index), dtype=torch.bool)
            logprob = policy.logprob(rows, 1.0)
            return Sampled(rows, [responses[i] for i in index], [""] * len(index), finished, logprob)

        _, log = train(512, tokens, generate, max_grad_norm=1e9)
        found = log.first("score", "kl_k1", "policy_loss", "value_loss")
        return {CHECKED[key]: value for key, value in found.items()}

    return Work((512, 1024, 2048), run, check)


def peer(name: str) -> Work:
    from peer import Timer, ppo_config, ppo_trainer, sequence_model, watch_generate

    epochs = inner_epochs(name)
    policy, ref_policy = decoder(), decoder()
    make_it_end(policy)
    make_it_end(ref_policy)
    reward_model = sequence_model(decoder(), score_head())
    value_model = sequence_model(decoder(), score_head())
    restore, tell = restorer(policy, value_model), count_tokens()
    heads = count_head(policy), count_head(ref_policy)

    def train(layout: list[int], seed: int) -> tuple[float, dict[str, float]]:
        """Seconds of the whole loop, and what it logs."""
        restore()
        batch, rollout_batch = layout
        timer = Timer()
        args = ppo_config(
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=EPISODES // batch,
            local_rollout_forward_batch_size=rollout_batch,
            total_episodes=ITERATIONS * EPISODES,
            num_ppo_epochs=epochs,
            response_length=MAX_RESPONSE,
            kl_coef=KL_COEF,
        )
        trainer = ppo_trainer(args, (policy, ref_policy, reward_model, value_model), prompts(seed), timer)
        tell()
        for head in heads:
            head()
        trainer.train()
        return timer.seconds, trainer.state.log_history[0]

    def run(layout: list[int], seed: int, trial: bool) -> Done:
        generated, sampling = watch_generate(policy)
        seconds, _ = train(layout, seed)
        read = [head() for head in heads]
        counted = tell()
        lengths = [n for tokens in generated for n in response_lengths(tokens[:, PROMPT:])]
        work = flops(counted, sum(x.forward for x in read), sum(x.trained for x in read))
        return Done(seconds, ITERATIONS * EPISODES, counted.tokens, work, spread(lengths) | parted(seconds, sampling))

    def check() -> dict[str, float]:
        @torch.no_grad()
        def generate(input_ids: torch.Tensor, **_: Any) -> Any:
            tokens = torch.cat([input_ids, given(input_ids)], 1)
            logits = policy(input_ids=tokens).logits[:, PROMPT - 1 : -1]
            return SimpleNamespace(sequences=tokens, scores=logits.unbind(1))

        policy.generate = generate
        logged = train([16, 64], 0)[1]
        names = {"objective/scores": "score", "objective/kl": "kl"}
        names |= {f"loss/{name}_avg": f"{name}_loss" for name in ("policy", "value")}
        return {name: float(logged[key]) for key, name in names.items()}

    return Work(([16, 64], [32, 64], [64, 64]), run, check)
