"""Side by side or one after the other: the same bits."""

from collections.abc import Iterator

import pytest
import torch

from heedful.models import threads
from heedful.models.heads import Policy
from heedful.models.load import set_residual_dropout
from heedful.models.threads import accumulate, hands, in_order, use_threads
from small_models import VOCAB, small_model

TOKENS = torch.randint(3, VOCAB, (12, 9), generator=torch.Generator().manual_seed(3))
LENGTH = torch.full((12,), 9)


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    use_threads(3)
    yield
    use_threads(before)


def loss(policy: Policy, rows: slice) -> tuple[torch.Tensor, int]:
    return policy.language_loss(TOKENS[rows], LENGTH[rows])[0].sum(), rows.start


def gradients(policy: Policy) -> list[torch.Tensor]:
    return [p.grad.clone() for p in policy.parameters()]


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_gradients_are_added_in_the_parts_order(family: str, three_threads: None) -> None:
    parts = [slice(start, start + size) for start, size in ((0, 1), (1, 5), (6, 2), (8, 3), (11, 1))]
    alone, together = Policy(small_model(family)), Policy(small_model(family))
    use_threads(1)
    for _ in range(2):  # the second time on top of the first's
        for part in parts:
            loss(alone, part)[0].backward()
    use_threads(3)
    assert hands(together, len(parts)) == 3
    for _ in range(2):
        assert accumulate(together, lambda part: loss(together, part), parts) == [0, 1, 6, 8, 11]
    assert all(a.equal(b) for a, b in zip(gradients(alone), gradients(together), strict=True))


def test_a_small_models_products_are_on_one_thread_from_the_first_call_on(three_threads: None) -> None:
    """Whatever comes first: a run that goes on elsewhere begins with another part of the work."""
    policy = Policy(small_model("llama"))
    assert torch.get_num_threads() == 3
    assert hands(policy, 1) == 1 and torch.get_num_threads() == 1
    use_threads(3)
    set_residual_dropout(policy.decoder, 0.2)
    policy.train()
    assert hands(policy, 4) == 1 and torch.get_num_threads() == 1


def test_a_large_model_behind_a_small_one_has_all_threads_again(
    three_threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, large = Policy(small_model("llama")), Policy(small_model("gpt2"))
    with monkeypatch.context() as patch:
        patch.setattr(threads, "SMALL", sum(p.numel() for p in small.parameters()))
        assert sum(p.numel() for p in large.parameters()) > threads.SMALL
        assert (hands(large, 4), torch.get_num_threads()) == (1, 3)
        assert (hands(small, 4), torch.get_num_threads()) == (3, 1)
        assert (hands(large, 4), torch.get_num_threads()) == (1, 3)


def test_a_frozen_weight_gets_no_gradient(three_threads: None) -> None:
    policy = Policy(small_model("llama"))
    frozen = next(policy.parameters()).requires_grad_(False)
    accumulate(policy, lambda part: loss(policy, part), [slice(0, 6), slice(6, 12)])
    assert frozen.grad is None and sum(p.grad is not None for p in policy.parameters()) > 5


def test_values_come_in_the_parts_order_and_carry_no_gradient(three_threads: None) -> None:
    policy = Policy(small_model("llama"))
    parts = [slice(n, n + 1) for n in range(12)]
    found = in_order(policy, lambda part: loss(policy, part), parts)
    assert [start for _, start in found] == list(range(12))
    assert not any(value.requires_grad for value, _ in found)
    use_threads(1)
    assert all(value.equal(loss(policy, part)[0]) for (value, _), part in zip(found, parts, strict=True))


def test_an_error_in_a_part_is_raised(three_threads: None) -> None:
    policy = Policy(small_model("llama"))
    with pytest.raises(ZeroDivisionError):
        accumulate(policy, lambda part: (loss(policy, part)[0], 1 // part.start), [slice(1, 3), slice(0, 1)])


def test_dropout_keeps_its_order_of_draws(three_threads: None) -> None:
    policy = Policy(small_model("llama"))
    set_residual_dropout(policy.decoder, 0.1)
    assert hands(policy, 3) == 3
    assert hands(policy.train(), 3) == 1
    set_residual_dropout(policy.decoder, 0.0)
    assert hands(policy, 3) == 3
