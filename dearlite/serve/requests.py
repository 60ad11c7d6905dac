"""One lenient reader for the requests of every family of clients. Knows nothing of HTTP.

The formats: Cohere v1 and v2, Jina, vLLM, TEI (`texts`), infinity, llama.cpp and Voyage (`top_k`, `truncation`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from dearlite.documents import Document, as_document, check_query
from dearlite.errors import InvalidInput
from dearlite.fields import TEXT_FIELDS, find_field
from dearlite.options import Long, LongMode
from dearlite.readable import readable
from dearlite.serve.body import Body, documents_are, kind_of
from dearlite.serve.limits import Limits
from dearlite.serve.refusals import Refused

DOCUMENTS = ("documents", "texts", "passages", "docs")
# The pairs of lists that /score takes, in vLLM's names
_PAIRS = (("text_1", "text_2"), ("queries", "documents"), ("queries", "items"), ("data_1", "data_2"))
_SHOWN_NAMES = 6
_WAIT_S = 0.005  # a shorter wait is no queue


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The options of a request.

    - `model`: the name that it gives, None without one.
    - `raw_scores`: True for logits in place of scores from 0 to 1.
    - `truncate`: False if a document that must be cut is an error.
    - `budget_s`: its budget in seconds, None without one; `budget_field`: its field or header.
    - `arrival`: its start, a value of `time.perf_counter()`.
    - `listwise`: the fields of `Listwise` that it sets.
    - `instruction`: the task in words, None without one.
    - `warnings`: sentences about fields that have no effect.
    """

    model: str | None = None
    raw_scores: bool = False
    truncate: bool = True
    budget_s: float | None = None
    budget_field: str = "budget_ms"
    arrival: float = 0.0
    long: Long | None = None
    listwise: Mapping[str, Any] = field(default_factory=dict)
    instruction: str | None = None
    warnings: tuple[str, ...] = ()

    def left_s(self, waited_s: float) -> float | None:
        """The seconds that are left of the budget after a wait; None without one. Raises if none is."""
        if self.budget_s is None:
            return None
        left_s = self.arrival + self.budget_s - time.perf_counter()
        if left_s > 0:
            return left_s
        if waited_s > max(_WAIT_S, self.budget_s / 2):
            raise Refused(503, "the budget ended while the request waited: send it again", retry_after_s=1)
        raise self.too_short()

    def too_short(self, batch_s: float | None = None) -> Refused:
        """The refusal of a budget in the words of the request; the first documents take `batch_s` if that is known."""
        budget = f"{self.budget_field} is {1000 * (self.budget_s or 0.0):g} ms"
        takes = "" if batch_s is None else f", which takes {1000 * batch_s:.0f} ms"
        return Refused(504, f"{budget}, and ends before the first document is read{takes}: give more")


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankRequest:
    """A query and its documents.

    - `items`: the documents as they were sent; `documents` are the same as records.
    - `kept`: indices of the documents that are not empty. The others are ranked last: a client that gets an error goes
      on without any order.
    - `top_n`: number of documents to return, None for all.
    - `returns_documents`: None for the default of the endpoint.
    - `is_tei`: True for TEI's form, which has `texts`, and a bare list as its answer.
    - `is_voyage`: True for Voyage's form, whose answer has documents as strings in `data`.
    """

    query: str
    items: Sequence[Any]
    documents: Sequence[Document]
    kept: list[int]
    top_n: int | None
    returns_documents: bool | None
    is_tei: bool
    is_voyage: bool
    options: Asked


@dataclass(frozen=True, slots=True, kw_only=True)
class PairsRequest:
    """Pairs of a query and a document that are scored one by one."""

    pairs: list[tuple[str, Document]]
    options: Asked


def read_rerank(value: object, limits: Limits, *, timeout_ms: float | None = None) -> RerankRequest:
    """The request in the JSON `value`. `timeout_ms` is the budget of its header.

    Raises InvalidInput or UsageError for a field that cannot be read, Refused for too many documents.
    """
    start, body = time.perf_counter(), Body(value)
    text = body.text("query")
    if text is None:
        raise InvalidInput("query is missing: send a string")
    query = check_query(text)
    name, items = body.items(*DOCUMENTS)
    _check_count(len(items), limits)
    rank_fields = body.texts("rank_fields")
    documents = [_document(item, index, rank_fields) for index, item in enumerate(items)]
    others = sum(not _has_fields(item, rank_fields) for item in items) if rank_fields else 0
    kept = [index for index, document in enumerate(documents) if _has_text(document)]
    if not kept:
        raise InvalidInput("every document is empty: send at least one with a text")
    top_n = body.whole("top_n", "top_k", "k") or None
    return RerankRequest(
        query=query,
        items=items,
        documents=documents,
        kept=kept,
        top_n=top_n,
        returns_documents=body.flag("return_documents", "return_text"),
        is_tei=name == "texts",
        is_voyage=any(body.value(name)[1] is not None for name in ("top_k", "truncation")),
        options=_options(
            body,
            start,
            timeout_ms,
            [f"{documents_are(others, len(items))} without the rank_fields: the text was read"] if others else [],
        ),
    )


def read_pairs(value: object, limits: Limits, *, timeout_ms: float | None = None) -> PairsRequest:
    """The request of /score in the JSON `value`: one query and N documents, or N of each. Raises as `read_rerank`."""
    start, body = time.perf_counter(), Body(value)
    names = next((names for names in _PAIRS if all(map(body.has, names))), _PAIRS[0])
    queries, documents = (_as_list(*body.value(name)) for name in names)
    _check_count(max(len(queries), len(documents)), limits)
    if len(queries) not in (1, len(documents)):
        raise InvalidInput(
            f"{names[0]} has {len(queries)} texts and {names[1]} {len(documents)}: send one query, or one per document"
        )
    texts = [_query(query, index) for index, query in enumerate(queries)]
    pairs = [(texts[index % len(texts)], _with_text(document, index)) for index, document in enumerate(documents)]
    options = _options(body, start, timeout_ms)
    if options.budget_s is not None:
        sentence = "the budget has no effect on scores: every pair is read"
        options = replace(options, budget_s=None, warnings=(*options.warnings, sentence))
    return PairsRequest(pairs=pairs, options=options)


def _check_count(count: int, limits: Limits) -> None:
    if count > limits.documents:
        raise Refused(413, f"{count} documents are more than the {limits.documents} that this server takes: send fewer")


def _as_list(name: str, value: object) -> list[Any]:
    if value is None:
        raise InvalidInput(f"{name} is missing: send a string or a list of strings")
    if not isinstance(value, list):
        return [value]
    if not value:
        raise InvalidInput(f"{name} is empty: send at least one text")
    return value


def _query(item: object, index: int) -> str:
    """The query of a pair. Raises InvalidInput for what is no string, and no object with a text."""
    text = item.get("text") if isinstance(item, Mapping) else item
    if not isinstance(text, str):
        raise InvalidInput(f"query {index} is {kind_of(item)}: it must be a string or an object with a text")
    return check_query(text)


def _text_or_object(item: object, index: int) -> object:
    """`item`, a string or an object. Raises InvalidInput for another value."""
    if not isinstance(item, (str, Mapping)):
        raise InvalidInput(f"document {index} is {kind_of(item)}: it must be a string or an object with a text")
    return item


def _has_fields(item: object, names: Sequence[str]) -> bool:
    return isinstance(item, Mapping) and any(isinstance(item.get(name), str) for name in names)


def _document(item: object, index: int, rank_fields: Sequence[str]) -> Document:
    """A document as it was sent, as a record. Raises InvalidInput for what has no text; an empty text is left as it is.

    `rank_fields` are the fields of an object that make its text, as in Cohere's v1.
    """
    _text_or_object(item, index)
    if isinstance(item, Mapping) and _has_fields(item, rank_fields):
        values = [item[name] for name in rank_fields if isinstance(item.get(name), str)]
        return as_document({"text": "\n".join(values)}, f"document {index}") if any(values) else Document("")
    text = item.get("text") if isinstance(item, Mapping) else item
    title = item.get("title") if isinstance(item, Mapping) else None
    if isinstance(text, str) and not readable(text) and not (isinstance(title, str) and readable(title)):
        return Document("", record=item)
    return _with_text(item, index)


def _with_text(item: object, index: int) -> Document:
    """An item as a document. Raises InvalidInput in the words of a request for what has no text."""
    where = f"document {index}"
    try:
        return as_document(_text_or_object(item, index), where)
    except InvalidInput:
        if not isinstance(item, Mapping):
            raise
        name, text = find_field(item, TEXT_FIELDS, where)
        if text is None:
            names = ", ".join(f"{name[:40]!a}" for name in list(item)[:_SHOWN_NAMES]) or "no field"
            raise InvalidInput(
                f"{where} has no text (it has {names}): send it in the field text, or name its fields in rank_fields"
            ) from None
        if not isinstance(text, (str, Mapping)):
            raise InvalidInput(f"{where} has {kind_of(text)} as its {name}: it must be a string") from None
        raise


def _has_text(document: Document) -> bool:
    return bool(document.text or document.title)


def _options(body: Body, start: float, timeout_ms: float | None, sentences: Sequence[str] = ()) -> Asked:
    """The options of a request, with `sentences` about it. `body` has no other field to read."""
    truncate = body.flag("truncate", "truncation")
    model, raw_scores = body.text("model"), body.flag("raw_scores")
    activates = body.flag("use_activation", "activation")  # vLLM's: false is a raw score
    side = body.text("truncation_direction", "truncation_side")
    budget_ms = body.number("budget_ms")
    long, listwise, instruction = _long(body), _listwise(body), body.text("instruction")
    if budget_ms is not None and budget_ms <= 0:
        raise InvalidInput(f"budget_ms is {budget_ms:g}: it must be a number of milliseconds above 0")
    named = {"budget_ms": budget_ms, "X-Timeout-Ms": timeout_ms}
    budgets = {name: budget for name, budget in named.items() if budget is not None}
    budget_field = min(budgets, key=budgets.__getitem__, default="budget_ms")
    warnings = list(sentences)
    if side is not None and side.lower() != "right":
        warnings.append("texts were cut at their end: this server has no other truncation direction")
    warnings += body.without_effect()
    return Asked(
        model=model,
        raw_scores=bool(raw_scores) or activates is False,
        truncate=truncate is not False,
        budget_s=budgets[budget_field] / 1000 if budgets else None,
        budget_field=budget_field,
        arrival=start,
        long=long,
        listwise=listwise,
        instruction=None if instruction is None or not instruction.strip() else instruction.strip(),
        warnings=tuple(warnings),
    )


def _long(body: Body) -> Long | None:
    """The treatment of long documents: a mode, or an object with the fields of `Long`. Raises as `read_rerank`."""
    name, value = body.value("long")
    passage_tokens, keep = body.whole("chunk_tokens", least=1), body.whole("keep", least=1)
    if value is None:
        return None
    if isinstance(value, Mapping):
        inner = Body(value)
        mode = inner.text("mode") or ""
        passage_tokens = inner.whole("passage_tokens", "chunk_tokens", least=1) or passage_tokens
        keep = inner.whole("keep", least=1) or keep
        if unread := inner.unread():
            raise InvalidInput(f"long has no field {unread[0][:40]!a}: it has mode, passage_tokens and keep")
    elif isinstance(value, str):
        mode = value
    else:
        raise InvalidInput(f"{name} must be a mode, truncate, chunk or cascade, or an object with one")
    return Long(cast(LongMode, mode), passage_tokens, keep or 1).checked()


def _listwise(body: Body) -> dict[str, Any]:
    """The fields of `Listwise` that a request sets."""
    names = ("window", "stride", "passage_tokens", "reasoning_tokens", "passes", "group_size", "sort_k")
    fields: dict[str, Any] = {name: body.whole(name, least=1) for name in names}
    fields["sort"] = body.text("sort")
    fields["mode"] = "reason" if body.flag("explain") else body.text("mode")
    return {name: value for name, value in fields.items() if value is not None}
