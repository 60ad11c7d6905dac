"""Traces an encoder to ONNX with optimum and checks the graph's scores against transformers in fp32.

This module uses torch, transformers and optimum (the extra `encoders`) and imports them when it is called. It reads
safetensors only, runs no code from the folder and makes no request to the Hub.
"""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dearlite.errors import CheckpointError, DearliteError, need
from dearlite.export.encoders.networks import Classifier, Network, Scorer
from dearlite.export.encoders.rewrite import Rewriter
from dearlite.export.encoders.simplified_graph import IDS, MASK, TYPES, cut_to_first_token
from dearlite.export.encoders.simplify import move_weights_out, simplify
from dearlite.export.onnx.graph import OPSET, Graph
from dearlite.export.quality.texts import pair_types
from dearlite.export.source.checkpoint import Checkpoint
from dearlite.export.source.tokenizer import read_settings
from dearlite.foreign import one_line_errors
from dearlite.pointwise.onnxruntime import onnxruntime, send_no_events
from dearlite.pointwise.tokens import TokenRow

_LONGEST_CHECK = 512  # tokens; the memory of attention grows with the square of the length
_CLASSIFIER = Classifier()
_TOLERANCE = 1e-3  # relative to the score, or to 1 if that is larger; fp32 sums in another order differ by about 1e-5


@dataclass(slots=True)
class EncoderTrace:
    """A traced encoder: the writer of its graphs, and the fp32 scores of the requested rows in transformers."""

    rewriter: Rewriter
    reference: list[float]


def trace(
    checkpoint: Checkpoint,
    tokenizer: bytes,
    max_tokens: int,
    scratch: Path,
    rows: Iterable[TokenRow] = (),
    scorer: Scorer = _CLASSIFIER,
    pairs: bool = True,
) -> EncoderTrace:
    """The encoder of `checkpoint`, with the reference scores of `rows`. Temporary files are in the folder `scratch`.

    `pairs` is False for a model that reads query and document in one text.

    Raises MissingExtra without optimum, CheckpointError for a folder that is not a complete scorer, and DearliteError
    if the exported graph in fp32 does not give the scores of transformers.
    """
    send_no_events()
    need("torch", extra="encoders")
    need("optimum.exporters.onnx", extra="encoders")
    types_used = pairs and uses_token_types(checkpoint, tokenizer, max_tokens)
    _check_values(checkpoint)
    failure = f"{checkpoint.folder}: this {checkpoint.config['model_type']} model is not supported"
    with (
        one_line_errors(failure, "please report it"),
        tempfile.TemporaryDirectory(dir=scratch, prefix="dearlite-") as folder,
        _quietly(),
    ):
        net = scorer.load(checkpoint)
        return _trace(net, checkpoint, Path(folder), min(max_tokens, _LONGEST_CHECK), types_used, rows)


def _trace(
    net: Network, checkpoint: Checkpoint, folder: Path, longest: int, types_used: bool, rows: Iterable[TokenRow]
) -> EncoderTrace:
    config = net.reference.config
    vocabulary, pad_id = config.vocab_size, config.pad_token_id

    def feeds(length: int) -> dict[str, Any]:
        ids = np.random.default_rng(length).integers(0, vocabulary, (1, length))
        ids[ids == pad_id] = (pad_id or 0) + 1  # RoBERTa gives a padding token no position
        types = np.zeros_like(ids)
        types[:, length // 2 :] = types_used
        return {IDS: ids, MASK: np.ones_like(ids), TYPES: types}

    lengths = [length for length in (2, 7, 33) if length < longest] + [longest]
    takes_types = TYPES in _export(net, checkpoint, folder / "model.onnx")
    probes = [feeds(length) for length in lengths]
    row_feeds = [
        {IDS: row.ids[None], MASK: np.ones((1, len(row.ids)), np.int64), TYPES: row.types[None] * types_used}
        for row in rows
    ]
    scores = _scores(net.reference, [*probes, *row_feeds], takes_types)
    expected, reference = scores[: len(probes)], scores[len(probes) :]
    del net
    try:
        graph = simplify(folder / "model.onnx", feeds, longest=longest, types_used=types_used)
    except ValueError as err:
        raise _unsupported(checkpoint, f"its graph has {err}") from None
    cut_to_first_token(graph)
    graph.prune()
    actual = _run(Rewriter(graph, vocabulary=vocabulary).write("fp32"), probes)
    for length, score, target in zip(lengths, actual, expected, strict=True):
        if not abs(score - target) <= _TOLERANCE * max(1.0, abs(target)):
            reason = f"the graph gives {score:.5f} where transformers gives {target:.5f}, at {length} tokens"
            raise _unsupported(checkpoint, reason)
    return EncoderTrace(Rewriter(graph, vocabulary=vocabulary), reference)


def _export(net: Network, checkpoint: Checkpoint, path: Path) -> list[str]:
    """Writes the ONNX file `path` of the traced module. Returns the names of its inputs."""
    convert, tasks = (need(f"optimum.exporters.{part}", extra="encoders") for part in ("onnx.convert", "tasks"))
    onnx = need("onnx", extra="export")
    try:
        settings = tasks.TasksManager.get_exporter_config_constructor(
            "onnx", task="text-classification", model_type=net.inputs, library_name="transformers"
        )
        convert.export(net.traced, settings(net.traced.config), path, opset=OPSET)
    except OSError:
        raise
    except Exception as err:  # the errors of torch's tracer and of optimum have no common class
        raise _unsupported(checkpoint, f"optimum says: {' '.join(str(err).split())[:160]}") from err
    move_weights_out(path)
    return [value.name for value in onnx.load(str(path), load_external_data=False).graph.input]


def _scores(net: Any, rows: list[dict[str, Any]], takes_types: bool) -> list[float]:
    """The score of each row in transformers. Rows run in parallel, a thread each, which avoids waits inside a row."""
    torch = need("torch", extra="encoders")

    def score(row: dict[str, Any]) -> float:
        inputs = {name: torch.from_numpy(value) for name, value in row.items() if takes_types or name != TYPES}
        with torch.inference_mode():
            return float(net(**inputs).logits[0, 0])

    with ThreadPoolExecutor(os.cpu_count(), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        return list(pool.map(score, rows))


def _run(graph: Graph, rows: list[dict[str, Any]]) -> list[float]:
    """The graph's score of each row; weights are passed to the session as in the runtime."""
    ort = onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    values = [ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(value)) for value in graph.weights.values()]
    options.add_external_initializers(list(graph.weights), values)
    session = ort.InferenceSession(graph.to_bytes(), options, providers=["CPUExecutionProvider"])
    inputs = {node.name for node in session.get_inputs()}
    feeds = [{"ids": row[IDS][0], "types": row[TYPES][0]} for row in rows]
    return [float(session.run(["score"], {n: v for n, v in f.items() if n in inputs})[0][0, 0]) for f in feeds]


def uses_token_types(checkpoint: Checkpoint, tokenizer: bytes, max_tokens: int) -> bool:
    """True if the model gets token types. Raises CheckpointError if PairEncoder would join a pair differently."""
    types, ours = pair_types(checkpoint.folder, tokenizer, max_tokens)
    inputs = read_settings(checkpoint.folder / "tokenizer_config.json").get("model_input_names")
    types_used = any(types) and TYPES in (inputs or [TYPES])
    if types_used and types != ours:
        raise CheckpointError(f"{checkpoint.folder}: its tokenizer joins a pair in a way that is not supported")
    rows = checkpoint.config.get("type_vocab_size", 0)
    if types_used and 0 < rows <= max(types):
        raise CheckpointError(
            f"{checkpoint.folder}: its tokenizer gives a document the token type {max(types)}, and config.json "
            f"states a type_vocab_size of {rows}: fetch both again, of one revision, or leave token_type_ids out of "
            "model_input_names in tokenizer_config.json if the model was trained without them"
        )
    return types_used


def _check_values(checkpoint: Checkpoint) -> None:
    """Reads every weight once. Raises CheckpointError for NaN and for truncated files."""
    for name in checkpoint.names:
        if "F" in checkpoint.spec(name).dtype:  # position ids and the like are integers
            for _ in checkpoint.blocks(name, 4096):
                pass


def _unsupported(checkpoint: Checkpoint, reason: str) -> DearliteError:
    kind = checkpoint.config["model_type"]
    return DearliteError(f"{checkpoint.folder}: this {kind} model is not supported: {reason}. Please report it")


@contextmanager
def _quietly() -> Iterator[None]:
    """Suppresses the warnings and logs of the libraries: this module checks what matters and raises errors."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
