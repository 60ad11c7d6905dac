"""The export of an encoder cross-encoder (BERT, RoBERTa, ModernBERT, DeBERTa, ...) to a `.dear` file, with optimum.

optimum traces the model into an ONNX file in fp32; simplify.py and rewrite.py turn it into the graph of the file.
Before anything is written, that graph in fp32 is compared with the model in transformers at several lengths. The export
needs the extra `encoders` (torch, transformers, optimum-onnx) and memory for several copies of the model.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from dearlite.errors import DearliteError, UsageError
from dearlite.export.encoders.heads import Head
from dearlite.export.encoders.networks import Classifier, Scorer
from dearlite.export.encoders.rewrite import Rewriter
from dearlite.export.encoders.tracing import trace
from dearlite.export.onnx.linear import LINEAR_WAYS
from dearlite.export.quality.check import check_probes, keep_or_refuse, quality_card
from dearlite.export.quality.gate import DEFAULT_GATE, QualityGate
from dearlite.export.quality.texts import card_pairs, pair_rows
from dearlite.export.source.checkpoint import Checkpoint
from dearlite.export.source.families import label_count
from dearlite.files.drafts import Draft, workplace
from dearlite.files.targets import reason_of
from dearlite.models.bundle_writer import BundleWriter
from dearlite.models.facts import PointwiseFacts
from dearlite.models.manifest import Build

DECODER = "decoder"  # the manifest's pooling of a model that answers: the first position of its decoder
LONGEST = 512  # tokens of a pair, unless the user requests more or fewer


@dataclass(frozen=True, slots=True)
class Encoder:
    """Differences of a family from BERT."""

    counts_after_padding: bool = False  # positions start at pad_token_id + 1, which makes as many unusable
    # The words (false, true) in which a decoder after the encoder answers; the first pair that the vocabulary has.
    answers: tuple[tuple[str, str], ...] = ()


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
    "mt5": Encoder(answers=(("▁no", "▁yes"),)),
    "rembert": Encoder(),
    "roberta": Encoder(counts_after_padding=True),
    "t5": Encoder(answers=(("▁false", "▁true"), ("▁não", "▁sim"))),  # monoT5, and its Portuguese form
    "xlm-roberta": Encoder(counts_after_padding=True),
}

# --quant -> entry of LINEAR_WAYS
ENCODER_WAYS = {"int8": "int8-per-row", "int8-accurate": "int16-per-row", "fp32": "fp32"}


def refuse_unknown(kind: Any, decoders: Iterable[str]) -> None:
    """Raises UsageError naming all families unless `kind` is one of `decoders` or of ENCODERS."""
    known = {"decoders": list(decoders), "encoders": list(ENCODERS)}
    if not any(kind in names for names in known.values()):
        listed = ", nor of the ".join(f"{group} {', '.join(names)}" for group, names in known.items())
        raise UsageError(f"architecture {kind!r} is not supported: it is none of the {listed}")


def pair_settings(
    config: dict[str, Any],
    quant: str,
    devices: Collection[str],
    prompt: str | None,
    max_tokens: int | None,
    head: Head | None = None,
) -> tuple[str, str, int]:
    """The prompt form, the pooling and the maximum number of tokens with which the model of config.json reads a pair.

    Without `prompt` it reads the bare texts, without `max_tokens` as many tokens as it has positions, up to LONGEST or
    the limit of `head`, whose score takes the place of the labels of config.json.
    Raises UsageError listing everything that is not supported, in one line.
    """
    kind, unsupported = config["model_type"], []
    answers = bool(ENCODERS[kind].answers)
    labels = label_count(config) or 2  # transformers omits the default of two labels
    if head is None and not answers and labels != 1:
        unsupported.append(f"{labels} labels (a scorer has one)")
    if config.get("quantization_config"):
        unsupported.append("quantised weights (quantization_config): export its unquantised revision")
    if quant not in ENCODER_WAYS:
        unsupported.append(f"no graph for --quant {quant} (only {', '.join(ENCODER_WAYS)})")
    if set(devices) != {"cpu"}:
        unsupported.append("a graph for the CPU alone (leave out --for)")
    positions = config.get("max_position_embeddings") or LONGEST
    if ENCODERS[kind].counts_after_padding:
        pad_id = config.get("pad_token_id")
        positions -= (1 if pad_id is None else pad_id) + 1
    if max_tokens is not None and max_tokens > positions and not answers:  # T5 has relative positions
        unsupported.append(f"{positions} positions, fewer than --max-tokens {max_tokens}")
    if unsupported:
        raise UsageError(f"this {kind} model has {'; '.join(unsupported)}: that is not supported")
    if answers:
        return prompt or "", DECODER, max_tokens or LONGEST
    pooling = "mean" if config.get("classifier_pooling") == "mean" else "first-token"
    limit = min(positions, LONGEST)
    if head is not None:
        pooling = head.pooling if head.output != "logits" else pooling
        limit = min(limit, head.max_tokens or limit)
    return prompt or "plain", pooling, max_tokens or limit


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderModel:
    """An encoder to export."""

    checkpoint: Checkpoint
    tokenizer: bytes  # tokenizer.json
    facts: PointwiseFacts
    members: Mapping[str, bytes] = field(default_factory=dict)  # further files for the bundle, as LICENSE
    probes: Sequence[str] = ()  # texts that the written file must be able to score
    scorer: Scorer = field(default_factory=Classifier)


def export_encoder(
    model: EncoderModel, output: Path, *, quant: str = "int8", gate: QualityGate = DEFAULT_GATE
) -> dict[str, Any]:
    """The quality card of the file written to `output`; empty if `gate` requests no card.

    Raises DearliteError, and leaves no file, if the folder is not a complete scorer, or if the order of the card's
    pairs agrees with transformers' in fp32 by less than `gate.floor`; with `gate.force` only the former.
    """
    checkpoint, tokenizer, facts = model.checkpoint, model.tokenizer, model.facts
    _check_disk(checkpoint, output, quant)
    prompt, max_tokens = facts.form, facts.max_tokens
    pairs = card_pairs(tokenizer, prompt, max_tokens, _macs_per_token(checkpoint)) if gate.card else None
    rows = [] if pairs is None else pair_rows(tokenizer, prompt, max_tokens, pairs)
    card: dict[str, Any] = {}
    try:
        with Draft(output, folder=True) as draft:
            traced = trace(checkpoint, tokenizer, max_tokens, draft.path, rows, model.scorer, facts.template is None)
            file = draft.path / "model.dear"
            write_encoder(model, traced.rewriter, file, quant)
            if pairs is not None:
                card = {"reference": "transformers, fp32"} | quality_card(
                    file, pairs, traced.reference, "cpu", model.probes
                )
                keep_or_refuse(file, output, card, gate, quant)
            else:
                check_probes(file, "cpu", model.probes)
            draft.commit(file)
    except OSError as err:
        raise DearliteError(f"cannot write {output}: {reason_of(err)}") from None
    return card


def write_encoder(model: EncoderModel, rewriter: Rewriter, path: Path, quant: str) -> None:
    """Writes `model` as a `.dear` file with the graph of `rewriter` for `quant`, a key of ENCODER_WAYS."""
    way = ENCODER_WAYS[quant]
    graph = rewriter.write(way)
    build = Build("cpu", "cpu.onnx", "one-document", way, (), tuple(graph.weights))
    with BundleWriter(path) as bundle:
        for name, value in graph.weights.items():
            bundle.add_tensor(name, value.dtype.name, value.shape, [np.ascontiguousarray(value).tobytes()])
        members = {"tokenizer.json": model.tokenizer, **model.members, build.graph: graph.to_bytes()}
        bundle.finish(members, model.facts, [build], pair_limited=LINEAR_WAYS[way].int8_weights)


def _macs_per_token(checkpoint: Checkpoint) -> int:
    """Multiply-accumulate operations per token in the linear layers, which is the number of their weights."""
    shapes = {name: checkpoint.shape(name) for name in checkpoint.names if "embedding" not in name}
    tables = checkpoint.config.get("vocab_size")  # T5 calls its table "shared"
    return sum(prod(shape) for shape in shapes.values() if len(shape) == 2 and shape[0] != tables)


def _check_disk(checkpoint: Checkpoint, path: Path, quant: str) -> None:
    """Raises DearliteError if the disk has less free space than the traced graph and the file need."""
    fp32_bytes = 4 * sum(prod(checkpoint.shape(name)) for name in checkpoint.names)
    file_bytes = fp32_bytes if quant == "fp32" else fp32_bytes / 4
    needed = 2 * fp32_bytes + file_bytes  # for a moment there are two copies of the traced file
    free = shutil.disk_usage(workplace(path)).free
    if needed > free:
        raise DearliteError(
            f"{path} needs {needed / 1e9:.1f} GB of disk while it is made and {free / 1e9:.1f} GB are free: make room, "
            "or name a file on a larger disk with -o"
        )
