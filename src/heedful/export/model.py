"""A trained policy as a folder that any Hugging Face tool loads, with a card that tells what it was made from."""

import json
import os
import shutil
from pathlib import Path
from string import Formatter
from typing import Any, Literal

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from heedful.config import InputError, parse
from heedful.export.card import model_card
from heedful.models.checkpoint import load_policy
from heedful.models.load import load_decoder, load_tokenizer
from heedful.text.format import PromptFormat

ADAPTER = "adapter_config.json"

# One exchange is a user's message and the assistant's; every exchange but the last is a worked example. A question
# without an answer stands at the end, and the model's response follows it.
CHAT_TEMPLATE = """\
{%- set ask = namespace(text=none) -%}
BEGIN
{%- for message in messages -%}
{%- if message['role'] == 'user' and ask.text is none -%}
{%- set ask.text = message['content'] -%}
{%- elif message['role'] == 'assistant' and ask.text is not none -%}
{%- if loop.last -%}
{{- TEMPLATE ~ message['content'] ~ eos_token -}}
{%- else -%}
{{- EXAMPLE -}}
{%- endif -%}
{%- set ask.text = none -%}
{%- else -%}
{{- raise_exception('this model knows user and assistant messages in turn, and no others') -}}
{%- endif -%}
{%- endfor -%}
{%- if ask.text is not none -%}
{{- TEMPLATE -}}
{%- endif -%}"""


def export_model(folder: Path, out: Path, dtype: Literal["float32", "bfloat16", "float16"] = "float32") -> None:
    """Write the policy in `folder` (or the adapter there, merged into its base) to `out`, all or nothing.

    Raises:
        InputError: no policy there, or `out` is in the way.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} is there already; name a new folder")
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; name a policy's folder, such as RUN/round-1/ppo_ptx/model")
    decoder, tokenizer = load(folder)
    run = run_of(folder)
    if run is not None:
        format = trained_format(run)
        if format.style == "plain":
            tokenizer.chat_template = chat_template(format, begins=tokenizer.bos_token is not None)
    for config in (decoder.config, decoder.generation_config):
        if config is not None:
            config.bos_token_id, config.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
            config.pad_token_id = tokenizer.pad_token_id
    decoder.to(getattr(torch, dtype))
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        decoder.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        (partial / "README.md").write_text(model_card(folder, run, out.name), encoding="utf-8")
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    if out.exists():
        out.rmdir()
    os.replace(partial, out)


def load(folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The decoder, a LoRA adapter merged into it, and its tokenizer.

    Raises:
        InputError: whatever `load_policy` refuses, or an adapter that does not fit its base.
    """
    if not (folder / ADAPTER).is_file():
        policy, tokenizer = load_policy(folder)
        return policy.decoder, tokenizer
    from peft import PeftModel  # takes a second and more, and is for adapters only

    base = json.loads((folder / ADAPTER).read_text(encoding="utf-8"))["base_model_name_or_path"]
    decoder = load_decoder(base)
    try:
        decoder = PeftModel.from_pretrained(decoder, str(folder)).merge_and_unload()
    except (RuntimeError, ValueError, OSError, KeyError) as error:
        line = " ".join(str(error).split())
        raise InputError(f"{folder}: the adapter does not fit {base}: {line[:300]}") from None
    return decoder, load_tokenizer(folder if (folder / "tokenizer_config.json").is_file() else base)


def run_of(folder: Path) -> Path | None:
    """The run that the model's folder lies in; None for a model from elsewhere."""
    return next((place for place in folder.resolve().parents if (place / "recipe.json").is_file()), None)


def trained_format(run: Path) -> PromptFormat:
    """How the run wrote its prompts."""
    recipe: dict[str, Any] = json.loads((run / "recipe.json").read_text(encoding="utf-8"))
    return parse(PromptFormat, recipe["format"], "format")


def chat_template(format: PromptFormat, begins: bool) -> str:
    """A Jinja template that writes messages exactly as `text.format.prompt_tokens` writes prompts with examples.

    `begins`: the tokenizer has a begin token, which stands first.
    """
    template = _expression(format.template, {"prompt": "ask.text"})
    example = _expression(format.example, {"prompt": "ask.text", "response": "message['content']"})
    text = CHAT_TEMPLATE.replace("BEGIN", "{{- bos_token -}}" if begins else "{#- no begin token -#}")
    return text.replace("TEMPLATE", template).replace("EXAMPLE", example)


def _expression(text: str, names: dict[str, str]) -> str:
    """A format string as a Jinja expression: 'Q: ' ~ ask.text ~ '\\n'."""
    parts = []
    for literal, name, _, _ in Formatter().parse(text):
        if literal:
            escaped = literal.encode("unicode_escape").decode("ascii").replace("'", "\\'")
            parts.append(f"'{escaped}'")
        if name is not None:
            parts.append(names[name])
    return " ~ ".join(parts)
