"""Runs dearlite with the aarch64 wheels on emulated Arm CPUs, and compares its scores with this machine's.

    python benchmarks/portability/arm.py [--folder build/arm] [--documents 3] [--cpus cortex-a53,cortex-a76,neoverse-n2]

The first run installs (arm_setup.py), later ones only check. DEARLITE_ARM, or --folder, names the folder of the
installation. It needs Debian, and the packages of `.[cpu,export]` on this side. An emulated CPU is about 100 times as
slow: a document takes some 15 seconds.

The products of matrices are those of the model file's own int8 weights with 8-bit integers, extreme ones among them:
ONNX Runtime's sums on the emulated CPU must be the exact ones. Scores may differ between the Arm and the x86 build by
rounding steps of activations (docs/quantisation.md).
"""

from __future__ import annotations

import argparse
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from arm_setup import Emulator, install
from checks import EXAMPLE, ROOT, CheckFailed, Checks, cpu_name, here, hits_of, largest_difference, require

from dearlite.models.bundle import Bundle

# CPU model of qemu -> its instructions for products of 8-bit integers
CPUS = {
    "cortex-a53": "none",
    "cortex-a76": "dotprod",
    "neoverse-n2": "dotprod, i8mm",
}
TOLERANCE = 0.15  # a rounding step of an activation that falls the other way moves a score by about 0.1
ROWS = 7
PRODUCTS = """
import sys
import numpy as np, onnxruntime
cases = np.load(sys.argv[2])
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
names = [output.name for output in session.get_outputs()]
feeds = {argument.name: cases[argument.name] for argument in session.get_inputs()}
wrong = [name for name, sums in zip(names, session.run(names, feeds)) if not np.array_equal(sums, cases[name])]
print(len(names), "matrices,", len(wrong), "with wrong sums")
"""


@dataclass(frozen=True)
class Arm:
    """One emulated CPU."""

    emulator: Emulator
    cpu: str

    def python(self, *arguments: str | Path) -> str:
        """Standard output of Python with these arguments. Raises CheckFailed on another exit status than 0."""
        command, environment = self.emulator.command(self.cpu)
        done = subprocess.run(
            [*command, *map(str, arguments)],
            env=environment | {"PYTHONPATH": f"{ROOT}{os.pathsep}{environment['PYTHONPATH']}"},
            capture_output=True,
            encoding="utf-8",
            check=False,
            timeout=1800,
        )
        require(done.returncode == 0, f"exit status {done.returncode}: {done.stderr.strip()[-300:]}")
        return done.stdout


def write_products(folder: Path) -> tuple[Path, Path]:
    """A graph with a MatMulInteger for each int8 matrix of the embedded model, and its inputs with the exact sums."""
    import onnx
    from onnx import TensorProto, helper

    random, cases, nodes, weights, inputs, outputs = np.random.default_rng(0), {}, [], [], [], []
    tensors = Bundle(ROOT / "dearlite" / "data" / "minilm-l12.dear").tensors()
    for number, matrix in enumerate(t for t in tensors.values() if t.dtype == np.int8 and t.ndim == 2):
        rows = random.integers(0, 256, (ROWS, matrix.shape[0]), dtype=np.uint8)
        rows[0], rows[1] = 255, np.where(matrix[:, 0] < 0, 255, 0)  # the largest sums
        a, b, c = f"a{number}", f"b{number}", f"c{number}"
        cases[a], cases[c] = rows, rows.astype(np.int32) @ matrix.astype(np.int32)
        nodes.append(helper.make_node("MatMulInteger", [a, b], [c]))
        weights.append(onnx.numpy_helper.from_array(np.ascontiguousarray(matrix), b))
        inputs.append(helper.make_tensor_value_info(a, TensorProto.UINT8, rows.shape))
        outputs.append(helper.make_tensor_value_info(c, TensorProto.INT32, cases[c].shape))
    graph = helper.make_graph(nodes, "products", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, folder / "products.onnx")
    np.savez(folder / "products.npz", **cases)
    return folder / "products.onnx", folder / "products.npz"


def compare(
    arm: Arm, documents: Path, expected: list[tuple[str, float]], seen: dict[str, list[tuple[str, float]]]
) -> str:
    """The scores of the first documents beside this machine's."""
    hits = hits_of(arm.python("-m", "dearlite", "rerank", EXAMPLE[0], documents, "--threads", "1", "--format", "jsonl"))
    seen[arm.cpu] = hits
    difference = largest_difference(hits, expected)
    scores = dict(expected)
    pairs = ", ".join(f"{key} {score:.4f} (here {scores[key]:.4f})" for key, score in hits)
    require(difference < TOLERANCE, f"scores differ by up to {difference:.4f}: {pairs}")
    return f"{pairs}; largest difference {difference:.4f}"


def alike(seen: dict[str, list[tuple[str, float]]]) -> str:
    """The scores of the emulated CPUs beside each other."""
    require(len(seen) > 1, "fewer than two CPUs were compared")
    first, *others = seen.values()
    return (
        f"largest difference {max(largest_difference(first, other) for other in others):.1e} between {', '.join(seen)}"
    )


def doctor(arm: Arm) -> str:
    """`doctor` on the emulated CPU."""
    facts = dict(
        line.strip().split("  ", 1)
        for line in arm.python("-m", "dearlite", "doctor").splitlines()
        if "  " in line.strip()
    )
    return "; ".join(f"{name} {facts[name].strip()}" for name in ("system", "processor", "int8 kernels", "probe run"))


def main() -> None:
    """Installs where needed, and runs the checks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = os.environ.get("DEARLITE_ARM", str(ROOT / "build" / "arm"))
    parser.add_argument("--folder", type=Path, default=Path(default))
    parser.add_argument("--documents", type=int, default=3, help="number of the example's documents to score")
    parser.add_argument("--cpus", default=",".join(CPUS), help="CPU models of qemu")
    parser.add_argument("--only", default="", help="run the checks with this text in their name")
    options = parser.parse_args()
    folder = options.folder.resolve()
    emulator = install(folder)
    documents = folder / "documents.jsonl"
    lines = EXAMPLE[1].read_text(encoding="utf-8").splitlines()[: options.documents]
    documents.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"here: {cpu_name()}; {emulator.version}")
    expected = hits_of(here("rerank", EXAMPLE[0], documents, "--format", "jsonl"))
    graph, cases = write_products(folder)
    checks, seen = Checks(only=options.only), {}
    for cpu in options.cpus.split(","):
        arm = Arm(emulator, cpu)
        name = f"{cpu} ({CPUS.get(cpu, 'not in the table')})"
        checks.run(f"{name}, products of the int8 weights", lambda arm=arm: products(arm, graph, cases))
        checks.run(f"{name}, scores", lambda arm=arm: compare(arm, documents, expected, seen))
    checks.run("scores of the Arm CPUs", lambda: alike(seen))
    checks.run("doctor", lambda: doctor(arm))
    checks.finish()


def products(arm: Arm, graph: Path, cases: Path) -> str:
    """ONNX Runtime's sums beside the exact ones."""
    figures = arm.python("-c", PRODUCTS, graph, cases).strip()
    if not figures.endswith(" 0 with wrong sums"):
        raise CheckFailed(figures)
    return figures


if __name__ == "__main__":
    main()
