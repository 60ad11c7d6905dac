"""Seconds and memory that a model needs for a number of documents, by the shape that models.toml states.

Pure arithmetic over measured rates: nothing is loaded here. docs/models.md states the error against real runs.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from dearlite.listwise.group_prompts import GROUP_FORMS
from dearlite.listwise.sorts import SETWISE_SORTS
from dearlite.models.entries import ModelEntry
from dearlite.options import DEFAULT_GROUP_SIZE, DEFAULT_SORT_K
from dearlite.recommend.rates import GgufRates, OnnxRates
from dearlite.templates.families import FAMILIES, Family

QUERY_TOKENS = 16  # of the query of every prediction
_CHAT_TOKENS = 28  # of a chat template's own words, with a usual system turn
_SPECIAL_TOKENS = 4  # of a pair: [CLS] and two [SEP], or as many of a decoder
_ANSWER_WORDS = re.compile(r"\w+|[^\w\s]")  # about one token each
# Window and stride of a listwise model, the words of a window's prompt and of a document's place in it.
_WINDOW, _STRIDE, _WINDOW_TOKENS, _PLACE_TOKENS = 20, 10, 120, 8
_BITS = {"q4_k": 4.85, "q8_0": 8.5, "f16": 16.0}  # types whose rates are measured -> bits per weight
_DOCUMENT_BYTES = 1000  # of a document and its hit, besides its text
_TOKEN_BYTES = 6  # of a document's text
# Bytes that attention takes in ONNX Runtime for each two tokens of a row, 64 values of the hidden state, and thread:
# measured with MiniLM and ModernBERT shapes at 1,000 and 2,000 tokens. Decoders have attention that takes none.
_ATTENTION_BYTES = 11


@dataclass(frozen=True, slots=True)
class Workload:
    """The documents of one query: their number, and the tokens of each."""

    documents: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens that a call computes: of the beginning that all documents share, once, and of each document."""

    shared: int
    each: int
    read: int  # of each document's own tokens


def tokens_of(entry: ModelEntry, work: Workload) -> Tokens:
    """The computed tokens of a pointwise model; a document is cut at the model's maximum."""
    family = FAMILIES.get(entry.prompt)
    words = "" if family is None else _words(family)
    before, _, after = words.partition("{document}")
    head, tail = (len(_ANSWER_WORDS.findall(re.sub(r"\{\w+\}", "", part))) for part in (before, after))
    head += _CHAT_TOKENS if family is not None and family.chat else 0
    fixed = QUERY_TOKENS + _SPECIAL_TOKENS + head + tail
    read = max(1, min(work.tokens, entry.max_tokens - fixed))
    if entry.pooling != "last-token" or "{query}" in after:  # every token depends on the document
        return Tokens(0, fixed + read, read)
    return Tokens(QUERY_TOKENS + head, _SPECIAL_TOKENS + tail + read, read)


def _words(family: Family) -> str:
    """The words of a prompt without an instruction of the caller's."""
    if family.instruction:
        return "".join(family.instructed).replace("{instruction}", family.instruction)
    return "".join(family.parts) or family.chat


def seconds_in_onnx(entry: ModelEntry, work: Workload, rates: OnnxRates, threads: int) -> float | None:
    """Seconds of one call of a loaded `.dear` model in int8; None for an entry without a shape."""
    if not (entry.matrix_parameters and entry.layers and entry.hidden):
        return None
    tokens = tokens_of(entry, work)
    values = entry.layers * entry.hidden
    token_s = 2 * entry.matrix_parameters / rates.operations_per_s(entry.hidden) + values * rates.value_s

    def row_s(count: int, past: int) -> float:
        return count * (token_s + values * rates.pair_s * (count + past))

    rounds = math.ceil(work.documents / threads) if work.documents < 4 * threads else work.documents / threads
    return row_s(tokens.shared, 0) + rounds * row_s(tokens.each, tokens.shared)


def seconds_in_llama(entry: ModelEntry, work: Workload, rates: GgufRates) -> float | None:
    """Seconds of one call of a loaded GGUF; None for an entry without a shape."""
    if not (entry.matrix_parameters and entry.layers and entry.hidden):
        return None
    if entry.prompt in GROUP_FORMS:
        passages = min(work.documents, DEFAULT_GROUP_SIZE) * (work.tokens + _PLACE_TOKENS)
        comparisons = SETWISE_SORTS["heap"].most(work.documents, DEFAULT_SORT_K, DEFAULT_GROUP_SIZE)
        count = max(1, comparisons) * min(passages + _WINDOW_TOKENS + QUERY_TOKENS, entry.max_tokens)
    elif entry.kind == "listwise":
        windows = max(1, 1 + math.ceil((work.documents - _WINDOW) / _STRIDE))
        passages = min(work.documents, _WINDOW) * (work.tokens + _PLACE_TOKENS)
        count = windows * min(passages + _WINDOW_TOKENS + QUERY_TOKENS, entry.max_tokens)
    else:
        tokens = tokens_of(entry, work)
        count = tokens.shared + work.documents * tokens.each
    return count * (2 * entry.matrix_parameters / rates.operations_per_s + entry.layers * entry.hidden * rates.value_s)


def gguf_type(entry: ModelEntry) -> str:
    """The measured type that is nearest to the entry's weights, by bits per parameter."""
    bits = 8 * entry.size_mb * 1e6 / entry.parameters if entry.parameters else _BITS["q8_0"]
    return min(_BITS, key=lambda name: abs(math.log(_BITS[name] / bits)))


def peak_memory_mb(entry: ModelEntry, work: Workload, threads: int) -> float:
    """Resident memory at the peak in MB of 10^6 bytes: the entry's figure, attention, and the documents' texts."""
    texts = work.documents * (work.tokens * _TOKEN_BYTES + _DOCUMENT_BYTES)
    encoder = entry.kind == "pointwise" and not entry.file and entry.pooling != "last-token"
    length = tokens_of(entry, work).each if encoder else 0
    attention = threads * (entry.hidden or 0) / 64 * length**2 * _ATTENTION_BYTES
    return entry.memory_mb + (texts + attention) / 1e6
