"""Labels by likelihood: the log-probabilities of "1" and "2" behind prompts that share a long preamble."""

import torch
from common import FIRST, Done, Work, clock, count_tokens, decoder, flops, random_tokens

PAIRS, PREAMBLE, OWN = 200, 400, 100
LABELS = (FIRST, FIRST + 1)


def prompts(seed: int) -> torch.Tensor:
    """(400, 500): each pair in both orders, its two halves of 50 tokens exchanged."""
    preamble = random_tokens((1, PREAMBLE), 2 * seed).expand(2 * PAIRS, -1)
    pair = random_tokens((PAIRS, OWN), 2 * seed + 1)
    swapped = torch.cat([pair[:, OWN // 2 :], pair[:, : OWN // 2]], 1)
    return torch.cat([preamble, torch.stack([pair, swapped], 1).flatten(0, 1)], 1)


def summary(logprob: torch.Tensor) -> dict[str, float]:
    """Of (400, 2): what both sides must agree on."""
    return {"logprob_mean": float(logprob.mean()), "preference_mean": float(logprob.softmax(1)[:, 0].mean())}


def ours(name: str) -> Work:
    from ours import of_scratch

    from heedful.engine.score import score_continuations

    model, tell = of_scratch(), count_tokens()
    asked = [[[label] for label in LABELS]] * (2 * PAIRS)

    def score(seed: int) -> tuple[float, torch.Tensor]:
        tokens = prompts(seed).tolist()
        began = clock()
        scores = score_continuations(model, tokens, asked)
        return clock() - began, torch.tensor(scores)

    def run(layout: None, seed: int, trial: bool) -> Done:
        tell()
        seconds, _ = score(seed)
        counted = tell()
        return Done(seconds, 2 * PAIRS, sum(counted), flops(counted, 2 * PAIRS))

    return Work((None,), run, lambda: summary(score(0)[1]))


def peer(name: str) -> Work:
    model, tell = decoder(), count_tokens()

    @torch.inference_mode()
    def score(tokens: torch.Tensor, batch: int) -> tuple[float, torch.Tensor]:
        found = []
        began = clock()
        for part in tokens.split(batch):
            mask = torch.ones_like(part)
            logits = model(input_ids=part, attention_mask=mask, use_cache=False, logits_to_keep=1).logits[:, -1]
            found.append(logits.log_softmax(-1)[:, list(LABELS)])
        return clock() - began, torch.cat(found)

    def run(layout: int, seed: int, trial: bool) -> Done:
        tokens = prompts(seed)
        tokens = tokens[:80] if trial else tokens
        tell()
        seconds, _ = score(tokens, layout)
        counted = tell()
        return Done(seconds, len(tokens), sum(counted), flops(counted, len(tokens)))

    return Work((2, 4, 8, 16, 40), run, lambda: summary(score(prompts(0), 8)[1]))
