"""The scoring of a GGUF: its prompt, the output that its score is read from, and its calibration.

Four kinds of file are told apart by metadata, never by name: a file that dearlite exported (`dearlite.*` keys); a
language model with a rank head of two labels (Qwen3-Reranker as llama.cpp converts it: `cls.output.weight` with the
rows yes and no); an encoder with llama.cpp's rank pooling; and any language model for which the caller names a family
of `templates.families`: by its answer yes or no, or by the likelihood of the query.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dearlite.errors import ModelFileError, UsageError
from dearlite.llama.vocabulary import LlamaVocabulary
from dearlite.models.gguf import GgufFile
from dearlite.models.gguf_kinds import HEAD, TWO_LABELS, calibration_of, exported_record, scoring_kind
from dearlite.pointwise.gguf_engine import Reading
from dearlite.pointwise.gguf_texts import GgufPairs, GgufTexts
from dearlite.pointwise.prompting import PairPrompt, Prompt, TemplatePrompt
from dearlite.pointwise.prompts import PAIR_FORMS
from dearlite.pointwise.tokens import PairLayout
from dearlite.templates.assembly import ModelWords, assemble
from dearlite.templates.chat import ChatTemplate
from dearlite.templates.families import FAMILIES, Family
from dearlite.templates.template import Template, read_template

SCHEMA = 1
_CHAT_TEMPLATE = "tokenizer.chat_template"
_FLOATS = {"f32": np.float32, "f16": np.float16}
_LONGEST_PROMPT = 8192
_ENCODER_DECODERS = ("t5", "t5encoder")


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufSettings:
    """The prompt of a GGUF (`form` with its `layout` for pairs, or a template), and the reading of its score."""

    name: str
    prompt: str
    form: Template | str
    layout: PairLayout | None
    max_tokens: int
    reading: Reading
    calibration: dict[str, Any] | None = None
    activation: dict[str, Any] | None = None

    def prompts(self, vocabulary: LlamaVocabulary, instruction: str | None) -> Prompt:
        """The prompts of the model, with its vocabulary."""
        if isinstance(self.form, Template):
            return TemplatePrompt(self.form, GgufTexts(vocabulary), self.max_tokens, instruction)
        assert self.layout is not None
        return PairPrompt(self.form, GgufPairs(vocabulary, self.layout))

    @property
    def takes_instruction(self) -> bool:
        """True if the prompt has a place for an instruction."""
        return isinstance(self.form, Template) and self.form.takes_instruction


def read_gguf_settings(file: GgufFile, vocabulary: LlamaVocabulary, context: int, prompt: str | None) -> GgufSettings:
    """The settings of `file`; `prompt` is the family that the caller names, `context` the model's trained context.

    Raises ModelFileError for a file that this dearlite cannot score with, UsageError for a prompt that it cannot have.
    """
    kind = scoring_kind(file)
    if kind is not None and prompt is not None:
        raise UsageError(f"{file.path.name} states its own prompt: leave out --prompt {prompt}")
    if kind == "exported":
        return _exported(file)
    if kind == "encoder":
        settings = _encoder(file, vocabulary, context)
    else:
        name = TWO_LABELS if kind == "labels" else prompt
        assert name is not None, "chain.resolve takes a file without a scoring kind for listwise"
        settings = _of_family(file, vocabulary, context, name, labels=kind == "labels")
    return replace(settings, calibration=calibration_of(file, prompt))


def _exported(file: GgufFile) -> GgufSettings:
    """The settings in the `dearlite.*` metadata."""
    own = {key.removeprefix("dearlite."): v for key, v in file.metadata.items() if key.startswith("dearlite.")}
    try:
        if own["schema"] != SCHEMA:
            raise ModelFileError(f"{file.path} has schema {own['schema']!r}: update dearlite")
        records = {name: exported_record(file, name) for name in ("template", "calibration", "activation")}
        head = np.array(own["head"], np.float32)
        form: Template | str = own["prompt"]
        layout = None
        if records["template"] is not None:
            form = read_template(records["template"], str(file.path))
        else:
            before, between, after = (tuple(own.get(f"pair.{part}", ())) for part in ("before", "between", "after"))
            layout = PairLayout(before, between, after, own["max_tokens"])
        if not isinstance(form, Template) and form not in PAIR_FORMS:
            raise ModelFileError(
                f"{file.path} has the prompt {form!r}, which this dearlite cannot run: update dearlite"
            )
        name, limit = str(own["name"]), int(own["max_tokens"])
    except (KeyError, TypeError, ValueError) as err:
        raise ModelFileError(f"{file.path}: its dearlite metadata is not complete ({err}): export it again") from None
    _check_width(file, head)
    return GgufSettings(
        name=name,
        prompt=own["prompt"],
        form=form,
        layout=layout,
        max_tokens=limit,
        reading=Reading(head=head),
        calibration=records["calibration"],
        activation=records["activation"],
    )


def _encoder(file: GgufFile, vocabulary: LlamaVocabulary, context: int) -> GgufSettings:
    """A pair as the family joins it: [CLS] query [SEP] document [SEP], or <s> query </s></s> document </s>."""
    ids = vocabulary.special_ids()
    end = ids.get("sep", ids.get("eos"))
    if end is None or "bos" not in ids:
        raise ModelFileError(f"{file.path} has a rank head and no tokens around its texts: convert the model again")
    between = [end, end] if vocabulary.token_text(ids["bos"]) == "<s>" else [end]  # RoBERTa's families
    return GgufSettings(
        name=file.path.stem,
        prompt="plain",
        form="plain",
        layout=PairLayout([ids["bos"]], between, [end], context),
        max_tokens=context,
        reading=Reading(),
    )


def _of_family(file: GgufFile, vocabulary: LlamaVocabulary, context: int, name: str, *, labels: bool) -> GgufSettings:
    family = FAMILIES[name]
    architecture = str(file.metadata.get("general.architecture"))
    if not family.fits({"model_type": architecture}):
        raise UsageError(
            f"--prompt {name} is for a model of type {' or '.join(family.model_types)}, and {file.path.name} is a "
            f"{architecture}: name its own"
        )
    if architecture in _ENCODER_DECODERS or file.metadata.get(f"{architecture}.attention.causal") is False:
        raise UsageError(
            f"--prompt {name} is for a causal language model, and {file.path.name} is none (its architecture is "
            f"{architecture}): name another model"
        )
    source = file.metadata.get(_CHAT_TEMPLATE)
    words = ModelWords(
        encode=vocabulary.encode,
        special=vocabulary.special_tokens,
        chat=ChatTemplate(source, _template_variables(vocabulary)) if source and family.chat else None,
        around=(vocabulary.token_text(vocabulary.bos) if vocabulary.bos is not None else "", ""),
        positions=min(context, _LONGEST_PROMPT),
        hidden=file.metadata.get(f"{architecture}.embedding_length"),
    )
    try:
        assembled = assemble(name, words)
    except ModelFileError as err:
        raise ModelFileError(f"{file.path.name}: {err}") from None
    return GgufSettings(
        name=file.path.stem,
        prompt=name,
        form=assembled.template,
        layout=None,
        max_tokens=assembled.max_tokens,
        reading=Reading(head=_two_label_head(file)) if labels else _reading(file, family, vocabulary, name),
        activation=assembled.activation,
    )


def _template_variables(vocabulary: LlamaVocabulary) -> dict[str, object]:
    """The variables of a chat template whose answer comes at once, as an export sets them."""
    return {**vocabulary.template_tokens, "enable_thinking": False}


def _reading(file: GgufFile, family: Family, vocabulary: LlamaVocabulary, name: str) -> Reading:
    """The query's likelihood, or the logits of the answers."""
    if family.likelihood:
        return Reading(likelihood=True)
    tokens = []
    for word in (family.yes, family.no):
        ids = [word] if isinstance(word, int) else vocabulary.encode(word) if word else []
        if word != "" and len(ids) != 1:
            raise ModelFileError(
                f"{file.path.name} makes {len(ids)} tokens of {word!r}, one of --prompt {name}: name another"
            )
        tokens += ids
    if not tokens:
        raise UsageError(f"--prompt {name} is for models with a score head, which {file.path.name} has not")
    return Reading(tokens=tuple(tokens))


def _two_label_head(file: GgufFile) -> Any:
    """The row yes less the row no of the rank head, (hidden,) float32."""
    tensor = file.tensors[HEAD]
    labels = file.metadata.get(f"{file.metadata.get('general.architecture')}.classifier.output_labels")
    if not isinstance(labels, list) or sorted(labels) != ["no", "yes"]:
        raise ModelFileError(
            f"{file.path}: its rank head has the labels {labels!r}, and that of a language model has yes and no: "
            "convert the model again"
        )
    if len(tensor.shape) != 2 or tensor.shape[1] != 2 or tensor.type not in _FLOATS:
        raise ModelFileError(
            f"{file.path}: its rank head has the shape {tensor.shape[::-1]} and the type {tensor.type}, and dearlite "
            "reads two rows (yes, no) in f32 or f16: convert the model again"
        )
    rows = file.read_tensor(HEAD, _FLOATS[tensor.type]).astype(np.float32)
    head = rows[labels.index("yes")] - rows[labels.index("no")]
    _check_width(file, head)
    return head


def _check_width(file: GgufFile, head: Any) -> None:
    width = file.metadata.get(f"{file.metadata.get('general.architecture')}.embedding_length")
    if head.shape != (width,) or not np.isfinite(head).all():
        raise ModelFileError(
            f"{file.path} has a head for {head.size} hidden values, and the model has {width}: export it again"
        )
