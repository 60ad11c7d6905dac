"""fp32 logits of a language model at chosen positions of token rows, in NumPy, from streamed weights.

The layers are those of numerics/forward.py; the embedding and the output matrix arrive in blocks of rows. No model
library is involved: these logits are the reference that the file's logits are compared with (card.py).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from dearlite.export.gguf.architectures import Weight
from dearlite.export.numerics.forward import ForwardPass
from dearlite.export.source.checkpoint import Floats, TensorSource
from dearlite.export.source.families import LlamaShape
from dearlite.export.source.merge import EMBEDDING, OUTPUT

_LAYER = re.compile(r"model\.layers\.\d+\.(?P<module>.+)\.weight")
# module -> the matrix that it is a part of, and its number there; the preceding norm's gain is folded in
_PARTS = {
    "self_attn.q_proj": ("qkv", 0),
    "self_attn.k_proj": ("qkv", 1),
    "self_attn.v_proj": ("qkv", 2),
    "self_attn.o_proj": ("o", 0),
    "mlp.gate_proj": ("gate_up", 0),
    "mlp.up_proj": ("gate_up", 1),
    "mlp.down_proj": ("down", 0),
}
_GAINS = {"input_layernorm": "qkv", "post_attention_layernorm": "gate_up"}
_ROWS_AT_ONCE = 4096  # of the embedding, when it is read again as the output matrix


class Reference(ForwardPass):
    """A forward pass that receives each weight once, in the order of `weights_of`.

    `logits` is (positions, vocabulary) float32.
    """

    def __init__(self, shape: LlamaShape, rows: Sequence[Any], positions: Sequence[Sequence[int]]) -> None:
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

    def see(self, weight: Weight, first: int, block: Floats) -> None:
        """Adds the rows of `weight` from `first` on; the last rows of half a layer move the tokens through it."""
        done = first + len(block) == weight.shape[0]
        if weight.name == EMBEDDING:
            self.embed(first, block)
        elif weight.name == OUTPUT:
            self._project(first, block)
        elif match := _LAYER.fullmatch(weight.name):
            self._see_part(match["module"], first, block, done)
        else:
            self._gain = block.copy()

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

    def _see_part(self, module: str, first: int, block: Floats, done: bool) -> None:
        if module in _GAINS:
            self._gain = block.copy()
            return
        name, number = _PARTS[module]
        columns, starts = self._layouts[name]
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
            self.attend(matrices.pop("qkv").T, matrices.pop("o").T, {})
        elif done and name == "down":
            self.feed(matrices.pop("gate_up").T, matrices.pop("down").T)

    def _project(self, first: int, block: Floats) -> None:
        if not len(self.logits):
            self.logits = np.empty((len(self.chosen), self.shape.vocabulary), np.float32)
            self._hidden = self.hidden_states()
        self.logits[:, first : first + len(block)] = self._hidden @ block.T
