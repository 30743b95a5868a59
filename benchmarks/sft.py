"""Supervised fine-tuning on demonstrations of 8 to 256 tokens, loss on responses, the same examples per update."""

from typing import Any

import torch
from common import LR, Done, Work, clock, count_head, count_tokens, decoder, flops, random_tokens, restorer

BATCH, UPDATES, TRIAL = 32, 6, 1  # demonstrations per update; updates of a repeat and of a trial
SHORTEST, LONGEST = 8, 256

Demonstration = tuple[list[int], list[int]]  # prompt, response


def demonstrations(num: int, seed: int) -> list[Demonstration]:
    """Lengths spread evenly over 8 to 256, a quarter to three quarters of each the response."""
    generator = torch.Generator().manual_seed(seed)
    length = torch.randint(SHORTEST, LONGEST + 1, (num,), generator=generator)
    share = 0.25 + 0.5 * torch.rand(num, generator=generator)
    tokens = random_tokens((num, LONGEST), seed + 500_000).tolist()
    cuts = [max(1, int(n * s)) for n, s in zip(length.tolist(), share.tolist(), strict=True)]
    return [(row[:cut], row[cut:n]) for row, cut, n in zip(tokens, cuts, length.tolist(), strict=True)]


def num_tokens(data: list[Demonstration]) -> int:
    """Those there are, without padding."""
    return sum(len(p) + len(r) for p, r in data)


def ours(name: str) -> Work:
    from ours import new_run, of_scratch

    from heedful.models.heads import Policy
    from heedful.stages import sft as stage
    from heedful.text.collate import Encoded

    policy = Policy(of_scratch())
    restore, tell = restorer(policy), count_tokens()

    def train(data: list[Demonstration], max_tokens: int) -> tuple[float, float]:
        restore()
        config = stage.SFTConfig(
            epochs=1, batch_size=BATCH, lr=LR, final_lr=1.0, residual_dropout=0, max_tokens=max_tokens, precision="fp32"
        )
        items, log = [Encoded(p, r) for p, r in data], new_run("sft")
        shortest = min(items, key=lambda item: len(item.prompt) + len(item.response))
        tell()
        began = clock()
        stage.train(config, policy, items, [shortest], None, 0, log, lambda policy, epoch: None)
        return clock() - began, log.first("loss")["loss"]

    def run(layout: int, seed: int, trial: bool) -> Done:
        data = demonstrations(BATCH * (TRIAL if trial else UPDATES), seed)
        seconds, _ = train(data, layout)
        counted, read = tell(), sum(len(r) for _, r in data)
        return Done(seconds, num_tokens(data), counted.tokens, flops(counted, read_trained=read))

    def check() -> dict[str, float]:
        return {"loss": train(demonstrations(BATCH, 0), 2048)[1]}

    return Work((512, 1024, 2048, 4096), run, check)


def peer(name: str) -> Work:
    from peer import sft_trainer

    model = decoder()
    restore, tell, head = restorer(model), count_tokens(), count_head(model)
    packed = name == "sft_packed"

    def train(layout: list[Any], data: list[Demonstration], updates: int) -> tuple[float, float]:
        restore()
        vars(model).pop("forward", None)  # the trainer of "chunked_nll" leaves its own forward on the model
        trainer, timer = sft_trainer(model, data, layout, updates, packed)
        tell()
        loss = trainer.train().training_loss
        assert abs(trainer.state.global_step - updates) <= packed  # packed rows need not divide evenly
        return timer.seconds, loss

    def run(layout: list[Any], seed: int, trial: bool) -> Done:
        updates = TRIAL if trial else UPDATES
        data = demonstrations(BATCH * updates, seed)
        head()
        seconds, _ = train(layout, data, updates)
        counted = tell()
        return Done(seconds, num_tokens(data), counted.tokens, flops(counted, *head()))

    def check() -> dict[str, float]:
        return {"loss": train(layouts[0], demonstrations(BATCH, 0), 1)[1]}

    # rows of a forward pass, the loss's implementation; for packing also the length of a packed row
    losses = ("nll", "chunked_nll")
    if packed:
        layouts = [
            [rows, loss, length] for rows, length in ((2, 256), (4, 256), (1, 512), (1, 1024)) for loss in losses
        ]
    else:
        layouts = [[rows, loss] for rows in (4, 8, 16, 32) for loss in losses]
    return Work(layouts, run, check)
