"""The engine against transformers' generate and against itself: alone, in any batch, past windows, under pressure."""

import copy
import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel

from heedful.batch import Rows
from heedful.config import InputError
from heedful.engine import slots
from heedful.engine.draw import draw, sampling, stream_key, uniforms
from heedful.engine.engine import Engine
from heedful.engine.slots import Completion, Request
from heedful.models.heads import Policy
from heedful.models.load import load_decoder, set_residual_dropout
from small_models import FAMILIES, VOCAB, WINDOW, small_model

STORIES = Path(__file__).parents[3] / "shared" / "models" / "stories260K"
END = 2
TWO_ROWS = Rows(torch.ones(2, 8, dtype=torch.long), torch.tensor([3, 3]), torch.tensor([8, 5]))


def some_prompts(lengths: list[int], seed: int = 0) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(3, VOCAB, (length,), generator=generator).tolist() for length in lengths]


def transformers_greedy(model: PreTrainedModel, prompt: list[int], max_new_tokens: int) -> list[int]:
    other = type(model)(copy.deepcopy(model.config))
    other.load_state_dict(model.state_dict())
    other.set_attn_implementation("sdpa")
    ids = torch.tensor([prompt])
    out = other.eval().generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=END,
        pad_token_id=0,
    )
    return out[0, len(prompt) :].tolist()


def full_logprob(model: PreTrainedModel, prompt: list[int], tokens: list[int], temperature: float) -> torch.Tensor:
    rows = Rows(torch.tensor([prompt + tokens]), torch.tensor([len(prompt)]), torch.tensor([len(prompt) + len(tokens)]))
    with torch.no_grad():
        return Policy(model).logprob(rows, temperature)[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_text_and_logprobs_equal_transformers(family: str) -> None:
    """Prompts from far below to far above the sliding window, more of them than rows."""
    model = small_model(family)
    prompts = some_prompts([5, 2, 20, WINDOW, WINDOW + 1])
    completions = Engine(model, [END], max_rows=3).generate([Request(p, 1, 16, temperature=0.0) for p in prompts])
    for prompt, [completion] in zip(prompts, completions, strict=True):
        assert completion.tokens == transformers_greedy(model, prompt, 16)
        assert completion.finished == (completion.tokens[-1] == END)
        expected = full_logprob(model, prompt, completion.tokens, 1.0)
        torch.testing.assert_close(torch.tensor(completion.logprob), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_sample_is_the_same_alone_and_in_any_batch(family: str) -> None:
    model = small_model(family).double()
    requests = [
        Request(p, k, 12, temperature=t, top_k=top_k, seed=s)
        for s, (p, k, t, top_k) in enumerate(
            zip(
                some_prompts([3, 14, 8, 8, 1]), [1, 3, 2, 1, 4], [1.0, 0.7, 1.3, 0.0, 1.0], [0, 5, 0, 0, 0], strict=True
            )
        )
    ]
    together = Engine(model, [END], max_rows=4).generate(requests)
    reversed_order = Engine(model, [END], max_rows=100).generate(requests[::-1])[::-1]
    alone = [Engine(model, [END], max_rows=7).generate([request])[0] for request in requests]
    for request, one, two, three in zip(requests, together, reversed_order, alone, strict=True):
        assert [c.tokens for c in one] == [c.tokens for c in two] == [c.tokens for c in three]
        for completion, other in zip(one, three, strict=True):
            assert completion.logprob == pytest.approx(other.logprob, abs=1e-10)
            expected = full_logprob(model, request.prompt, completion.tokens, request.temperature or 1.0)
            torch.testing.assert_close(torch.tensor(completion.logprob).double(), expected, atol=1e-5, rtol=0)


def test_samples_of_one_prompt_share_its_prefill_yet_differ() -> None:
    model = small_model("llama")
    engine = Engine(model, [], max_rows=16)
    prompt = some_prompts([10])[0]
    [nine] = engine.generate([Request(prompt, 9, 12, seed=4)])
    assert engine.counts["prefill_tokens"] == 10
    assert len({tuple(c.tokens) for c in nine}) == 9
    [more] = engine.generate([Request(prompt, 12, 12, seed=4)])
    assert [c.tokens for c in more[:9]] == [c.tokens for c in nine]
    [others] = engine.generate([Request(prompt, 9, 12, seed=5)])
    assert not {tuple(c.tokens) for c in nine} & {tuple(c.tokens) for c in others}


@pytest.mark.parametrize("family", ["mistral", "gpt2"])
def test_more_samples_than_rows_read_their_prompt_once(family: str) -> None:
    """They take rows as these come free, among others and past the window, each with what it gets alone."""
    model = small_model(family).double()
    long, short = some_prompts([11, 4])
    requests = [Request(long, 9, 14, seed=3, prompt_logprobs=1), Request(short, 5, 6, seed=4), Request(short, 1, 20)]
    for max_rows in (1, 4):
        engine = Engine(model, [END], max_rows)
        found = engine.generate(requests)
        assert engine.counts["prefill_tokens"] <= 11 + 2 * 11  # padded to the longest of a pass
        for request, completions in zip(requests, found, strict=True):
            [alone] = Engine(model, [END]).generate([request])
            assert [c.tokens for c in completions] == [c.tokens for c in alone]
            for one, other in zip(completions, alone, strict=True):
                assert one.logprob == pytest.approx(other.logprob, abs=1e-10)
                assert [o.rank for o in one.prompt_odds] == [o.rank for o in other.prompt_odds]


def test_samples_leave_no_row_idle() -> None:
    """Nine samples of each prompt on sixteen rows: a row that comes free is taken by the next sample there is."""
    engine = Engine(small_model("llama"), [], max_rows=16)
    engine.generate([Request(p, 9, 3 + 5 * (i % 4)) for i, p in enumerate(some_prompts([5] * 24))])
    assert engine.counts["decode_rows"] > 0.85 * 16 * engine.counts["steps"]


def test_responses_follow_the_models_distribution() -> None:
    """First tokens of 4,000 samples against the exact probabilities, within four standard errors."""
    model = small_model("llama")
    prompt = some_prompts([6])[0]
    [samples] = Engine(model, [END], max_rows=500).generate([Request(prompt, 4000, 1, temperature=0.8)])
    with torch.no_grad():
        probability = (model(input_ids=torch.tensor([prompt]), use_cache=False).logits[0, -1] / 0.8).softmax(0)
    share = torch.bincount(torch.tensor([c.tokens[0] for c in samples]), minlength=VOCAB) / 4000
    assert ((share - probability).abs() < 4 * (probability / 4000).sqrt() + 1e-3).all()


def test_each_token_is_drawn_by_its_own_number() -> None:
    """The number of token r is the hash of (seed, sample, r): used once, so that tokens are independent."""
    model = small_model("llama").double()
    request = Request(some_prompts([5])[0], 3, 20, seed=11)
    [samples] = Engine(model, [END]).generate([request])
    for k, completion in enumerate(samples):
        n = len(completion.tokens)
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([request.prompt + completion.tokens]), use_cache=False).logits[0]
        u = uniforms(torch.tensor(stream_key(11, k)), torch.arange(n))
        how = sampling(torch.ones(n), torch.zeros(n, dtype=torch.long), torch.ones(n))
        assert draw(logits[-n - 1 : -1], how, u).token.tolist() == completion.tokens


MODELS = {family: small_model(family).double() for family in ("mistral", "gemma3_text")}


@settings(deadline=None, max_examples=15)
@given(
    asked=st.lists(
        st.tuples(st.integers(1, 20), st.integers(1, 3), st.integers(1, 16), st.sampled_from([0.0, 0.6, 1.0])),
        min_size=1,
        max_size=8,
    ),
    max_rows=st.integers(1, 7),
    refill=st.sampled_from([1, 8, 1000]),
    family=st.sampled_from(sorted(MODELS)),
)
def test_any_mix_of_requests_is_answered_rightly(
    asked: list[tuple[int, int, int, float]], max_rows: int, refill: int, family: str
) -> None:
    model = MODELS[family]
    prompts = some_prompts([length for length, _, _, _ in asked])
    requests = [
        Request(p, k, n, temperature=t, seed=i) for i, (p, (_, k, n, t)) in enumerate(zip(prompts, asked, strict=True))
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slots, "REFILL", refill)
        patch.setattr(slots, "BLOCK", 4)
        patch.setitem(slots.PREFILL_TOKENS, "cpu", 30)
        engine = Engine(model, [END], max_rows=max_rows)
        completions = engine.generate(requests)
    for request, answers in zip(requests, completions, strict=True):
        assert len(answers) == request.num_samples
        for answer in answers:
            assert len(answer.tokens) == len(answer.logprob) <= request.max_new_tokens
            assert END not in answer.tokens[:-1]
            assert answer.finished == (answer.tokens[-1] == END)
            assert answer.finished or len(answer.tokens) == request.max_new_tokens
            expected = full_logprob(model, request.prompt, answer.tokens, request.temperature or 1.0)
            torch.testing.assert_close(torch.tensor(answer.logprob).double(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
def test_in_fp32_alone_and_in_a_batch_differ_at_counted_draws_only(family: str) -> None:
    """The head knows every token twice, so that ties are everywhere and rounding decides some of them."""
    model = small_model(family)
    weight = model.get_output_embeddings().weight.data
    weight[1::2] = weight[0:-1:2] * (1 + 1e-7)
    how = [(0.0, 0, 1.0), (1.0, 5, 1.0), (1.0, 0, 0.6), (1.0, 0, 1.0)]
    requests = [
        Request(p, 2, 20, t, k, top_p, seed=i)
        for i, (p, (t, k, top_p)) in enumerate(zip(some_prompts([4, 9, 13, 6] * 4), how * 4, strict=True))
    ]
    together = Engine(model, [END], max_rows=11).generate(requests)
    counted = 0
    for request, found in zip(requests, together, strict=True):
        for one, other in zip(found, Engine(model, [END]).generate([request])[0], strict=True):
            counted += one.close_draws
            assert one.tokens == other.tokens or one.close_draws
            if one.tokens == other.tokens:
                assert one.logprob == pytest.approx(other.logprob, abs=1e-4)
    assert counted


def test_stream_yields_each_response_once_and_early() -> None:
    model = small_model("llama")
    requests = [Request(p, 2, n, seed=n) for p, n in zip(some_prompts([4, 5, 6]), [2, 20, 6], strict=True)]
    engine = Engine(model, [], max_rows=6)
    seen: list[tuple[int, int]] = []
    steps = {}
    for index, sample, _ in engine.stream(requests):
        seen.append((index, sample))
        steps[index] = engine.counts["steps"]
    assert sorted(seen) == [(i, s) for i in range(3) for s in range(2)]
    assert steps == {0: 1, 2: 5, 1: 19}


def test_the_live_weights_are_used_and_left_trainable() -> None:
    model = small_model("llama")
    set_residual_dropout(model, 0.3)
    model.train()
    model.get_decoder().layers[0].eval()
    engine = Engine(model, [END])
    request = Request(some_prompts([6])[0], 1, 10, temperature=0.0)
    before = engine.generate([request])
    assert model.training
    assert not model.get_decoder().layers[0].training
    assert before == engine.generate([request])
    logprob = Policy(model).logprob(
        Rows(torch.ones(2, 8, dtype=torch.long), torch.tensor([3, 3]), torch.tensor([8, 5]))
    )
    logprob.sum().backward()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    assert engine.generate([request]) != before


def test_a_callers_autocast_keeps_its_gradients() -> None:
    model = small_model("llama")
    policy = Policy(model)
    with torch.autocast("cpu", torch.bfloat16):
        Engine(model, [END], precision="bf16").generate([Request([1, 5, 7], 2, 5)])
        policy.logprob(TWO_ROWS).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_bf16_is_close_to_fp32() -> None:
    model = small_model("qwen3")
    request = Request(some_prompts([9])[0], 3, 10, seed=1)
    [completions] = Engine(model, [END], precision="bf16").generate([request])
    for completion in completions:
        expected = full_logprob(model, request.prompt, completion.tokens, 1.0)
        torch.testing.assert_close(torch.tensor(completion.logprob), expected, atol=0.4, rtol=0)


def test_leaving_a_stream_early_restores_the_model() -> None:
    model = small_model("llama").train()
    responses: Iterator[tuple[int, int, Completion]] = Engine(model, []).stream([Request([1, 4], 2, 5)])
    next(responses)
    responses.close()  # type: ignore[attr-defined]
    assert model.training
    assert not torch.is_inference_mode_enabled()


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        (Request([5] * 40, 1, 30), "prompt 1: 40 tokens and 30 new ones exceed the model's context of 64"),
        (Request([]), "prompt 1 is empty"),
        (Request([1, VOCAB]), "prompt 1 holds a token outside"),
        (Request([1], 0), "prompt 1: num_samples"),
        (Request([1], 1, 0), "prompt 1: num_samples and max_new_tokens"),
        (Request([1], 1, 5, temperature=-1.0), "prompt 1: temperature"),
        (Request([1], 1, 5, temperature=math.nan), "prompt 1: temperature"),
        (Request([1], 1, 5, temperature=math.inf), "prompt 1: temperature"),
        (Request([1], 1, 5, top_p=0.0), "prompt 1: temperature .* top_p in"),
        (Request([1], 1, 5, top_p=math.nan), "prompt 1: temperature .* top_p in"),
        (Request([1], 1, 5, bias=((5, math.nan),)), "prompt 1: a bias must be a finite number"),
        (Request([1], 1, 5, bias=((5, math.inf),)), "prompt 1: a bias must be a finite number"),
        (Request([1], 1, 5, logprobs=-1), "prompt 1: logprobs"),
        (Request([1], 1, 5, prompt_logprobs=-1), "prompt 1: logprobs and prompt_logprobs"),
    ],
)
def test_impossible_requests_are_named(request_: Request, says: str) -> None:
    with pytest.raises(InputError, match=says):
        Engine(small_model("llama"), [END]).generate([Request([1], 1, 3), request_])


BAD = VOCAB - 1  # a token whose embedding is damaged
NEVER_BAD = ((BAD, -math.inf),)


def damaged(dtype: torch.dtype = torch.float64) -> PreTrainedModel:
    """A model that is right until a prompt holds BAD."""
    model = small_model("mistral").to(dtype)
    model.get_input_embeddings().weight.data[BAD] = math.nan
    return model


def test_a_response_without_a_distribution_ends_alone() -> None:
    """At its prompt, or where every token is forbidden; the others go on, with what they get without it."""
    model = damaged()
    requests = [Request(p, 2, 12, seed=i, bias=NEVER_BAD) for i, p in enumerate(some_prompts([9, 4, 6, 5, 9, 3]))]
    requests[1] = Request([3, BAD, 5], 2, 12, logprobs=2)
    requests[3] = Request([4], 1, 12, temperature=1e-39, bias=tuple((i, -math.inf) for i in range(VOCAB)))
    found = {(i, sample): completion for i, sample, completion in Engine(model, [END], max_rows=3).stream(requests)}
    for (i, sample), completion in found.items():
        assert completion.failed == (i in (1, 3))
        if completion.failed:
            assert completion == Completion([], [], False, [], [], True)
        else:
            assert completion.tokens == Engine(model, [END]).generate([requests[i]])[0][sample].tokens
    assert len(found) == 11
    with pytest.raises(InputError, match="prompt 1: the model's logits are not finite"):
        Engine(model, [END]).generate(requests[:2])


def test_whoever_takes_a_failed_rows_place_is_not_disturbed() -> None:
    """A mask hides what the row before left in the cache, but not if that is NaN."""
    model = damaged()
    stays, next_one = (Request(p, 1, n, bias=NEVER_BAD) for p, n in zip(some_prompts([20, 3]), [20, 8], strict=True))
    with Engine(model, [], max_rows=2).session() as session:
        session.add(0, stays)
        session.add(1, Request([BAD] * 12, 1, 5))
        session.step()
        assert [(token.order, token.failed, token.last) for token in session.newest()] == [
            (0, False, False),
            (1, True, True),
        ]
        assert [order for order, _, completion in session.collect() if completion.failed] == [1]
        session.add(2, next_one)
        found = {}
        while session.busy:
            session.step()
            found |= {order: completion.tokens for order, _, completion in session.collect()}
    for order, request in ((0, stays), (2, next_one)):
        assert found[order] == Engine(model, []).generate([request])[0][0].tokens


def test_a_response_that_fails_midway_keeps_what_it_has() -> None:
    model = damaged()
    [[whole]] = Engine(model, []).generate([Request([5, 6], 1, 6, bias=NEVER_BAD, seed=1)])
    [(_, _, found)] = Engine(model, []).stream([Request([5, 6], 1, 6, bias=((BAD, 100.0),), seed=1, logprobs=0)])
    assert (found.tokens, found.failed, len(found.logprob), len(found.odds)) == ([BAD], True, 1, 1)
    assert len(whole.tokens) == 6 and not whole.failed


def test_a_response_may_fill_the_context_to_its_last_position() -> None:
    for family in FAMILIES:
        [[completion]] = Engine(small_model(family), []).generate([Request([3] * 34, 1, 30)])
        assert len(completion.tokens) == 30


def test_a_row_that_left_at_the_contexts_end_disturbs_nobody() -> None:
    """One empty row among sixteen is computed on, in vain; GPT-2 has no position beyond its context to give it."""
    requests = [Request([3] * 34, 1, 30), *(Request([n], 1, 60, seed=n) for n in range(3, 18))]
    completions = Engine(small_model("gpt2"), []).generate(requests)
    assert [len(answers[0].tokens) for answers in completions] == [30, *[60] * 15]


def test_no_requests_no_completions() -> None:
    assert Engine(small_model("llama"), [END]).generate([]) == []


@pytest.mark.skipif(not STORIES.is_dir(), reason="the stories260K model is not beside the repository")
def test_stories_golden_greedy_text() -> None:
    golden = json.loads((STORIES / "golden_greedy.json").read_text())["greedy_from_bos_ids"]
    model = load_decoder(STORIES)
    requests = [Request(golden[:1], 1, len(golden) - 1, temperature=0.0), Request(golden[:50], 1, 40, temperature=0.0)]
    [[whole], [middle]] = Engine(model, [END]).generate(requests)
    assert whole.tokens == golden[1:]
    assert middle.tokens == golden[50:90]
