"""Batches of stage 1: planned before the first step, and encoded by the code that the runtime encodes pairs with."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dearlite.export.train.config import PointwiseConfig
from dearlite.export.train.records.groups import Group, Passage
from dearlite.pointwise.prompts import PAIR_FORMS
from dearlite.pointwise.tokens import PairEncoder

_SORTED_BATCHES = 16  # batches that are cut from one run of groups sorted by length

Draw = tuple[int, int]  # index of a group, and the epoch of this draw: its passages are sampled by both


def plan_batches(groups: Sequence[Group], batch: int, batches: int, seed: int) -> list[Draw]:
    """The draws of `batches` batches of `batch` groups, one after the other: each group once per epoch.

    A batch is padded to its longest row, so groups of similar length are put together: each epoch is shuffled, runs of
    16 batches are sorted by length and cut, and the batches are shuffled again. Groups at the end of an epoch that do
    not fill a batch are left out of that epoch.
    """
    lengths = [mean_pair_length(group) for group in groups]
    size, draws, epoch = min(batch, len(groups)), list[Draw](), 0
    while len(draws) < batches * size:
        rng = random.Random(f"{seed} {epoch}")
        order = list(range(len(groups)))
        rng.shuffle(order)
        epoch_batches = []
        for start in range(0, len(order), _SORTED_BATCHES * size):
            by_length = sorted(order[start : start + _SORTED_BATCHES * size], key=lengths.__getitem__)
            epoch_batches += [by_length[at : at + size] for at in range(0, len(by_length) - size + 1, size)]
        rng.shuffle(epoch_batches)
        draws += [(index, epoch) for indices in epoch_batches for index in indices]
        epoch += 1
    return draws[: batches * size]


def mean_pair_length(group: Group) -> float:
    """Mean number of characters of the group's pairs of query and passage."""
    passages = (*group.positives, *group.negatives)
    return len(group.query) + sum(len(passage.document.text) for passage in passages) / len(passages)


@dataclass(frozen=True, slots=True)
class Collator:
    """Turns draws into the tensors of one batch: one row of ids per pair, and tables of (queries, passages)."""

    groups: Sequence[Group]
    encoder: PairEncoder
    config: PointwiseConfig
    pad_id: int

    def __call__(self, draws: Sequence[Draw]) -> dict[str, Any]:
        """`input_ids` and `attention_mask`: (rows, longest row). `positions`: (rows,), each row's index in the tables.

        The tables `labels`, `teacher` (NaN without a score) and `mask` are (queries, passages), read row by row by
        `positions`. `query_ids` name the batch in messages.
        """
        import torch

        form = PAIR_FORMS[self.config.prompt]
        shape = (len(draws), self.config.passages)
        labels, teacher = torch.zeros(shape), torch.full(shape, float("nan"))
        mask, rows, positions = torch.zeros(shape, dtype=torch.bool), [], []
        for line, (index, epoch) in enumerate(draws):
            group = self.groups[index]
            passages = self._passages(group, index, epoch)
            texts = [form.document(passage.document) for passage in passages]
            for column, row in enumerate(self.encoder.pairs(self.encoder.ids(form.query(group.query)), texts)):
                rows.append(torch.from_numpy(row.ids))
                positions.append(line * shape[1] + column)
                teacher[line, column] = passages[column].teacher_score
            labels[line, 0] = 1.0  # a positive comes first
            mask[line, : len(passages)] = True
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=self.pad_id)
        lengths = torch.tensor([len(row) for row in rows])
        return {
            "input_ids": ids,
            "attention_mask": (torch.arange(ids.shape[1]) < lengths[:, None]).long(),
            "positions": torch.tensor(positions),
            "labels": labels,
            "teacher": teacher,
            "mask": mask,
            "query_ids": [self.groups[index].query_id for index, _ in draws],
        }

    def _passages(self, group: Group, index: int, epoch: int) -> tuple[Passage, ...]:
        return group.sample(self.config.passages, random.Random(f"{self.config.seed} {index} {epoch}"))
