"""Loading any Hugging Face decoder: fp32 masters, our attention, dropout off, and nothing silently random.

What is loaded is compared with the architecture's own attention and logits on a few tokens, whole and laid out as rows
of which few tokens are read, so an architecture that does something heedful does not know is refused when it is loaded,
not noticed when it has trained.
"""

import copy
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, StrictDataclassError
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from heedful.config import InputError
from heedful.models.attention import use_attention
from heedful.models.packed import Packed
from heedful.models.read import read_of_rows

DEVICE_VARIABLE = "HEEDFUL_DEVICE"  # where to compute, for whoever does not want the first GPU
ABOUT = "heedful.json"  # written beside the weights of a checkpoint: kind, parents, format version
PROBE_TOKENS, PROBE_ROW = 9, 4  # and how many of them make a second row

# Per architecture, the modules of a layer whose output joins the residual stream.
RESIDUAL_BRANCHES = {
    "llama": ("self_attn", "mlp"),
    "qwen3": ("self_attn", "mlp"),
    "mistral": ("self_attn", "mlp"),
    "gpt_neox": ("attention", "mlp"),
    "gpt2": ("attn", "mlp"),
    "gemma3_text": ("post_attention_layernorm", "post_feedforward_layernorm"),
}

logging.disable_progress_bar()  # heedful shows its own


def compute_device() -> torch.device:
    """Where models are trained and sampled from: a GPU where there is one, else the CPU; HEEDFUL_DEVICE says otherwise.

    Raises:
        InputError: HEEDFUL_DEVICE names a device that is not there.
    """
    asked = os.environ.get(DEVICE_VARIABLE)
    if not asked:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.zeros(0, device=asked).device
    except (RuntimeError, AssertionError) as error:
        why = f"{DEVICE_VARIABLE}={asked}: {_first_line(error)}"
        raise InputError(f"{why}; heedful doctor shows what there is") from None


def load_decoder(name_or_path: str | Path) -> PreTrainedModel:
    """A causal language model from a hub name or a folder: fp32, in eval mode, dropout 0, attention by `attend`.

    Raises:
        InputError: missing or broken files, weights that do not fit the architecture, an architecture not supported.
    """
    check_kind(name_or_path, "policy")
    config = _config(name_or_path)
    model = _weights(AutoModelForCausalLM, name_or_path, config)
    return _prepare(model)


def load_trunk(path: str | Path) -> PreTrainedModel:
    """A decoder without its language-model head, as reward models store it; else like `load_decoder`."""
    model = _weights(AutoModel, path, _config(path))
    use_attention(model)
    return model.eval()


def load_tokenizer(name_or_path: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a hub name or a folder.

    Raises:
        InputError: there is none, or its files are broken.
    """
    _check_exists(name_or_path)
    try:
        return AutoTokenizer.from_pretrained(name_or_path)
    except Exception as error:  # tokenizers raises bare Exception for a broken tokenizer.json
        raise InputError(f"{name_or_path}: no tokenizer could be read: {_first_line(error)}") from None


def from_scratch(config: dict[str, Any], seed: int = 0) -> PreTrainedModel:
    """A model with random weights from a Hugging Face configuration: {"model_type": "llama", "hidden_size": 128, …}.

    Raises:
        InputError: no or an unknown model_type, an unknown key, a value the architecture cannot have.
    """
    values = dict(config)
    model_type = values.pop("model_type", None)
    if model_type is None:
        raise InputError("model shape: model_type is missing; write for example model_type: llama")
    try:
        default = AutoConfig.for_model(model_type)
    except ValueError:
        raise InputError(f"model shape: unknown model_type {model_type!r}; for example llama") from None
    unknown = [key for key in values if not hasattr(default, key)]
    if unknown:
        raise InputError(f"model shape: {unknown[0]} is not a setting of {model_type}")
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            shape = AutoConfig.for_model(model_type, **values)
            model = AutoModelForCausalLM.from_config(_without_dropout(shape), dtype=torch.float32)
        return _prepare(model)
    except (  # transformers checks some values, and stumbles over the others
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        ArithmeticError,
        RuntimeError,
        StrictDataclassError,
    ) as error:
        asked = ", ".join(f"{key} {value}" for key, value in values.items())
        raise InputError(f"model shape ({model_type}): {_first_line(error)}; change one of {asked}") from None


def set_residual_dropout(model: PreTrainedModel, p: float) -> None:
    """Drop entries of each sublayer's output with probability p before it joins the residual stream, in train() only.

    InstructGPT fine-tunes with p = 0.2 (appendix C.1). Calling again sets another p; 0 turns it off.

    Raises:
        InputError: an architecture other than the six that are tested.
    """
    name = model.config.model_type
    if name not in RESIDUAL_BRANCHES:
        known = ", ".join(RESIDUAL_BRANCHES)
        raise InputError(f"residual dropout is not known for architecture {name!r}, only for {known}; set it to 0")
    trunk = model.get_decoder()
    for layer in trunk.h if name == "gpt2" else trunk.layers:
        for branch in RESIDUAL_BRANCHES[name]:
            module = layer.get_submodule(branch)
            if not hasattr(module, "residual_dropout"):
                module.register_forward_hook(_drop)
            module.residual_dropout = p


def _drop(module: torch.nn.Module, args: Any, output: Any) -> Any:
    p = module.residual_dropout
    if not module.training or p == 0:
        return output
    if isinstance(output, tuple):
        return (torch.nn.functional.dropout(output[0], p), *output[1:])  # type: ignore[arg-type]
    return torch.nn.functional.dropout(output, p)  # type: ignore[arg-type]


def context_length(model: PreTrainedModel) -> int:
    """The most tokens, prompt and response together, that the model has positions for.

    Raises:
        InputError: its configuration does not say.
    """
    length = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if length is None:
        raise InputError(
            f"architecture {model.config.model_type!r} names no max_position_embeddings in its config.json"
        )
    return length


def head_logits(decoder: PreTrainedModel, hidden: torch.Tensor) -> torch.Tensor:
    """Logits (…, V), in the weights' precision but at least fp32, of the trunk's hidden states (…, D)."""
    head = decoder.get_output_embeddings()
    config = decoder.config.get_text_config()
    dtype = torch.promote_types(head.weight.dtype, torch.float32)
    with torch.autocast(hidden.device.type, enabled=False):
        bias = None if head.bias is None else head.bias.to(dtype)
        logits = torch.nn.functional.linear(hidden.to(dtype), head.weight.to(dtype), bias)
    if (scale := getattr(config, "logit_scale", None)) is not None:  # Cohere
        logits = logits * scale
    if (scaling := getattr(config, "logits_scaling", None)) is not None:  # Granite
        logits = logits / scaling
    if (cap := getattr(config, "final_logit_softcapping", None)) is not None:  # Gemma 2
        logits = torch.tanh(logits / cap) * cap
    return logits


def kind_of(path: str | Path) -> str | None:
    """What the folder says it is; None where it is no checkpoint of heedful's."""
    about = Path(path) / ABOUT
    return json.loads(about.read_text(encoding="utf-8"))["kind"] if about.is_file() else None


def check_kind(path: str | Path, kind: str) -> None:
    """Raises InputError when the folder is a heedful checkpoint of another kind."""
    found = kind_of(path)
    if found is not None and found != kind:
        raise InputError(
            f"{path} holds a {found.replace('_', ' ')}, not a {kind.replace('_', ' ')}; name another folder"
        )


def _prepare(model: PreTrainedModel) -> PreTrainedModel:
    """Switch to our attention and compare logits with the architecture's own on a few tokens."""
    model.eval()
    tokens = torch.arange(PROBE_TOKENS)[None] % model.config.get_text_config().vocab_size
    if not model._supports_attention_backend:
        use_attention(model)  # refuses, by name
    with torch.no_grad():
        model.set_attn_implementation("eager")
        theirs = model(input_ids=tokens, use_cache=False).logits.float()
        use_attention(model)
        ours = head_logits(model, model.get_decoder()(input_ids=tokens, use_cache=False).last_hidden_state)
        parts = torch.cat(_two_rows(model, tokens[0]))
        theirs = torch.cat([theirs[0], theirs[0, [PROBE_TOKENS - 1, PROBE_ROW - 1] * 2]])
        ours = torch.cat([ours[0], head_logits(model, parts)])
    if not torch.allclose(ours, theirs, rtol=1e-3, atol=1e-3 * float(theirs.abs().max())):
        raise InputError(
            f"architecture {model.config.model_type!r} computes attention or logits in a way heedful does not know "
            f"(logits differ by {float((ours - theirs).abs().max()):.1e}); choose another model"
        )
    return model


def _two_rows(model: PreTrainedModel, tokens: torch.Tensor) -> list[torch.Tensor]:
    """Hidden states (2, D) at the end of the tokens and of their first few: laid end to end, and as two rows."""
    length = torch.tensor([len(tokens), PROBE_ROW])
    packed = Packed(length, len(tokens))
    at = torch.arange(2), length - 1
    both = tokens.repeat(2, 1)
    laid = model.get_decoder()(
        input_ids=packed.take(both)[None],
        position_ids=packed.position[None],
        use_cache=False,
        laid=packed,
        read=packed.read(*at),
    )
    padded = model.get_decoder()(input_ids=both, use_cache=False, read=read_of_rows(both, *at))
    return [laid.last_hidden_state[0, packed.index(*at)], padded.last_hidden_state[at]]


def _config(name_or_path: str | Path) -> PreTrainedConfig:
    _check_exists(name_or_path)
    try:
        return _without_dropout(AutoConfig.from_pretrained(name_or_path))
    except (OSError, ValueError, KeyError, TypeError, StrictDataclassError) as error:
        raise InputError(f"{name_or_path}: its configuration cannot be read: {_first_line(error)}") from None


def _weights(kind: Any, name_or_path: str | Path, config: PreTrainedConfig) -> PreTrainedModel:
    try:
        with _quiet():  # what does not fit is refused below, on one line
            model, found = kind.from_pretrained(
                name_or_path,
                config=config,
                dtype=torch.float32,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # to be told which
            )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        raise InputError(f"{name_or_path}: its weights cannot be loaded: {_first_line(error)}") from None
    for what in ("missing", "unexpected", "mismatched"):
        keys = sorted(_described(key) for key in found.get(f"{what}_keys", ()))
        if keys:
            raise InputError(
                f"{name_or_path}: the weights are not those of a {config.model_type} as config.json describes it: "
                f"{len(keys)} {what}, first {keys[0]}; bring back the files that were saved together"
            )
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """transformers says nothing below an error."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _described(key: str | tuple[str, torch.Size, torch.Size]) -> str:
    """A weight's name; behind it its shape in the file and as it should be, where they differ."""
    if isinstance(key, str):
        return key
    name, found, wanted = key
    return f"{name} of shape {tuple(found)} for {tuple(wanted)}"


def _without_dropout(config: PreTrainedConfig) -> PreTrainedConfig:
    for key, value in config.to_dict().items():
        if ("dropout" in key or key.endswith("pdrop")) and isinstance(value, float) and value > 0:
            setattr(config, key, 0.0)
    return config


def _check_exists(name_or_path: str | Path) -> None:
    path = Path(name_or_path)
    hub_name = len(path.parts) in (1, 2) and not str(name_or_path).startswith((".", "~", "/"))
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise InputError(f"{path}: not a model folder: it has no config.json")
    elif path.is_file():
        raise InputError(f"{path}: a file; name the model's folder")
    elif not hub_name:
        raise InputError(f"{path}: no such folder; name a model folder or a hub name such as Qwen/Qwen3-0.6B")
    else:
        _check_hub(str(path))


def _check_hub(name: str) -> None:
    """Ask once whether there is a hub: transformers asks one that is not there for half a minute."""
    try:
        if try_to_load_from_cache(name, "config.json") is None:
            get_hf_file_metadata(hf_hub_url(name, "config.json"))
    except (HfHubHTTPError, HFValidationError):
        return  # it answers, or is not needed to refuse the name: loading says why
    except Exception as error:  # whatever the HTTP client raises
        why = f"{name}: no such folder, and the hub cannot be reached ({_first_line(error)})"
        raise InputError(f"{why}; name a model folder, or mend the connection") from None


def _first_line(error: Exception) -> str:
    """What went wrong, on one line: the first, or what stands below it where that only announces it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    line = lines[1].split("Error: ", 1)[-1] if lines[0].endswith(":") and len(lines) > 1 else lines[0]
    return line.rstrip(".")


def reinitialized(model: PreTrainedModel, seed: int) -> PreTrainedModel:
    """A model of the same shape with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        fresh = AutoModelForCausalLM.from_config(copy.deepcopy(model.config), dtype=torch.float32)
    return _prepare(fresh)
