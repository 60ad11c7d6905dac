"""The prompt and the heads of an attention reranker, as its file records them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionReading:
    r"""The words of the prompt, and the heads whose attention is read (arXiv 2410.02642; QRHead: arXiv 2506.09944).

    The prompt is `before`, `head`, for each document `separator` and "[i] TITLE\nTEXT", then `separator`, `late`,
    `separator`, `query` with a blank and the query, and `after`. Special tokens stand in `before` and `after` only, by
    their names. Names and values are hashed into `Reranker.identity`.
    """

    heads: str  # "icr" for all heads of all layers, or heads as layer-head with commas between them
    before: str
    after: str
    separator: str = " \n\n"
    head: str = " Here are some paragraphs:"
    late: str = "Please find information that are relevant to the following query in the paragraphs above."
    query: str = "Query:"
    null_query: str = "N/A"  # of the second pass, whose attention is subtracted
    passage_words: int = 300  # a document is cut behind them
    best_last: bool = True  # the documents stand in reverse: the first of the caller's list beside the query
