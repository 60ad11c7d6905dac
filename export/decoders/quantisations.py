"""The quantisations of a decoder, as a table: the stored weights, and the graphs of each device that read them.

The help of `dearlite export` reads these tables, so onnx is imported where a graph is made.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dearlite.errors import UsageError
from dearlite.export.numerics.rotation import HADAMARD_BLOCK
from dearlite.export.source.families import LlamaShape
from dearlite.models.manifest import Build

if TYPE_CHECKING:
    from dearlite.export.onnx.graph import Graph

# Value of `--for` -> the devices for which the file gets a graph. All graphs of a file share one set of weights.
DEVICES = {"cpu": ("cpu",), "cuda": ("cuda",), "both": ("cpu", "cuda")}

POOLINGS = ("last-token", "last-position")  # positions that the score is read at (pooling.py)
MEAN = "mean"  # the pooling of a network in which tokens attend to later ones


@dataclass(frozen=True, slots=True)
class Quantisation:
    """A format of the weights (int8, fp16 or fp32, with or without rotations), and the arithmetic of the graphs."""

    int8: bool
    rotated: bool  # the residual stream is rotated
    block_hadamard: bool  # the down projection's input is multiplied by block Hadamards at run time
    way: str  # the graph for a CPU: an entry of LINEAR_WAYS
    last_way: str  # … for the last layer's single row
    half: bool = False  # fp16 weights, if they are not int8
    cuda_way: str | None = None  # an entry of LINEAR_WAYS; None: no graph for CUDA
    leading: bool = False  # separate inputs for the residual stream's leading directions
    about: str = ""  # for the help of --quant

    @property
    def bytes_per_weight(self) -> int:
        return 1 if self.int8 else 2 if self.half else 4

    def uses_block_hadamard(self, shape: LlamaShape) -> bool:
        """True if the down projection's input is multiplied by block Hadamards, which must divide its width."""
        return self.block_hadamard and shape.ffn % HADAMARD_BLOCK == 0


QUANTISATIONS = {
    "int8": Quantisation(
        int8=True,
        rotated=True,
        block_hadamard=True,
        way="int8-per-row",
        last_way="int16-per-row",
        cuda_way="half-int8-weights",
        leading=True,
        about="half of fp16's size, fastest on a CPU",
    ),
    "int8-accurate": Quantisation(
        int8=True,
        rotated=True,
        block_hadamard=True,
        way="int16-per-row",
        last_way="int16-per-row",
        cuda_way="half-int8-weights",
        leading=True,
        about="the same weights; on a CPU activations in 15 bits, nearer to fp32 at half the speed",
    ),
    "fp16": Quantisation(
        int8=False,
        rotated=False,
        block_hadamard=False,
        way="fp16-as-fp32",
        last_way="fp16-as-fp32",
        half=True,
        cuda_way="half",
        about="for a GPU; on a CPU it takes fp32's memory",
    ),
    "fp32": Quantisation(
        int8=False,
        rotated=False,
        block_hadamard=False,
        way="fp32",
        last_way="fp32",
        about="the reference; has no graph for CUDA",
    ),
}


def check_shape(shape: LlamaShape, devices: Sequence[str]) -> None:
    """Raises UsageError if one of `devices` has no graph for a network of this kind."""
    if "cuda" in devices and (shape.activation != "silu" or not shape.causal):
        what = "attention to later tokens" if not shape.causal else f"the activation {shape.activation}"
        raise UsageError(f"there is no graph for CUDA with {what}: export it with --for cpu")


def check_devices(quant: str, devices: Sequence[str], pooling: str) -> None:
    """Raises UsageError if one of `devices` has no graph for this quantisation or this pooling."""
    if "cuda" not in devices:
        return
    if QUANTISATIONS[quant].cuda_way is None:
        raise UsageError(f"--quant {quant} has no graph for CUDA, whose attention is in fp16: --quant fp16 has one")
    if pooling != "last-token":
        raise UsageError(f"there is no graph for CUDA that reads the score at {pooling!r}: export it with --for cpu")


def graphs_of(plan: Quantisation, shape: LlamaShape, devices: Sequence[str]) -> Iterator[tuple[Build, Graph]]:
    """The builds for `devices` with their graphs, in the order in which the runtime tries them."""
    from dearlite.export.decoders.graph import llama_graph
    from dearlite.export.decoders.padded_graph import padded_llama_graph

    block_hadamard = plan.uses_block_hadamard(shape)
    if "cpu" in devices:
        graph = llama_graph(shape, plan.way, plan.last_way, block_hadamard=block_hadamard, leading=plan.leading)
        layout = "shared-prefix" if shape.causal else "one-document"
        yield Build("cpu", "cpu.onnx", layout, plan.way, (), tuple(graph.weights)), graph
    if "cuda" in devices:
        assert plan.cuda_way is not None, "check_devices was not called"
        graph = padded_llama_graph(shape, plan.cuda_way, block_hadamard=block_hadamard, leading=plan.leading)
        yield Build("cuda", "cuda.onnx", "padded", plan.cuda_way, (), tuple(graph.weights)), graph
