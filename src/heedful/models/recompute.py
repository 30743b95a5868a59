"""Activation checkpointing (Chen et al., arXiv 1604.06174): less memory for about a third more time.

Each layer keeps only its input; what lies within is computed again when its gradient is. Values and gradients are the
same to the bit, dropout's draws too.
"""

from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from heedful.config import InputError


def checkpoint_activations(trunk: PreTrainedModel) -> None:
    """From now on recompute the trunk's layers in every backward pass; passes without gradients stay as they are.

    Raises:
        InputError: an architecture whose layers transformers cannot recompute.
    """
    layers = [module for module in trunk.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers or not trunk.supports_gradient_checkpointing:
        raise InputError(
            f"architecture {trunk.config.model_type!r} cannot recompute its layers; set activation_checkpointing: false"
        )
    trunk.activation_checkpointing_enable({"use_reentrant": False})
    for layer in layers:
        layer.register_forward_pre_hook(_recompute_where_gradients_flow)


def _recompute_where_gradients_flow(layer: torch.nn.Module, args: Any) -> None:
    # transformers goes by the layer's own flag, which says train or eval; dropout goes by its modules' flags, not this
    layer.training = torch.is_grad_enabled()
