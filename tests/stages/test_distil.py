"""Context distillation token by token, and that the student becomes the prompted teacher."""

from pathlib import Path
from typing import Any

import pytest
import torch

from heedful.config import InputError
from heedful.engine.sample import Sampler, prompt_order
from heedful.feedback.principles.rulebook import Rule, RuleBook
from heedful.models import distilled
from heedful.models.checkpoint import load_policy, save_policy
from heedful.models.distilled import token_kl
from heedful.models.heads import Policy
from heedful.models.lora import attach_lora
from heedful.run import Run, read_done
from heedful.snapshot import Snapshot, write_snapshot
from heedful.stages import distil
from heedful.stages.distil import DistilConfig, Pairs, Respond, end_tokens, prompted_by, response_kl, update
from heedful.text.collate import Encoded, Encoder, to_rows
from heedful.text.format import PromptFormat
from heedful.types import Prompt
from rollouts import PROMPT_IDS
from small_tokenizers import byte_tokenizer
from toys import (
    BEGIN,
    END,
    FIRST,
    PAD,
    TOKENIZER,
    VOCABULARY,
    WORDS,
    assert_resumes,
    assert_same,
    assert_threads_change_nothing,
    base_stays,
    gradients,
    make_policy,
    make_rows,
    open_run,
    read_log,
    weights,
)

PREFIX = "w6 w2 w2 w7"
CONFIG = DistilConfig(
    prefix=PREFIX,
    iterations=4,
    batch_size=10,
    lr=1e-2,
    warmup_iterations=0,
    max_new_tokens=5,
    max_tokens=60,
    precision="fp32",
)
STOP = FIRST + 3  # w3, where it is to end a response
ENDS = torch.tensor([END, STOP])


def changed(**changes: object) -> DistilConfig:
    return DistilConfig(**(CONFIG.model_dump() | changes))


def pairs_of(number: int = 9) -> Pairs:
    """Responses nobody sampled, behind prompts alone and behind prefixes of two lengths."""
    items = make_rows(number)
    behind = [
        Encoded([BEGIN, *range(FIRST, FIRST + 1 + n % 3), *i.prompt[1:]], i.response) for n, i in enumerate(items)
    ]
    return Pairs(to_rows(items, PAD), to_rows(behind, PAD))


def next_token(policy: Policy, before: list[int]) -> torch.Tensor:
    """Log-probabilities of the whole vocabulary."""
    return policy.decoder(input_ids=torch.tensor([before]), use_cache=False).logits[0, -1].log_softmax(0)


def plain_kl(student: Policy, teacher: Policy, pairs: Pairs, ends: torch.Tensor) -> list[torch.Tensor]:
    """For every row the divergence at each response token."""
    found = []
    for n in range(len(pairs.rows.length)):
        (row, prompt, length), (other, begin, _) = (
            (r.tokens[n].tolist(), int(r.prompt_length[n]), int(r.length[n])) for r in pairs
        )
        terms = []
        for t in range(length - prompt):
            p = next_token(teacher, other[: begin + t]).detach().exp()
            p[END] = p[ends].sum()
            p[[v for v in ends.tolist() if v != END]] = 0
            q = next_token(student, row[: prompt + t])
            terms.append(sum(p[v] * (p[v].log() - q[v]) for v in range(VOCABULARY) if p[v] > 0))
        found.append(torch.stack(terms))
    return found


@pytest.mark.parametrize("chunk", [1, 4, 10_000])
@pytest.mark.parametrize("ends", [torch.tensor([END]), ENDS], ids=["end", "stop"])
def test_the_divergence_and_its_gradient(chunk: int, ends: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distilled, "MAX_LOGITS", chunk * VOCABULARY)
    student, teacher, pairs = make_policy(), make_policy(2).requires_grad_(False), pairs_of()
    found = token_kl(student, pairs.rows, teacher, pairs.prefixed, ends)
    plain = plain_kl(student, teacher, pairs, ends)
    for n, row in enumerate(plain):
        torch.testing.assert_close(found[n, : len(row)], row, atol=1e-5, rtol=1e-4)
        assert not found[n, len(row) :].any()
    assert (found[pairs.rows.mask] > 0).all()
    weight = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    (found * weight).sum().backward()
    mine = gradients(student)
    sum((row * weight[n, : len(row)]).sum() for n, row in enumerate(plain)).backward()
    assert_same(mine, gradients(student), 1e-4)


@pytest.mark.parametrize("max_tokens", [1, 40, 10_000])
def test_an_update_is_the_mean_over_tokens_whatever_the_micro_batches(max_tokens: int) -> None:
    student, teacher, pairs = make_policy(), make_policy(2).requires_grad_(False), pairs_of()
    config = changed(max_tokens=max_tokens)
    stats = update(student, teacher, pairs, ENDS, config)
    mine = gradients(student)
    plain = plain_kl(student, teacher, pairs, ENDS)
    torch.cat(plain).mean().backward()
    assert_same(mine, gradients(student), 1e-4)
    assert stats["loss"] == pytest.approx(float(torch.cat(plain).mean().detach()), abs=1e-5)
    expected = sum(float(row.sum().detach()) for row in plain) / len(plain)
    assert response_kl(student, teacher, pairs, ENDS, config) == pytest.approx(expected, rel=1e-4)


# What the teacher says.


def test_which_tokens_end_a_response() -> None:
    assert end_tokens(TOKENIZER, "").tolist() == [END]
    assert end_tokens(TOKENIZER, "\n").tolist() == [END, TOKENIZER.convert_tokens_to_ids("\n")]
    spelled = byte_tokenizer()
    found = end_tokens(spelled, " b").tolist()
    assert found[0] == spelled.eos_token_id and len(found) > 2
    assert {spelled.decode([id]) for id in found[1:]} == {" bo", " boat", " boats", " boatin", " boating"}
    assert [spelled.decode([id]) for id in end_tokens(spelled, "the")[1:]] == ["the"]  # not " the"
    with pytest.raises(InputError, match=r"distil\.stop is '@@', and no token of the model's begins so"):
        end_tokens(TOKENIZER, "@@")


def respond_with(teacher: Policy, config: DistilConfig, ends: torch.Tensor = ENDS, seed: int = 3) -> Respond:
    sampler = Sampler(teacher.decoder, TOKENIZER, config.max_new_tokens)
    sampler.ends |= set(ends.tolist())
    return prompted_by(sampler, PROMPT_IDS, Encoder(TOKENIZER, PromptFormat()), config.prefix, seed)


def test_both_read_the_same_responses_and_what_stops_one_is_its_end() -> None:
    pairs = respond_with(make_policy(2), CONFIG)(prompt_order(5, 0, 40, 3), 0)
    prefix = TOKENIZER(PREFIX, add_special_tokens=False)["input_ids"]
    ended = 0
    for n in range(40):
        alone, behind = (
            (
                r.tokens[n, : int(r.prompt_length[n])].tolist(),
                r.tokens[n, int(r.prompt_length[n]) : int(r.length[n])].tolist(),
            )
            for r in pairs
        )
        assert alone[1] == behind[1] and alone[0] in PROMPT_IDS
        assert behind[0] == [BEGIN, *prefix, *alone[0][1:]]
        assert STOP not in alone[1] and END not in alone[1][:-1]
        assert alone[1][-1] == END or len(alone[1]) == CONFIG.max_new_tokens
        ended += alone[1][-1] == END
    assert 5 < ended < 40


# The whole loop.


def learn(run: Run, config: DistilConfig, valid: bool = True, **models: Any) -> Policy:
    policy, teacher = models.get("policy") or make_policy(2), make_policy(2).requires_grad_(False)
    respond = respond_with(teacher, config)
    held_out = respond_with(teacher, config, seed=4)(range(5), 0) if valid else None
    distil.train(config, policy, teacher, len(PROMPT_IDS), respond, held_out, ENDS, run)
    return policy


def test_the_student_becomes_the_prompted_teacher(tmp_path: Path) -> None:
    config = changed(iterations=150, batch_size=60, lr=1e-2, max_tokens=10_000)
    policy, teacher = learn(open_run(tmp_path), config), make_policy(2)
    prefix = TOKENIZER(PREFIX, add_special_tokens=False)["input_ids"]
    log = read_log(tmp_path)
    valid = [row["valid_kl"] for row in log if "valid_kl" in row]
    assert len(valid) == 4 and "valid_kl" in log[0] and valid[-1] < valid[0] / 20
    assert log[-1]["loss"] < log[0]["loss"] / 10
    for prompt in PROMPT_IDS:
        wanted = next_token(teacher, [BEGIN, *prefix, *prompt[1:]]).detach().exp()
        wanted[END], wanted[STOP] = wanted[END] + wanted[STOP], 0
        now, before = (next_token(model, prompt).detach().exp() for model in (policy, teacher))
        assert (now - wanted).abs().max() < 0.04 < (before - wanted).abs().max()


def test_threads_side_by_side_change_no_bit(tmp_path: Path) -> None:
    assert_threads_change_nothing(lambda run: learn(run, changed(max_tokens=30)), tmp_path)


def test_a_killed_run_ends_with_the_same_weights_and_log(tmp_path: Path) -> None:
    assert_resumes(lambda run: learn(run, CONFIG), tmp_path, kills=(0, 2, 3))


def test_with_adapters_the_base_stays(tmp_path: Path) -> None:
    policy = make_policy(2)
    attach_lora(policy.decoder, 2, seed=1)
    with base_stays(policy):
        learn(open_run(tmp_path), changed(iterations=8), valid=False, policy=policy)
    log = read_log(tmp_path)
    assert log[-1]["loss"] < log[0]["loss"] and "valid_kl" not in log[0]


# Files in, files out.


def written(folder: Path, *splits: str) -> tuple[Path, Path]:
    save_policy(folder / "model", make_policy(2), TOKENIZER, {})
    prompts = tuple(
        Prompt(id=f"{split}-{w}", text=w, user=f"{split}-{w}", split=split) for split in splits for w in WORDS
    )
    write_snapshot(folder / "prompts", Snapshot(prompts=prompts))
    return folder / "model", folder / "prompts"


def test_a_model_comes_out_that_is_nearer_to_the_prompted_one(tmp_path: Path) -> None:
    config = changed(iterations=30, batch_size=24, stop="\n", max_tokens=10_000)
    distil.main(config, open_run(tmp_path / "run"), *written(tmp_path, "train", "valid"), PromptFormat())
    result = read_done(tmp_path / "run")["results"]
    assert result["num_prompts"] == len(WORDS)
    assert 0 < result["valid_kl"] < read_log(tmp_path / "run")[0]["valid_kl"] / 2
    made, _ = load_policy(tmp_path / "run" / "model")
    assert not torch.equal(weights(made)["decoder.lm_head.weight"], weights(make_policy(2))["decoder.lm_head.weight"])


def test_a_text_that_stops_makes_responses_shorter(tmp_path: Path) -> None:
    lengths = []
    for stop in ("", "w3"):
        place = tmp_path / f"stop-{stop}"
        config = changed(iterations=1, batch_size=64, stop=stop, max_tokens=10_000)
        distil.main(config, open_run(place / "run"), *written(place, "train"), PromptFormat())
        lengths.append(read_log(place / "run")[0]["length"])
    assert lengths[1] < lengths[0]


def test_rules_are_a_prefix(tmp_path: Path) -> None:
    book = RuleBook(language="en", preamble="w6 ", rule="{text} ", rules={"a": Rule(title="a", text="w2 w2 w7")})
    logs = []
    for name, changes, rules in (
        ("text", {"prefix": "w6 w2 w2 w7 \n"}, None),
        ("rules", {"prefix": "", "rules": "mine.yaml", "shots": 0}, book),
        ("other", {"prefix": "w1"}, None),
    ):
        config, inputs = changed(iterations=1, **changes), written(tmp_path / name, "train", "valid")
        distil.main(config, open_run(tmp_path / name / "run"), *inputs, PromptFormat(), rules)
        logs.append(read_log(tmp_path / name / "run"))
    assert logs[0] == logs[1] != logs[2]


@pytest.mark.parametrize("prefixes", [{"prefix": ""}, {"rules": "self_align.en"}])
def test_one_prefix_is_given(prefixes: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="give either prefix"):
        changed(**prefixes)


def test_without_prompts_to_validate_on_nothing_is_measured(tmp_path: Path) -> None:
    distil.main(changed(iterations=1), open_run(tmp_path / "run"), *written(tmp_path, "train"), PromptFormat())
    assert read_done(tmp_path / "run")["results"]["valid_kl"] is None


@pytest.mark.parametrize(
    ("changes", "split", "words"),
    [
        ({}, "valid", "no training prompt within format.max_prompt_tokens"),
        (
            {"prefix": "w1 " * 70},
            "train",
            r"distil\.prefix: with it, the longest prompt and 5 new tokens come to 77, above",
        ),
    ],
)
def test_what_does_not_fit_is_told(changes: dict[str, Any], split: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        distil.main(changed(**changes), open_run(tmp_path / "run"), *written(tmp_path, split), PromptFormat())
