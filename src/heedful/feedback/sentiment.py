"""Sentiment as a utility: VADER (Hutto & Gilbert 2014), the automatic stand-in for the labelers of Ziegler et al."""

from functools import cache

from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from heedful.types import Prompt


@cache
def _analyzer() -> SentimentIntensityAnalyzer:
    return SentimentIntensityAnalyzer()


def sentiment(prompt: Prompt, response: str) -> float:
    """Between −1 (negative) and 1 (positive); the prompt does not count."""
    return float(_analyzer().polarity_scores(response)["compound"])
