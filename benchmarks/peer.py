"""The peer's trainers, configured for speed alone: no logging, saving, evaluating or checkpointing of activations."""

import os
import tempfile
from typing import Any

import torch
from common import BETAS, LR, clock, tokenizer
from datasets import Dataset
from transformers import LlamaForSequenceClassification, PreTrainedModel, TrainerCallback
from transformers.trainer_callback import TrainerControl, TrainerState
from transformers.training_args import TrainingArguments
from trl import RewardConfig, RewardTrainer, SFTConfig, SFTTrainer
from trl.experimental.ppo import PPOConfig, PPOTrainer

_folder = tempfile.TemporaryDirectory(prefix="trl-bench-")


class Timer(TrainerCallback):
    """Seconds from the beginning of the training loop to its end; setting up the trainer does not count."""

    def __init__(self) -> None:
        self.began = self.seconds = 0.0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.began = clock()

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.seconds = clock() - self.began


def settings() -> dict[str, Any]:
    """What all of its trainers are given."""
    return {
        "output_dir": os.path.join(_folder.name, "out"),
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "learning_rate": LR,
        "lr_scheduler_type": "constant",
        "optim": "adamw_torch_fused",
        "adam_beta1": BETAS[0],
        "adam_beta2": BETAS[1],
        "weight_decay": 0.0,
        "logging_strategy": "no",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": 0,
    }


def sequence_model(decoder: PreTrainedModel, head: torch.nn.Linear) -> LlamaForSequenceClassification:
    """The decoder's trunk under the head; the head's bias, which its class does not have, cancels in every pair."""
    decoder.config.num_labels = 1
    model = LlamaForSequenceClassification(decoder.config)
    model.model = decoder.model
    model.score.weight = head.weight
    return model.train()


def reward_trainer(
    model: LlamaForSequenceClassification, pairs: list[tuple[list[int], list[int]]], batch: int, per_step: int
) -> tuple[Any, Timer]:
    data = Dataset.from_dict({"chosen_ids": [a for a, _ in pairs], "rejected_ids": [b for _, b in pairs]})
    assert per_step % batch == 0
    layout = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": per_step // batch}
    args = RewardConfig(**settings(), **layout, num_train_epochs=1, max_length=None)
    timer = Timer()
    return RewardTrainer(model, args, train_dataset=data, processing_class=tokenizer(), callbacks=[timer]), timer


def sft_trainer(
    model: PreTrainedModel, data: list[tuple[list[int], list[int]]], layout: list[Any], updates: int, packed: bool
) -> tuple[SFTTrainer, Timer]:
    """One epoch in so many updates; unpacked, an update is so many demonstrations, packed, so many full rows."""
    rows, loss_type = layout[:2]
    columns = {
        "input_ids": [p + r for p, r in data],
        "labels": [[-100] * len(p) + r for p, r in data],
    }
    how: dict[str, Any] = {"loss_type": loss_type, "per_device_train_batch_size": rows, "num_train_epochs": 1}
    if packed:
        how |= {"packing": True, "max_length": layout[2], "shuffle_dataset": True}
    else:
        columns["length"] = [len(p) + len(r) for p, r in data]
        how |= {"train_sampling_strategy": "group_by_length", "max_length": None}
    args = SFTConfig(**settings(), **how)
    timer = Timer()
    trainer = SFTTrainer(
        model, args, train_dataset=Dataset.from_dict(columns), processing_class=tokenizer(), callbacks=[timer]
    )
    # how many rows there are is known once they are packed
    args.gradient_accumulation_steps = -(-len(trainer.train_dataset) // (rows * updates))
    trainer.accelerator.gradient_accumulation_steps = args.gradient_accumulation_steps
    return trainer, timer


def ppo_config(**layout: Any) -> PPOConfig:
    sampling = {"stop_token": "eos", "temperature": 1.0, "num_sample_generations": 0, "num_mini_batches": 1}
    return PPOConfig(**settings(), **sampling, **layout)


def ppo_trainer(
    args: PPOConfig, models: tuple[PreTrainedModel, ...], prompts: list[list[int]], timer: Timer
) -> PPOTrainer:
    """`models`: policy, reference, reward model, value model."""
    policy, ref_policy, reward_model, value_model = models
    trainer = PPOTrainer(
        args=args,
        processing_class=tokenizer(),
        model=policy,
        ref_model=ref_policy,
        reward_model=reward_model,
        value_model=value_model,
        train_dataset=Dataset.from_dict({"input_ids": prompts}),
        eval_dataset=Dataset.from_dict({"input_ids": prompts[:1]}),
        callbacks=[timer],
    )
    # else it would update at every micro-batch of the last batch of its prompts, and there is but one batch
    trainer.accelerator.gradient_state.plugin_kwargs["sync_with_dataloader"] = False
    return trainer


def watch_generate(model: PreTrainedModel) -> tuple[list[torch.Tensor], list[float]]:
    """Two lists that will hold the tokens (N, T) and the seconds of each later call of the model's generate."""
    found: list[torch.Tensor] = []
    seconds: list[float] = []
    generate = type(model).generate.__get__(model)

    def watched(*args: Any, **kwargs: Any) -> Any:
        began = clock()
        output = generate(*args, **kwargs)
        seconds.append(clock() - began)
        found.append(output.sequences)
        return output

    model.generate = watched
    return found, seconds
