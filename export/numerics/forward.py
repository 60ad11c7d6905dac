"""A LLaMA-family network in fp32, in NumPy, run one layer at a time while the exporter writes the weights.

Some token rows are carried from layer to layer. The first ones are calibration rows: they give the moments of each
matrix's inputs (rounding.py). The others give the fp32 scores of the quality card (card.py), which are the reference
for a model of any size, in the memory of one layer. The matrices are those of the file, folded and rotated, before
their rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from dearlite.export.numerics.rotation import HADAMARD_BLOCK, hadamard
from dearlite.export.numerics.rounding import Moments
from dearlite.export.source.families import LlamaShape

MomentsPair = tuple[Moments | None, Moments | None]
_CHUNK_TOKENS = 2048  # tokens processed together: the widest array of a layer is (tokens, 2 x ffn) float32


class ForwardPass:
    """Hidden states of token rows on their way through the network: `x`, (tokens of all rows, hidden) float32."""

    def __init__(
        self,
        shape: LlamaShape,
        calibration: Sequence[Any],
        scored: Sequence[Any],
        *,
        block_hadamard: bool,
        pad_id: int | None = None,
    ) -> None:
        """`calibration` and `scored` are (tokens,) int64 rows: for `Moments`, and for `scores`.

        With `block_hadamard` the input of the down projection is multiplied by block Hadamards, as its weights are. The
        score of a row is read at its last token or, with `pad_id`, at the end of the row padded with that token to
        `max_tokens` (pooling.py).
        """
        self.shape, self.block_hadamard = shape, block_hadamard
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
        """Sets the hidden states of the tokens whose ids are in `block`, the embedding's rows from `first` on."""
        here = np.flatnonzero((self.ids >= first) & (self.ids < first + len(block)))
        self.x[here] = block[self.ids[here] - first]

    def attend(self, qkv: Any, o: Any, vectors: dict[str, Any]) -> MomentsPair:
        """Runs the attention half of a layer. Returns the moments of the inputs of `qkv` and of `o`, both (in, out).

        `vectors` holds those of "qkv.bias" (out,), "q_norm" and "k_norm" (head_dim,), and "o.norm" (hidden,), the gain
        of a norm after the half, that the family has. Without calibration rows both moments are None.
        """
        moments = self._moments(qkv, o)
        for spans, calibrating in self._chunks():
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
            if calibrating:
                _add(moments, x, attended)
            self.x[start:stop] += self._added(attended @ o, vectors.get("o.norm"))
        return moments

    def feed(self, gate_up: Any, down: Any, norm: Any = None) -> MomentsPair:
        """Runs the feed-forward half of a layer. Returns the moments of the inputs of `gate_up` and of `down`.

        `norm` is the gain of a norm after the half, (hidden,).
        """
        moments = self._moments(gate_up, down)
        for spans, calibrating in self._chunks():
            start, stop = spans[0][0], spans[-1][1]
            x = self._normalised(self.x[start:stop])
            gate, up = np.split(x @ gate_up, 2, axis=1)
            gated(gate, up, self.shape.activation)
            if self.block_hadamard:
                blocks = up.reshape(len(up), -1, HADAMARD_BLOCK)
                up = (blocks @ hadamard(HADAMARD_BLOCK).astype(np.float32)).reshape(len(up), -1)
            if calibrating:
                _add(moments, x, up)
            self.x[start:stop] += self._added(up @ down, norm)
        return moments

    def read_scores(self, head: Any) -> None:
        """Sets `scores`, one per scored row in order; called after the last layer. `head` is (hidden, 1)."""
        spans = self.spans[self.calibration_rows :]
        if not self.shape.causal:
            self.scores = [float((self._normalised(self.x[start:stop]) @ head).mean()) for start, stop in spans]
            return
        last = [stop - 1 for _, stop in spans]
        self.scores = [float(score) for score in (self._normalised(self.x[last]) @ head)[:, 0]]

    def _moments(self, reading: Any, writing: Any) -> MomentsPair:
        """Empty moments for a matrix that reads the residual stream and for one that writes it.

        The first has a single group, because its leading directions are computed from it.
        """
        if not self.calibration_rows:
            return None, None
        return Moments(len(reading), group=len(reading)), Moments(len(writing))

    def _chunks(self) -> Iterator[tuple[list[tuple[int, int]], bool]]:
        """Spans of complete rows, about `_CHUNK_TOKENS` together, with True for calibration rows."""
        parts = ((self.spans[: self.calibration_rows], True), (self.spans[self.calibration_rows :], False))
        for spans, calibrating in parts:
            chunk: list[tuple[int, int]] = []
            for span in spans:
                if chunk and span[1] - chunk[0][0] > _CHUNK_TOKENS:
                    yield chunk, calibrating
                    chunk = []
                chunk.append(span)
            if chunk:
                yield chunk, calibrating

    def _added(self, change: Any, norm: Any) -> Any:
        """The values that half a layer adds to the hidden states, normalised with the gain `norm` if there is one."""
        return change if norm is None else self._normalised(change) * norm

    def _scores(self, products: Any) -> Any:
        """The scores of attention before softmax, from the products of queries and keys (heads, tokens, tokens)."""
        return products * np.float32(self.shape.head_dim**-0.5)

    def _normalised(self, x: Any) -> Any:
        """RMSNorm without its gain, which is folded into the next matrix."""
        return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + np.float32(self.shape.epsilon))

    def _attention(self, qkv: Any, vectors: dict[str, Any], *, padded: bool) -> Any:
        """Grouped-query attention within one row, causal if the network is: (tokens, heads * head_dim).

        With `padded` the last token is the padding at the end of the padded row. No token attends to it, not even
        itself.
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
        logits = self._scores(logits.reshape(s.heads, tokens, tokens))
        if s.causal:
            logits[:, *np.triu_indices(tokens, 1)] = -np.inf
        if padded:
            logits[:, -1, -1] = -np.inf
        weights = np.exp(logits - logits.max(axis=2, keepdims=True))
        weights /= weights.sum(axis=2, keepdims=True)
        mixed = weights.reshape(s.kv_heads, groups * tokens, tokens) @ v
        return mixed.reshape(s.heads, tokens, s.head_dim).transpose(1, 0, 2).reshape(tokens, -1)

    def _rotated(self, heads: Any, positions: Any) -> Any:
        """The heads with rotary positions (arXiv 2104.09864), in pairs half a head apart as in transformers."""
        cos, sin = self.cos[positions], self.sin[positions]
        a, b = np.split(heads, 2, axis=2)
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=2)


def gated(gate: Any, up: Any, activation: str) -> None:
    """Multiplies `up` in place by the activation of `gate`; `activation` is an entry of a family's `activations`."""
    if activation == "silu":
        up *= gate
        up /= 1 + np.exp(-gate)  # SiLU(gate) * up
        return
    if activation == "gelu_pytorch_tanh":
        share = 1 + np.tanh(np.float32(0.7978845608) * (gate + np.float32(0.044715) * gate**3))  # sqrt(2 / pi)
    else:
        share = 1 + _erf(gate * np.float32(0.5**0.5))
    up *= np.float32(0.5) * gate * share


def _erf(x: Any) -> Any:
    """The error function within 1.5e-7 (Abramowitz and Stegun 1964, formula 7.1.26): NumPy has none."""
    t = 1 / (1 + np.float32(0.3275911) * np.abs(x))
    terms = (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)
    sum_of_terms = np.zeros_like(t)
    for term in terms:
        sum_of_terms = (sum_of_terms + np.float32(term)) * t
    return np.sign(x) * (1 - sum_of_terms * np.exp(-x * x))


def _add(moments: MomentsPair, *inputs: Any) -> None:
    for moment, rows in zip(moments, inputs, strict=True):
        assert moment is not None, "calibrating without calibration rows"
        moment.add(rows)
