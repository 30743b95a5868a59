"""Sampling: responses that end by themselves, from heedful's engine and from model.generate."""

from typing import NamedTuple

import torch
from common import (
    EOS,
    MAX_RESPONSE,
    PAD,
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
    spread,
    tokenizer,
)


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
        return Done(seconds, sum(lengths), sum(counted), flops(counted, sum(lengths)), spread(lengths))

    return Work((None,), run)


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
        prompts = prompts[: num // 2] if trial and samples > 1 else prompts
        parts = prompts.split(max(1, layout // samples))
        found = [model.generate(part, attention_mask=torch.ones_like(part), generation_config=how) for part in parts]
        seconds, counted = clock() - began, tell()
        lengths = [n for tokens in found for n in response_lengths(tokens[:, length:])]
        return Done(seconds, sum(lengths), sum(counted), flops(counted, *head()), spread(lengths))

    return Work((32, 64, 128, 256) if samples == 1 else (36, 72, 144, 288), run)
