"""The ways to write a decoder's weights, as a table: what is stored, and the graph of each device over it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dearlite.errors import UsageError
from dearlite.export.decoders.graph import llama_graph
from dearlite.export.decoders.padded_graph import padded_llama_graph
from dearlite.export.numerics.rotation import HADAMARD_BLOCK
from dearlite.export.onnx.graph import Graph
from dearlite.export.source.families import LlamaShape
from dearlite.models.manifest import Build

# What `--for` may say -> the devices that the file has a graph for. All graphs of a file share one set of weights.
DEVICES = {"cpu": ("cpu",), "cuda": ("cuda",), "both": ("cpu", "cuda")}

Ways = tuple[tuple[str, str, tuple[str, ...]], ...]


@dataclass(frozen=True, slots=True)
class Quantisation:
    """One way to write the weights: in int8, fp16 or fp32, rotated and mixed or not; and the graphs' ways."""

    int8: bool
    rotated: bool  # the residual stream
    mixed: bool  # the down projection's input, in blocks, at run time
    ways: Ways  # on a CPU: (way, the last layer's way, what the machine must be able to do)
    half: bool = False  # fp16 where it is not int8
    cuda_way: str | None = None  # None where there is no graph for CUDA
    leading: bool = False  # the residual stream's leading directions apart
    about: str = ""  # for the help of --quant

    @property
    def bytes_per_weight(self) -> int:
        return 1 if self.int8 else 2 if self.half else 4

    def mixes(self, shape: LlamaShape) -> bool:
        """Whether the down projection's input is multiplied by a Hadamard matrix, in blocks that must fill it."""
        return self.mixed and shape.ffn % HADAMARD_BLOCK == 0


QUANTISATIONS = {
    "int8": Quantisation(
        int8=True,
        rotated=True,
        mixed=True,
        ways=(
            ("int8-per-row", "int16-per-row", ("u8s8-exact",)),
            ("int8-per-row-wide", "int16-per-row-wide", ()),
        ),
        cuda_way="half-int8-weights",
        leading=True,
        about="half of fp16's size, fastest on a CPU",
    ),
    "int8-accurate": Quantisation(
        int8=True,
        rotated=True,
        mixed=True,
        ways=(
            ("int16-per-row", "int16-per-row", ("u8s8-exact",)),
            ("int16-per-row-wide", "int16-per-row-wide", ()),
        ),
        cuda_way="half-int8-weights",
        leading=True,
        about="the same weights; on a CPU activations in 15 bits, nearer to fp32 at half the speed",
    ),
    "fp16": Quantisation(
        int8=False,
        rotated=False,
        mixed=False,
        ways=(("fp16-as-fp32", "fp16-as-fp32", ()),),
        half=True,
        cuda_way="half",
        about="for a GPU; on a CPU it takes fp32's memory",
    ),
    "fp32": Quantisation(
        int8=False,
        rotated=False,
        mixed=False,
        ways=(("fp32", "fp32", ()),),
        about="the reference; has no graph for CUDA",
    ),
}


def check_devices(quant: str, devices: Sequence[str], pooling: str) -> None:
    """Raises UsageError where there is no graph for one of `devices` that runs these weights or reads there."""
    if "cuda" not in devices:
        return
    if QUANTISATIONS[quant].cuda_way is None:
        raise UsageError(f"--quant {quant} has no graph for CUDA, whose attention is in fp16: --quant fp16 has one")
    if pooling != "last-token":
        raise UsageError(f"there is no graph for CUDA that reads the score at {pooling!r}: export it with --for cpu")


def graphs_of(plan: Quantisation, shape: LlamaShape, devices: Sequence[str]) -> Iterator[tuple[Build, Graph]]:
    """Each build of `devices` with its graph, in the order in which the runtime tries them."""
    mixes = plan.mixes(shape)
    if "cpu" in devices:
        for number, (way, last_way, requires) in enumerate(plan.ways):
            name = "cpu.onnx" if number == 0 else "cpu-wide.onnx"
            graph = llama_graph(shape, way, last_way, block_hadamard=mixes, leading=plan.leading)
            yield Build("cpu", name, "shared-prefix", way, requires, tuple(graph.weights)), graph
    if "cuda" in devices:
        assert plan.cuda_way is not None, "check_devices comes first"
        graph = padded_llama_graph(shape, plan.cuda_way, block_hadamard=mixes, leading=plan.leading)
        yield Build("cuda", "cuda.onnx", "padded", plan.cuda_way, (), tuple(graph.weights)), graph
