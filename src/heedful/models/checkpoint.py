"""Checkpoints: a folder in Hugging Face's format that says what it is and what it was made from.

    model.safetensors, config.json, …   the decoder (policy) or its trunk (reward model)
    head.safetensors                    the scalar head of a reward model
    adapters.safetensors                of a reward model that was trained with low-rank adapters these alone, beside
                                        weights with them merged in: they fit over what it was trained from
    tokenizer.json, …                   the tokenizer
    heedful.json                        kind, format version, parents (name → hash); of a reward model that follows
                                        principles its guideline, without which nobody scores with it

A folder is written aside, flushed and renamed, so a reader finds the old one or the new one, never half.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from heedful.config import Config, InputError
from heedful.models.heads import Policy, RewardModel, ValueModel
from heedful.models.load import (
    ABOUT,
    check_kind,
    compute_device,
    kind_of,
    load_decoder,
    load_tokenizer,
    load_trunk,
    reinitialized,
)
from heedful.models.lora import attach_lora, has_adapters, merged, over_one_base
from heedful.models.quantized import BasePrecision, quantize

FORMAT = 1
HEAD = "head.safetensors"
ADAPTERS = "adapters.safetensors"
Parents = Mapping[str, str]


def save_policy(folder: Path, policy: Policy, tokenizer: PreTrainedTokenizerBase, parents: Parents) -> None:
    """Any Hugging Face tool loads the result; adapters are merged into the weights."""
    _save(folder, "policy", merged(policy.decoder), None, tokenizer, parents)


def save_reward_model(
    folder: Path,
    model: RewardModel,
    tokenizer: PreTrainedTokenizerBase,
    parents: Parents,
    guideline: Config | None = None,
) -> None:
    """Adapters are merged into the weights, and kept beside them for `load_reward_model` with `over`, which takes the
    parent "model" for what they stand over. `guideline`: how principles stand behind the responses it learned from."""
    more: dict[str, Any] = {} if guideline is None else {"guideline": guideline.model_dump(mode="json")}
    adapters: dict[str, torch.Tensor] = {}
    if has_adapters(model.trunk):
        settings = model.trunk.peft_config["default"]
        more["adapters"] = {"rank": settings.r, "alpha": settings.lora_alpha}
        adapters = {name: p.detach().contiguous() for name, p in model.trunk.named_parameters() if "lora_" in name}
    _save(folder, "reward_model", merged(model.trunk), model.head, tokenizer, parents, more, adapters)


def load_policy(
    name_or_path: Path | str, base_precision: BasePrecision = "full"
) -> tuple[Policy, PreTrainedTokenizerBase]:
    """A saved policy, or any decoder by hub name or folder, in eval mode on `compute_device()`.

    `base_precision`: "nf4" for one that will train adapters alone, over weights in 4 bits.

    Raises:
        InputError: another kind of checkpoint, whatever `load_decoder` refuses, 4 bits that cannot be had here.
    """
    recover(Path(name_or_path))
    decoder = _in_precision(load_decoder(name_or_path), name_or_path, base_precision)
    return Policy(decoder).to(compute_device()).eval(), load_tokenizer(name_or_path)


def load_reward_model(
    folder: Path | str,
    guideline: Config | None = None,
    over: tuple[Policy, Path] | None = None,
    base_precision: BasePrecision = "full",
) -> tuple[RewardModel, PreTrainedTokenizerBase]:
    """A saved reward model, in eval mode on `compute_device()`.

    `guideline`: how principles will stand behind the responses it scores; None: there will be none.
    `over`: a policy and the folder it was loaded from, over whose weights its adapters are to stand; no second copy of
    them is kept. The policy has no adapters yet, and will train no other weights.
    `base_precision`: as of `load_policy`, adapters that it was trained with being merged; with `over`, the policy's.

    Raises:
        InputError: another kind of checkpoint, broken files, a model that has learned to read responses otherwise; with
            `over`, one without adapters, or with adapters over another model.
    """
    trunk, head = _load(Path(folder))
    _check_guideline(Path(folder), guideline)
    if over is not None:
        return _over(*over, Path(folder), head), load_tokenizer(folder)
    trunk = _in_precision(trunk, folder, base_precision)
    return RewardModel(trunk, head).to(compute_device()).eval(), load_tokenizer(folder)


def load_value_model(folder: Path | str, base_precision: BasePrecision = "full") -> ValueModel:
    """A value model that begins as the saved reward model (InstructGPT, section 3.5), whatever prompts that one reads.

    Raises:
        InputError: another kind of checkpoint, or broken files.
    """
    trunk, head = _load(Path(folder))
    return ValueModel(_in_precision(trunk, folder, base_precision), head).to(compute_device()).eval()


def begin_reward_model(
    folder: Path | str,
    seed: int,
    random: bool = False,
    guideline: Config | None = None,
    base_precision: BasePrecision = "full",
) -> tuple[RewardModel, PreTrainedTokenizerBase]:
    """A saved reward model as it stands; or a policy's trunk (`random`: one of its shape that has learned nothing)
    under a new head.

    Raises:
        InputError: as `load_policy` and `load_reward_model`.
    """
    if kind_of(folder) == "reward_model":
        return load_reward_model(folder, guideline, base_precision=base_precision)
    policy, tokenizer = load_policy(folder, base_precision)
    return RewardModel.from_decoder(reinitialized(policy.decoder, seed) if random else policy.decoder, seed), tokenizer


def guideline_of(folder: Path | str) -> Mapping[str, Any] | None:
    """The guideline that a saved reward model reads principles in, as plain values; None: it reads none."""
    return json.loads((Path(folder) / ABOUT).read_text(encoding="utf-8")).get("guideline")


def weights_hash(folder: Path | str) -> str:
    """SHA-256 of the folder's configuration and weights, head included: what parents are recorded by.

    Raises:
        InputError: the folder holds no weights.
    """
    files = sorted(Path(folder).glob("*.safetensors"))
    if not files:
        raise InputError(f"{folder}: holds no .safetensors weights; name a model folder")
    hashed = hashlib.sha256()
    for path in [Path(folder) / "config.json", *files]:
        hashed.update(f"{path.name}\n{path.stat().st_size}\n".encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                hashed.update(block)
    return hashed.hexdigest()


def recover(folder: Path) -> None:
    """Put back a checkpoint whose replacement was interrupted between moving the old away and the new in."""
    old = _aside(folder, "old")
    if old.exists() and not folder.exists():
        os.replace(old, folder)


def _save(
    folder: Path,
    kind: str,
    model: PreTrainedModel,
    head: torch.nn.Linear | None,
    tokenizer: PreTrainedTokenizerBase,
    parents: Parents,
    more: Mapping[str, Any] = MappingProxyType({}),
    adapters: Mapping[str, torch.Tensor] = MappingProxyType({}),
) -> None:
    about = {"kind": kind, "format": FORMAT, "parents": dict(parents), **more}
    with _written_aside(folder) as partial:
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        if head is not None:
            save_file({name: x.detach().contiguous() for name, x in head.state_dict().items()}, partial / HEAD)
        if adapters:
            save_file(dict(adapters), partial / ADAPTERS)
        (partial / ABOUT).write_text(json.dumps(about, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _in_precision(model: PreTrainedModel, source: Path | str, base_precision: BasePrecision) -> PreTrainedModel:
    if base_precision == "nf4":
        quantize(model, source, compute_device())
    return model


def _load(folder: Path) -> tuple[PreTrainedModel, torch.nn.Linear]:
    recover(folder)
    if not (folder / ABOUT).is_file():
        raise InputError(f"{folder}: not a reward model: it has no {ABOUT}; name a folder that heedful saved")
    check_kind(folder, "reward_model")
    trunk = load_trunk(folder)
    try:
        weights = load_file(folder / HEAD)
        head = torch.nn.Linear(weights["weight"].shape[1], 1)
        head.load_state_dict(weights)
    except (OSError, SafetensorError, KeyError, RuntimeError):
        raise InputError(f"{folder}: its {HEAD} is missing or broken; train or copy the reward model again") from None
    return trunk, head


def _check_guideline(folder: Path, guideline: Config | None) -> None:
    learned = guideline_of(folder)
    if guideline is None and learned is not None:
        raise InputError(
            f"{folder}: a reward model that follows principles, and without them its scores mean nothing; "
            "name one that was trained without a guideline"
        )
    if guideline is not None and learned is None:
        raise InputError(f"{folder}: a reward model that reads no principles; name one trained with a guideline")
    if guideline is not None and learned != guideline.model_dump(mode="json"):
        raise InputError(f"{folder}: it was trained with another guideline; score with {json.dumps(learned)}")


def _over(policy: Policy, policy_folder: Path, folder: Path, head: torch.nn.Linear) -> RewardModel:
    about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    if "adapters" not in about:
        raise InputError(f"{folder}: trained without adapters; train it with lora_rank, or set one_base: false")
    if about["parents"].get("model") != weights_hash(policy_folder):
        raise InputError(
            f"{folder}: its adapters stand over another model than {policy_folder}; train both from one, "
            "or set one_base: false"
        )
    trunk = over_one_base(policy.decoder.get_decoder())
    attach_lora(trunk, about["adapters"]["rank"], about["adapters"]["alpha"])
    saved, own = load_file(folder / ADAPTERS), {n: p for n, p in trunk.named_parameters() if "lora_" in n}
    if {name: x.shape for name, x in saved.items()} != {name: p.shape for name, p in own.items()}:
        raise InputError(f"{folder}: its {ADAPTERS} is broken; train or copy the reward model again")
    with torch.no_grad():
        for name, p in own.items():
            p.copy_(saved[name])
    return RewardModel(trunk, head.to(policy.device)).eval()


@contextmanager
def _written_aside(folder: Path) -> Iterator[Path]:
    """A new folder to write into, which takes the place of `folder` once everything in it is on disk."""
    recover(folder)
    partial, old = _aside(folder, "partial"), _aside(folder, "old")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        for path in [*partial.iterdir(), partial]:
            _flush(path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    if folder.exists():
        os.replace(folder, old)
    os.replace(partial, folder)
    _flush(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def _aside(folder: Path, what: str) -> Path:
    return folder.with_name(f"{folder.name}.{what}")


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
