"""Sampling: responses that end by themselves, from heedful's engine and from model.generate.

The sides draw with random numbers of their own, so lengths agree in distribution; without draws, under a model that has
no bias to end, both must give the same tokens.
"""

from typing import NamedTuple

import torch
from common import (
    EOS,
    MAX_RESPONSE,
    PAD,
    Done,
    Work,
    checksum,
    clock,
    count_head,
    count_tokens,
    decoder,
    flops,
    make_it_end,
    random_tokens,
    response_lengths,
    spread,
    tokenizer,
)

GREEDY = (16, 24)  # responses and their tokens that are compared


class Size(NamedTuple):
    prompts: int
    prompt: int
    samples: int


def size(name: str) -> Size:
    return Size(64, 256, 9) if name == "rollout_k9" else Size(256, 32, 1)


def ours(name: str) -> Work:
    from ours import of_scratch

    from heedful.engine.engine import Request
    from heedful.engine.sample import Sampler

    num, length, samples = size(name)
    model = of_scratch()
    make_it_end(model)
    tell, sampler = count_tokens(), Sampler(model, tokenizer(), MAX_RESPONSE)

    def run(layout: None, seed: int, trial: bool) -> Done:
        prompts = random_tokens((num, length), seed).tolist()
        requests = [Request(p, samples, MAX_RESPONSE, seed=(seed << 32) + i) for i, p in enumerate(prompts)]
        tell()
        began = clock()
        completions = sampler.generate(requests)
        seconds, counted = clock() - began, tell()
        lengths = [len(completion.tokens) for group in completions for completion in group]
        return Done(seconds, sum(lengths), counted.tokens, flops(counted, sum(lengths)), spread(lengths))

    def check() -> dict[str, float]:
        rows, most = GREEDY
        prompts = random_tokens((rows, length), 0).tolist()
        asked = [Request(prompt, 1, most, temperature=0) for prompt in prompts]
        groups = Sampler(of_scratch(), tokenizer(), most).generate(asked)
        return {"greedy_checksum": checksum([group[0].tokens for group in groups])}

    return Work((None,), run, check)


def peer(name: str) -> Work:
    from transformers import GenerationConfig

    num, length, samples = size(name)
    model = decoder()
    make_it_end(model)
    tell, head = count_tokens(), count_head(model)
    how = GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=MAX_RESPONSE,
        num_return_sequences=samples,
        eos_token_id=EOS,
        pad_token_id=PAD,
    )

    def run(layout: int, seed: int, trial: bool) -> Done:
        torch.manual_seed(seed)
        prompts = random_tokens((num, length), seed)
        tell(), head()
        began = clock()
        prompts = prompts[: num // 4] if trial and samples > 1 else prompts
        parts = prompts.split(max(1, layout // samples))
        found = [model.generate(part, attention_mask=torch.ones_like(part), generation_config=how) for part in parts]
        seconds, counted = clock() - began, tell()
        lengths = [n for tokens in found for n in response_lengths(tokens[:, length:])]
        return Done(seconds, sum(lengths), counted.tokens, flops(counted, *head()), spread(lengths))

    def check() -> dict[str, float]:
        rows, most = GREEDY
        prompts = random_tokens((rows, length), 0)
        how = GenerationConfig(do_sample=False, max_new_tokens=most, eos_token_id=EOS, pad_token_id=PAD)
        tokens = decoder().generate(prompts, attention_mask=torch.ones_like(prompts), generation_config=how)
        found = tokens[:, length:]
        rows_found = [row[:n] for row, n in zip(found.tolist(), response_lengths(found), strict=True)]
        return {"greedy_checksum": checksum(rows_found)}

    return Work((64, 128, 256) if samples == 1 else (36, 72, 144), run, check)
