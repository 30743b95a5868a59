"""Frozen weights in 4 bits under adapters that train (QLoRA, arXiv 2305.14314).

Linear modules are kept in NF4: a code of 16 values, one for each equal share of a normal distribution, times the
largest magnitude of a block of 64 weights, which is itself kept in 8 bits (double quantisation, section 3). A forward
pass unpacks one module's weights at a time, and the backward pass unpacks them again.

bitsandbytes packs and unpacks; the module is ours. Its own one computes in the precision of its first input, whatever
autocast says; and on CPUs that multiply bf16 its weights, once used in eval mode, pass no gradient on in training.
"""

import logging
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal

import torch
from pydantic import AfterValidator, ValidationInfo
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from heedful.config import InputError
from heedful.models.load import kind_of, load_decoder, load_trunk


def _has_a_base(precision: str, info: ValidationInfo) -> str:
    if precision != "full" and info.data.get("lora_rank") == 0:
        raise ValueError("weights in 4 bits do not train, and lora_rank is 0: nothing would; set lora_rank, or full")
    if precision != "full" and info.data.get("init") == "random":
        raise ValueError("what is saved is made of the weights in a folder, and init is random: none; set full")
    return precision


# A stage's setting `base_precision`, behind `lora_rank`: the weights under adapters in fp32, or in 4 bits.
BasePrecision = Annotated[Literal["full", "nf4"], AfterValidator(_has_a_base)]

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it warns of a missing kernel that is not used here


class NF4Linear(torch.nn.Linear):
    """x Wᵀ + b with a W (out, in) that is kept in 4 bits and never trains; computes in autocast's precision, or x's."""

    def __init__(self, weight: torch.Tensor, bias: torch.nn.Parameter | None) -> None:
        super().__init__(weight.shape[1], weight.shape[0], bias=False, device="meta")
        packed, state = functional().quantize_4bit(weight, quant_type="nf4", compress_statistics=True)
        self.weight = torch.nn.Parameter(packed, requires_grad=False)  # (in · out / 2, 1), uint8
        self.register_parameter("bias", bias)
        # Plain tensors, so that models over one base share them and a run's state holds them.
        self.register_buffer("code", state.code)
        self.register_buffer("scale", state.absmax)  # one in 8 bits per block
        self.register_buffer("scale_offset", state.offset)
        self.register_buffer("scale_code", state.state2.code)
        self.register_buffer("scale_scale", state.state2.absmax)
        self._blocks = state.blocksize, state.state2.blocksize

    def unpacked(self, dtype: torch.dtype) -> torch.Tensor:
        """W (out, in), as near as 4 bits keep it."""
        size, size_of_scales = self._blocks
        make = functional().QuantState
        scales = make(self.scale_scale, code=self.scale_code, blocksize=size_of_scales, dtype=torch.float32)
        # As one row: bitsandbytes packs blocks across rows, and its CPU kernel unpacks as if each row began a new one.
        row = torch.Size((self.out_features * self.in_features,))
        state = make(self.scale, row, self.code, size, "nf4", dtype, self.scale_offset, scales)
        return functional().dequantize_4bit(self.weight, state).view(self.out_features, self.in_features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        y = _Product.apply(x.to(dtype), self)
        return y if self.bias is None else y + self.bias.to(dtype)


class _Product(torch.autograd.Function):
    """x Wᵀ that keeps W's 4 bits, not W, for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, linear: NF4Linear) -> torch.Tensor:
        ctx.linear = linear
        return torch.nn.functional.linear(x, linear.unpacked(x.dtype))

    @staticmethod
    def backward(ctx: Any, *gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradient[0] @ ctx.linear.unpacked(gradient[0].dtype), None


def adapted_linears(model: PreTrainedModel) -> Iterator[tuple[str, torch.nn.Linear | Conv1D]]:
    """The modules that adapters stand on unless others are named: all linear ones but the language-model head."""
    head = model.get_output_embeddings()
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear | Conv1D) and module is not head:
            yield name, module


def quantize(model: PreTrainedModel, source: Path | str, device: torch.device) -> None:
    """Put the model's linear modules, language-model head excepted, onto the device in 4 bits, one after the other.

    `source`: where the model was loaded from; what is saved is made of the weights there.

    Raises:
        InputError: bitsandbytes is not installed, or has nothing for the device.
    """
    functional()
    for name, module in list(adapted_linears(model)):
        try:
            model.set_submodule(name, NF4Linear(matrix(module).to(device), module.bias))
        except (RuntimeError, NotImplementedError) as error:
            why = f"bitsandbytes cannot do it on {device.type} ({str(error).splitlines()[0]})"
            raise InputError(f"base_precision: nf4: {why}; set full") from None
    for part in model.modules():
        if isinstance(part, PreTrainedModel):  # the decoder, and its trunk, which may go on without it
            part.quantized_from = str(source)


def is_quantized(model: PreTrainedModel) -> bool:
    return any(isinstance(module, NF4Linear) for module in model.modules())


def original(model: PreTrainedModel) -> PreTrainedModel:
    """The model before it was quantised, without adapters, read again from where it came: fp32, on the CPU.

    Raises:
        InputError: what stands there is gone, or other weights.
    """
    source = str(model.quantized_from)
    if kind_of(source) == "reward_model":
        return load_trunk(source)
    decoder = load_decoder(source)
    return decoder.get_decoder() if model.get_output_embeddings() is None else decoder


def check_same(kept: NF4Linear, module: torch.nn.Linear | Conv1D, source: str) -> None:
    """Raises InputError where the module's weights are not those that are kept in 4 bits."""
    again = NF4Linear(matrix(module).to(kept.weight.device), None)
    if not all(torch.equal(x, getattr(again, name)) for name, x in kept.state_dict().items() if name != "bias"):
        raise InputError(f"{source}: no longer the weights that adapters were trained over; bring them back")


def matrix(module: torch.nn.Linear | Conv1D) -> torch.Tensor:
    """W (out, in) of a linear module, without its gradient."""
    weight = module.weight.detach()
    return weight.T.contiguous() if isinstance(module, Conv1D) else weight


@cache
def functional() -> ModuleType:
    """bitsandbytes.functional, which takes seconds to import.

    Raises:
        InputError: it is not installed, or broken.
    """
    try:
        from bitsandbytes import functional
    except (ImportError, OSError, RuntimeError):
        raise InputError("base_precision: nf4 needs bitsandbytes; pip install 'heedful[qlora]', or set full") from None
    return functional
