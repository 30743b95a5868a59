"""Low-rank adapters (LoRA, arXiv 2106.09685): train few weights, and keep the base as the reference without a copy."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from pydantic import AfterValidator, Field, ValidationInfo
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from heedful.batch import Rows
from heedful.config import InputError
from heedful.models.heads import Policy

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


def check_rank(model: PreTrainedModel, rank: int) -> None:
    """Raises InputError for a rank above the model's width, where adapters hold more than the weights they adapt."""
    width = model.config.get_text_config().hidden_size
    if rank > width:
        raise InputError(
            f"lora_rank {rank} exceeds the model's width, {width}; lower it, or set 0 to train all weights"
        )


def parameters_per_rank(model: PreTrainedModel) -> int:
    """Parameters that adapters on every linear module but the language-model head hold for each unit of rank."""
    head = model.get_output_embeddings()
    linear = [m for m in model.modules() if isinstance(m, torch.nn.Linear | Conv1D) and m is not head]
    return sum(sum(module.weight.shape) for module in linear)


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
    """The model itself, or, when it has adapters, a copy with them added into its weights."""
    if not any(isinstance(module, LoraLayer) for module in model.modules()):
        return model
    plain = copy.deepcopy(model)
    for name, module in list(plain.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge()
            plain.set_submodule(name, module.get_base_layer())
    del plain.peft_config
    plain._hf_peft_config_loaded = False
    return plain.requires_grad_(True)
