"""How far one model is from another that reads more: exact KL over the vocabulary at each response token.

Both see the same responses, the teacher behind longer prompts. Shapes: N rows, R response tokens of a row, M of all
rows, D hidden width, V vocabulary.
"""

import torch
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from heedful.batch import Rows
from heedful.losses.distil import kl_of_distributions
from heedful.losses.logprob import all_logprobs
from heedful.models.heads import MAX_LOGITS, Policy, states_at
from heedful.models.load import head_logits


def token_kl(student: Policy, rows: Rows, teacher: Policy, teacher_rows: Rows, ends: torch.Tensor) -> torch.Tensor:
    """KL(teacher ‖ student) of the next token at each response token, in nats, (N, R); gradient for the student alone.

    `teacher_rows` hold the same responses as `rows`. `ends` (E,) are the tokens that end a response, the end token
    first: to the teacher any of them is the end token.
    """
    mask = rows.mask
    row, step = mask.nonzero(as_tuple=True)
    hidden = states_at(student.decoder.get_decoder(), rows, row, rows.prompt_length[row] + step - 1)
    with torch.no_grad():
        position = teacher_rows.prompt_length[row] + step - 1
        known = states_at(teacher.decoder.get_decoder(), teacher_rows, row, position)
    size = max(1, MAX_LOGITS // student.decoder.get_output_embeddings().weight.shape[0])
    models = student.decoder, teacher.decoder
    if len(row) <= size:
        found = _read(*models, hidden, known, ends)
    else:
        pieces = zip(hidden.split(size), known.split(size), strict=True)
        found = torch.cat([checkpoint(_read, *models, h, k, ends, use_reentrant=False) for h, k in pieces])
    return found.new_zeros(mask.shape).index_put((row, step), found)


def _read(
    student: PreTrainedModel, teacher: PreTrainedModel, hidden: torch.Tensor, known: torch.Tensor, ends: torch.Tensor
) -> torch.Tensor:
    with torch.no_grad():
        target = ending_alike(all_logprobs(head_logits(teacher, known)), ends)
    return kl_of_distributions(target, all_logprobs(head_logits(student, hidden)))


def ending_alike(logprobs: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    """Log-probabilities (M, V) where the first of the tokens `ends` (E,) has what all of them had, and the others none.

    >>> logprobs = torch.tensor([[0.5, 0.25, 0.25]]).log()
    >>> ending_alike(logprobs, torch.tensor([2, 0])).exp()
    tensor([[0.0000, 0.2500, 0.7500]])
    """
    together = logprobs[:, ends].logsumexp(1, keepdim=True)
    found = logprobs.index_fill(1, ends, float("-inf"))
    return found.index_copy(1, ends[:1], together)
