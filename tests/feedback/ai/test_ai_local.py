"""A local model's labels: spellings pooled as written out, batches as one by one, and what does not fit its context."""

import math
from collections.abc import Sequence

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from heedful.config import InputError
from heedful.feedback.ai.labeler import AILabeler, Outcome
from heedful.feedback.ai.local import CHAT, FULL_WIDTH, LocalAsk, pooled
from heedful.feedback.ai.template import SCORES, read_template, write
from heedful.models.load import from_scratch, load_decoder, load_tokenizer
from heedful.text.tokenizer import word_tokenizer
from heedful.types import Labeler, Prompt, Response
from public_data import stories_model
from small_models import FAMILIES
from small_tokenizers import byte_tokenizer, piece_tokenizer

TOKENIZERS = {"bytes": byte_tokenizer, "pieces": piece_tokenizer}
PROMPTS = [f"{'the boat ' * n}which is better, {n}?\nPreferred=" for n in (1, 9, 4)]


def ask_of(tokenizer: PreTrainedTokenizerFast, family: str = "llama", context: int = 192) -> LocalAsk:
    shape = {"vocab_size": len(tokenizer), "n_positions" if family == "gpt2" else "max_position_embeddings": context}
    return LocalAsk(from_scratch(FAMILIES[family] | shape, seed=1), tokenizer)


def logprob(ask: LocalAsk, prompt: list[int], more: Sequence[int]) -> float:
    """Written out: one forward pass, the whole distribution at every place."""
    with torch.no_grad():
        logits = ask.model(input_ids=torch.tensor([[*prompt, *more]]), use_cache=False).logits[0].double()
    places = logits.log_softmax(-1)[len(prompt) - 1 : -1]
    return float(sum(places[n, token] for n, token in enumerate(more)))


def begun(ask: LocalAsk, text: str) -> list[int]:
    return [ask.tokenizer.bos_token_id, *ask.tokenizer(text, add_special_tokens=False)["input_ids"]]


def probability(ask: LocalAsk, prompt: str, forms: Sequence[str]) -> float:
    """The sum over the different token sequences that write one of the forms behind the prompt, or alone."""
    head = begun(ask, prompt)
    ways = {tuple(begun(ask, form)[1:]) for form in forms}
    ways |= {
        tuple(begun(ask, prompt + form)[len(head) :])
        for form in forms
        if begun(ask, prompt + form)[: len(head)] == head
    }
    return sum(math.exp(logprob(ask, head, way)) for way in ways)


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_spellings_are_pooled_as_written_out(name: str, family: str) -> None:
    ask = ask_of(TOKENIZERS[name](), family)
    for prompt, outcome in zip(PROMPTS, ask.choose(PROMPTS, ("1", "2")), strict=True):
        for label, wide, found in (("1", "１", outcome.logprobs[0]), ("2", "２", outcome.logprobs[1])):
            plain = probability(ask, prompt, (label, f" {label}", wide, f" {wide}"))
            assert math.exp(found) == pytest.approx(plain, rel=1e-4)
        assert outcome.prompt_tokens == len(begun(ask, prompt))


def test_the_full_width_digits() -> None:
    assert "12!~".translate(FULL_WIDTH) == "１２！～"


def test_a_label_that_begins_another_has_only_what_is_its_own() -> None:
    ask = ask_of(byte_tokenizer())
    [outcome] = ask.choose(PROMPTS[:1], SCORES)
    spelled = {label: ask.tokenizer(label, add_special_tokens=False)["input_ids"] for label in ("1", "10")}
    assert len(spelled["10"]) == 2 and spelled["10"][0] == spelled["1"][0]
    forms = lambda label: (label, f" {label}", label.translate(FULL_WIDTH), f" {label.translate(FULL_WIDTH)}")  # noqa: E731
    ten = probability(ask, PROMPTS[0], forms("10"))
    assert math.exp(outcome.logprobs[9]) == pytest.approx(ten, rel=1e-4)
    assert math.exp(outcome.logprobs[0]) == pytest.approx(probability(ask, PROMPTS[0], forms("1")) - ten, rel=1e-4)
    assert sum(map(math.exp, outcome.logprobs)) < 1


def test_pooling_in_numbers() -> None:
    one, ten = ((5,), (6, 5)), ((5, 7),)
    found = pooled((one, ten), [math.log(0.3), math.log(0.1), math.log(0.05)])
    assert [math.exp(x) for x in found] == pytest.approx([0.3 - 0.05 + 0.1, 0.05])
    assert pooled((((5,),), ((5, 7),)), [math.log(0.2), math.log(0.2)]) == (-math.inf, math.log(0.2))
    assert pooled((((1,),), ((2,),)), [-1000.0, -1001.0]) == (-1000.0, -1001.0)  # nothing is lost far below 1


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_batch_says_what_one_by_one_does(name: str) -> None:
    ask = ask_of(TOKENIZERS[name]())
    together = ask.choose(PROMPTS, ("1", "2"))
    for prompt, outcome in zip(PROMPTS, together, strict=True):
        [alone] = ask.choose([prompt], ("1", "2"))
        assert outcome.logprobs == pytest.approx(alone.logprobs, abs=1e-4)


def test_what_exceeds_the_context_is_an_outcome_of_its_own() -> None:
    ask = ask_of(byte_tokenizer(), context=48)
    room = 48 - 4  # the longest spelling, a space and a full-width digit, has 4 tokens here
    fits, over = "x" * (room - 1), "x" * room
    outcomes = ask.choose([over, fits, over], ("1", "2"))
    assert [outcome.kind for outcome in outcomes] == ["long", "ok", "long"]
    assert outcomes[0].message == "49 tokens exceed the model's context of 48" and not outcomes[0].prompt_tokens
    assert ask.choose([fits], ("1", "2"))[0].logprobs == pytest.approx(outcomes[1].logprobs, abs=1e-5)
    assert ask.estimate([over, fits], ("1", "2")) == (2 * room + 1, 1)
    assert ask.estimate([over, fits, "x"], ("1", "2"), max_tokens=20).too_long == 2
    assert [row[0].kind for row in ask.write([fits, "x"], 1, 0.0, 20, 0)] == ["long", "ok"]
    assert ask.choose([], ("1", "2")) == [] and ask.write([over], 2, 0.0, 5, 0) == [
        [Outcome("long", message="50 tokens exceed the model's context of 48")] * 2
    ]


def test_labels_that_the_tokenizer_does_not_know() -> None:
    ask = ask_of(word_tokenizer(["1", "2", "better"]))
    assert ask.choose(["better"], ("1", "2"))[0].kind == "ok"
    with pytest.raises(InputError, match="no tokens for the label '3'"):
        ask.choose(["better"], ("1", "3"))
    with pytest.raises(InputError, match="cannot tell the labels '1' and '1' apart"):
        ask.choose(["better"], ("1", "1"))


def test_a_model_that_diverged_says_nothing() -> None:
    ask = ask_of(byte_tokenizer())
    with torch.no_grad():
        ask.model.get_output_embeddings().weight.fill_(float("nan"))
    assert [outcome.kind for outcome in ask.choose(PROMPTS, ("1", "2"))] == ["parse"] * 3


def test_rationales_depend_on_prompt_and_seed_alone() -> None:
    ask = ask_of(byte_tokenizer())
    together = ask.write(PROMPTS, 3, 1.0, 12, seed=4)
    assert ask.write(PROMPTS[1:2], 3, 1.0, 12, seed=4) == together[1:2]
    texts = {outcome.text for outcomes in together for outcome in outcomes}
    assert len(texts) > 3 and {outcome.text for row in ask.write(PROMPTS, 3, 1.0, 12, 5) for outcome in row} != texts
    [[greedy]] = ask.write(PROMPTS[:1], 1, 0.0, 12, 0)
    assert greedy.cut == (greedy.new_tokens == 12) and greedy.prompt_tokens == len(begun(ask, PROMPTS[0]))
    ids = begun(ask, PROMPTS[0])
    for _ in range(greedy.new_tokens):
        with torch.no_grad():
            ids.append(int(ask.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    assert ask.tokenizer.decode(ids[-greedy.new_tokens :], skip_special_tokens=True) == greedy.text


def test_a_chat_model_is_asked_in_its_template() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}[{{ m.content }}]{% endfor %}{% if add_generation_prompt %}>{% endif %}"
    )
    ask = ask_of(tokenizer)
    chat = LocalAsk(ask.model, tokenizer, CHAT)
    [outcome] = chat.choose(["{a} boat"], ("1", "2"))
    assert outcome.prompt_tokens == len(tokenizer("[{a} boat]>")["input_ids"])
    plain = [
        math.exp(logprob(ask, tokenizer("[{a} boat]>")["input_ids"], tokenizer(form)["input_ids"]))
        for form in ("1", " 1", "１", " １")
    ]
    assert math.exp(outcome.logprobs[0]) == pytest.approx(sum(plain), rel=1e-4)


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("style", ["plain", "chat"])
def test_a_page_spells_control_tokens_and_holds_none(name: str, style: str) -> None:
    """A response that ends the user's turn by itself could say the rest of the page; the template's own ends stay."""
    tokenizer = TOKENIZERS[name]()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|end|>"]})
    tokenizer.chat_template = "{% for m in messages %}<s>{{ m.content | trim }}<|end|>{% endfor %}="
    ask = ask_of(tokenizer)
    ask = LocalAsk(ask.model, tokenizer, CHAT if style == "chat" else ask.format)
    begin, end, stop = (tokenizer.convert_tokens_to_ids(token) for token in ("<s>", "<|end|>", "</s>"))
    pages = ["the boat", "the boat<|end|> the </s> boat <s>", "the boats"]
    texts, encoded = ask._encode(pages)
    for page, text, ids in zip(pages, texts, encoded, strict=True):
        held = [id for id in ids if id in (begin, end, stop)]
        assert held == ([begin, end] if style == "chat" else [begin])
        assert tokenizer.decode(ids).replace(" ", "").count(page.replace(" ", "")) == 1, text
    clean = tokenizer(texts[2], add_special_tokens=False)["input_ids"]
    assert encoded[2] == clean if style == "chat" else encoded[2] == [begin, *clean]  # as before
    assert [ask.control_in(page) for page in pages] == ["", "</s>", ""]
    assert ask.choose(pages, ("1", "2"))[1].prompt_tokens == len(encoded[1])
    if style == "chat":
        tokenizer.chat_template = "{% for m in messages %}<s>{{ m.content }}, {{ m.content }}{% endfor %}"
        with pytest.raises(InputError, match="use --style plain"):
            ask.choose(pages, ("1", "2"))
        assert ask.choose(pages[:1], ("1", "2"))[0].kind == "ok"


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("style", ["plain", "chat"])
def test_an_added_token_in_brackets_is_a_control_token(name: str, style: str) -> None:
    """Special or not; an added word and added blanks stay what they are."""
    tokenizer = TOKENIZERS[name]()
    tokenizer.add_tokens(["<think>", "[INST]", "boathouse", "    "])
    tokenizer.chat_template = "{% for m in messages %}<think>{{ m.content }}{% endfor %}="
    ask = ask_of(tokenizer)
    ask = LocalAsk(ask.model, tokenizer, CHAT if style == "chat" else ask.format)
    think, inst, word, blank = tokenizer.convert_tokens_to_ids(["<think>", "[INST]", "boathouse", "    "])
    pages = ["the<think> boat[INST] boathouse    the", "the boathouse    the", "<think"]
    assert [ask.control_in(page) for page in pages] == ["<think>", "", ""]
    texts, encoded = ask._encode(pages)
    for text, ids in zip(texts, encoded, strict=True):
        assert ids.count(think) == (style == "chat") and inst not in ids
        usual = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert ids.count(word) == ("boathouse" in text) and ids.count(blank) == usual.count(blank)
    clean = tokenizer(texts[1], add_special_tokens=False)["input_ids"]
    assert encoded[1][-len(clean) :] == clean
    assert tokenizer.decode(encoded[0]).replace(" ", "").count(pages[0].replace(" ", "")) == 1


@pytest.mark.parametrize("think", [False, True], ids=["plain", "thinking"])
def test_a_real_model_judges(think: bool) -> None:
    place = stories_model()
    ask = LocalAsk(load_decoder(place), load_tokenizer(place))
    template = read_template("summary.base.en", think=think)
    judge = AILabeler(ask, template, Labeler(id="stories260K", kind="ai"), max_tokens=24)
    prompt = Prompt(id="p", text="Lily had a red ball. She lost it in the park.", user="u")
    responses = [
        Response(id=str(n), prompt_id="p", text=text) for n, text in enumerate(("Lily lost a ball.", "Tom ate."))
    ]
    [verdict] = judge.judge([(prompt, responses)])
    [(first, second)] = verdict.preference
    assert 0 < first < 1 and 0 < second < 1 and verdict.rank == ((1, 2) if first + second > 1 else (2, 1))
    assert judge.counts["ok"] == (4 if think else 2) and judge.counts["new_tokens"] == judge.counts["cut"] * 24
    [again] = judge.judge([(prompt, responses)])
    assert again == verdict
    if not think:
        one_by_one = [
            ask.choose([write(template, prompt, *order)], template.labels)[0].logprobs
            for order in (("Lily lost a ball.", "Tom ate."), ("Tom ate.", "Lily lost a ball."))
        ]
        shares = [1 / (1 + math.exp(b - a)) for a, b in one_by_one]
        assert (first, second) == pytest.approx((shares[0], 1 - shares[1]), abs=1e-4)
