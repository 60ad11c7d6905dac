"""Stage 1's batches: planned before the first step, and encoded by the code that the runtime encodes with."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dearlite.export.train.config import PointwiseConfig
from dearlite.export.train.records.groups import Group, Passage
from dearlite.pointwise.prompts import PAIR_FORMS
from dearlite.pointwise.tokens import PairEncoder

_LIKE_BATCHES = 16  # batches are cut from so many times their size, sorted by length

Drawn = tuple[int, int]  # a group's index, and the number of this draw of it


def plan(groups: Sequence[Group], batch: int, batches: int, seed: int) -> list[Drawn]:
    """What each place of each batch is, in order: every group once an epoch, groups of like length together.

    The padding of a batch is what its rows differ by; batches cut from 16 times their size, sorted, differ little, and
    their own order is shuffled again. The rest of an epoch that fills no batch is left out of it.
    """
    lengths = [length_of(group) for group in groups]
    size, flat, epoch = min(batch, len(groups)), list[Drawn](), 0
    while len(flat) < batches * size:
        rng = random.Random(f"{seed} {epoch}")
        order = list(range(len(groups)))
        rng.shuffle(order)
        epoch_batches = []
        for start in range(0, len(order), _LIKE_BATCHES * size):
            alike = sorted(order[start : start + _LIKE_BATCHES * size], key=lengths.__getitem__)
            epoch_batches += [alike[at : at + size] for at in range(0, len(alike) - size + 1, size)]
        rng.shuffle(epoch_batches)
        flat += [(index, epoch) for chosen in epoch_batches for index in chosen]
        epoch += 1
    return flat[: batches * size]


def length_of(group: Group) -> float:
    """The characters of a pair, on average: what its batch is chosen by."""
    passages = (*group.positives, *group.negatives)
    return len(group.query) + sum(len(one.document.text) for one in passages) / len(passages)


@dataclass(frozen=True, slots=True)
class Collator:
    """Turns drawn groups into tensors: rows (rows, longest), and where each row's score goes in (queries, passages)."""

    groups: Sequence[Group]
    encoder: PairEncoder
    config: PointwiseConfig
    pad_id: int

    def __call__(self, drawn: Sequence[Drawn]) -> dict[str, Any]:
        """`labels` and `mask` are (queries, passages), `teacher` too, NaN where there is no score."""
        import torch

        form = PAIR_FORMS[self.config.prompt]
        shape = (len(drawn), self.config.passages)
        labels, teacher = torch.zeros(shape), torch.full(shape, float("nan"))
        mask, rows, places = torch.zeros(shape, dtype=torch.bool), [], []
        for line, (index, draw) in enumerate(drawn):
            group = self.groups[index]
            passages = self._passages(group, index, draw)
            texts = [form.document(one.document) for one in passages]
            for column, row in enumerate(self.encoder.pairs(self.encoder.ids(form.query(group.query)), texts)):
                rows.append(torch.from_numpy(row.ids))
                places.append(line * shape[1] + column)
                teacher[line, column] = passages[column].teacher_score
            labels[line, 0] = 1.0  # a positive comes first
            mask[line, : len(passages)] = True
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=self.pad_id)
        lengths = torch.tensor([len(row) for row in rows])
        return {
            "input_ids": ids,
            "attention_mask": (torch.arange(ids.shape[1]) < lengths[:, None]).long(),
            "places": torch.tensor(places),
            "labels": labels,
            "teacher": teacher,
            "mask": mask,
            "names": [self.groups[index].query_id for index, _ in drawn],
        }

    def _passages(self, group: Group, index: int, draw: int) -> tuple[Passage, ...]:
        return group.sample(self.config.passages, random.Random(f"{self.config.seed} {index} {draw}"))
