"""The export of a pointwise model to a `.dear` file: its folders and facts, then a decoder's or encoder's pipeline."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dearlite.errors import CheckpointError, UsageError
from dearlite.export.decoders.bundle import DecoderModel
from dearlite.export.decoders.pipeline import check_disk, export_decoder
from dearlite.export.decoders.quantisations import DEVICES, MEAN, POOLINGS, check_devices, check_shape
from dearlite.export.encoders.heads import read_head
from dearlite.export.encoders.networks import Classifier, Scorer
from dearlite.export.encoders.pipeline import ENCODERS, EncoderModel, export_encoder, pair_settings, refuse_unknown
from dearlite.export.encoders.t5 import PROBABILITY, first_answer
from dearlite.export.gguf.scorer import export_scorer
from dearlite.export.options import DEFAULT_POOLING, DEFAULT_QUANT, DEFAULT_TARGET, ExportOptions, Report
from dearlite.export.quality.gate import MIN_TAU, QualityGate
from dearlite.export.quality.texts import pair_types
from dearlite.export.results import WrittenModel
from dearlite.export.source.adapter import Adapter
from dearlite.export.source.answers import AnswerScorer
from dearlite.export.source.checkpoint import Checkpoint, TensorSource
from dearlite.export.source.families import FAMILIES, check_tensors, label_count, shape_of
from dearlite.export.source.inputs import output_path, padding_id, pooling_warning, source_folders
from dearlite.export.source.merge import HEADS, MergedCheckpoint, check_base
from dearlite.export.source.modules import stated_activation
from dearlite.export.source.prompts import PromptOfModel, prompt_of_folder
from dearlite.export.source.tokenizer import check_tokenizer, probe_texts, tokenizer_json
from dearlite.models.entries import ModelEntry
from dearlite.models.facts import NOT_STATED, PointwiseFacts
from dearlite.pointwise.prompts import PAIR_FORMS
from dearlite.templates.families import FAMILIES as TEMPLATES

_DEFAULT_PROMPT, _DEFAULT_TOKENS = "dear", 228  # of a decoder, as DeAR's were trained


@dataclass(frozen=True, slots=True)
class _Job:
    """One export: the model's folders, the file to write, and the options."""

    entry: ModelEntry | None  # None for a folder
    checkpoint: Checkpoint
    adapter: Path | None
    output: Path
    options: ExportOptions

    @property
    def quant(self) -> str:
        return self.options.quant or DEFAULT_QUANT["listwise" if self.options.names_gguf else "pointwise"]

    @property
    def devices(self) -> tuple[str, ...]:
        return DEVICES[self.options.target or DEFAULT_TARGET]

    @property
    def gate(self) -> QualityGate:
        options = self.options
        floor = MIN_TAU if options.min_tau is None else options.min_tau
        return QualityGate(card=options.card, floor=floor, force=options.force)

    @property
    def members(self) -> dict[str, bytes]:
        return {"LICENSE": self.checkpoint.license_text.encode()}


def export_pointwise(model: str, entry: ModelEntry | None, options: ExportOptions, report: Report) -> WrittenModel:
    """The written file. `options` have passed `check`."""
    bidirectional = entry is not None and entry.architecture in FAMILIES and not FAMILIES[entry.architecture].causal
    if entry is not None and entry.pooling not in POOLINGS and entry.architecture not in ENCODERS and not bidirectional:
        raise UsageError(
            f"{model} is read at {entry.pooling!r}, which is not supported: only {' and '.join(POOLINGS)} are"
        )
    suffix = ".gguf" if options.names_gguf else ".dear"
    if options.names_gguf and options.output is None:
        raise UsageError(f"name the file to write: -o {entry.name if entry is not None else 'model'}.gguf")
    output = output_path(options.output, entry, options.force, suffix=suffix, folders=(Path(model), options.adapter))
    pooling = entry.pooling if entry is not None else options.pooling or DEFAULT_POOLING
    if not options.names_gguf:
        check_devices(options.quant or DEFAULT_QUANT["pointwise"], DEVICES[options.target or DEFAULT_TARGET], pooling)
    folder, adapter = source_folders(model, entry, options.adapter)
    job = _Job(entry, Checkpoint(folder), adapter, output, options)
    refuse_unknown(job.checkpoint.config.get("model_type"), FAMILIES)
    encodes = job.checkpoint.config["model_type"] in ENCODERS
    facts, card = _export_encoder(job) if encodes else _export_decoder(job, pooling, report)
    return WrittenModel(output, facts, card, job.checkpoint)


def _export_decoder(job: _Job, pooling: str, report: Report) -> tuple[PointwiseFacts, dict[str, Any]]:
    entry, options = job.entry, job.options
    lora = Adapter(job.adapter) if job.adapter is not None else None
    prompt, source = _prompt_and_source(job, lora, report)
    max_tokens = _decoder_tokens(entry, options, job.checkpoint.config) if prompt is None else prompt.max_tokens
    if lora is not None and (note := check_base(lora.config, job.checkpoint)):
        report(note)
    # Every refusal comes before the weights are hashed, which reads each byte of them.
    shape = shape_of(source.config, max_tokens)
    check_tensors(source, shape)
    check_shape(shape, job.devices)
    if not shape.causal:
        if options.pooling is not None:
            raise UsageError(f"--pooling does not apply to a {source.config['model_type']}, which is read at the mean")
        pooling = MEAN
    if lora is None and (labels := label_count(source.config)) not in (None, 1):
        raise UsageError(
            f"the config.json of {job.checkpoint.folder} states {labels} labels, and its score.weight has one row: "
            "fetch both again, of one revision"
        )
    if not options.names_gguf:
        check_disk(job.output, shape, job.quant)
    tokenizer, pad_id = _tokenizer(job, shape.vocabulary, None if prompt is not None else max_tokens)
    if pooling == "last-position" and pad_id is None:
        raise UsageError(
            f"{job.checkpoint.folder} names neither a pad token nor an eos token: 'last-position' is read at one"
        )
    words = entry.prompt if entry is not None else options.prompt or _DEFAULT_PROMPT
    facts = _facts(job, source.config, words, pooling, max_tokens, pad_id, prompt)
    if options.names_gguf:
        facts = replace(facts, source=facts.source | {"quant": job.quant})
        return facts, export_scorer(
            source,
            facts,
            job.output,
            tokenizer=tokenizer,
            folders=(job.checkpoint.folder, job.adapter),
            quant=job.quant,
            gate=job.gate,
            probes=probe_texts(tokenizer),
        )
    decoder = DecoderModel(
        source=source,
        tokenizer=tokenizer,
        facts=facts,
        pad_id=pad_id,
        members=job.members,
        probes=probe_texts(tokenizer),
    )
    card = export_decoder(decoder, job.output, quant=job.quant, devices=job.devices, gate=job.gate)
    if entry is None and (note := pooling_warning(pooling, pad_id, source.config)):
        report(note)
    return facts, card


def _prompt_and_source(job: _Job, lora: Adapter | None, report: Report) -> tuple[PromptOfModel | None, TensorSource]:
    """The template of the model, None for a scorer of pairs, and its weights with a score head."""
    entry, options = job.entry, job.options
    named = entry.prompt if entry is not None else options.prompt
    headed = any(name.startswith(HEADS) for name in (*job.checkpoint.names, *(lora.saved if lora is not None else ())))
    if named in PAIR_FORMS:
        return None, MergedCheckpoint(job.checkpoint, lora)
    try:
        prompt = prompt_of_folder(
            job.checkpoint.folder,
            tokenizer_json(job.checkpoint.folder, job.adapter)[1],
            job.checkpoint.config,
            named=named,
            headed=headed,
            max_tokens=_stated_tokens(entry, options, job.checkpoint.config),
        )
    except UsageError:
        if lora is None or named is not None:
            raise
        return None, MergedCheckpoint(job.checkpoint, lora)  # refuses a LoRA that lacks its head, by name
    if prompt is None or prompt.answers is None:
        source: TensorSource = MergedCheckpoint(job.checkpoint, lora)
    else:
        source = AnswerScorer(MergedCheckpoint(job.checkpoint, lora, require_head=False), prompt.answers)
    if prompt is not None and named is None:
        report(f"its prompt is {prompt.name}, by {prompt.told_by} (another one: --prompt NAME)")
    return prompt, source


def _export_encoder(job: _Job) -> tuple[PointwiseFacts, dict[str, Any]]:
    """Through optimum. A folder's config.json decides what the options leave open."""
    entry, options, config = job.entry, job.options, job.checkpoint.config
    if options.names_gguf:
        raise UsageError(
            f"an encoder ({config['model_type']}) is written as a .dear file: leave out --quant, or give an int8 one; "
            "llama.cpp's convert_hf_to_gguf.py writes GGUF files that `dearlite rerank -m FILE.gguf` runs"
        )
    if job.adapter is not None:
        raise UsageError(
            f"a LoRA over an encoder ({config['model_type']}) cannot be merged here: merge it with PEFT first"
        )
    if options.pooling is not None:
        raise UsageError(
            f"--pooling does not apply to an encoder ({config['model_type']}), whose config.json names the position: "
            "leave it out"
        )
    answers = ENCODERS[config["model_type"]].answers
    if options.prompt in (PAIR_FORMS if answers else TEMPLATES):
        raise UsageError(
            f"--prompt {options.prompt} is for {'a pair of texts' if answers else 'a language model'}, and "
            f"{job.checkpoint.folder} is an encoder ({config['model_type']}): leave it out"
        )
    form, max_tokens = options.prompt, options.max_tokens
    if entry is not None:
        form, max_tokens = entry.prompt, entry.max_tokens
    size = config.get("vocab_size")
    if type(size) is not int or size < 1:
        raise CheckpointError(f"the config.json of {job.checkpoint.folder} has vocab_size {size!r}: fetch it again")
    head = None if answers else read_head(job.checkpoint)
    form, pooling, max_tokens = pair_settings(config, job.quant, job.devices, form, max_tokens, head)
    tokenizer, _ = _tokenizer(job, size, None if answers else max_tokens)
    scorer: Scorer
    if not answers:
        facts, scorer = _facts(job, config, form, pooling, max_tokens), Classifier(head)
        hashes = {} if head is None else {f"sha256 {name}": digest for name, digest in head.sha256s().items()}
        stated = stated_activation(job.checkpoint.folder, config)
        facts = replace(facts, source=facts.source | hashes, activation=stated)
    else:
        scorer = first_answer(job.checkpoint.folder, tokenizer, answers)
        prompt = prompt_of_folder(
            job.checkpoint.folder, tokenizer, config, named=form or None, headed=True, max_tokens=max_tokens
        )
        facts = _facts(job, config, form, pooling, max_tokens, prompt=prompt)
        facts = replace(facts, activation=PROBABILITY, source=facts.source | {"head": str(scorer)})
    encoder = EncoderModel(
        checkpoint=job.checkpoint,
        tokenizer=tokenizer,
        facts=facts,
        members=job.members,
        probes=probe_texts(tokenizer),
        scorer=scorer,
    )
    return facts, export_encoder(encoder, job.output, quant=job.quant, gate=job.gate)


def _decoder_tokens(entry: ModelEntry | None, options: ExportOptions, config: dict[str, Any]) -> int:
    """The most tokens of a pair. Raises UsageError for more than the model has positions."""
    positions = config.get("max_position_embeddings") or sys.maxsize
    return _stated_tokens(entry, options, config) or min(_DEFAULT_TOKENS, positions)


def _stated_tokens(entry: ModelEntry | None, options: ExportOptions, config: dict[str, Any]) -> int | None:
    """The most tokens of a pair as models.toml or the user states them. Raises UsageError for more than positions."""
    positions = config.get("max_position_embeddings") or sys.maxsize
    stated = entry.max_tokens if entry is not None else options.max_tokens
    if type(positions) is int and stated is not None and stated > positions:
        raise UsageError(f"--max-tokens {stated} is more than the model's max_position_embeddings, {positions}")
    return stated


def _tokenizer(job: _Job, rows: int, pair_tokens: int | None) -> tuple[bytes, int | None]:
    """The tokenizer.json of the base, or of the adapter if the base has none, and the id of its padding token.

    Raises CheckpointError if it does not fit a model with `rows` rows of embedding, or cannot join a pair of
    `pair_tokens` tokens; None for a model that reads one text.
    """
    place, tokenizer = tokenizer_json(job.checkpoint.folder, job.adapter)
    check_tokenizer(place, tokenizer, rows, job.checkpoint.config)
    if pair_tokens is not None:
        pair_types(place, tokenizer, pair_tokens)
    return tokenizer, padding_id(place, tokenizer, job.checkpoint.config)


def _facts(
    job: _Job,
    config: dict[str, Any],
    form: str,
    pooling: str,
    max_tokens: int,
    pad_id: int | None = None,
    prompt: PromptOfModel | None = None,
) -> PointwiseFacts:
    """The facts that the manifest records. Hashes the weights."""
    entry = job.entry
    source = {f"sha256 {name}": digest for name, digest in job.checkpoint.sha256s().items()}
    if job.adapter is not None:
        source["adapter"] = job.adapter.name
    if entry is not None:
        source |= {"repository": entry.repository, "revision": entry.revision}
        source |= {"base": entry.base} if entry.base else {}
    else:
        source["folder"] = job.checkpoint.folder.resolve().name
    if pad_id is not None:
        source["pad_id"] = str(pad_id)
    if prompt is not None:
        source["prompt"] = prompt.told_by
        source |= {"head": str(prompt.answers)} if prompt.answers is not None else {}
    return PointwiseFacts(
        name=entry.name if entry else job.output.stem,
        architecture=config["model_type"],
        prompt=form if prompt is None else prompt.name,
        pooling=pooling,
        max_tokens=max_tokens,
        licence=entry.licence if entry else NOT_STATED,
        source=source,
        template=None if prompt is None else prompt.template,
        activation=None if prompt is None or prompt.activation is None else dict(prompt.activation),
    )
