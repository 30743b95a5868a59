"""Settings tables of the documentation, from the configuration classes and the comments beside their fields.

    python docs/generate.py            writes every table anew
    python docs/generate.py --check    only says which pages are stale; exit code 1 when one is

A page asks for a table with the line `<!-- settings:heedful.stages.sft.SFTConfig -->`; everything down to the next
`<!-- /settings -->` is replaced.
"""

import ast
import importlib
import inspect
import io
import re
import sys
import tokenize
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

DOCS = Path(__file__).parent
BLOCK = re.compile(r"(<!-- settings:([\w.]+) -->\n).*?(<!-- /settings -->)", re.DOTALL)

# Fields without a comment, or with one too short for a reader who does not see the code: "Class.field", or a name that
# several classes share.
SHARED = {
    "EvaluateConfig.baseline": "the policy others are compared with",
    "EvaluateConfig.labelers_per_prompt": "held-out labelers who judge each prompt",
    "LabelersConfig.heldout": "labelers in the held-out group; with people: how many there are; 0: nobody is held out",
    "LabelersConfig.judge": "`people`: the labelling store; the others simulate labelers",
    "PPOConfig.batch_size": "episodes in a rollout; the paper: 512",
    "PPOConfig.clip_range": "ratios beyond 1 ± this get no gradient; the paper: 0.2",
    "PPOConfig.discount": "of later rewards; the paper: none",
    "PPOConfig.inner_epochs": "passes over each rollout; the paper: 1",
    "PPOConfig.temperature": "of sampling, and of every log-probability in ratio and KL; the paper: 1",
    "PPOConfig.value_clip_range": "values moved further than this from the rollout's get no gradient; null: never",
    "PPOConfig.warmup_start": "share of the peak at which the warm-up begins; the paper: 0.1",
    "PPOConfig.whiten_advantage": "advantages scaled to mean 0, sd 1 over the rollout; not in the paper",
    "PoolSizes.evaluation": "prompts of the final evaluation",
    "PoolSizes.ppo": "prompts of PPO",
    "PoolSizes.reward_model": "prompts whose responses are ranked",
    "PoolSizes.sft": "prompts that labelers answer",
    "PromptFormat.example": "how one worked pair of a few-shot prompt is written",
    "PromptFormat.template": "what surrounds a prompt",
    "RankingsConfig.max_k": "most responses to a prompt; the paper: 9",
    "RankingsConfig.min_k": "fewest responses to a prompt; the paper: 4",
    "Recipe.evaluate": "the final evaluation",
    "Recipe.format": "how a prompt is written for the model",
    "Recipe.labelers": "who judges",
    "Recipe.name": "the recipe's name in results",
    "Recipe.pools": "how many prompts each pool holds",
    "Recipe.ppo": "PPO; `variants` lists several policies",
    "Recipe.pretrain": "a model from scratch instead of `model`",
    "Recipe.rankings": "how many responses are ranked, and whose",
    "Recipe.reward_model": "the reward model",
    "Recipe.dpo": "DPO; `variants` lists several policies",
    "Recipe.best_of_n": "rejection-sampling fine-tuning; `variants` lists several policies",
    "Recipe.grpo": "GRPO; `variants` lists several policies",
    "Recipe.rloo": "RLOO; `variants` lists several policies",
    "Recipe.nlpo": "NLPO; `variants` lists several policies",
    "Recipe.reinforce": "REINFORCE; `variants` lists several policies",
    "Recipe.rounds": "turns of rank, train the reward model, PPO",
    "Recipe.seed": "fixes every draw of the run",
    "Recipe.distil": "context distillation of the pretrained model; `variants` lists several",
    "Recipe.sft": "supervised fine-tuning; `variants` lists several policies",
    "Recipe.stories": "prompts cut from stories",
    "Recipe.world": "the embedded world",
    "SFTConfig.residual_dropout": "on each branch before it joins the residual stream; the paper: 0.2",
    "StoriesConfig.max_words": "most words of a prompt",
    "StoriesConfig.min_words": "fewest words of a prompt",
    "StoriesConfig.separator": "what parts two stories in the file",
    "SampleConfig.max_k": "most responses to a prompt",
    "SampleConfig.min_k": "fewest responses to a prompt",
    "WorldConfig.document_tokens": "tokens of training text the world writes",
    "WorldConfig.valid_document_tokens": "tokens of held-out text",
    "lr": "peak learning rate",
    "max_grad_norm": "gradients are scaled down to this norm",
    "max_new_tokens": "the longest response, in tokens",
    "precision": "`auto`: bf16 products where the hardware has them, else fp32; the weights are fp32 always",
    "temperature": "of sampling",
    "warmup_steps": "steps of linear warm-up",
    "weight_decay": "AdamW's, on matrices only",
}


def field_comments(model: type[BaseModel]) -> dict[str, str]:
    """The comment at the end of each field's lines, in the class that declares it."""
    source = inspect.getsource(model)
    comments: dict[int, str] = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            comments[token.start[0]] = token.string.lstrip("# ").strip()
    found = {}
    for node in ast.parse(source).body[0].body:  # type: ignore[attr-defined]
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
            found[node.target.id] = " ".join(comments[line] for line in lines if line in comments)
    return found


def shown(value: Any, choice: bool = False) -> str:
    """A default as it would stand in a recipe; `choice` says that it is one of a few names."""
    if value is None:
        return "none"
    if isinstance(value, BaseModel):
        return "its own defaults"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.6g}"
    if choice:
        return f"`{value}`"
    if isinstance(value, str):
        return '`"' + value.replace("\n", "\\n") + '"`'
    if isinstance(value, tuple | dict):
        return "empty"
    return str(value)


def allowed(info: FieldInfo) -> str:
    """The values a field takes: its choices or bounds, else its kind."""
    kinds = get_args(info.annotation) if get_origin(info.annotation) in (Union, UnionType) else (info.annotation,)
    for kind in kinds:
        if get_origin(kind) is Literal:
            return ", ".join(f"`{choice}`" for choice in get_args(kind))
    bounds = {}
    for limit in info.metadata:
        for name, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<")):
            if hasattr(limit, name):
                bounds[sign] = f"{getattr(limit, name):g}"
    if bounds:
        return ", ".join(f"{sign} {bound}" for sign, bound in bounds.items())
    kind = kinds[0]
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return "a block"
    return {bool: "true, false", str: "text", int: "a number", float: "a number"}.get(kind, "a block")


def table(model: type[BaseModel]) -> str:
    """A Markdown table, one line per field that the class itself declares.

    Raises:
        LookupError: a field that neither a comment nor `SHARED` explains.
    """
    comments = field_comments(model)
    lines = ["| setting | default | allowed | meaning |", "|---|---|---|---|"]
    own = {name: info for name, info in model.model_fields.items() if name in model.__annotations__}
    for name, info in own.items():
        meaning = SHARED.get(f"{model.__name__}.{name}") or comments.get(name) or SHARED.get(name)
        if not meaning:
            raise LookupError(f"{model.__module__}.{model.__qualname__}.{name}: write a comment beside it")
        values = allowed(info)
        default = info.get_default(call_default_factory=True)
        value = "required" if info.is_required() else shown(default, choice=values.startswith("`"))
        cells = f"`{name}`", value, values, meaning
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def filled(text: str) -> str:
    """The page with every settings table written anew."""

    def replace(found: re.Match[str]) -> str:
        module, _, name = found[2].rpartition(".")
        return found[1] + table(getattr(importlib.import_module(module), name)) + found[3]

    return BLOCK.sub(replace, text)


def stale() -> list[Path]:
    """Pages whose tables differ from the code."""
    return [page for page in sorted(DOCS.glob("*.md")) if filled(text := page.read_text(encoding="utf-8")) != text]


def main() -> int:
    found = stale()
    if "--check" in sys.argv:
        print(
            "\n".join(f"{page}: stale; run python docs/generate.py" for page in found) or "docs: every table is current"
        )
        return bool(found)
    for page in found:
        page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")
        print(f"{page}: written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
