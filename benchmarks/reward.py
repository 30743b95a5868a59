"""Reward model: one update on B prompts with K ranked responses each, against the same comparisons as pairs."""

from itertools import combinations
from typing import Any, NamedTuple

import torch
from common import LR, Counted, Done, Work, clock, count_tokens, decoder, flops, random_tokens, restorer, score_head

PROMPTS, PROMPT, RESPONSE = 16, 64, 32
VALID_SEED = 1_000_000


class Rankings(NamedTuple):
    prompt: torch.Tensor  # (B, 64)
    response: torch.Tensor  # (B, K, 32)
    rank: torch.Tensor  # (B, K), 1 = best


class Size(NamedTuple):
    k: int
    updates: int

    @property
    def comparisons(self) -> int:
        return self.updates * PROMPTS * self.k * (self.k - 1) // 2


def size(name: str) -> Size:
    return Size(9, 1) if name == "reward_k9" else Size(4, 3)


def rankings(num: int, k: int, seed: int) -> Rankings:
    """Random tokens; each token has a worth, and a response's rank is that of its tokens' sum."""
    prompt, response = random_tokens((num, PROMPT), 2 * seed), random_tokens((num, k, RESPONSE), 2 * seed + 1)
    worth = torch.randn(4096, generator=torch.Generator().manual_seed(7))[response].sum(-1)
    return Rankings(prompt, response, worth.argsort(1, descending=True).argsort(1) + 1)


def ours(name: str) -> Work:
    from ours import new_run, of_scratch

    from heedful.models.heads import RewardModel
    from heedful.stages import reward_model as stage
    from heedful.text.collate import Encoded, EncodedRanking

    k, updates = size(name)
    model = RewardModel.from_decoder(of_scratch())
    restore, tell = restorer(model), count_tokens()

    def encoded(num: int, seed: int) -> list[EncodedRanking]:
        prompt, response, rank = (x.tolist() for x in rankings(num, k, seed))
        rows = [[Encoded(p, r) for r in some] for p, some in zip(prompt, response, strict=True)]
        return [EncodedRanking(r, tuple(order), str(i)) for i, (r, order) in enumerate(zip(rows, rank, strict=True))]

    def config(layout: int) -> stage.RewardModelConfig:
        return stage.RewardModelConfig(batch_size=PROMPTS, lr=LR, max_tokens=layout, precision="fp32")

    def run(layout: int, seed: int, trial: bool) -> Done:
        restore()
        data, log = encoded(PROMPTS * updates, seed), new_run("reward_model")
        tell()
        began = clock()
        stage.train(config(layout), model, data, [], 0, log)
        seconds, counted = clock() - began, tell()
        return Done(seconds, size(name).comparisons, counted.tokens, flops(counted))

    def check() -> dict[str, float]:
        restore()
        settings, log = config(1024), new_run("reward_model")
        stage.train(settings, model, encoded(PROMPTS, 0), [], 0, log)
        held = encoded(PROMPTS, VALID_SEED)
        loss, accuracy = stage.validate(model, held, 0, stage.objective(settings), settings)
        return {"loss": log.first("loss")["loss"], "valid_loss": loss, "valid_accuracy": accuracy}

    return Work((352, 704, 1408, 2816) if k == 9 else (384, 768, 1536, 3072), run, check)


def peer(name: str) -> Work:
    from peer import reward_trainer, sequence_model

    k, updates = size(name)
    model = sequence_model(decoder(), score_head())
    restore, tell = restorer(model), count_tokens()

    def pairs(num: int, seed: int) -> list[tuple[list[int], list[int]]]:
        found = []
        prompt, response, rank = (x.tolist() for x in rankings(num, k, seed))
        for p, some, order in zip(prompt, response, rank, strict=True):
            for i, j in combinations(range(k), 2):
                better, worse = (i, j) if order[i] < order[j] else (j, i)
                found.append((p + some[better], p + some[worse]))
        return found

    def train(layout: int, data: list[tuple[list[int], list[int]]], steps: int) -> tuple[float, float, Counted]:
        restore()
        trainer, timer = reward_trainer(model, data, layout, len(data) // steps)
        tell()
        loss = trainer.train().training_loss
        return loss, timer.seconds, tell()

    def run(layout: int, seed: int, trial: bool) -> Done:
        data = pairs(PROMPTS * updates, seed)
        data, steps = (data[:96], 1) if trial else (data, updates)
        _, seconds, counted = train(layout, data, steps)
        return Done(seconds, len(data), counted.tokens, flops(counted))

    @torch.no_grad()
    def check() -> dict[str, float]:
        with torch.enable_grad():
            first = train(16, pairs(PROMPTS, 0), 1)[0]
        model.eval()
        held = pairs(PROMPTS, VALID_SEED)
        tokens = torch.tensor([x for pair in held for x in pair])
        score: Any = torch.cat([model(part, use_cache=False).logits[:, 0] for part in tokens.split(64)])
        margin = score[0::2] - score[1::2]
        loss = -torch.nn.functional.logsigmoid(margin).mean()
        return {"loss": first, "valid_loss": float(loss), "valid_accuracy": float((margin > 0).float().mean())}

    return Work((8, 16, 32, 48), run, check)
