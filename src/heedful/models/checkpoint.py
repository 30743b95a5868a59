"""Checkpoints: a folder in Hugging Face's format that says what it is and what it was made from.

    model.safetensors, config.json, …   the decoder (policy) or its trunk (reward model)
    head.safetensors                    the scalar head of a reward model
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
from heedful.models.load import ABOUT, check_kind, compute_device, load_decoder, load_tokenizer, load_trunk
from heedful.models.lora import merged

FORMAT = 1
HEAD = "head.safetensors"
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
    """Adapters are merged into the weights. `guideline`: how principles stand before the prompts it learned from."""
    more = {} if guideline is None else {"guideline": guideline.model_dump(mode="json")}
    _save(folder, "reward_model", merged(model.trunk), model.head, tokenizer, parents, more)


def load_policy(name_or_path: Path | str) -> tuple[Policy, PreTrainedTokenizerBase]:
    """A saved policy, or any decoder by hub name or folder, in eval mode on `compute_device()`.

    Raises:
        InputError: another kind of checkpoint, or whatever `load_decoder` refuses.
    """
    recover(Path(name_or_path))
    return Policy(load_decoder(name_or_path)).to(compute_device()).eval(), load_tokenizer(name_or_path)


def load_reward_model(
    folder: Path | str, guideline: Config | None = None
) -> tuple[RewardModel, PreTrainedTokenizerBase]:
    """A saved reward model, in eval mode on `compute_device()`.

    `guideline`: how principles will stand before the prompts it scores; None: there will be none.

    Raises:
        InputError: another kind of checkpoint, broken files, or a model that has learned to read prompts otherwise.
    """
    trunk, head = _load(Path(folder))
    _check_guideline(Path(folder), guideline)
    return RewardModel(trunk, head).to(compute_device()).eval(), load_tokenizer(folder)


def load_value_model(folder: Path | str) -> ValueModel:
    """A value model that begins as the saved reward model (InstructGPT, section 3.5), whatever prompts that one reads.

    Raises:
        InputError: another kind of checkpoint, or broken files.
    """
    return ValueModel(*_load(Path(folder))).to(compute_device()).eval()


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
) -> None:
    about = {"kind": kind, "format": FORMAT, "parents": dict(parents), **more}
    with _written_aside(folder) as partial:
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        if head is not None:
            save_file({name: x.detach().contiguous() for name, x in head.state_dict().items()}, partial / HEAD)
        (partial / ABOUT).write_text(json.dumps(about, indent=2, sort_keys=True) + "\n", encoding="utf-8")


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
