"""Low-rank adapters (LoRA, arXiv 2106.09685): train few weights, and keep the base as the reference without a copy.

Several models may stand over one base, each with adapters of its own (`over_one_base`): a module tree of its own, whose
frozen weights are the very tensors of the others. So nothing has to be switched from one to the next, and each is used
and trained as if it stood alone.
"""

import copy
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Protocol, TypeGuard

import torch
from pydantic import AfterValidator, Field, ValidationInfo
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from heedful.batch import Rows
from heedful.config import InputError
from heedful.models.heads import Policy, RewardModel, ValueModel
from heedful.models.quantized import adapted_linears, check_same, is_quantized, original
from heedful.models.recompute import checkpoint_activations

if TYPE_CHECKING:
    from peft.tuners.lora import LoraLayer

MAX_RANK = 1024


def _needs_rank(alpha: float | None, info: ValidationInfo) -> float | None:
    if alpha is not None and info.data.get("lora_rank") == 0:
        raise ValueError("scales adapters, and lora_rank is 0: there are none; set lora_rank, or leave it out")
    return alpha


# A stage's settings `lora_rank` (0: all weights train) and, behind it, `lora_alpha`.
LoraRank = Annotated[int, Field(ge=0, le=MAX_RANK)]
LoraAlpha = Annotated[float | None, Field(gt=0), AfterValidator(_needs_rank)]


def attach_lora(
    model: PreTrainedModel,
    rank: int,
    alpha: float | None = None,
    modules: str | Sequence[str] = "all-linear",
    seed: int = 0,
) -> None:
    """Add W + alpha / rank · B A to linear modules; only A and B train from now on. B starts at zero, A from the seed.

    `alpha` None means 2 · rank. "all-linear" means every linear module but the language-model head.

    Raises:
        InputError: no module of that name, or a rank above the model's width.
    """
    from peft import LoraConfig  # takes a second and more, and models without adapters need none of it

    check_rank(model, rank)
    named = modules if isinstance(modules, str) else list(modules)
    alpha = 2 * rank if alpha is None else alpha
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=named, bias="none", task_type="CAUSAL_LM")
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model.add_adapter(config)
    except ValueError as error:
        raise InputError(f"lora: {str(error).splitlines()[0]}") from None


class Prepared(Protocol):
    """What the settings of a stage say of a model that is to train."""

    lora_rank: int
    lora_alpha: float | None
    activation_checkpointing: bool


def prepare(model: PreTrainedModel, config: Prepared, seed: int) -> None:
    """Adapters, unless there are some, and layers that are computed again in the backward pass, where asked for.

    Raises:
        InputError: as `attach_lora` and `checkpoint_activations`.
    """
    if config.lora_rank and not has_adapters(model):
        attach_lora(model, config.lora_rank, config.lora_alpha, seed=seed)
    if config.activation_checkpointing:
        checkpoint_activations(model)


def check_rank(model: PreTrainedModel, rank: int) -> None:
    """Raises InputError for a rank above the model's width, where adapters hold more than the weights they adapt."""
    width = model.config.get_text_config().hidden_size
    if rank > width:
        raise InputError(
            f"lora_rank {rank} exceeds the model's width, {width}; lower it, or set 0 to train all weights"
        )


def parameters_per_rank(model: PreTrainedModel) -> int:
    """Parameters that adapters on every linear module but the language-model head hold for each unit of rank."""
    return sum(sum(module.weight.shape) for _, module in adapted_linears(model))


def over_one_base(model: PreTrainedModel) -> PreTrainedModel:
    """The model again, holding the same weights and not a copy of them; adapters, which may train apart, are copied.

    Neither may train the weights they share: give both adapters, or train none of the two.
    """
    own = {id(p) for module in model.modules() if _is_adapted(module) for p in _adapters_of(module)}
    tensors = (*model.parameters(), *model.buffers())
    return copy.deepcopy(model, {id(x): x for x in tensors if id(x) not in own})


def has_adapters(model: PreTrainedModel) -> bool:
    return any(_is_adapted(module) for module in model.modules())


def value_over(reward_model: RewardModel) -> ValueModel:
    """A value model that begins as the reward model, over its weights; its head, and adapters if there are any, are
    copies. It trains adapters alone: the weights are the reward model's."""
    return ValueModel(over_one_base(reward_model.trunk), copy.deepcopy(reward_model.head))


def _is_adapted(module: torch.nn.Module) -> TypeGuard["LoraLayer"]:
    # There is no such layer before peft has been imported; to ask does not import it.
    return isinstance(module, getattr(sys.modules.get("peft.tuners.lora"), "LoraLayer", ()))


def _adapters_of(module: "LoraLayer") -> Iterator[torch.nn.Parameter]:
    for name in module.adapter_layer_names:
        yield from getattr(module, name).parameters()


@contextmanager
def base_weights(model: PreTrainedModel) -> Iterator[None]:
    """Within, the model computes without its adapters: the reference policy, at no memory."""
    model.disable_adapters()
    try:
        yield
    finally:
        model.enable_adapters()


class BasePolicy:
    """The reference of a policy with adapters: the policy itself without them, at no memory."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    def logprob(self, rows: Rows, temperature: float = 1.0) -> torch.Tensor:
        """As `Policy.logprob`, of the base weights."""
        with base_weights(self._policy.decoder):
            return self._policy.logprob(rows, temperature)


Reference = Policy | BasePolicy


def merged(model: PreTrainedModel) -> PreTrainedModel:
    """The model itself, or, when it has adapters, a copy with them added into its weights.

    Of a quantised model the weights are those that it was quantised from, and the copy is on the CPU.

    Raises:
        InputError: those weights are no longer where they were.
    """
    if not has_adapters(model):
        return model
    if is_quantized(model):
        return _merged_into_original(model)
    plain = copy.deepcopy(model)
    for name, module in list(plain.named_modules()):
        if _is_adapted(module):
            module.merge()
            plain.set_submodule(name, module.get_base_layer())
    del plain.peft_config
    plain._hf_peft_config_loaded = False
    return plain.requires_grad_(True)


@torch.no_grad()
def _merged_into_original(model: PreTrainedModel) -> PreTrainedModel:
    plain = original(model)
    for name, module in model.named_modules():
        if _is_adapted(module):
            own = plain.get_submodule(name)
            check_same(module.get_base_layer(), own, model.quantized_from)
            change = module.get_delta_weight("default").to(own.weight.device)
            own.weight.add_(change.T if isinstance(own, Conv1D) else change)
    return plain
