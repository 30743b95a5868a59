"""The model that is served: a client's request as work for the engine."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from jinja2 import TemplateError
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from heedful.config import InputError
from heedful.engine.engine import Engine
from heedful.engine.slots import Request
from heedful.engine.spelling import Spelling
from heedful.serve.errors import ApiError, bad
from heedful.serve.requests import ChatRequest, Common, CompletionRequest
from heedful.serve.worker import Job
from heedful.text.tokenizer import end_id

DEFAULT_COMPLETION_TOKENS = 16  # the API's own; a chat may fill the context


class Asked(NamedTuple):
    """A job and the prompts it was made of."""

    job: Job
    prompts: list[list[int]]
    texts: list[str]  # of the prompts, as `echo` gives them back


@dataclass(frozen=True)
class Served:
    """A model under the name that clients call it by."""

    name: str
    engine: Engine
    tokenizer: PreTrainedTokenizerBase
    spelling: Spelling
    context: int  # tokens of prompt and response together
    created: int  # seconds since 1970

    def check_name(self, name: str) -> None:
        """Raises ApiError for another model's name."""
        if name != self.name:
            raise ApiError(
                404, f"there is no model {name!r}; this server has {self.name!r}", "model", "model_not_found"
            )

    def chat(self, asked: ChatRequest) -> Asked:
        """Raises ApiError for what the chat template or the engine refuses."""
        self.check_name(asked.model)
        text = self._write_chat(asked)
        ids = self._encode(text)
        room = self.context - len(ids)
        number = asked.max_completion_tokens or asked.max_tokens or room
        number_of_rivals = (asked.top_logprobs or 0) if asked.logprobs else None
        request = self._request(asked, ids, max(number, 1), number_of_rivals, asked.prompt_logprobs, "messages")
        return Asked(Job([request], asked.stop, [False], asked.stream), [ids], [text])

    def complete(self, asked: CompletionRequest) -> Asked:
        """Raises ApiError for what the engine refuses."""
        self.check_name(asked.model)
        prompts = [self._prompt_ids(prompt, asked.add_special_tokens) for prompt in asked.prompt]
        number = DEFAULT_COMPLETION_TOKENS if asked.max_tokens is None else asked.max_tokens
        of_prompt = asked.prompt_logprobs
        if asked.echo and asked.logprobs is not None:
            of_prompt = max(of_prompt or 0, asked.logprobs)
        elif not number and of_prompt is None:
            of_prompt = 0
        requests = [self._request(asked, ids, number, asked.logprobs, of_prompt, "prompt") for ids in prompts]
        texts = [prompt if isinstance(prompt, str) else self.spelling.text(prompt) for prompt in asked.prompt]
        follows = [any(not self.spelling.special(id) for id in ids) for ids in prompts]
        return Asked(Job(requests, asked.stop, follows, asked.stream), prompts, texts)

    def _write_chat(self, asked: ChatRequest) -> str:
        if not self.tokenizer.chat_template:
            message = f"{self.name} has no chat template; use /v1/completions, or start the server with --chat-template"
            raise bad(message, "messages")
        messages = []
        for one in asked.messages:
            role = "system" if one.role == "developer" else one.role  # templates know the older name
            messages.append({"role": role, "content": one.content} | ({"name": one.name} if one.name else {}))
        try:
            return self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        except (TemplateError, TypeError, ValueError) as error:
            raise bad(f"the chat template refuses these messages: {error}", "messages") from None

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _prompt_ids(self, prompt: str | Sequence[int], begin: bool) -> list[int]:
        """As training writes prompts: behind the begin token where the tokenizer has one. Ids are taken as they are."""
        if not isinstance(prompt, str):
            return list(prompt)
        ids = self._encode(prompt)
        bos = self.tokenizer.bos_token_id
        return [bos, *ids] if begin and bos is not None and ids[:1] != [bos] else ids

    def _request(
        self, asked: Common, ids: list[int], number: int, logprobs: int | None, of_prompt: int | None, param: str
    ) -> Request:
        if not ids:
            raise bad("the prompt has no tokens", param)
        if len(ids) + number > self.context:
            message = (
                f"{len(ids)} tokens of prompt and {number} of response exceed this server's context of {self.context}; "
                "shorten the prompt or lower max_tokens"
            )
            if len(ids) < self.context:  # a shorter response would fit
                param = "max_tokens" if asked.max_tokens is not None else "max_completion_tokens"
            raise bad(message, param, "context_length_exceeded")
        # Two equal requests without a seed are answered differently, two with the same seed alike.
        seed = secrets.randbits(63) if asked.seed is None else asked.seed
        bias = asked.bias()
        if any(token >= self.engine.vocabulary for token, _ in bias):
            message = f"logit_bias names a token outside the model's vocabulary of {self.engine.vocabulary}"
            raise bad(message, "logit_bias")
        how = (asked.temperature, max(asked.top_k, 0), asked.top_p, seed, bias)
        request = Request(ids, asked.n, number, *how, logprobs=logprobs, prompt_logprobs=of_prompt)
        try:
            self.engine.check(request, "the prompt")
        except InputError as error:
            raise bad(str(error), param) from None
        return request


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens that end a response: the tokenizer's, and those the model's generation_config.json names.

    Raises:
        InputError: there is none.
    """
    found = getattr(model.generation_config, "eos_token_id", None)
    named = found if isinstance(found, list) else [] if found is None else [found]
    rows = model.get_output_embeddings().weight.shape[0]
    return sorted({end_id(tokenizer), *(id for id in named if id < rows)})
