"""Classic tasks of the embedded world: the scores of InstructGPT's table 14, from what a model wrote or finds likely.

As in the paper (arXiv 2203.02155, appendix E.3): answers are generated at temperature 0 and end at the first line
break; among choices the one of highest mean log-probability per token counts. Scores are 0 to 1, BLEU too. Items that
share a text are one cluster of the interval.
"""

from collections.abc import Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from heedful.engine.engine import Request
from heedful.engine.sample import Sampler
from heedful.engine.score import score_continuations
from heedful.evaluate.sets.overlap import best_f1, bleu_of, bleu_statistics, rouge_l
from heedful.evaluate.statistics import Estimate, cluster_bootstrap, clustered_proportion
from heedful.world import LINE, PAIR_END, Item, answered, metric_of, neutral


def asked(item: Item, shots: Sequence[Item]) -> str:
    """The item as an unfinished page behind worked ones."""
    return "".join(f"{neutral(one)} {answered(one)}{PAIR_END}" for one in shots) + neutral(item)


def generated(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[list[int]], max_new_tokens: int
) -> list[str]:
    """The line that the model goes on with, by greedy choice."""
    sampler = Sampler(model, tokenizer, max_new_tokens, 0.0, (LINE,))
    requests = [Request(prompt, 1, max_new_tokens, temperature=0.0, stop=sampler.stop) for prompt in prompts]
    tokens = [sampler.response(group[0]) for group in sampler.generate(requests)]
    return [str(text) for text in tokenizer.batch_decode(tokens, skip_special_tokens=True)]


def chosen(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[list[int]],
    items: Sequence[Item],
) -> list[str]:
    """The choice that the model finds likeliest per token."""
    choices = [[with_end(choice) for choice in item.choices] for item in items]
    tokens = [[tokenizer(choice, add_special_tokens=False)["input_ids"] for choice in own] for own in choices]
    scores = score_continuations(model, prompts, tokens)
    found = []
    for item, own, totals in zip(items, tokens, scores, strict=True):
        means = [total / len(ids) for total, ids in zip(totals, own, strict=True)]
        found.append(item.choices[means.index(max(means))])
    return found


def with_end(answer: str) -> str:
    """An answer as it stands on a page."""
    return answer if answer.endswith(".") else f"{answer} ."


def score(task: str, texts: Sequence[str], items: Sequence[Item]) -> Estimate:
    """The task's score of the answers, 0 to 1, with its interval; no mean without an item.

    >>> one = Item("closed_qa", "ada found the red kite .", "who found the red kite ?", ("ada",))
    >>> score("closed_qa", ["the ada .", "ada kite"], [one, one]).mean
    0.8333333333333333
    """
    metric, cluster = metric_of(task), [item.text for item in items]
    if metric == "bleu" and items:
        return bleu(texts, items, cluster)
    if metric == "f1":
        values = [best_f1(text, item.answers) for text, item in zip(texts, items, strict=True)]
    elif metric == "rouge_l":
        values = [rouge_l(text, item.answers[0]) for text, item in zip(texts, items, strict=True)]
    else:
        values = [float(text in item.answers) for text, item in zip(texts, items, strict=True)]
    return clustered_proportion(values, cluster)


def bleu(texts: Sequence[str], items: Sequence[Item], cluster: Sequence[str]) -> Estimate:
    """BLEU of all texts together, 0 to 1; the interval draws items again, and is none where that changes nothing."""
    statistics = bleu_statistics(list(texts), [item.answers[0] for item in items])
    found = cluster_bootstrap(lambda index: min(bleu_of(statistics[index]) / 100, 1.0), cluster)
    if found.low is None or found.low != found.high:
        return found
    return found._replace(low=None, high=None, stderr=None, reason="every resample of the items gives the same BLEU")
