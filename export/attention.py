"""The export of a language model to an attention reranker: its folders, its heads and its words, then the writer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dearlite.attention.tokens import ListEncoder
from dearlite.documents import Document
from dearlite.errors import UsageError, counted
from dearlite.export.decoders.attention import AttentionModel, used_shape, write_attention
from dearlite.export.decoders.pipeline import check_disk
from dearlite.export.decoders.quantisations import QUANTISATIONS
from dearlite.export.options import DEFAULT_QUANT, ExportOptions, Report
from dearlite.export.quality.texts import DATA
from dearlite.export.results import WrittenModel
from dearlite.export.source.adapter import Adapter
from dearlite.export.source.checkpoint import Checkpoint
from dearlite.export.source.families import LlamaShape, check_tensors, macs_per_token, shape_of
from dearlite.export.source.frames import reading_of
from dearlite.export.source.heads import ALL, read_heads, written
from dearlite.export.source.inputs import output_path, source_folders
from dearlite.export.source.merge import MergedCheckpoint, check_base
from dearlite.export.source.tokenizer import check_tokenizer, tokenizer_json
from dearlite.files.outputs import check_outputs
from dearlite.models.facts import NOT_STATED, AttentionFacts

_MOST_TOKENS = 8192  # of a prompt: 20 documents of 300 words, and 64 KiB of keys and values a token of a 1B model
_LIST = 8  # documents of a calibration prompt
_CALIBRATION_MACS, _LEAST_TOKENS = 1.2e12, 6000  # of all calibration prompts: seconds on two cores


def export_attention(model: str, options: ExportOptions, report: Report) -> WrittenModel:
    """The written file. `options` have passed `check`, and name heads."""
    assert options.heads is not None
    output = output_path(options.output, None, options.force, suffix=".dear", folders=(Path(model), options.adapter))
    check_outputs({"--output": output}, {"--heads": [Path(options.heads)]})
    folder, adapter = source_folders(model, None, options.adapter)
    checkpoint = Checkpoint(folder)
    lora = None if adapter is None else Adapter(adapter)
    source = MergedCheckpoint(checkpoint, lora, require_head=False)
    if lora is not None and (note := check_base(lora.config, checkpoint)):
        report(note)
    max_tokens = _prompt_tokens(options, source.config)
    shape = shape_of(source.config, max_tokens)
    if not shape.causal:
        raise UsageError(f"a {source.config['model_type']} attends to later tokens: --heads is for a language model")
    heads = read_heads(options.heads, shape)
    check_tensors(source, shape, headed=False)
    place, tokenizer = tokenizer_json(folder, adapter)
    check_tokenizer(place, tokenizer, shape.vocabulary, source.config)
    reading, frame = reading_of(folder, tokenizer, ALL if options.heads == ALL else written(heads))
    encoder = ListEncoder(tokenizer, reading, max_tokens)
    quant = options.quant or DEFAULT_QUANT["attention"]
    used = used_shape(shape, heads)
    check_disk(output, used, quant)
    hashes = {f"sha256 {name}": digest for name, digest in checkpoint.sha256s().items()}
    name = "" if adapter is None else adapter.resolve().name
    facts = AttentionFacts(
        name=output.stem,
        architecture=source.config["model_type"],
        prompt=f"icr-{frame.name}",
        max_tokens=max_tokens,
        licence=NOT_STATED,
        source=hashes | {"folder": folder.resolve().name} | ({"adapter": name} if name else {}),
        attention=reading,
    )
    write_attention(
        AttentionModel(
            source=source,
            shape=shape,
            heads=heads,
            tokenizer=tokenizer,
            facts=facts,
            members={"LICENSE": checkpoint.license_text.encode()},
        ),
        output,
        quant=quant,
        calibration=_calibration_rows(encoder, used) if QUANTISATIONS[quant].int8 else (),
    )
    count = sum(map(len, heads.values()))
    report(f"{counted(count, 'head')} in {used.layers} of {shape.layers} layers; its prompt is {frame.name}")
    return WrittenModel(output, facts, {}, checkpoint)


def _prompt_tokens(options: ExportOptions, config: dict[str, Any]) -> int:
    """The most tokens of a prompt. Raises UsageError for more than the model has positions."""
    positions = config.get("max_position_embeddings")
    most = positions if type(positions) is int and positions > 0 else _MOST_TOKENS
    if options.max_tokens is not None and options.max_tokens > most:
        raise UsageError(f"--max-tokens {options.max_tokens} is more than the model's max_position_embeddings, {most}")
    return options.max_tokens or min(_MOST_TOKENS, most)


def _calibration_rows(encoder: ListEncoder, shape: LlamaShape) -> list[Any]:
    """Prompts of lists of calibration.jsonl's texts as (tokens,) int64 rows, as many as the network's size allows."""
    with open(DATA / "calibration.jsonl", encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines]
    least = max(_LEAST_TOKENS, _CALIBRATION_MACS / macs_per_token(shape))
    rows: list[Any] = []
    for start in range(0, len(records), _LIST):
        group = records[start : start + _LIST]
        passages = [encoder.passage(Document(record["text"])) for record in group]
        rows.append(encoder.prompt(group[0]["query"], passages).ids)
        if sum(map(len, rows)) >= least:
            break
    return rows
