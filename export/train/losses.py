"""The losses of stage 1, each over groups: logits of shape (queries, passages), one number a batch.

A group is one query's passages; those that a shorter group does not have are masked out. `labels` are 1 for a positive
and 0 for a negative, `teacher` are the teacher's logits. Importing this needs no torch: it comes with the tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

TEMPERATURE = 2.0
ALPHA = 0.1
_FAR = -1e9  # a masked logit: exp() of it is 0, and 0 times it is finite, which -inf is not


def softmax_ce(logits: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Softmax cross-entropy of each positive against the group's negatives, as RankLLaMA trains (Ma et al. 2023).

    With several positives it is the mean over them, each against the negatives alone (localised contrastive estimation,
    Gao et al. 2021). Example: logits [2, 0], labels [1, 0] -> ln(1 + e^-2) = 0.126928.
    """
    negatives = logits.masked_fill(~mask | (labels > 0), _FAR)
    both = negatives.logsumexp(-1, keepdim=True).logaddexp(logits)  # (queries, passages): each passage's own partition
    return _mean(both - logits, mask & (labels > 0))


def ranknet(logits: Tensor, order: Tensor, mask: Tensor) -> Tensor:
    """RankNet (Burges et al. 2005): mean of ln(1 + e^(s_j - s_i)) over the pairs in which `order` has i above j.

    `order` is the labels, or the teacher's scores. Example: logits [1, 0], order [1, 0] -> ln(1 + e^-1) = 0.313262.
    """
    import torch

    above = order.unsqueeze(-1) > order.unsqueeze(-2)  # (queries, i, j)
    pairs = above & mask.unsqueeze(-1) & mask.unsqueeze(-2)
    return _mean(torch.nn.functional.softplus(logits.unsqueeze(-2) - logits.unsqueeze(-1)), pairs)


def distillation(logits: Tensor, teacher: Tensor, mask: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """KL(softmax(teacher/T) ‖ softmax(logits/T)), mean over groups (Hinton et al. 2015); times T² where it is used.

    Example: logits [0, 0], teacher [2, 0], T 2 -> ln 2 - H(0.731059) = 0.110944.
    """
    ours = (logits / temperature).masked_fill(~mask, _FAR).log_softmax(-1)
    theirs = (teacher / temperature).masked_fill(~mask, _FAR).log_softmax(-1)
    each = (theirs.exp() * (theirs - ours)).masked_fill(~mask, 0.0).sum(-1)  # (queries,)
    return _mean(each, mask.any(-1))


def margin_mse(logits: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Margin-MSE (Hofstätter et al. 2020, arXiv 2010.02666): the teacher's differences are learnt, not only their sign.

    The mean of ((s_i - s_j) - (t_i - t_j))² over all pairs of a group, where the paper has a positive and a negative.
    Example: logits [1, 0], teacher [4, 0] -> (1 - 4)² = 9.
    """
    gap = logits - teacher
    pairs = mask.unsqueeze(-1) & mask.unsqueeze(-2)
    return _mean((gap.unsqueeze(-1) - gap.unsqueeze(-2)) ** 2, pairs.triu(1))


@dataclass(frozen=True, slots=True)
class RankLoss:
    """One value of `rank_loss`: a function of (logits, labels, teacher, mask), and whether the teacher is all of it."""

    of: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    by_teacher: bool = False  # a group without the teacher's scores teaches it nothing


RANK_LOSSES = {
    "ce": RankLoss(lambda logits, labels, _, mask: softmax_ce(logits, labels, mask)),
    "ranknet": RankLoss(lambda logits, labels, _, mask: ranknet(logits, labels, mask)),
    "ranknet-teacher": RankLoss(lambda logits, _, teacher, mask: ranknet(logits, teacher, mask), by_teacher=True),
    "ce+ranknet": RankLoss(
        lambda logits, labels, _, mask: 0.5 * softmax_ce(logits, labels, mask) + 0.5 * ranknet(logits, labels, mask)
    ),
    "margin-mse": RankLoss(lambda logits, _, teacher, mask: margin_mse(logits, teacher, mask), by_teacher=True),
}


def stage_one(
    logits: Tensor,
    labels: Tensor,
    teacher: Tensor | None,
    mask: Tensor,
    *,
    rank_loss: str = "ranknet",
    alpha: float = ALPHA,
    temperature: float = TEMPERATURE,
) -> Tensor:
    """DeAR's loss (arXiv 2508.16998): (1 - alpha) · L_rank + alpha · T² · KL. Without a teacher's scores L_rank alone.

    A group whose teacher's scores are not all there (NaN) counts in L_rank alone.
    """
    if teacher is None:
        return RANK_LOSSES[rank_loss].of(logits, labels, labels, mask)
    known = mask & ~(teacher.isnan() & mask).any(-1, keepdim=True)
    teacher = teacher.nan_to_num(0.0)
    loss = RANK_LOSSES[rank_loss]
    judged = mask & known if loss.by_teacher else mask
    rank = loss.of(logits, labels, teacher, judged) if alpha < 1 else logits.sum() * 0.0
    kl = distillation(logits, teacher, known, temperature) if alpha > 0 else logits.sum() * 0.0
    return (1 - alpha) * rank + alpha * temperature**2 * kl


def _mean(values: Tensor, where: Tensor) -> Tensor:
    """The mean of `values` where `where` is true, 0 where it is true nowhere."""
    return values.masked_fill(~where, 0.0).sum() / where.sum().clamp(min=1)
