"""Any task of lm-evaluation-harness (extra `harness`) on our engine.

The harness asks three things of a model, as texts: the log-probability of a continuation, that of a whole text, and an
answer up to a stop text. What does not fit the context is cut at its beginning, as the harness's own models do it;
here it is also counted, in `counts`.

    from heedful.evaluate.harness import HarnessModel
    lm_eval.simple_evaluate(model=HarnessModel.load("folder"), tasks=["hellaswag"])
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from heedful.config import InputError
from heedful.engine.requests import Request
from heedful.engine.sample import Sampler
from heedful.engine.score import Scored, score_and_compare
from heedful.evaluate.sets.choose import common
from heedful.evaluate.sets.item import Model, load_model
from heedful.text.tokenizer import end_id

AT_ONCE = 1024  # requests handed to the engine together
MAX_NEW_TOKENS = 256  # where a task does not say
KNOWN = {"until", "max_gen_toks", "temperature", "top_p", "top_k", "do_sample"}


class HarnessModel(LM):
    """A model as the harness knows them. `counts` holds what was cut, by reason."""

    def __init__(self, model: Model, seed: int = 0) -> None:
        super().__init__()
        self.model = model
        self.seed = seed
        self.counts: Counter[str] = Counter()

    @classmethod
    def load(cls, name: str | Path) -> Self:
        """A policy's folder or a hub name.

        Raises:
            InputError: whatever `load_policy` refuses.
        """
        return cls(load_model(name))

    @property
    def begin(self) -> list[int]:
        return self.model.begin or [end_id(self.model.tokenizer)]

    def loglikelihood(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """log π(continuation | context) in nats, and whether greedy decoding would have written it."""
        pairs = [self._pair(*request.args) for request in requests]
        return [(found.logprob, found.greedy) for found in self._score(pairs)]

    def loglikelihood_rolling(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[float]:
        """log π(text) in nats: every token once, in windows as wide as the context."""
        width = self.model.context - 1  # behind its window's first token, and a last one that is only read
        owners: list[int] = []
        pairs: list[tuple[list[int], list[int]]] = []
        for n, ids in enumerate(self.model.encode([request.args[0] for request in requests])):
            windows = get_rolling_token_windows(ids, self.begin[0], width, context_len=1)
            pairs += map(make_disjoint_window, windows)
            owners += [n] * (len(pairs) - len(owners))
        total = [0.0] * len(requests)
        for n, found in zip(owners, self._score(pairs), strict=True):
            total[n] += found.logprob
        return total

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[str]:
        """An answer to each context, cut before the first of its stop texts.

        Raises:
            InputError: a setting of generation that the engine does not have.
        """
        groups: dict[str, list[int]] = defaultdict(list)
        for n, request in enumerate(requests):
            groups[repr(sorted(request.args[1].items()))].append(n)
        answers = [""] * len(requests)
        for members in groups.values():
            asked = [requests[n].args[0] for n in members]
            for n, text in zip(members, self._generate(asked, requests[members[0]].args[1]), strict=True):
                answers[n] = text
        return answers

    def _pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Both as tokens; spaces at the context's end belong to the continuation, as the harness has it."""
        bare = context.rstrip()
        before, whole = self.model.encode([bare, context + continuation])
        shared = common(before, whole)
        return (self.model.begin + whole[:shared]) or self.begin, whole[shared:]

    def _score(self, pairs: Sequence[tuple[list[int], list[int]]]) -> list[Scored]:
        found: list[Scored] = []
        for start in range(0, len(pairs), AT_ONCE):
            fitted = [self._fitted(*pair) for pair in pairs[start : start + AT_ONCE]]
            prompts, continuations = [pair[0] for pair in fitted], [[pair[1]] for pair in fitted]
            found += [
                row[0] for row in score_and_compare(self.model.decoder, prompts, continuations, self.model.precision)
            ]
        return found

    def _fitted(self, prompt: list[int], continuation: list[int]) -> tuple[list[int], list[int]]:
        """Cut at the beginning to what the context holds, and counted."""
        if not continuation:
            raise InputError("the harness asked for the probability of an empty continuation; the task is at fault")
        context = self.model.context
        if len(continuation) >= context:
            self.counts["continuation_cut"] += 1
            continuation = continuation[-(context - 1) :]
        if len(prompt) + len(continuation) > context:
            self.counts["context_cut"] += 1
            prompt = prompt[-(context - len(continuation)) :]
        return prompt, continuation

    def _generate(self, contexts: Sequence[str], settings: dict[str, Any]) -> list[str]:
        unknown = sorted(set(settings) - KNOWN)
        if unknown:
            raise InputError(f"the engine knows no setting {unknown[0]!r} of generation; take it out of the task")
        until = settings.get("until") or []
        stops = [stop for stop in ([until] if isinstance(until, str) else until) if stop]
        temperature = float(settings.get("temperature", 0.0)) if settings.get("do_sample", True) else 0.0
        longest = min(int(settings.get("max_gen_toks", MAX_NEW_TOKENS)), self.model.context - 1)
        sampler = Sampler(self.model.decoder, self.model.tokenizer, longest, temperature, stops)
        top_k, top_p = int(settings.get("top_k") or 0), float(settings.get("top_p", 1.0))
        requests = []
        for n, ids in enumerate(self.model.encode(contexts)):
            prompt = self.model.begin + ids or self.begin
            if len(prompt) + longest > self.model.context:
                self.counts["context_cut"] += 1
                prompt = prompt[-(self.model.context - longest) :]
            requests.append(Request(prompt, 1, longest, temperature, top_k, top_p, self.seed + n, stop=sampler.stop))
        tokens = [sampler.response(group[0]) for group in sampler.generate(requests)]
        return [str(text) for text in self.model.tokenizer.batch_decode(tokens, skip_special_tokens=True)]
