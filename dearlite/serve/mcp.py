"""The server for AI assistants and editors, by the Model Context Protocol: the tool `rerank`, and the list of models.

The package `mcp` speaks the protocol on standard input and output. Requests are read and run as those over HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from inspect import signature
from typing import Annotated, Any, Literal

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.resources import TextResource
from mcp.types import ToolAnnotations
from pydantic import BaseModel, Field, SerializerFunctionWrapHandler, model_serializer

from dearlite.errors import DearliteError, InvalidInput
from dearlite.files.json_text import json_text
from dearlite.progress import Progress
from dearlite.serve.desk import Desk
from dearlite.serve.limits import Limits
from dearlite.serve.models import Models, ServedModel
from dearlite.serve.refusals import refusal_of
from dearlite.serve.requests import read_rerank
from dearlite.serve.shapes import warnings_of
from dearlite.version import __version__

log = logging.getLogger("dearlite")
MODELS_URI = "dearlite://models"
_ARGUMENT = re.compile(r"^(\S+)\n  (.+?)(?: \[type=|$)", re.MULTILINE)  # pydantic's name of an argument, and its reason
_PROGRESS_S = 0.5  # least time between two notifications of progress
_INSTRUCTIONS = (
    "Use the tool rerank to put search results, files or passages in order of relevance to a question before you read "
    "them. It runs on the user's machine; nothing is sent elsewhere."
)
_DESCRIPTION = (
    "Order documents by their relevance to a query, best first, with a reranking model on this machine. Returns the "
    "index of each document in the list that was given, and a score from 0 to 1. Give the documents in the order of "
    "your search."
)


class RankedDocument(BaseModel):
    """A document of the answer. A text or a reason that it has not is left out."""

    index: Annotated[int, Field(description="its position in the documents that were given, from 0")]
    score: Annotated[float, Field(ge=0, le=1, description="its relevance, from 0 to 1")]
    text: Annotated[str | None, Field(description="its text, with return_text")] = None
    reason: Annotated[str | None, Field(description="the model's reason, with explain")] = None
    truncated: Annotated[bool, Field(description="true if the model read only its beginning")] = False

    @model_serializer(mode="wrap")
    def without_nulls(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """The fields that have a value."""
        return {name: value for name, value in serialize(self).items() if value is not None}


class Reranked(BaseModel):
    """The answer of the tool, best document first."""

    model: str
    results: list[RankedDocument]
    warnings: Annotated[list[str], Field(description="sentences about what was cut, left out or not done")]


class Tools:
    """The tool as a method, with the models and limits that its calls share."""

    def __init__(self, models: Models, limits: Limits) -> None:
        self.models, self.limits, self.desk = models, limits, Desk(limits)

    async def rerank(
        self,
        context: Context[Any, Any],
        query: Annotated[str, Field(description="a question, or a few words")],
        documents: Annotated[list[str], Field(description="the texts to order, at least one")],
        top_k: Annotated[int, Field(description="number of documents in the answer; 0 for all")] = 10,
        return_text: Annotated[bool, Field(description="return the texts too")] = False,
        model: Annotated[str | None, Field(description=f"a model of {MODELS_URI}; null for the default")] = None,
        explain: Annotated[bool, Field(description="let a listwise model give reasons, which takes longer")] = False,
        long: Annotated[
            Literal["truncate", "chunk", "cascade"] | None, Field(description="treatment of long documents")
        ] = None,
        instruction: Annotated[
            str | None, Field(description="the task in words, for a model whose prompt has a place for it")
        ] = None,
    ) -> Reranked:
        """The best `top_k` documents. Raises ToolError with one line for what cannot be ranked."""
        body: dict[str, Any] = {"query": query, "documents": documents, "top_k": top_k, "model": model, "long": long}
        body["instruction"] = instruction
        try:
            served = self._find(model)
            request = read_rerank(body | ({"explain": True} if explain else {}), self.limits)
            turn = self.desk.admit(served)
            report = _reporting(context)
            scored = await self.desk.run(turn, lambda: served.rank(request, turn, report), asyncio.Event().wait)
        except Exception as err:
            refusal = refusal_of(err)
            log.error("rerank: %s", refusal, exc_info=None if isinstance(err, DearliteError) else err)
            raise ToolError(str(refusal)) from None
        rows = list(zip(scored.ranking, scored.scores, strict=True))[: request.top_n]
        results = [
            RankedDocument(
                index=hit.index,
                score=score,
                text=hit.text if return_text else None,
                reason=hit.reason,
                truncated=hit.truncated,
            )
            for hit, score in rows
        ]
        return Reranked(model=served.name, results=results, warnings=warnings_of(served, request, scored))

    def _find(self, name: str | None) -> ServedModel:
        """The model of that name. An assistant learns of a wrong one; clients over HTTP have theirs hard-coded."""
        model = self.models.find(name)
        if name is not None and name not in (model.name, model.reranker.model):
            names = ", ".join(served.name for served in self.models.served)
            raise InvalidInput(f"no model {name[:80]!a}: there are {names}")
        return model


_ARGUMENTS = tuple(name for name in signature(Tools.rerank).parameters if name not in ("self", "context"))


def run_mcp(models: Models, limits: Limits) -> None:
    """Answers on standard output until standard input ends. Work that is left is stopped."""
    tools = Tools(models, limits)
    server: MCPServer[Any] = MCPServer(
        "dearlite",
        title="dearlite",
        instructions=_INSTRUCTIONS,
        version=__version__,
        log_level="ERROR",
        middleware=[_one_line_errors],
    )
    server.add_tool(
        tools.rerank,
        title="Rerank documents",
        description=_DESCRIPTION,
        annotations=ToolAnnotations(
            read_only_hint=True, idempotent_hint=True, destructive_hint=False, open_world_hint=False
        ),
        structured_output=True,
    )
    server.add_resource(
        TextResource(
            uri=MODELS_URI,
            name="models",
            title="Models",
            description="the models of this server; the first is the default",
            mime_type="application/json",
            text=json_text({"models": [_facts(model) for model in models.served]}),
        )
    )
    try:
        server.run("stdio")
    finally:
        tools.desk.close()


def _facts(model: ServedModel) -> dict[str, Any]:
    return {"name": model.name, "kinds": model.kinds, "max_tokens": model.max_tokens}


def _reporting(context: Context[Any, Any]) -> Progress:
    """A function for the thread of a call that tells the client of its progress, if the client wants to know."""
    loop, last = asyncio.get_running_loop(), time.monotonic()

    def report(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if done < total and now - last >= _PROGRESS_S:
            last = now
            asyncio.run_coroutine_threadsafe(context.report_progress(done, total), loop)

    return report


async def _one_line_errors(ctx: Any, call_next: Callable[[Any], Awaitable[Any]]) -> Any:
    """Middleware that makes one line of a tool's error, which for arguments of a wrong type has several.

    It refuses arguments that the tool does not have, which the package leaves out in silence.
    """
    params = ctx.params if ctx.method == "tools/call" and isinstance(ctx.params, Mapping) else {}
    arguments = params.get("arguments") if params.get("name") == "rerank" else None
    unknown = [name for name in arguments if name not in _ARGUMENTS] if isinstance(arguments, Mapping) else []
    if unknown:
        sentence = f"no argument {unknown[0][:40]!a}: there are {', '.join(_ARGUMENTS)}"
        return {"content": [{"type": "text", "text": sentence}], "isError": True, "resultType": "complete"}
    result = await call_next(ctx)
    if isinstance(result, dict) and result.get("isError"):
        for part in result.get("content", ()):
            text = part.get("text", "").removeprefix("Error executing tool rerank: ")
            reasons = _ARGUMENT.findall(text) if "validation error" in text.partition("\n")[0] else []
            sentences = [f"{name}: {reason[0].lower()}{reason[1:]}" for name, reason in reasons]
            part["text"] = "; ".join(sentences) or " ".join(text.split())
    return result
