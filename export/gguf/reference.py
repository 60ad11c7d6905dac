"""fp32 logits of a language model at chosen positions of token rows, in NumPy, from streamed weights.

The layers are those of numerics/forward.py; the embedding and the output matrix arrive in blocks of rows. No model
library is involved: these logits are the reference that the file's logits are compared with (card.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dearlite.export.gguf.networks import Network
from dearlite.export.gguf.weights import Weight
from dearlite.export.numerics.forward import ForwardPass
from dearlite.export.source.checkpoint import Floats, TensorSource
from dearlite.export.source.merge import EMBEDDING, OUTPUT

# name in the GGUF -> the matrix or bias that it is a part of, and its number there; the preceding norm's gain is folded
# in. Two matrices that a checkpoint has as one begin at the first part.
_PARTS = {
    "attn_q": ("qkv", 0),
    "attn_k": ("qkv", 1),
    "attn_v": ("qkv", 2),
    "attn_qkv": ("qkv", 0),
    "attn_output": ("o", 0),
    "ffn_gate": ("gate_up", 0),
    "ffn_up": ("gate_up", 1),
    "ffn_down": ("down", 0),
}
_GAINS = {"attn_norm": "qkv", "ffn_norm": "gate_up"}
_VECTORS = {"attn_q_norm": "q_norm", "attn_k_norm": "k_norm", "post_attention_norm": "o.norm", "post_ffw_norm": "down"}
_ROWS_AT_ONCE = 4096  # of the embedding, when it is read again as the output matrix


class Reference(ForwardPass):
    """A forward pass that receives each weight once, in the order of `weights_of`.

    `logits` is (positions, vocabulary) float32.
    """

    shape: Network

    def __init__(self, shape: Network, rows: Sequence[Any], positions: Sequence[Sequence[int]]) -> None:
        """`rows` are (tokens,) int64 arrays of at most shape.max_tokens; `positions`: the chosen ones of each row."""
        super().__init__(shape, [], rows, block_hadamard=False)
        starts = [start for start, _ in self.spans]
        self.chosen = [start + at for start, chosen in zip(starts, positions, strict=True) for at in chosen]
        self.logits = np.zeros((0, shape.vocabulary), np.float32)
        s = shape
        q, kv = s.heads * s.head_dim, s.kv_heads * s.head_dim
        self._layouts = {
            "qkv": (s.hidden, (0, q, q + kv, q + 2 * kv)),
            "o": (q, (0, s.hidden)),
            "gate_up": (s.hidden, (0, s.ffn, 2 * s.ffn)),
            "down": (s.ffn, (0, s.hidden)),
        }
        self._matrices: dict[str, Floats] = {}  # (out, in) of the half of a layer in progress
        self._gain = np.ones(s.hidden, np.float32)
        self._vectors: dict[str, Floats] = {}  # of the layer in progress
        self._layer = 0
        scale = np.float32(s.rotary.scale)
        self.cos, self.sin = self.cos * scale, self.sin * scale
        angles = np.outer(np.arange(s.max_tokens), np.array(s.rotary.local))
        self._local = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)

    def see(self, weight: Weight, first: int, block: Floats) -> None:
        """Adds the rows of `weight` from `first` on; the last rows of half a layer move the tokens through it."""
        done = first + len(block) == weight.shape[0]
        if weight.name == EMBEDDING:
            self.embed(first, block * np.float32(self.shape.embedding_scale))
        elif weight.name == OUTPUT:
            self._project(first, block)
        elif weight.gguf.startswith("blk."):
            _, number, name, kind = weight.gguf.split(".")
            self._layer = int(number)
            if len(weight.shape) == 2:
                self._see_matrix(name, weight, first, block, done)
            elif kind == "bias":
                self._see_bias(name, block)
            elif name in _GAINS:
                self._gain = block + np.float32(weight.offset)
            else:
                self._vectors[_VECTORS[name]] = block + np.float32(weight.offset)
        else:
            self._gain = block + np.float32(weight.offset)

    def finish(self, source: TensorSource, *, tied: bool) -> Floats:
        """The logits, (positions, vocabulary). With `tied` weights the embedding is read again as the output matrix."""
        if tied:
            for number, block in enumerate(source.blocks(EMBEDDING, _ROWS_AT_ONCE)):
                self._project(number * _ROWS_AT_ONCE, block)
        return self.logits

    def hidden_states(self) -> Floats:
        """The states of the chosen positions after the final norm, (positions, hidden); called after all weights."""
        states: Floats = self._normalised(self.x[self.chosen]) * self._gain
        return states

    def _see_bias(self, part: str, block: Floats) -> None:
        name, number = _PARTS[part]
        starts = self._layouts[name][1]
        bias = self._vectors.setdefault(f"{name}.bias", np.zeros(starts[-1], np.float32))
        bias[starts[number] : starts[number + 1]] = block

    def _see_matrix(self, part: str, weight: Weight, first: int, block: Floats, done: bool) -> None:
        name, number = _PARTS[part]
        columns, starts = self._layouts[name]
        if weight.shape[0] == starts[-1]:
            number = 0
        if name not in self._matrices:
            self._matrices[name] = np.empty((starts[-1], columns), np.float32)
        start = starts[number] + first
        rows = self._matrices[name][start : start + len(block)]
        if name in _GAINS.values():
            np.multiply(block, self._gain, out=rows)
        else:
            rows[:] = block
        matrices = self._matrices
        if done and name == "o":
            self.attend(matrices.pop("qkv").T, matrices.pop("o").T, self._vectors)
        elif done and name == "down":
            self.feed(matrices.pop("gate_up").T, matrices.pop("down").T, self._vectors.get("down"))
            self._vectors = {}

    def _project(self, first: int, block: Floats) -> None:
        if not len(self.logits):
            self.logits = np.empty((len(self.chosen), self.shape.vocabulary), np.float32)
            self._hidden = self.hidden_states()
        self.logits[:, first : first + len(block)] = _capped(self._hidden @ block.T, self.shape.logit_cap)

    def _scores(self, products: Any) -> Any:
        s = self.shape
        scores = _capped(products * np.float32(s.attention_scale), s.score_cap)
        if s.window is not None and s.has_window(self._layer):
            scores[:, *np.tril_indices(scores.shape[1], -s.window)] = -np.inf
        return scores

    def _rotated(self, heads: Any, positions: Any) -> Any:
        cos, sin = self._local if self.shape.has_window(self._layer) else (self.cos, self.sin)
        cos, sin = cos[positions], sin[positions]
        rotated, rest = np.split(heads, [2 * cos.shape[1]], axis=2)
        a, b = np.split(rotated, 2, axis=2)
        return np.concatenate([a * cos - b * sin, b * cos + a * sin, rest], axis=2)


def _capped(values: Floats, cap: float | None) -> Floats:
    """`values` bounded smoothly to (-cap, cap)."""
    if cap is None:
        return values
    bounded: Floats = np.tanh(values / np.float32(cap)) * np.float32(cap)
    return bounded
