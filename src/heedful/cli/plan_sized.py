"""The work of pretraining models of other sizes than the policy's."""

from collections.abc import Mapping
from typing import Any

from heedful.cli.work import TRAINED, Sizes, Work
from heedful.models.load import from_scratch
from heedful.pipeline.recipe import Recipe
from heedful.pipeline.world import WorldSource


def times_larger(recipe: Recipe, sizes: Sizes, laid_over: Mapping[str, Any]) -> float:
    """Weights of the model that this makes of the recipe's pretrain block, over the policy's; 1 where it is empty."""
    if not laid_over:
        return 1.0
    assert recipe.pretrain is not None
    words = WorldSource(recipe).tokenizer()
    shape = recipe.pretrain.shape | dict(laid_over.get("shape", {})) | {"vocab_size": len(words or ())}
    return sum(p.numel() for p in from_scratch(shape, recipe.seed).parameters()) / sizes.parameters


def pretraining(recipe: Recipe, sizes: Sizes, larger: float) -> Work:
    """One pass over the text; tokens count by the model's weights."""
    trained, size = recipe.world.document_tokens * larger, TRAINED * larger * sizes.parameters
    return Work(f"{larger:.2g} times the policy's size", trained=trained, size=size)
