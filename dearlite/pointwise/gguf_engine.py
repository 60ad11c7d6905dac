"""The llama.cpp engine of pointwise GGUF files: scores of token rows, several documents of a query in one call.

The tokens that the rows of a query begin with are read once; the documents follow as sequences that share their cells.
Sums of a matrix product depend in their last bits on the number of rows, so that a score moves by about 1e-3 with the
documents beside it; the ONNX engine's scores do not.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from threading import Event
from typing import TYPE_CHECKING

import numpy as np

from dearlite.llama.context import BATCH_TOKENS, Plan
from dearlite.llama.model import LlamaModel
from dearlite.pointwise.likelihood import asked_at_once, log_probability, pieces
from dearlite.pointwise.tokens import TokenRow

if TYPE_CHECKING:
    from numpy.typing import NDArray

_DOCUMENTS = 32  # the most sequences of one call
_ROOM_STEP = 1024  # tokens by which a context grows: a longer row does not make a new one each time


@dataclass(frozen=True, slots=True)
class Reading:
    """The output that makes the score, one of four.

    `head`: the product of the last hidden state with it, (hidden,) float32. `tokens`: the logit of the first less that
    of the second, or the first alone. `likelihood`: the sum of the log-probabilities of the query's tokens, which close
    the row. None of them: the file's own rank head, of a model that reads a row at once.
    """

    head: NDArray[np.float32] | None = None
    tokens: tuple[int, ...] = ()
    likelihood: bool = False

    @property
    def ranks(self) -> bool:
        """True for the file's own rank head."""
        return self.head is None and not self.tokens and not self.likelihood


@dataclass(frozen=True, slots=True)
class Tail:
    """The ids of a row after those that it shares; the last `closing` of them are the query."""

    ids: list[int]
    closing: int = 0


class GgufBackend(LlamaModel):
    """A loaded pointwise model. Calls from several threads take turns, a batch of rows at a time."""

    reading = Reading()
    _beginning: tuple[int, ...] | None = None  # the ids in sequence 0

    def score(self, rows: Iterable[TokenRow], cancel: Event | None = None) -> Generator[float, None, None]:
        """The raw score of each row, in order. Rows are taken as needed. Raises Interrupted when `cancel` is set."""
        if self.reading.ranks:
            for batch in _whole_rows(rows):
                with self.turn(cancel):
                    scores = self._rank(batch, cancel)
                yield from scores
            return
        for beginning, tails in _groups(rows):
            with self.turn(cancel):
                scores = self._read_tails(beginning, tails, cancel)
            yield from scores

    def _rank(self, rows: Sequence[list[int]], cancel: Event | None) -> list[float]:
        """The rank scores of whole rows, read in one call."""
        tokens = _rounded(sum(map(len, rows)))
        self.open(Plan(tokens, _DOCUMENTS, shared=True, batch=tokens, ranks=True))
        batch = dict(enumerate(rows))
        self.read(batch, batch.keys(), cancel)
        return [self.rank_score(sequence) for sequence in batch]

    def _read_tails(self, beginning: tuple[int, ...], tails: Sequence[Tail], cancel: Event | None) -> list[float]:
        """The scores of the rows `beginning` + tail."""
        room = _rounded(len(beginning) + max(BATCH_TOKENS, sum(len(tail.ids) for tail in tails)))
        plan, known = Plan(room, 1 + _DOCUMENTS, shared=True), self._beginning
        self._beginning = None  # until all calls have succeeded
        if known != beginning or not self.has(plan):
            self.open(plan)
            self._read_alone(0, beginning, cancel)
        documents = range(1, 1 + len(tails))
        self.share(documents)
        try:
            batch = dict(zip(documents, tails, strict=True))
            if self.reading.likelihood:
                scores = self._likelihoods(batch, cancel)
            else:
                scores = self._scores({sequence: tail.ids for sequence, tail in batch.items()}, cancel)
        finally:
            for sequence in documents:
                self.clear(sequence)
        self._beginning = beginning
        return scores

    def _scores(self, tails: dict[int, list[int]], cancel: Event | None) -> list[float]:
        if self.reading.head is None:
            if len(tails) == 1:
                ((sequence, tail),) = tails.items()
                self._read_alone(sequence, tail[:-1], cancel)
                tails = {sequence: tail[-1:]}
            self.read(tails, tails.keys(), cancel)
            rows = np.cumsum([len(tail) for tail in tails.values()]) - 1
            return [self._answer(self.logits(int(row))) for row in rows]
        # llama.cpp computes the vocabulary's logits beside each hidden state: the last tokens are read by themselves.
        self._read_silently({sequence: tail[:-1] for sequence, tail in tails.items()}, cancel)
        last = {sequence: tail[-1:] for sequence, tail in tails.items()}
        self.read(last, last.keys(), cancel, hidden=True)
        return [float(self.hidden(row) @ self.reading.head) for row in range(len(last))]

    def _likelihoods(self, tails: dict[int, Tail], cancel: Event | None) -> list[float]:
        """The sum of the log-probabilities of each tail's query: each token's, by the logits after the one before it.

        The query's last token need not be read.
        """
        starts = {sequence: len(tail.ids) - tail.closing - 1 for sequence, tail in tails.items()}
        self._read_silently({sequence: tail.ids[: starts[sequence]] for sequence, tail in tails.items()}, cancel)
        predicting = {sequence: tail.ids[starts[sequence] : -1] for sequence, tail in tails.items()}
        following = {sequence: iter(tail.ids[starts[sequence] + 1 :]) for sequence, tail in tails.items()}
        scores = dict.fromkeys(tails, 0.0)
        for piece in pieces(predicting, asked_at_once(self.vocabulary.size)):
            self.read(piece, piece.keys(), cancel, every=True)
            for row, sequence in enumerate(sequence for sequence, tokens in piece.items() for _ in tokens):
                scores[sequence] += log_probability(self.logits(row), next(following[sequence]))
        return list(scores.values())

    def _answer(self, logits: NDArray[np.float32]) -> float:
        """logit(yes) - logit(no), or logit(yes)."""
        yes, *no = (float(logits[token]) for token in self.reading.tokens)
        return yes - sum(no)

    def _read_silently(self, tails: dict[int, list[int]], cancel: Event | None) -> None:
        """Reads tokens of the sequences, without an output."""
        if len(tails) == 1:
            ((sequence, tail),) = tails.items()
            self._read_alone(sequence, tail, cancel)
        elif bodies := {sequence: tail for sequence, tail in tails.items() if tail}:
            self.read(bodies, (), cancel)

    def _read_alone(self, sequence: int, tokens: Sequence[int], cancel: Event | None) -> None:
        """Reads tokens of one sequence, without an output."""
        for start in range(0, len(tokens), BATCH_TOKENS):
            self.read({sequence: tokens[start : start + BATCH_TOKENS]}, (), cancel)


def _rounded(tokens: int) -> int:
    return -(-tokens // _ROOM_STEP) * _ROOM_STEP


def _groups(rows: Iterable[TokenRow]) -> Iterator[tuple[tuple[int, ...], list[Tail]]]:
    """Rows that begin alike, as their beginning and the rest of each: together as many tokens as a call reads."""
    beginning: tuple[int, ...] = ()
    tails: list[Tail] = []
    tokens = 0
    for row in rows:
        ids = row.ids.tolist()
        own = len(ids) - row.closing - 1  # the token before the query is read beside it
        alike = bool(tails) and own >= len(beginning) and tuple(ids[: len(beginning)]) == beginning
        full = len(tails) == _DOCUMENTS or tokens + len(ids) - len(beginning) > BATCH_TOKENS
        if tails and (not alike or full):
            yield beginning, tails
            tails, tokens = [], 0
        if not alike:
            beginning = tuple(ids[: min(row.prefix, own)])
        tails.append(Tail(ids[len(beginning) :], row.closing))
        tokens += len(tails[-1].ids)
    if tails:
        yield beginning, tails


def _whole_rows(rows: Iterable[TokenRow]) -> Iterator[list[list[int]]]:
    """Rows, together as many tokens as a call reads."""
    batch: list[list[int]] = []
    for row in rows:
        ids = row.ids.tolist()
        if batch and (len(batch) == _DOCUMENTS or sum(map(len, batch)) + len(ids) > BATCH_TOKENS):
            yield batch
            batch = []
        batch.append(ids)
    if batch:
        yield batch
