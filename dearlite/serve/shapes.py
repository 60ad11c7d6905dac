"""The answers of the endpoints: one shape that the clients of Cohere, Jina, vLLM, infinity, llama.cpp and Voyage read.

TEI's answer is a bare list. The table `FORMS` has the endpoints and the documents in their answers.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from dearlite.ranking import Hit, Ranking
from dearlite.serve.body import documents_are
from dearlite.serve.models import Models, Scored, ServedModel
from dearlite.serve.refusals import Refused
from dearlite.serve.requests import Asked, PairsRequest, RerankRequest
from dearlite.version import __version__


@dataclass(frozen=True, slots=True)
class Form:
    """The form of an endpoint's answer.

    `returns_documents`: unless the request says otherwise. `as_text`: a document is a string, not an object.
    """

    returns_documents: bool = False
    as_text: bool = False


FORMS = {
    "/rerank": Form(),
    "/v1/rerank": Form(returns_documents=True),  # Jina's
    "/v2/rerank": Form(),  # Cohere's
    "/reranking": Form(),  # llama.cpp's
    "/v1/reranking": Form(),
    "/infinity/rerank": Form(as_text=True),  # its path is /rerank, where the clients of vLLM want objects
}


def rerank_answer(
    path: str, request: RerankRequest, model: ServedModel, scored: Scored
) -> tuple[list[Any] | dict[str, Any], dict[str, str]]:
    """The body and the headers for a ranking of all documents. Raises Refused if cutting was forbidden."""
    ranking = scored.ranking
    cut = _count_cut([ranking], model, request.options)
    rows = list(zip(ranking, scored.scores, strict=True))[: request.top_n]
    form = FORMS[path]
    returns = form.returns_documents if request.returns_documents is None else request.returns_documents
    headers = _headers(model, cut)
    warnings = warnings_of(model, request, scored)
    if request.is_tei:
        if warnings:  # a bare list has no place for them
            headers["X-Dearlite-Warnings"] = json.dumps(warnings)
        return [
            {"index": hit.index, "score": score}
            | _mark(hit)
            | ({"text": hit.text} if request.returns_documents else {})
            for hit, score in rows
        ], headers
    tokens = sum(hit.tokens_used for hit in ranking)
    answer = {
        "id": f"rerank-{uuid.uuid4()}",
        "object": "list",
        "created": int(time.time()),
        "model": model.name,
        "results": [
            _result(hit, score) | (_document(hit, request.items[hit.index], form) if returns else {})
            for hit, score in rows
        ],
        "data": [_datum(hit, score, returns=returns and request.is_voyage) for hit, score in rows],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        "meta": {
            "api_version": {"version": "2"},
            "billed_units": {"search_units": 0},
            "tokens": {"input_tokens": tokens, "output_tokens": 0},
            "warnings": warnings,
            "dearlite": _facts(ranking),
        },
    }
    return answer, headers


def score_answer(
    model: ServedModel, request: PairsRequest, parts: Sequence[Scored]
) -> tuple[dict[str, Any], dict[str, str]]:
    """The body for the scores of pairs, in vLLM's form, and the headers. Raises Refused if cutting was forbidden.

    `parts` are rankings of the documents, in their order.
    """
    rankings = [part.ranking for part in parts]
    cut = _count_cut(rankings, model, request.options)
    query_cut = any(ranking.query_truncated for ranking in rankings)
    scores: list[float] = []
    for part in parts:
        by_index = {hit.index: score for hit, score in zip(part.ranking, part.scores, strict=True)}
        scores += [by_index[index] for index in sorted(by_index)]
    tokens = sum(hit.tokens_used for part in parts for hit in part.ranking)
    answer = {
        "id": f"score-{uuid.uuid4()}",
        "object": "list",
        "created": int(time.time()),
        "model": model.name,
        "data": [{"index": index, "object": "score", "score": score} for index, score in enumerate(scores)],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        "meta": {"warnings": _warnings(model, request.options, cut, len(scores), query_cut=query_cut)},
    }
    return answer, _headers(model, cut)


def _count_cut(rankings: Sequence[Ranking], model: ServedModel, options: Asked) -> int:
    """Number of documents that were cut. Raises Refused if that was forbidden."""
    cut = sum(hit.truncated for ranking in rankings for hit in ranking)
    if cut and not options.truncate:
        total = sum(ranking.total for ranking in rankings)
        raise Refused(
            422,
            f"{documents_are(cut, total)} longer than {model.name} reads: allow truncation",
        )
    return cut


def _headers(model: ServedModel, cut: int) -> dict[str, str]:
    """The headers of an answer; a name of a model with other characters than ASCII is percent-encoded."""
    name = model.name if model.name.isascii() else quote(model.name)
    return {"X-Dearlite-Model": name, "X-Dearlite-Truncated": str(cut)}


def _warnings(model: ServedModel, options: Asked, cut: int, total: int, *, query_cut: bool) -> list[str]:
    """Sentences about texts that were cut, and about fields without effect."""
    sentences = {
        f"{documents_are(cut, total)} longer than the model's input and {'was' if cut == 1 else 'were'} cut": cut,
        "the query is longer than the model's input: a part of it was read": query_cut,
        f"the instruction had no effect: the prompt of {model.name} has no place for one": (
            options.instruction and not model.takes_instruction
        ),
    }
    return [*(text for text, holds in sentences.items() if holds), *options.warnings]


def warnings_of(model: ServedModel, request: RerankRequest, scored: Scored) -> list[str]:
    """Sentences about texts that were cut or are empty, and about work that was not done."""
    ranking, empty = scored.ranking, scored.empty
    cut = sum(hit.truncated for hit in ranking)
    scored_count = sum(hit.score is not None for hit in ranking)
    failed = [f"stage {stage.model} did not run: {stage.error}" for stage in ranking.stages if stage.error]
    sentences = {
        f"{documents_are(empty, ranking.total)} empty and {'was' if empty == 1 else 'were'} put last": empty,
        f"the budget ended when {scored_count} of {ranking.total} documents had a score: the others keep their order": (
            not ranking.complete
        ),
        f"the model's answer was no complete order ({len(ranking.problems)} problems)": ranking.problems,
    }
    common = _warnings(model, request.options, cut, ranking.total, query_cut=ranking.query_truncated)
    return [*(text for text, holds in sentences.items() if holds), *failed, *common]


def models_answer(models: Models, started: int) -> dict[str, Any]:
    """The list of models, in OpenAI's form."""
    return {
        "object": "list",
        "data": [
            {"id": model.name, "object": "model", "created": started, "owned_by": "dearlite", "kinds": model.kinds}
            for model in models.served
        ],
    }


def info_answer(models: Models, queue: int, documents: int) -> dict[str, Any]:
    """The facts of the first model, in TEI's form."""
    first = models.served[0]
    return {
        "model_id": first.name,
        "model_sha": None,
        "model_dtype": "" if first.deferred else first.reranker.quantisation,
        "served_model_name": first.name,
        "model_type": {"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}},
        "max_concurrent_requests": queue,
        "max_input_length": first.max_tokens or 0,
        "max_batch_tokens": 0,
        "max_batch_requests": None,
        "max_client_batch_size": documents,
        "auto_truncate": True,
        "tokenization_workers": 1,
        "version": __version__,
        "sha": None,
        "docker_label": None,
    }


def _document(hit: Hit, item: object, form: Form) -> dict[str, Any]:
    """The document of a result: its text, or the object that was sent, with the text that was read."""
    fields = item if isinstance(item, Mapping) else {}
    return {"document": hit.text if form.as_text else {**fields, "text": hit.text}}


def _result(hit: Hit, score: float) -> dict[str, Any]:
    result: dict[str, Any] = {"index": hit.index, "relevance_score": score} | _mark(hit)
    if hit.reason is not None:
        result["reason"] = hit.reason
    if hit.passages:
        result["passages"] = [list(span) for span in hit.passages]
    if hit.truncated:
        result |= {"truncated": True, "tokens_used": hit.tokens_used, "tokens_total": hit.tokens_total}
    return result


def _mark(hit: Hit) -> dict[str, Any]:
    """The mark of a document that no model read: clients need a number as its score, which says nothing."""
    return {"scored": False} if hit.score is None else {}


def _datum(hit: Hit, score: float, *, returns: bool) -> dict[str, Any]:
    return {"index": hit.index, "relevance_score": score} | _mark(hit) | ({"document": hit.text} if returns else {})


def _facts(ranking: Ranking) -> dict[str, Any]:
    """The facts of a ranking that no other server has."""
    return {
        "device": ranking.device,
        "elapsed_ms": round(ranking.elapsed_s * 1000, 3),
        "complete": ranking.complete,
        "stages": [stage.to_dict() for stage in ranking.stages],
        "reasoning": list(ranking.reasoning),
        "agreement": ranking.agreement,
    }
