"""A language model's export to GGUF: written in f16, quantised, compared with fp32, sealed, and kept only if good."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from dearlite.errors import CheckpointError, DearliteError, ModelFileError, UsageError
from dearlite.export.gguf.card import (
    ROW_TOKENS,
    agreement_below_floor,
    agreement_card,
    card_rows,
    versions,
)
from dearlite.export.gguf.metadata import CARD_BYTES, UNSEALED, ListwiseFacts, fill_in, listwise_values, model_values
from dearlite.export.gguf.networks import find_network
from dearlite.export.gguf.quants import F16, size_bytes
from dearlite.export.gguf.reference import Reference
from dearlite.export.gguf.vocabulary import CONTROL, USER_DEFINED, Vocabulary, read_vocabulary
from dearlite.export.gguf.weights import check_weights, weights_of
from dearlite.export.gguf.worker import call_llama
from dearlite.export.gguf.writer import write_head, write_weights
from dearlite.export.quality.gate import MIN_AGREEMENT, QualityGate
from dearlite.export.source.families import macs_per_token
from dearlite.export.source.merge import MergedCheckpoint
from dearlite.files.drafts import Draft, workplace
from dearlite.files.hashing import sha256_of
from dearlite.files.json_text import json_text
from dearlite.files.targets import reason_of
from dearlite.foreign import one_line_errors
from dearlite.listwise.forms import FORMS
from dearlite.llama.bindings import installed_engine
from dearlite.templates.chat import ChatTemplate

DEFAULT_GATE = QualityGate(floor=MIN_AGREEMENT)
_CARD_DISK_BYTES = 2**28  # the reference's logits, and the vocabulary file
_VOCABULARY_BYTES = 2**24
_MOST_PROBED = 300  # added tokens: Llama 3 has 256


def export_gguf(
    source: MergedCheckpoint,
    facts: ListwiseFacts,
    output: Path,
    *,
    quant: str,
    gate: QualityGate = DEFAULT_GATE,
) -> tuple[ListwiseFacts, dict[str, Any]]:
    """The facts as the file records them, and its quality card, which is empty if `gate` requests no card.

    Writes `source` to `output` as a GGUF of type `quant`. Intermediate files lie in a temporary folder beside `output`,
    which is removed in any case. Raises DearliteError, and leaves no file, if the likeliest token is that of fp32 at a
    smaller share of positions than `gate.floor`, unless `gate.force`.
    """
    config, folder = source.config, source.checkpoint.folder
    family, shape = find_network(config, facts.max_tokens)
    weights = weights_of(config, family, shape)
    check_weights(source, weights, folder, family)
    adapter = source.adapter.folder if source.adapter else None
    vocabulary = read_vocabulary(folder, config, family.tokenizers, adapter, space_prefix=family.space_prefix)
    _check_template(folder, vocabulary, facts.prompt)
    if quant != F16 or gate.card:
        installed_engine()
    shapes = [weight.shape for weight in weights]
    check_disk(output, size_bytes(F16, shapes), 0 if quant == F16 else size_bytes(quant, shapes), carded=gate.card)
    hashes = _SourceHashes(source)
    facts = replace(facts, source=facts.source | hashes.placeholders() | {"quant": quant, "versions": versions()})
    factors = shape.rotary.tensors
    values = list(model_values(config, family, shape, weights, facts, listwise_values(facts)))
    with _draft_of(output) as whole:
        work = whole.path
        card: dict[str, Any] = {}
        reference = rows = None
        failure = f"{folder}: its metadata cannot be written as GGUF"
        if gate.card:
            with one_line_errors(failure, "fetch it again", CheckpointError):
                write_head(work / "vocabulary.gguf", family.gguf, values, vocabulary)
            rows = card_rows(work / "vocabulary.gguf", macs_per_token(shape), shape.vocabulary, facts.max_tokens)
            reference = Reference(replace(shape, max_tokens=ROW_TOKENS), [*map(np.array, rows.ids)], rows.positions)
        hashes.start()
        draft = work / "f16.gguf"
        with one_line_errors(failure, "fetch it again", CheckpointError):
            write_head(draft, family.gguf, values, vocabulary, weights, factors)
        write_weights(draft, source, weights, factors, reference)
        if reference is not None:
            np.save(work / "logits.npy", reference.finish(source, tied=bool(config.get("tie_word_embeddings"))))
            reference = None  # frees its memory for llama.cpp
        if quant != F16:
            call_llama("quantise", {"path": str(draft), "output": str(work / "model.gguf"), "quant": quant})
            draft.unlink()
            draft = work / "model.gguf"
        if rows is not None:
            card = agreement_card(draft, rows, work / "logits.npy")
            gate.apply(output, card, agreement_below_floor(card, gate.floor))
        if quant != F16 or gate.card:
            _check_probe(draft, vocabulary)
        facts = replace(facts, source=facts.source | hashes.digests())
        fill_in(draft, {"dearlite.card": _card_json(card), "dearlite.source": json.dumps(facts.source)})
        whole.commit(draft)
    return facts, card


def _check_template(folder: Path, vocabulary: Vocabulary, prompt: str) -> None:
    """Raises UsageError unless the model's chat template renders a conversation of the form `prompt`, if it needs one.

    Jinja2 comes with the extra `listwise`; without it an f16 file is written whose template has not been tried.
    """
    form, template = FORMS[prompt], vocabulary.chat_template
    if form.frame is not None:
        return
    if isinstance(template, list):  # of templates with names
        template = next((entry["template"] for entry in template if entry.get("name") == "default"), None)
    if template is None:
        raise UsageError(
            f"{folder} has no chat template, which the prompt form {prompt!r} needs: choose --prompt plain or "
            "rankvicuna, or add the chat_template of its instruct version"
        )
    if find_spec("jinja2") is not None:
        texts = {kind: vocabulary.tokens[vocabulary.special_ids[kind]].decode() for kind in vocabulary.special_ids}
        tokens = {f"{kind}_token": texts.get(kind, "") for kind in ("bos", "eos")}
        try:
            ChatTemplate(template, tokens).parts(form.turns("query", ["passage"]))
        except ModelFileError as err:
            raise UsageError(f"{folder}: {err}, or mend the chat template") from None


def _check_probe(path: Path, vocabulary: Vocabulary) -> None:
    """Raises ModelFileError if llama.cpp cannot read a row of all added tokens and the last one with the new file.

    Passes a file that this machine cannot run at all.
    """
    last = len(vocabulary.tokens) - 1
    ids = [n for n, kind in enumerate(vocabulary.types) if kind in (CONTROL, USER_DEFINED)][:_MOST_PROBED]
    texts = [vocabulary.tokens[n].decode("utf-8", "replace") for n in (*ids, last)]
    try:
        fault = call_llama("probe", {"path": str(path), "texts": texts, "row": [*ids, last]})["fault"]
    except DearliteError:
        return
    if fault:
        raise ModelFileError(f"the file cannot read its own tokens ({fault}): its parts do not belong together")


@contextmanager
def _draft_of(output: Path) -> Iterator[Draft]:
    """A draft folder for `output`. Raises DearliteError for a file in it that cannot be written."""
    try:
        with Draft(output, folder=True) as draft:
            yield draft
    except OSError as err:
        raise DearliteError(f"cannot write {output}: {reason_of(err)}") from None


def _card_json(card: dict[str, Any]) -> str:
    """The card as JSON of at most CARD_BYTES; an empty card gives an empty object."""
    text = json_text(card)
    assert len(text) <= CARD_BYTES, "every entry of the card is a number or a short text"
    return text


def check_disk(output: Path, f16: int, quantised: int, *, carded: bool) -> None:
    """Raises DearliteError, before the work, if the files of the export need more disk at once than is free."""
    needed = f16 + quantised + _VOCABULARY_BYTES + (_CARD_DISK_BYTES if carded else 0)
    free = shutil.disk_usage(workplace(output)).free
    if needed > free:
        parts = f"{f16 / 1e9:.2f} GB of f16 on the way and {quantised / 1e9:.2f} GB" if quantised else "all of it f16"
        raise DearliteError(
            f"{output} needs {needed / 1e9:.2f} GB of disk ({parts}) and {free / 1e9:.2f} GB are free: make room, or "
            "name a file on a larger disk with -o"
        )


class _SourceHashes:
    """The sha256 of each source file, computed by a thread while the weights are written."""

    def __init__(self, source: MergedCheckpoint) -> None:
        checkpoint, adapter = source.checkpoint, source.adapter
        files = {checkpoint.spec(name).file for name in checkpoint.names}
        self._files = sorted(files | {spec.file for spec in (adapter.tensors.values() if adapter else ())})
        self._digests: dict[str, str] = {}
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def placeholders(self) -> dict[str, str]:
        """The entries of `dearlite.source` at their full length, with zeros for digests."""
        return {f"sha256 {path.name}": UNSEALED for path in self._files}

    def start(self) -> None:
        self._thread.start()

    def digests(self) -> dict[str, str]:
        """The entries with the digests. Waits for the thread, and raises the OSError that ended it."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._digests

    def _run(self) -> None:
        try:
            for path in self._files:
                self._digests[f"sha256 {path.name}"] = sha256_of(path)
        except OSError as err:  # raised by `digests`
            self._error = err
