"""The export of a listwise model to a `.gguf` file: its folders and its facts, then the pipeline of export/gguf."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dearlite.errors import UsageError
from dearlite.export.gguf.architectures import architecture_of, text_config
from dearlite.export.gguf.metadata import ListwiseFacts
from dearlite.export.gguf.networks import most_tokens
from dearlite.export.gguf.pipeline import export_gguf
from dearlite.export.gguf.weights import left_out
from dearlite.export.options import DEFAULT_QUANT, DEFAULT_STRIDE, DEFAULT_WINDOW, ExportOptions, Report
from dearlite.export.quality.gate import MIN_AGREEMENT, QualityGate
from dearlite.export.results import WrittenModel
from dearlite.export.source.adapter import Adapter
from dearlite.export.source.checkpoint import Checkpoint
from dearlite.export.source.inputs import output_path, source_folders
from dearlite.export.source.merge import MergedCheckpoint, check_base, refuse_other_base
from dearlite.listwise.forms import FORMS
from dearlite.models.entries import ModelEntry
from dearlite.models.facts import NOT_STATED

_DEFAULT_PROMPT = "chat"
_MOST_TOKENS = 5000  # DeAR's cut-off in training (arXiv 2508.16998)


def export_listwise(model: str, entry: ModelEntry | None, options: ExportOptions, report: Report) -> WrittenModel:
    """The written file. `options` have passed `check`."""
    output = output_path(options.output, entry, options.force, suffix=".gguf", folders=(Path(model), options.adapter))
    folder, adapter = source_folders(model, entry, options.adapter)
    checkpoint, lora = Checkpoint(folder), Adapter(adapter) if adapter else None
    _refuse_scorer(checkpoint)
    checkpoint.config = text_config(checkpoint.config)
    source = MergedCheckpoint(checkpoint, lora, require_head=False)
    if lora is not None:
        if not options.force:
            refuse_other_base(lora.config, checkpoint)
        if note := check_base(lora.config, checkpoint):
            report(note)
    if dropped := left_out(source, architecture_of(source.config)):
        report(f"the file reads text only: {dropped} tensors of the part that reads images are left out")
    if source.untied:
        report("the base's output matrix is its embedding, and the adapter trains one of them: the file holds both")
    prompt, max_tokens = _prompt_and_length(model, entry, options, checkpoint)
    facts = ListwiseFacts(
        name=entry.name if entry else output.stem,
        prompt=prompt,
        window=options.window or DEFAULT_WINDOW,
        stride=options.stride or DEFAULT_STRIDE,
        max_tokens=max_tokens,
        licence=entry.licence if entry else NOT_STATED,
        source=_source(entry, checkpoint, lora),
    )
    facts, card = export_gguf(
        source,
        facts,
        output,
        quant=options.quant or DEFAULT_QUANT["listwise"],
        gate=QualityGate(
            card=options.card,
            floor=MIN_AGREEMENT if options.min_agreement is None else options.min_agreement,
            force=options.force,
        ),
    )
    if entry is None and options.max_tokens is None and max_tokens < min(_MOST_TOKENS, _positions(checkpoint)):
        report(
            f"prompts have at most {max_tokens} tokens: llama.cpp does not compute this model's windows, or its factors"
        )
    return WrittenModel(output, facts, card, checkpoint)


def _prompt_and_length(
    model: str, entry: ModelEntry | None, options: ExportOptions, checkpoint: Checkpoint
) -> tuple[str, int]:
    """The prompt form and the tokens of prompt and answer. Raises UsageError for more tokens than positions."""
    positions = _positions(checkpoint)
    prompt = options.prompt or _DEFAULT_PROMPT
    max_tokens = options.max_tokens or most_tokens(checkpoint.config, _MOST_TOKENS)
    if entry is not None:
        prompt, max_tokens = entry.prompt, entry.max_tokens
    if prompt not in FORMS:
        raise UsageError(f"models.toml names the prompt {prompt!r} for {model}: it is one of {', '.join(FORMS)}")
    if max_tokens > positions:
        raise UsageError(f"--max-tokens {max_tokens} is more than the model's max_position_embeddings, {positions}")
    return prompt, max_tokens


def _positions(checkpoint: Checkpoint) -> int:
    return checkpoint.config.get("max_position_embeddings") or _MOST_TOKENS


def _refuse_scorer(checkpoint: Checkpoint) -> None:
    """Raises UsageError if config.json names an architecture that is not a language model."""
    names = checkpoint.config.get("architectures") or []
    if not isinstance(names, list):
        raise UsageError(f"config.json states architectures {names!r}, which is no list: fetch it again")
    reads_images = isinstance(checkpoint.config.get("text_config"), dict)
    kinds = ("ForCausalLM", "ForConditionalGeneration") if reads_images else ("ForCausalLM",)
    if names and not any(str(name).endswith(kinds) for name in names):
        raise UsageError(
            f"{checkpoint.folder} is a {names[0]}, not a language model, and a GGUF has no place for its head: export "
            "it as a .dear file, without --quant or with --quant int8"
        )


def _source(entry: ModelEntry | None, checkpoint: Checkpoint, lora: Adapter | None) -> dict[str, Any]:
    """The origin of the weights, without their hashes."""
    adapter = {} if lora is None else {"adapter": lora.folder.resolve().name}
    if entry is None:
        return {"folder": checkpoint.folder.resolve().name} | adapter
    base = {"base": entry.base} if entry.base else {}
    return {"repository": entry.repository, "revision": entry.revision} | base | adapter
