"""The work of a recipe's steps, what it follows from, and how fast a machine does it."""

from typing import NamedTuple

from heedful.models.quantized import BasePrecision

WEIGHT, TRAINED = 4, 16  # bytes per parameter: fp32; fp32 with its gradient and Adam's two moments
NF4 = 4 / 8 + (1 + 4 / 256) / 64  # in 4 bits: a block of 64 has a scale in 8 bits, 256 of these one in fp32
ACTIVATION = 34  # bytes per token, layer and width kept for the backward pass (Korthikanti et al., arXiv 2205.05198)


class Work(NamedTuple):
    """What a step does: tokens it passes forward, trains on and samples; `size` is its memory in bytes."""

    what: str
    forward: float = 0
    trained: float = 0
    sampled: float = 0
    size: float = 0


class Rates(NamedTuple):
    """Tokens per second."""

    forward: float
    trained: float
    sampled: float

    def seconds(self, work: Work) -> float:
        return work.forward / self.forward + work.trained / self.trained + work.sampled / self.sampled


class Sizes(NamedTuple):
    """What the amounts follow from; lengths are means in tokens."""

    number: dict[str, dict[str, int]]  # pool → split → prompts
    prompt: dict[str, float]  # by pool
    demonstration: float  # a labeler's own response
    prefixes: int  # candidate few-shot prefixes
    prefix: float
    document: float  # a pretraining text with the marks around it
    heldout: float  # all pretraining text that is measured on
    marks: int
    parameters: int
    trunk: int
    kept: float  # bytes per token of a training pass
    adapters: int  # parameters that low-rank adapters hold for each unit of rank
    linear: int  # parameters that these stand on

    def frozen(self, parameters: int, precision: BasePrecision) -> float:
        """Bytes of a model's weights under adapters."""
        return WEIGHT * parameters - (WEIGHT - NF4) * self.linear * (precision == "nf4")

    def held(self, rank: int, parameters: int, precision: BasePrecision) -> float:
        """Bytes of a model's weights and of what trains them: all of them, or adapters of the rank."""
        return self.frozen(parameters, precision) + TRAINED * rank * self.adapters if rank else TRAINED * parameters

    def training(self, rank: int, parameters: int, kept: float, precision: BasePrecision) -> float:
        """Bytes of a model that trains, all of it or adapters of the rank over weights that stay, and is saved.

        `kept` bytes of activations; adapters are saved merged into a copy, while no pass runs.
        """
        return self.held(rank, parameters, precision) + (max(kept, WEIGHT * parameters) if rank else kept)

    def total(self, pool: str) -> int:
        return sum(self.number[pool].values())
