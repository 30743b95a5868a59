"""The alignment tax: what learning from judgements costs in language loss, and what the pretraining mix gives back.

InstructGPT (arXiv 2203.02155), sections 4.2 and 5.2, appendix E.6: PPO makes a model worse at what it was pretrained
on; PPO-ptx mixes pretraining updates in and undoes most of that.
"""

from collections.abc import Mapping, Sequence
from typing import Any

UNMEASURED = "there is no held-out pretraining text"


def alignment_tax(
    start: str, lm_loss: Mapping[str, float | None], ppo: Sequence[str], plain_of: Mapping[str, str | None]
) -> dict[str, Any]:
    """How far each PPO policy's held-out loss rose over its start, and the share of a plain policy's rise undone.

    `lm_loss` holds nats per held-out pretraining token by policy, the start's among them. `plain_of` names, for each
    PPO policy with a pretraining mix, the one without that it is compared with; None where there is no such.

        rise(π) = loss(π) − loss(start)        share_undone(π) = 1 − rise(π) / rise(plain)

    Above 1 the policy ended below its start; below 0 the mix made it worse. What cannot be computed is None, and
    `reason` beside it says why.

    >>> tax = alignment_tax("sft", {"sft": 2.0, "ppo": 2.5, "ptx": 2.125}, ["ppo", "ptx"], {"ptx": "ppo"})
    >>> tax["policies"]["ppo"]["rise"], tax["policies"]["ptx"]["share_undone"]
    (0.5, 0.75)
    """
    begun = lm_loss[start]
    found: dict[str, Any] = {"start": start, "start_lm_loss": begun, "policies": {}}
    if begun is None:
        found["reason"] = {"start_lm_loss": UNMEASURED}
    for name in ppo:
        loss = lm_loss[name]
        row: dict[str, Any] = {"lm_loss": loss, "rise": None if loss is None or begun is None else loss - begun}
        if name in plain_of:
            row["share_undone"] = None
            plain = row["relative_to"] = plain_of[name]
            if plain is None:
                why = "there is no PPO without pretraining mix to compare with"
                row["reason"] = {"relative_to": why, "share_undone": why}
            elif begun is not None and loss is not None:
                row |= share_undone(begun, loss, lm_loss[plain], plain)
        if row["rise"] is None:
            row["reason"] = {key: UNMEASURED for key, value in row.items() if value is None} | row.get("reason", {})
        found["policies"][name] = row
    return found


def share_undone(start: float, loss: float, plain_loss: float | None, plain: str) -> dict[str, Any]:
    if plain_loss is None or plain_loss <= start:
        return {"share_undone": None, "reason": {"share_undone": f"{plain} paid no tax, so there is none to undo"}}
    return {"share_undone": (plain_loss - loss) / (plain_loss - start)}
