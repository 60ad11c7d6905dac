"""The description of the endpoints in OpenAPI 3.1, as data."""

from __future__ import annotations

from typing import Any

from dearlite.options import LISTWISE_MODES, LONG_MODES, SORTS
from dearlite.serve.limits import Limits
from dearlite.serve.refusals import TEI_KINDS
from dearlite.serve.shapes import FORMS
from dearlite.version import __version__

_TEXT = {"type": "string"}
_NUMBER = {"type": "number"}
_SORTS = list(dict.fromkeys(name for sorts in SORTS.values() for name in sorts))
_DOCUMENT = {"anyOf": [_TEXT, {"type": "object", "properties": {"text": _TEXT, "title": _TEXT}, "required": ["text"]}]}


def _whole(least: int, text: str) -> dict[str, Any]:
    return {"type": ["integer", "null"], "minimum": least, "description": text}


def _flag(text: str) -> dict[str, Any]:
    return {"type": ["boolean", "null"], "description": text}


def _rerank(limits: Limits) -> dict[str, Any]:
    lists = {
        name: {"type": "array", "items": _DOCUMENT, "minItems": 1, "maxItems": limits.documents}
        for name in ("documents", "texts", "passages", "docs")
    }
    return {
        "type": "object",
        "properties": {
            "query": _TEXT,
            **lists,
            "model": {"type": ["string", "null"], "description": "a served model; the first answers other names"},
            "top_n": _whole(0, "number of documents to return; 0 and null for all"),
            "top_k": _whole(0, "as top_n, in Voyage's form"),
            "return_documents": _flag("return the documents too"),
            "return_text": _flag("as return_documents, in TEI's form"),
            "raw_scores": _flag("logits in place of scores from 0 to 1"),
            "truncate": _flag("false: a document that must be cut is an error"),
            "rank_fields": {"type": ["array", "null"], "items": _TEXT, "description": "fields that make the text"},
            "budget_ms": {"type": ["number", "null"], "exclusiveMinimum": 0, "description": "time for the best order"},
            "instruction": {"type": ["string", "null"], "description": "task in words, for a model that takes one"},
            "long": {"enum": [*LONG_MODES, None], "description": "treatment of long documents"},
            "mode": {"enum": [*LISTWISE_MODES, None], "description": "mode of a listwise model"},
            "explain": _flag("the same as mode reason"),
            "window": _whole(1, "documents per prompt of a listwise model"),
            "stride": _whole(1, "documents between two windows"),
            "passes": _whole(1, "passes of a listwise model"),
            "group_size": _whole(2, "documents per comparison of mode setwise"),
            "sort": {"enum": [*_SORTS, None], "description": "algorithm of mode setwise or pairwise"},
            "sort_k": _whole(1, "documents that mode setwise or pairwise puts in order"),
        },
        "required": ["query"],
        "anyOf": [{"required": [name]} for name in lists],
    }


_SCORE = {
    "type": "object",
    "properties": {
        name: {"anyOf": [_TEXT, {"type": "array", "items": _DOCUMENT, "minItems": 1}]}
        for name in ("text_1", "text_2", "queries", "documents", "items", "data_1", "data_2")
    }
    | {"model": {"type": ["string", "null"]}, "raw_scores": _flag("logits in place of scores from 0 to 1")},
    "anyOf": [
        {"required": list(names)}
        for names in (("text_1", "text_2"), ("queries", "documents"), ("queries", "items"), ("data_1", "data_2"))
    ],
}
_ERROR = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {"message": _TEXT, "type": _TEXT, "code": {"type": "integer"}},
            "required": ["message", "type", "code"],
        },
        "error_type": {"enum": list(TEI_KINDS), "description": "the kind in the words of TEI"},
        "detail": _TEXT,
        "message": _TEXT,
    },
    "required": ["error", "error_type", "detail", "message"],
}
_RESULT = {
    "type": "object",
    "properties": {
        "index": {"type": "integer"},
        "relevance_score": _NUMBER,
        "scored": _flag("false: no model read the document, and its score says nothing"),
        "document": {"type": "object", "properties": {"text": _TEXT}, "required": ["text"]},
        "reason": _TEXT,
        "passages": {"type": "array", "items": {"type": "array", "items": {"type": "integer"}}},
        "truncated": {"type": "boolean"},
    },
    "required": ["index", "relevance_score"],
}
_RERANKED = {
    "anyOf": [
        {
            "type": "object",
            "properties": {
                "id": _TEXT,
                "object": _TEXT,
                "model": _TEXT,
                "results": {"type": "array", "items": _RESULT},
                "data": {"type": "array", "items": {"type": "object"}},
                "usage": {"type": "object"},
                "meta": {"type": "object"},
            },
            "required": ["id", "object", "model", "results", "usage", "meta"],
        },
        {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "index": {"type": "integer"},
                    "score": _NUMBER,
                    "text": _TEXT,
                    "scored": {"type": "boolean"},
                },
                "required": ["index", "score"],
            },
        },
    ]
}
_SCORED = {
    "type": "object",
    "properties": {
        "data": {
            "type": "array",
            "items": {"type": "object", "properties": {"index": {"type": "integer"}, "score": _NUMBER}},
        }
    },
    "required": ["data", "model"],
}
_REFUSALS = {
    "400": "a field that cannot be read",
    "401": "no key, or an unknown one",
    "403": "a host or an origin that is not allowed",
    "408": "the body came too slowly",
    "413": "too many documents, or too large a body",
    "415": "a compressed body",
    "422": "a document is too long, and cutting was forbidden",
    "429": "too many requests at once",
    "500": "the model failed",
    "503": "the server is busy or ending",
    "504": "the work took too long",
}


def openapi(limits: Limits, *, keyed: bool = False) -> dict[str, Any]:
    """The document for `/openapi.json`. `keyed`: requests need a key."""
    headers = [
        {"name": "X-Timeout-Ms", "in": "header", "schema": {"type": "number", "exclusiveMinimum": 0}},
    ]
    plain = {"content": {"text/plain": {"schema": _TEXT}}}
    anything = {"content": {"application/json": {"schema": {"type": "object"}}}}
    gets = {
        "/v1/models": ("The served models", anything),
        "/models": ("The served models", anything),
        "/info": ("The default model, in TEI's form", anything),
        "/health": ("Answers", {}),
        "/ping": ("Answers", {}),
        "/ready": ("Takes requests", {}),
        "/metrics": ("Counters, in Prometheus' text form", plain),
        "/openapi.json": ("This description", anything),
    }
    posts = {
        **{path: ("Rank documents", _rerank(limits), _RERANKED, headers) for path in FORMS},
        **{path: ("Score pairs", _SCORE, _SCORED, []) for path in ("/score", "/v1/score")},
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "dearlite", "version": __version__, "description": "Document reranking on this machine"},
        "paths": {
            path: {"get": {"summary": text, "responses": _responses(text, content)}}
            for path, (text, content) in gets.items()
        }
        | {
            path: {
                "post": {
                    "summary": text,
                    "parameters": parameters,
                    "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
                    "responses": _responses(text, {"content": {"application/json": {"schema": answer}}}),
                }
            }
            for path, (text, body, answer, parameters) in posts.items()
        },
        "components": {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
        "security": [{"key": []}] if keyed else [{}, {"key": []}],
    }


def _responses(text: str, content: dict[str, Any]) -> dict[str, Any]:
    error = {"content": {"application/json": {"schema": _ERROR}}}
    return {"200": {"description": text, **content}} | {
        status: {"description": reason, **error} for status, reason in _REFUSALS.items()
    }
