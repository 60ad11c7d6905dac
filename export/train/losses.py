"""The losses of stage 1. Each takes logits of shape (queries, passages) and returns one number for the batch.

A row is a group: the passages of one query. `mask` is False at positions that a shorter group does not fill. `labels`
are 1 for a positive and 0 for a negative, `teacher` are the teacher's logits. Importing this module does not import
torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

TEMPERATURE = 2.0
ALPHA = 0.1
_FAR = -1e9  # value of masked logits: its exp() is 0, and 0 times it is finite, unlike with -inf


def softmax_ce(logits: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Softmax cross-entropy of each positive against the group's negatives, as RankLLaMA trains (Ma et al. 2023).

    With several positives, the mean over them, each against the negatives alone (localised contrastive estimation,
    Gao et al. 2021). Example: logits [2, 0], labels [1, 0] -> ln(1 + e^-2) = 0.126928.
    """
    negatives = logits.masked_fill(~mask | (labels > 0), _FAR)
    partition = negatives.logsumexp(-1, keepdim=True).logaddexp(logits)  # (queries, passages): one per passage
    return _mean(partition - logits, mask & (labels > 0))


def ranknet(logits: Tensor, order: Tensor, mask: Tensor) -> Tensor:
    """RankNet (Burges et al. 2005): mean of ln(1 + e^(s_j - s_i)) over the pairs in which `order` has i above j.

    `order` is the labels, or the teacher's scores. Example: logits [1, 0], order [1, 0] -> ln(1 + e^-1) = 0.313262.
    """
    import torch

    preferred = order.unsqueeze(-1) > order.unsqueeze(-2)  # (queries, i, j)
    pairs = preferred & mask.unsqueeze(-1) & mask.unsqueeze(-2)
    return _mean(torch.nn.functional.softplus(logits.unsqueeze(-2) - logits.unsqueeze(-1)), pairs)


def distillation(logits: Tensor, teacher: Tensor, mask: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """KL(softmax(teacher/T) ‖ softmax(logits/T)), mean over groups (Hinton et al. 2015). The caller multiplies by T².

    Example: logits [0, 0], teacher [2, 0], T 2 -> ln 2 - H(0.731059) = 0.110944.
    """
    student_log = (logits / temperature).masked_fill(~mask, _FAR).log_softmax(-1)
    teacher_log = (teacher / temperature).masked_fill(~mask, _FAR).log_softmax(-1)
    divergences = (teacher_log.exp() * (teacher_log - student_log)).masked_fill(~mask, 0.0).sum(-1)  # (queries,)
    return _mean(divergences, mask.any(-1))


def margin_mse(logits: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Margin-MSE (Hofstätter et al. 2020, arXiv 2010.02666) between the score differences of student and teacher.

    The mean of ((s_i - s_j) - (t_i - t_j))² over all pairs of a group; the paper pairs each positive with a negative.
    Example: logits [1, 0], teacher [4, 0] -> (1 - 4)² = 9.
    """
    gap = logits - teacher
    pairs = mask.unsqueeze(-1) & mask.unsqueeze(-2)
    return _mean((gap.unsqueeze(-1) - gap.unsqueeze(-2)) ** 2, pairs.triu(1))


@dataclass(frozen=True, slots=True)
class RankLoss:
    """A value of `rank_loss`: a function of (logits, labels, teacher, mask)."""

    function: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    teacher_only: bool = False  # True if it ignores the labels: groups without teacher scores add nothing to it


RANK_LOSSES = {
    "ce": RankLoss(lambda logits, labels, _, mask: softmax_ce(logits, labels, mask)),
    "ranknet": RankLoss(lambda logits, labels, _, mask: ranknet(logits, labels, mask)),
    "ranknet-teacher": RankLoss(lambda logits, _, teacher, mask: ranknet(logits, teacher, mask), teacher_only=True),
    "ce+ranknet": RankLoss(
        lambda logits, labels, _, mask: 0.5 * softmax_ce(logits, labels, mask) + 0.5 * ranknet(logits, labels, mask)
    ),
    "margin-mse": RankLoss(lambda logits, _, teacher, mask: margin_mse(logits, teacher, mask), teacher_only=True),
}


def stage_one_loss(
    logits: Tensor,
    labels: Tensor,
    teacher: Tensor | None,
    mask: Tensor,
    *,
    rank_loss: str = "ranknet",
    alpha: float = ALPHA,
    temperature: float = TEMPERATURE,
) -> Tensor:
    """DeAR's loss (arXiv 2508.16998): (1 - alpha) · L_rank + alpha · T² · KL; L_rank alone if `teacher` is None.

    A group with a missing teacher score (NaN) contributes to L_rank only.
    """
    if teacher is None:
        return RANK_LOSSES[rank_loss].function(logits, labels, labels, mask)
    scored = mask & ~(teacher.isnan() & mask).any(-1, keepdim=True)  # (queries, passages): whole groups only
    teacher = teacher.nan_to_num(0.0)
    loss = RANK_LOSSES[rank_loss]
    ranked = scored if loss.teacher_only else mask
    rank = loss.function(logits, labels, teacher, ranked) if alpha < 1 else logits.sum() * 0.0
    kl = distillation(logits, teacher, scored, temperature) if alpha > 0 else logits.sum() * 0.0
    return (1 - alpha) * rank + alpha * temperature**2 * kl


def _mean(values: Tensor, where: Tensor) -> Tensor:
    """The mean of `values` at the positions where `where` is True; 0 if there is none."""
    return values.masked_fill(~where, 0.0).sum() / where.sum().clamp(min=1)
