"""heedful: from people's judgements of a model's answers to a better model."""

__version__ = "0.1.0"
