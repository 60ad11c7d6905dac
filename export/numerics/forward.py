"""The network in fp32, a layer at a time, in NumPy: what the exporter knows of a model while it streams past.

Some rows of tokens are carried from layer to layer beside the writing. Of the first ones the exporter learns what goes
into each matrix (rounding.py), and of the others what fp32 scores them (card.py): the reference, for a model of any
size, in the memory of one layer. The matrices are those that are written, before their rounding: folded and rotated.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from dearlite.export.numerics.rotation import HADAMARD_BLOCK, hadamard
from dearlite.export.numerics.rounding import Moments
from dearlite.export.source.families import LlamaShape

MomentsOfTwo = tuple[Moments | None, Moments | None]
_CHUNK_TOKENS = 2048  # at work at once: the widest value of a layer is (tokens, 2 x ffn) float32


class ForwardPass:
    """Token rows on their way through the network; `x` is (tokens of all rows, hidden) float32."""

    def __init__(
        self,
        shape: LlamaShape,
        calibration: Sequence[Any],
        scored: Sequence[Any],
        *,
        mixes: bool,
        pad_id: int | None = None,
    ) -> None:
        """`calibration` and `scored` are (tokens,) int64 rows: studied by `Moments`, and scored.

        `mixes` says that the down projection's input is multiplied by block Hadamards, as its weights then are. A
        scored row is read at its last token or, with `pad_id`, at the end of a row padded with it to `max_tokens`
        (pooling.py).
        """
        self.shape, self.mixes = shape, mixes
        short = [pad_id is not None and len(row) < shape.max_tokens for row in scored]
        padded = (np.append(row, [pad_id]) if is_short else row for row, is_short in zip(scored, short, strict=True))
        rows = [*calibration, *padded]
        self.ids = np.concatenate(rows) if rows else np.zeros(0, np.int64)
        ends = np.cumsum([len(row) for row in rows], dtype=np.int64)
        self.spans = [(int(end) - len(row), int(end)) for row, end in zip(rows, ends, strict=True)]
        self.calibration_rows = len(calibration)
        self.padding = {span for span, is_short in zip(self.spans[len(calibration) :], short, strict=True) if is_short}
        self.scores: list[float] = []
        self.x = np.zeros((len(self.ids), shape.hidden), np.float32)
        angles = np.outer(np.arange(shape.max_tokens), np.array(shape.frequencies))
        self.cos, self.sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)

    def embed(self, first: int, block: Any) -> None:
        """Gives the tokens whose ids lie in `block`, the embedding's rows from `first` on, their vectors."""
        here = np.flatnonzero((self.ids >= first) & (self.ids < first + len(block)))
        self.x[here] = block[self.ids[here] - first]

    def attend(self, qkv: Any, o: Any, vectors: dict[str, Any]) -> MomentsOfTwo:
        """The attention half of a layer: the moments of what went into `qkv` and into `o`, both (in, out).

        `vectors` holds what the family has of "qkv.bias" (out,), "q_norm" and "k_norm" (head_dim,). There are no
        moments without calibration rows.
        """
        moments = self._moments(qkv, o)
        for spans, studied in self._chunks():
            start, stop = spans[0][0], spans[-1][1]
            x = self._normalised(self.x[start:stop])
            projected = x @ qkv
            if "qkv.bias" in vectors:
                projected += vectors["qkv.bias"]
            attended = np.concatenate(
                [
                    self._attention(projected[a - start : b - start], vectors, padded=(a, b) in self.padding)
                    for a, b in spans
                ]
            )
            if studied:
                _add(moments, x, attended)
            self.x[start:stop] += attended @ o
        return moments

    def feed(self, gate_up: Any, down: Any) -> MomentsOfTwo:
        """The feed-forward half of a layer: the moments of what went into `gate_up` and into `down`."""
        moments = self._moments(gate_up, down)
        for spans, studied in self._chunks():
            start, stop = spans[0][0], spans[-1][1]
            x = self._normalised(self.x[start:stop])
            gate, up = np.split(x @ gate_up, 2, axis=1)
            up *= gate
            up /= 1 + np.exp(-gate)  # SiLU(gate) * up
            if self.mixes:
                blocks = up.reshape(len(up), -1, HADAMARD_BLOCK)
                up = (blocks @ hadamard(HADAMARD_BLOCK).astype(np.float32)).reshape(len(up), -1)
            if studied:
                _add(moments, x, up)
            self.x[start:stop] += up @ down
        return moments

    def read_scores(self, head: Any) -> None:
        """Sets `scores`, of the scored rows in order, once the last layer is behind them; `head` is (hidden, 1)."""
        last = [stop - 1 for _, stop in self.spans[self.calibration_rows :]]
        self.scores = [float(score) for score in (self._normalised(self.x[last]) @ head)[:, 0]]

    def _moments(self, reading: Any, writing: Any) -> MomentsOfTwo:
        """For a matrix that reads the residual stream, whose leading directions are wanted, and one that writes."""
        if not self.calibration_rows:
            return None, None
        return Moments(len(reading), group=len(reading)), Moments(len(writing))

    def _chunks(self) -> Iterator[tuple[list[tuple[int, int]], bool]]:
        """Whole rows, about `_CHUNK_TOKENS` together, and whether they are calibration rows."""
        parts = ((self.spans[: self.calibration_rows], True), (self.spans[self.calibration_rows :], False))
        for spans, studied in parts:
            chunk: list[tuple[int, int]] = []
            for span in spans:
                if chunk and span[1] - chunk[0][0] > _CHUNK_TOKENS:
                    yield chunk, studied
                    chunk = []
                chunk.append(span)
            if chunk:
                yield chunk, studied

    def _normalised(self, x: Any) -> Any:
        """RMSNorm without its gain, which stands in the next matrix."""
        return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + np.float32(self.shape.epsilon))

    def _attention(self, qkv: Any, vectors: dict[str, Any], *, padded: bool) -> Any:
        """Causal grouped-query attention of one row on itself: (tokens, heads * head_dim).

        A padding token stands at the padded row's last position, and no token sees it, itself included.
        """
        s, tokens = self.shape, len(qkv)
        positions = np.arange(tokens)
        heads = qkv.reshape(tokens, s.heads + 2 * s.kv_heads, s.head_dim).transpose(1, 0, 2)
        q, k, v = heads[: s.heads], heads[s.heads : s.heads + s.kv_heads], heads[s.heads + s.kv_heads :]
        if "q_norm" in vectors:
            q, k = self._normalised(q) * vectors["q_norm"], self._normalised(k) * vectors["k_norm"]
        if padded:
            positions[-1] = s.max_tokens - 1
        q, k = self._rotated(q, positions), self._rotated(k, positions)
        groups = s.heads // s.kv_heads
        logits = q.reshape(s.kv_heads, groups * tokens, s.head_dim) @ k.transpose(0, 2, 1)
        logits = logits.reshape(s.heads, tokens, tokens) * np.float32(s.head_dim**-0.5)
        logits[:, *np.triu_indices(tokens, 1)] = -np.inf
        if padded:
            logits[:, -1, -1] = -np.inf
        weights = np.exp(logits - logits.max(axis=2, keepdims=True))
        weights /= weights.sum(axis=2, keepdims=True)
        mixed = weights.reshape(s.kv_heads, groups * tokens, tokens) @ v
        return mixed.reshape(s.heads, tokens, s.head_dim).transpose(1, 0, 2).reshape(tokens, -1)

    def _rotated(self, heads: Any, positions: Any) -> Any:
        """Rotary positions (arXiv 2104.09864), pairs half a head apart as transformers has them."""
        cos, sin = self.cos[positions], self.sin[positions]
        a, b = np.split(heads, 2, axis=2)
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=2)


def _add(moments: MomentsOfTwo, *inputs: Any) -> None:
    for moment, rows in zip(moments, inputs, strict=True):
        assert moment is not None, "there are calibration rows"
        moment.add(rows)
