"""The error of `dearlite models recommend`: predicted seconds beside measured ones.

    python benchmarks/recommend.py FOLDER [--gguf SmolLM2-135M-Instruct.Q4_1.gguf]

Runs the embedded model, real shapes with random weights (made in FOLDER once, some minutes each), and a GGUF with the
prompt `yes-no`. In each round the machine is measured as `recommend` does it, then each model reranks its documents;
rows are medians of the rounds. `busy` is the share of a run's wall time in which the model's threads had a core. Where
it is far below 100% other work ran, and the prediction, which is that of an idle machine, can only be compared with the
processor seconds of the run (column `error, CPU`).
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from measure import describe_machine
from random_shapes import SHAPES, make_file

from dearlite import Reranker
from dearlite.machine import check_threads
from dearlite.models.entries import ModelEntry
from dearlite.models.gguf import GgufFile
from dearlite.models.registry import load_registry
from dearlite.recommend.gguf_probe import probe_gguf
from dearlite.recommend.onnx_probe import probe_onnx
from dearlite.recommend.prediction import QUERY_TOKENS, Workload, seconds_in_llama, seconds_in_onnx, tokens_of
from dearlite.recommend.rates import GgufRates

ROUNDS = 5
RUN_S = 1.0  # approximate duration of a run
MOST_DOCUMENTS = 400
# Words that are one token in the vocabularies of BERT and of SmolLM2, after a blank.
_ENGLISH = (
    "time water people house light music world river city school story night friend family power number order paper "
    "table money point group area book line place state side part work year week month hand head word"
)
ENGLISH = _ENGLISH.split()
DEFAULT_SHAPES = ("tinybert-l2", "ettin-17m", "minilm-l6", "ettin-32m", "bge-base", "smollm2-135m")


@dataclass(slots=True)
class Row:
    """A model with a workload, and its figures in seconds, one per round."""

    name: str
    entry: ModelEntry
    reranker: Any
    words: list[str]
    work: Workload
    type: str | None = None  # of the weights, for a GGUF
    predicted: list[float] = field(default_factory=list)
    measured: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    pair_tokens: int = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the files of random weights; made there unless they exist")
    parser.add_argument("--gguf", type=Path, metavar="FILE", help="a GGUF of an instruct model with English words")
    parser.add_argument("--shapes", nargs="*", default=DEFAULT_SHAPES, metavar="NAME", help=f"of {', '.join(SHAPES)}")
    parser.add_argument("--tokens", nargs="+", type=int, default=[60, 200, 400], metavar="N", help="per document")
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N", help="default: %(default)s")
    parser.add_argument("--threads", type=int, metavar="N")
    options = parser.parse_args()
    threads = check_threads(options.threads)
    machine = describe_machine()
    options.folder.mkdir(parents=True, exist_ok=True)
    models = [
        (load_registry()["minilm-l12"], Reranker.load("minilm-l12", device="cpu", threads=threads), ENGLISH, None)
    ]
    for name in options.shapes:
        reranker = Reranker.load(make_file(name, options.folder), device="cpu", threads=threads)
        models.append((entry_of_shape(name), reranker, [f"w{number}" for number in range(1000)], None))
    if options.gguf is not None:
        reranker = Reranker.load(options.gguf, device="cpu", threads=threads, prompt="yes-no")
        models.append((entry_of_gguf(options.gguf), reranker, ENGLISH, GgufFile(options.gguf).main_type))
    rows = [
        Row(f"{entry.name}", entry, reranker, words, Workload(1, tokens), kind)
        for entry, reranker, words, kind in models
        for tokens in options.tokens
    ]
    kinds = {row.type for row in rows if row.type}
    for number in range(1 + options.rounds):  # the first round decides the number of documents and is not counted
        onnx, gguf = probe_onnx(threads), {kind: probe_gguf(kind, threads) for kind in kinds}
        if number == 1:
            products = ", ".join(f"{rate / 1e9:.0f} at {width}" for width, rate in onnx.products.items())
            others = f"{onnx.value_s * 1e9:.1f} ns a value, {onnx.pair_s * 1e9:.3f} a pair"
            print(f"ONNX Runtime: {products} GOP/s a thread; {others}")
            for kind, rates in gguf.items():
                print(
                    f"llama.cpp, {kind}: {rates.operations_per_s / 1e9:.0f} GOP/s, {rates.value_s * 1e9:.1f} ns a value"
                )
        for row in rows:
            run(row, onnx if row.type is None else gguf[row.type], threads, first=number == 0)
    print_table(rows, machine, threads)


def run(row: Row, rates: Any, threads: int, *, first: bool) -> None:
    """Adds one prediction and one measurement to the row; the first run decides its number of documents."""

    def predict() -> float:
        if isinstance(rates, GgufRates):
            return seconds_in_llama(row.entry, row.work, rates)
        return seconds_in_onnx(row.entry, row.work, rates, threads)

    if first:
        row.work = Workload(threads * 2, row.work.tokens)
        count = round(row.work.documents * RUN_S / predict() / threads) * threads
        row.work = Workload(min(MOST_DOCUMENTS, max(2 * threads, count)), row.work.tokens)
    generator = random.Random(row.work.tokens)
    query = " ".join(generator.choices(row.words, k=QUERY_TOKENS))
    documents = [" ".join(generator.choices(row.words, k=row.work.tokens)) for _ in range(row.work.documents)]
    row.reranker.rerank(query, documents[:threads])
    start, processor = time.perf_counter(), time.process_time()
    ranking = row.reranker.rerank(query, documents)
    seconds, processor = time.perf_counter() - start, time.process_time() - processor
    if first:
        row.pair_tokens = ranking[0].tokens_used
        return
    row.predicted.append(predict())
    row.measured.append(seconds)
    row.processor.append(processor / threads)


def entry_of_shape(name: str) -> ModelEntry:
    """What models.toml would say of a random shape."""
    shape = SHAPES[name]
    return entry(
        f"{name} (random)",
        pooling="last-token" if shape.causal else "first-token",
        matrix_parameters=shape.matrix_parameters,
        layers=shape.layers,
        hidden=shape.hidden,
    )


def entry_of_gguf(path: Path) -> ModelEntry:
    """What models.toml would say of a GGUF, from its header."""
    file = GgufFile(path)
    family = file.metadata["general.architecture"]
    sizes = {name: tensor.shape for name, tensor in file.tensors.items() if name.startswith("blk.")}
    return entry(
        path.stem,
        prompt="yes-no",
        pooling="last-token",
        file=path.name,
        matrix_parameters=sum(shape[0] * shape[1] for shape in sizes.values() if len(shape) == 2),
        layers=file.metadata[f"{family}.block_count"],
        hidden=file.metadata[f"{family}.embedding_length"],
    )


def entry(name: str, **facts: Any) -> ModelEntry:
    facts = {"prompt": "plain", "max_tokens": 2048, **facts}
    return ModelEntry(
        name=name, kind="pointwise", repository="", architecture="", licence="", size_mb=1, memory_mb=1, **facts
    )


def print_table(rows: list[Row], machine: dict[str, Any], threads: int) -> None:
    """Prints the table as Markdown, and the mean of the errors' sizes."""
    load = "" if machine["load_1min"] is None else f"; load average {machine['load_1min']:.2f} at the start"
    print(f"\n{machine['date']}; {machine['cpu']}, {machine['cpus']} CPUs, {' '.join(machine['flags'])}{load}")
    print(f"medians of {len(rows[0].measured)} rounds, {threads} threads; a query of {QUERY_TOKENS} tokens\n")
    head = (
        "model",
        "documents",
        "tokens of a pair (predicted)",
        "predicted s",
        "measured s",
        "error",
        "busy",
        "CPU s",
        "error, CPU",
    )
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    walls, processors = [], []
    for row in rows:
        predicted, measured, processor = map(statistics.median, (row.predicted, row.measured, row.processor))
        # Ratios round by round: probe and run were side by side.
        wall = statistics.median(p / m for p, m in zip(row.predicted, row.measured, strict=True)) - 1
        cpu = statistics.median(p / m for p, m in zip(row.predicted, row.processor, strict=True)) - 1
        walls.append(abs(wall))
        processors.append(abs(cpu))
        tokens = tokens_of(row.entry, row.work)
        cells = (
            row.name,
            f"{row.work.documents} x {row.work.tokens}",
            f"{row.pair_tokens} ({tokens.shared + tokens.each})",
            f"{predicted:.2f}",
            f"{measured:.2f}",
            f"{wall:+.0%}",
            f"{processor / measured:.0%}",
            f"{processor:.2f}",
            f"{cpu:+.0%}",
        )
        print(f"| {' | '.join(cells)} |")
    for name, errors in (("wall", walls), ("processor", processors)):
        print(f"\n{name} time: mean error {statistics.mean(errors):.0%}, largest {max(errors):.0%}", end="")
    print()


if __name__ == "__main__":
    main()
