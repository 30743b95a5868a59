"""The formulas of the loop, each written once, as pure functions of tensors: no model, no device, no configuration.

    masked    means, whitening and explained variance over the tokens that count
    logprob   log-probability of each token, entropy of each distribution
    kl        estimators of the divergence from the reference; the adaptive coefficient
    sft       supervised fine-tuning (and the pretraining mix)
    ranking   reward models: K-way rankings, soft pairs, best of K, regression
    ppo       the reward with its KL penalty, advantages, policy and value losses
    dpo       preference optimization without a reward model

Losses return one value per element; `masked.masked_mean(x, mask, total)` is the one place that divides, by the count
over the whole batch, so micro-batches, shards and padding never change a result. In every `mask`, True counts.

Shapes: B prompts, Kmax responses per prompt, N rows, R response tokens, P pairs, V vocabulary.
"""
