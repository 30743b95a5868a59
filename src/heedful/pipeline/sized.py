"""Models of other sizes than the policy's, pretrained on the same text: judges and proxies begin as these."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from heedful.pipeline.jobs import Job
from heedful.stages import pretrain

if TYPE_CHECKING:
    from heedful.pipeline.loop import Loop


def pretraining(loop: "Loop", part: str, sizes: Mapping[str, Mapping[str, Any]]) -> list[Job]:
    """A job for each name, in `part`/NAME/pretrain: what its size lays over the recipe's pretrain block."""
    base = loop.recipe.pretrain
    inputs = {"tokenizer": loop.source.tokenizer(), "documents": loop.data("documents"), "format": loop.recipe.format}
    found = []
    for name, laid_over in sizes.items():
        assert base is not None
        shape = base.shape | dict(laid_over.get("shape", {}))
        config = pretrain.PretrainConfig.model_validate(base.model_dump() | dict(laid_over) | {"shape": shape})
        found.append(loop.job(f"{part}/{name}/pretrain", "pretrain", pretrain.main, config, inputs))
    return found
