"""The score head of a language model that answers in one of two words, made of two rows of its output matrix.

The score logit(yes) - logit(no) is the product of the last hidden state and w = lm_head[yes] - lm_head[no]; without
`no` it is that of the row `yes`. The network and its files are then those of a scorer with one label.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from dearlite.errors import CheckpointError
from dearlite.export.source.checkpoint import Floats, TensorSource
from dearlite.export.source.merge import EMBEDDING, OUTPUT

HEAD = "score.weight"


@dataclass(frozen=True, slots=True)
class Answers:
    """The ids of the tokens whose logits make the score; without `no` it is the logit of `yes`."""

    yes: int
    no: int | None = None

    def __str__(self) -> str:
        return f"lm_head[{self.yes}]" + ("" if self.no is None else f" - lm_head[{self.no}]")


class AnswerScorer(TensorSource):
    """A causal language model as the scorer that `answers` make of it; the head is the fp32 form of the stored rows.

    The output matrix is `lm_head.weight` or, where config.json ties it or the file has none, the embedding.
    """

    def __init__(self, source: TensorSource, answers: Answers) -> None:
        """Raises CheckpointError for ids outside the vocabulary."""
        self._source, self.answers = source, answers
        tied = bool(source.config.get("tie_word_embeddings", False)) or OUTPUT not in source.names
        self._matrix = EMBEDDING if tied else OUTPUT
        if self._matrix not in source.names:
            raise CheckpointError(f"the model has no {OUTPUT} and no {EMBEDDING}: fetch the model again")
        rows = source.shape(self._matrix)[0]
        for name, number in (("yes", answers.yes), ("no", answers.no)):
            if number is not None and not 0 <= number < rows:
                raise CheckpointError(
                    f"the score is read at the token {number} ({name}), and the output matrix has {rows} rows: fetch "
                    "the model again, all files of one revision"
                )
        self.config = {**source.config, "num_labels": 1}

    @property
    def names(self) -> Collection[str]:
        return [*(name for name in self._source.names if name != OUTPUT), HEAD]

    def shape(self, name: str) -> tuple[int, ...]:
        return (1, self._source.shape(self._matrix)[1]) if name == HEAD else self._source.shape(name)

    def rows(self, name: str, start: int, stop: int) -> Floats:
        if name != HEAD:
            return self._source.rows(name, start, stop)
        head = self._source.rows(self._matrix, self.answers.yes, self.answers.yes + 1)
        if self.answers.no is not None:
            head = head - self._source.rows(self._matrix, self.answers.no, self.answers.no + 1)
        return head[start:stop]
