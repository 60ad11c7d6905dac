"""Encoder cross-encoders (BERT, RoBERTa, ModernBERT, DeBERTa, ...) to a `.dear` file, by way of optimum.

optimum traces the folder's model into an ONNX file in fp32; onnx/simplify.py and onnx/rewrite.py make our graph of it.
Before anything is written, that graph in fp32 is held to the model itself in transformers, at several lengths. Needs
the extra `encoders` (torch, transformers, optimum-onnx), and several times the model in memory.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from dearlite.errors import DearliteError, UsageError
from dearlite.export.encoders.tracing import EncoderTrace, trace
from dearlite.export.onnx.graph import Graph
from dearlite.export.quality.check import FLOOR, card_pairs, keep_or_refuse, pair_rows, quality_card
from dearlite.export.source.checkpoint import Checkpoint
from dearlite.models.bundle import BundleWriter
from dearlite.models.facts import PointwiseFacts
from dearlite.models.manifest import Build

LONGEST = 512  # tokens of a pair, where nothing else is asked for


@dataclass(frozen=True, slots=True)
class Encoder:
    """What a family needs beyond BERT's own form."""

    counts_after_padding: bool = False  # positions start at pad_token_id + 1, and so many fewer are left


# `model_type` of config.json -> family.
ENCODERS = {
    "albert": Encoder(),
    "bert": Encoder(),  # MiniLM and TinyBERT too
    "camembert": Encoder(counts_after_padding=True),
    "deberta": Encoder(),
    "deberta-v2": Encoder(),  # and v3
    "distilbert": Encoder(),
    "electra": Encoder(),
    "megatron-bert": Encoder(),
    "mobilebert": Encoder(),
    "modernbert": Encoder(),
    "mpnet": Encoder(counts_after_padding=True),
    "rembert": Encoder(),
    "roberta": Encoder(counts_after_padding=True),
    "xlm-roberta": Encoder(counts_after_padding=True),
}

# --quant -> (the linear layers' way, what the machine must be able to do); the runtime takes the first that fits.
ENCODER_WAYS = {
    "int8": (("int8-per-row", ("u8s8-exact",)), ("int8-per-row-wide", ())),
    "int8-accurate": (("int16-per-row", ("u8s8-exact",)), ("int16-per-row-wide", ())),
    "fp32": (("fp32", ()),),
}


def refuse_unknown(kind: Any, decoders: Iterable[str]) -> None:
    """Raises UsageError naming all families unless `kind` is one of `decoders` or of ENCODERS."""
    known = {"decoders": list(decoders), "encoders": list(ENCODERS)}
    if not any(kind in names for names in known.values()):
        said = ", nor of the ".join(f"{what} {', '.join(names)}" for what, names in known.items())
        raise UsageError(f"architecture {kind!r} is not covered: it is none of the {said}")


def reading_of(
    config: dict[str, Any], quant: str, devices: Collection[str], prompt: str | None, max_tokens: int | None
) -> tuple[str, str, int]:
    """The prompt form, the pooling and the length in tokens with which the model of config.json reads a pair.

    None stands for what the user left open: the bare texts, and as many tokens as the model can read up to LONGEST.
    Raises UsageError for all that is not covered, in one line.
    """
    kind, wrong = config["model_type"], []
    labels = config.get("num_labels") or len(config.get("id2label") or "01")  # transformers leaves out two labels
    if labels != 1:
        wrong.append(f"{labels} labels (a scorer has one)")
    if quant not in ENCODER_WAYS:
        wrong.append(f"no graph for --quant {quant} (only {', '.join(ENCODER_WAYS)})")
    if set(devices) != {"cpu"}:
        wrong.append("a graph for the CPU alone (leave out --for)")
    positions = config.get("max_position_embeddings") or LONGEST
    if ENCODERS[kind].counts_after_padding:
        positions -= config.get("pad_token_id", 1) + 1
    if max_tokens is not None and max_tokens > positions:
        wrong.append(f"{positions} positions, fewer than --max-tokens {max_tokens}")
    if wrong:
        raise UsageError(f"this {kind} model has {'; '.join(wrong)}: that is not covered")
    pooling = "mean" if config.get("classifier_pooling") == "mean" else "first-token"
    return prompt or "plain", pooling, max_tokens or min(positions, LONGEST)


def export_encoder(
    checkpoint: Checkpoint,
    tokenizer: bytes,
    facts: PointwiseFacts,
    output: Path,
    *,
    quant: str = "int8",
    members: dict[str, bytes] | None = None,
    carded: bool = True,
    floor: float = FLOOR,
    keep: bool = False,
) -> dict[str, Any]:
    """Writes the encoder in `checkpoint` to `output`, and returns its quality card, empty where it is not `carded`.

    Where the folder holds no whole scorer, or the file's order of the card's pairs agrees with transformers' in fp32 by
    less than `floor` (Kendall's tau), a DearliteError says so and nothing is left behind; with `keep` the file is, and
    its card says it in "below_floor".
    """
    _check_disk(checkpoint, output, quant)
    prompt, max_tokens = facts.prompt, facts.max_tokens
    pairs = card_pairs(tokenizer, prompt, max_tokens, _macs_per_token(checkpoint)) if carded else None
    rows = [] if pairs is None else pair_rows(tokenizer, prompt, max_tokens, pairs)
    card: dict[str, Any] = {}
    try:
        with tempfile.TemporaryDirectory(dir=output.parent, prefix=f"{output.name}.") as folder:
            traced = trace(checkpoint, tokenizer, max_tokens, Path(folder), rows)
            draft = Path(folder) / output.name
            write_encoder(traced, tokenizer, facts, draft, quant, members or {})
            if pairs is not None:
                card = {"reference": "transformers, fp32"} | quality_card(draft, pairs, traced.reference, "cpu")
                keep_or_refuse(draft, output, card, floor, keep=keep)
            draft.replace(output)
    except OSError as err:
        raise DearliteError(f"cannot write {output}: {err.strerror or err}") from None
    return card


def write_encoder(
    traced: EncoderTrace, tokenizer: bytes, facts: PointwiseFacts, path: Path, quant: str, members: dict[str, bytes]
) -> None:
    """Writes the encoder as a `.dear` file."""
    graphs: dict[str, Graph] = {}
    builds = []
    for number, (way, requires) in enumerate(ENCODER_WAYS[quant]):
        name = "cpu.onnx" if number == 0 else "cpu-wide.onnx"
        graphs[name] = traced.rewriter.write(way)
        builds.append(Build("cpu", name, "one-document", way, requires, tuple(graphs[name].weights)))
    tensors = {name: value for graph in graphs.values() for name, value in graph.weights.items()}
    with BundleWriter(path) as bundle:
        for name, value in tensors.items():
            bundle.add_tensor(name, value.dtype.name, value.shape, [np.ascontiguousarray(value).tobytes()])
        parts = {"tokenizer.json": tokenizer, **members} | {name: graph.to_bytes() for name, graph in graphs.items()}
        bundle.finish(parts, facts, builds)


def _macs_per_token(checkpoint: Checkpoint) -> int:
    """Multiplications and additions for each token, in the linear layers: as many as their matrices have weights."""
    shapes = {name: checkpoint.shape(name) for name in checkpoint.names if "embedding" not in name}
    return sum(prod(shape) for shape in shapes.values() if len(shape) == 2)


def _check_disk(checkpoint: Checkpoint, path: Path, quant: str) -> None:
    traced = 4 * sum(prod(checkpoint.shape(name)) for name in checkpoint.names)
    kept = traced if quant == "fp32" else traced / 4
    needed = 2 * traced + kept  # the traced file is for a moment there twice
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise DearliteError(f"{path} needs {needed / 1e9:.1f} GB of disk on the way, {free / 1e9:.1f} GB are free")
