"""What clients may ask: the API's fields, checked, and their values as the engine wants them.

A field that would change the answer in a way heedful does not compute is refused unless it says "no"; fields that
cannot change an answer are accepted; an unknown one is refused, because it may be a misspelt known one.
"""

from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import from_json

from heedful.config import said
from heedful.serve.errors import ApiError, bad

MAX_LISTED = 20  # rivals listed beside a token
MAX_CHOICES = 128
MAX_PROMPTS = 1024

# What heedful does not do, with the values that do not ask for it (null never does).
NOT_DONE: dict[str, tuple[Any, ...]] = {
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "repetition_penalty": (1,),
    "min_p": (0,),
    "min_tokens": (0,),
    "ignore_eos": (False,),
    "use_beam_search": (False,),
    "suffix": ("",),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "reasoning_effort": ("none",),
    "verbosity": (),
    "web_search_options": (),
}
# What says something about the caller, not about the answer.
NO_EFFECT = {
    *("metadata", "service_tier", "safety_identifier", "parallel_tool_calls"),
    *("prompt_cache_key", "prompt_cache_retention", "prompt_cache_options"),
}


def text_of_content(content: Any) -> Any:
    """A message's content as one string; text parts stand on lines of their own."""
    if not isinstance(content, list):
        return content
    for part in content:
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise ValueError('write a string, or parts of the form {"type": "text", "text": …}; this model reads text')
    return "\n".join(part["text"] for part in content)


def one_or_many(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def prompts(value: Any) -> Any:
    """The four forms of `prompt` as a list of strings or of lists of token ids."""
    if isinstance(value, str) or (isinstance(value, list) and value and type(value[0]) is int):
        value = [value]
    if not isinstance(value, list) or not value:
        raise ValueError("write a string, a list of token ids, or a list of either, and at least one")
    if len(value) > MAX_PROMPTS:
        raise ValueError(f"at most {MAX_PROMPTS} prompts in one request")
    for prompt in value:
        ids = isinstance(prompt, list) and all(type(id) is int for id in prompt)
        if not isinstance(prompt, str) and not ids:
            raise ValueError("a prompt is a string or a list of token ids")
    return value


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class StreamOptions(_Strict):
    include_usage: bool = False
    include_obfuscation: bool = False


class Message(_Strict):
    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, BeforeValidator(text_of_content)]
    name: str | None = None


class Common(_Strict):
    """What both kinds of completion take."""

    model: str
    max_tokens: int | None = Field(default=None, ge=0)
    temperature: float = Field(default=1.0, ge=0, le=2)
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int = Field(default=0, ge=-1, le=2**31)  # 0 and −1 keep every token
    n: int = Field(default=1, ge=1, le=MAX_CHOICES)
    stop: Annotated[list[Annotated[str, Field(min_length=1, max_length=1000)]], BeforeValidator(one_or_many)] = Field(
        default=[], max_length=4
    )
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stream: bool = False
    stream_options: StreamOptions | None = None
    logit_bias: dict[str, float] = Field(default={}, max_length=1024)
    prompt_logprobs: int | None = Field(default=None, ge=0, le=MAX_LISTED)
    user: str | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.stream and self.prompt_logprobs is not None:
            raise bad("prompt_logprobs come with a whole answer: leave out stream", "prompt_logprobs")
        if self.stream_options is not None and not self.stream:
            raise bad("stream_options are for stream: true", "stream_options")
        return self

    def bias(self) -> tuple[tuple[int, float], ...]:
        """(token id, number added to its logit)."""
        entries = []
        for id, number in self.logit_bias.items():
            if not id.isascii() or not id.isdigit() or not -100 <= number <= 100:
                raise bad("logit_bias maps token ids to numbers from -100 to 100", "logit_bias")
            entries.append((int(id), number))
        return tuple(entries)


class ChatRequest(Common):
    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    logprobs: bool = False
    top_logprobs: int | None = Field(default=None, ge=0, le=MAX_LISTED)
    store: bool = False  # the person agrees that the prompt is kept for training

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.top_logprobs is not None and not self.logprobs:
            raise bad("top_logprobs needs logprobs: true", "top_logprobs")
        if self.max_tokens == 0:
            raise bad("max_tokens must be at least 1", "max_tokens")
        if None not in (self.max_tokens, self.max_completion_tokens) and self.max_tokens != self.max_completion_tokens:
            raise bad("max_tokens and max_completion_tokens differ; give one of them", "max_tokens")
        if self.messages[-1].role == "assistant":
            raise bad("the last message is the assistant's; end with what it shall answer", "messages")
        return self


class CompletionRequest(Common):
    store: Literal[False] = False  # only chats are collected
    prompt: Annotated[list[str | list[int]], BeforeValidator(prompts)]
    echo: bool = False
    logprobs: int | None = Field(default=None, ge=0, le=MAX_LISTED)
    best_of: int | None = None
    add_special_tokens: bool = True  # a begin token before a prompt given as text, where the tokenizer has one

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.best_of not in (None, self.n):
            raise bad(
                "best_of is not done; ask for n samples and choose among them", "best_of", "unsupported_parameter"
            )
        if self.max_tokens == 0 and not self.echo and self.prompt_logprobs is None:
            raise bad("max_tokens may be 0 only with echo or prompt_logprobs", "max_tokens")
        return self


T = TypeVar("T", bound=Common)


def parse(kind: type[T], body: bytes) -> T:
    """The request in a body.

    Raises:
        ApiError: no JSON, or nothing that can be asked for.
    """
    try:
        asked = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise bad(f"the body is not JSON: {error}") from None
    if not isinstance(asked, dict):
        raise bad("the body is not a JSON object")
    asked = _without_null(asked)
    for name in NO_EFFECT:
        asked.pop(name, None)
    for name, harmless in NOT_DONE.items():
        if asked.get(name) not in (None, *harmless):
            raise bad(f"{name} is not done by this server; leave it out", name, "unsupported_parameter")
        asked.pop(name, None)
    if isinstance(asked.get("messages"), list):
        asked["messages"] = [_without_null(m) if isinstance(m, dict) else m for m in asked["messages"]]
    try:
        return kind.model_validate(asked)
    except ValidationError as error:
        raise _first(error) from None


def _without_null(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _first(error: ValidationError) -> ApiError:
    """The first thing that is wrong, by its place in the body."""
    found = error.errors(include_url=False, include_context=False)[0]
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in found["loc"]).lstrip(".")
    if found["type"] == "extra_forbidden":
        return bad(f"{place} is not a field of this request", place, "unknown_parameter")
    if found["type"] == "missing":
        return bad(f"{place} is missing", place, "missing_required_parameter")
    return bad(f"{place}: {said(found)}", place, "invalid_value")
