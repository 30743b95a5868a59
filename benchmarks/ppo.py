"""PPO iterations: sampling, scoring, log-probabilities, values, advantages, updates, whole on both sides.

Both take the log-probabilities of sampling for the old ones (`logprobs: engine`), as the peer always does; neither
averages weights. Sampling differs between the sides' random numbers, so their lengths agree in distribution only.
"""

from collections.abc import Sequence

import torch
from common import (
    LR,
    MAX_RESPONSE,
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


def prompts(seed: int) -> list[list[int]]:
    return random_tokens((ITERATIONS * EPISODES, PROMPT), seed).tolist()


def ours(name: str) -> Work:
    from ours import new_run, of_scratch

    from heedful.engine.sample import Sampled, Sampler, score_rows
    from heedful.models.heads import Policy, RewardModel, ValueModel
    from heedful.stages import ppo as stage
    from heedful.types import Prompt

    epochs = inner_epochs(name)
    policy, ref_policy = Policy(of_scratch()), Policy(of_scratch())
    reward_model = RewardModel.from_decoder(of_scratch())
    value_model = ValueModel.from_reward_model(reward_model)
    make_it_end(policy.decoder)
    make_it_end(ref_policy.decoder)
    restore, tell = restorer(policy, value_model), count_tokens()
    sampler = Sampler(policy.decoder, tokenizer(), MAX_RESPONSE)

    def config(max_tokens: int, trial: bool) -> stage.PPOConfig:
        return stage.PPOConfig(
            iterations=ITERATIONS,
            batch_size=EPISODES,
            minibatch_size=EPISODES,
            inner_epochs=1 if trial else epochs,
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
        )

    def run(layout: int, seed: int, trial: bool) -> Done:
        restore()
        tokens = prompts(seed)
        lengths: list[int] = []
        asked = [Prompt(id=str(i), text=str(i), user=str(i)) for i in range(len(tokens))]

        def generate(index: Sequence[int], first: int) -> Sampled:
            sampled = sampler([tokens[i] for i in index], [(seed << 32) + first + n for n in range(len(index))])
            lengths.extend(sampled.rows.response_length.tolist())
            return sampled

        def score(prompts: list[Prompt], sampled: Sampled) -> torch.Tensor:
            return score_rows(reward_model, sampled.rows, layout, "fp32")

        log = new_run("ppo")
        tell()
        began = clock()
        stage.train(config(layout, trial), policy, ref_policy, value_model, asked, generate, score, None, log)
        seconds, counted = clock() - began, tell()
        read = sum(lengths)
        work = flops(counted, 2 * read, epochs * read)  # sampled, read by the reference, and trained on
        notes = spread(lengths) | log.first("policy_loss", "value_loss")
        return Done(seconds, ITERATIONS * EPISODES, sum(counted), work, notes)

    return Work((512, 1024, 2048, 4096), run)


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

    def run(layout: list[int], seed: int, trial: bool) -> Done:
        restore()
        batch, rollout_batch = layout
        timer, generated = Timer(), watch_generate(policy)
        args = ppo_config(
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=EPISODES // batch,
            local_rollout_forward_batch_size=rollout_batch,
            total_episodes=ITERATIONS * EPISODES,
            num_ppo_epochs=1 if trial else epochs,
            response_length=MAX_RESPONSE,
            kl_coef=KL_COEF,
        )
        trainer = ppo_trainer(args, (policy, ref_policy, reward_model, value_model), prompts(seed), timer)
        tell()
        for head in heads:
            head()
        trainer.train()
        read = [head() for head in heads]
        counted, first = tell(), trainer.state.log_history[0]
        losses = {f"{key}_loss": float(first[f"loss/{key}_avg"]) for key in ("policy", "value")}
        lengths = [n for tokens in generated for n in response_lengths(tokens[:, PROMPT:])]
        work = flops(counted, sum(x.forward for x in read), sum(x.trained for x in read))
        return Done(timer.seconds, ITERATIONS * EPISODES, sum(counted), work, spread(lengths) | losses)

    return Work(([8, 64], [16, 64], [32, 64], [64, 64], [16, 32]), run)
