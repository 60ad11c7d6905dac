"""`dearlite.export.export`: a model as published becomes one file. The kind of the model chooses the flow.

pointwise.py makes `.dear` files, listwise.py `.gguf` files; the command line (command.py) calls `export_model`, too.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from dearlite.errors import UsageError, need
from dearlite.export.options import ExportOptions, Report
from dearlite.export.results import ExportResult, WrittenModel
from dearlite.export.source.inputs import states_scorer
from dearlite.machine import peak_memory_mb
from dearlite.models.entries import ModelEntry
from dearlite.models.registry import find_entry
from dearlite.models.requirements import check_extra, check_licence, licence_of
from dearlite.templates.families import FAMILIES


def export(
    model: str | Path,
    *,
    adapter: str | Path | None = None,
    output: str | Path | None = None,
    quant: str | None = None,
    target: str | None = None,
    prompt: str | None = None,
    max_tokens: int | None = None,
    window: int | None = None,
    stride: int | None = None,
    pooling: str | None = None,
    heads: str | None = None,
    card: bool = True,
    min_tau: float | None = None,
    min_agreement: float | None = None,
    force: bool = False,
    accept_licence: bool = False,
    report: Report | None = None,
) -> ExportResult:
    """The model file made of `model`: a Hugging Face folder, a LoRA over one, or a name of models.toml.

    The keywords are the options of `dearlite export`, described in docs/cli.md; `target` is its `--for`. None stands
    for the model's own value or the default of its kind. With `heads` a folder is an attention reranker. Without, it is
    a listwise model if `quant` is a type of GGUF or `output` ends in .gguf, and the model has no score head. `report`
    receives each note as one line; nothing is printed.

    Raises UsageError for options that do not apply, CheckpointError for a folder that is not a whole model, and
    DearliteError for a file that is too inexact, unless `force`. A failed export leaves no file.

    Examples:
        >>> from dearlite.export import export
        >>> result = export("path/to/base", adapter="path/to/lora", output="scorer.dear")  # doctest: +SKIP
        >>> result.path, result.card["kendall_tau"]  # doctest: +SKIP
        (PosixPath('scorer.dear'), 0.9871)

    """
    options = ExportOptions(
        adapter=None if adapter is None else Path(adapter),
        output=None if output is None else Path(output),
        quant=quant,
        target=target,
        prompt=prompt,
        max_tokens=max_tokens,
        window=window,
        stride=stride,
        pooling=pooling,
        heads=heads,
        card=card,
        min_tau=min_tau,
        min_agreement=min_agreement,
        force=force,
        accept_licence=accept_licence,
    )
    return export_model(str(model), options, report)


def export_model(model: str, options: ExportOptions, report: Report | None = None) -> ExportResult:
    """As `export`, with the options as a record."""
    start = time.perf_counter()
    entry = None if os.path.isdir(model) else _entry_of(model)
    if entry is not None:
        check_licence(entry, accepted=options.accept_licence)
        check_extra(entry)
    kind = entry.kind if entry is not None else _kind_of(Path(model), options)
    options.check(model, kind, named=entry is not None)
    written: WrittenModel
    if entry is not None and report is not None:
        report(f"{entry.name}: licence {licence_of(entry)}")
    if kind == "attention":
        need("onnx", extra="export")
        from dearlite.export.attention import export_attention

        written = export_attention(model, options, report or _silent)
    elif kind == "listwise":
        from dearlite.export.listwise import export_listwise

        written = export_listwise(model, entry, options, report or _silent)
    else:
        need("onnx", extra="export")
        from dearlite.export.pointwise import export_pointwise

        written = export_pointwise(model, entry, options, report or _silent)
    weight_files = {written.checkpoint.spec(name).file for name in written.checkpoint.names}
    return ExportResult(
        path=written.path,
        kind=kind,
        facts=written.facts,
        card=written.card,
        size_bytes=written.path.stat().st_size,
        source_bytes=sum(file.stat().st_size for file in weight_files),
        seconds=time.perf_counter() - start,
        peak_rss_mb=peak_memory_mb(),
        worker_peak_rss_mb=peak_memory_mb(children=True),
        published_scores=entry.golden if entry is not None else "",
    )


def _kind_of(folder: Path, options: ExportOptions) -> str:
    """The kind of the model in a folder: a GGUF holds a listwise model, unless the model has a score."""
    if options.heads is not None:
        return "attention"
    if not options.names_gguf or options.prompt in FAMILIES or states_scorer(folder, options.adapter):
        return "pointwise"
    return "listwise"


def _silent(line: str) -> None:
    """Drops the line."""


def _entry_of(name: str) -> ModelEntry:
    """The registered model `name`. Raises UsageError unless it can be exported."""
    if (entry := find_entry(name)) is None:
        raise UsageError(f"{name} is neither a folder nor a name of models.toml: `dearlite models` lists the names")
    name = entry.name
    if entry.kind == "cascade" or entry.embedded:
        reason = "is part of the package already" if entry.embedded else "is a cascade: export each of its models"
        raise UsageError(f"{name} {reason}")
    if entry.file:
        raise UsageError(f"{name} is published as a file, which is used as it is: `dearlite models get {name}`")
    return entry
