"""A reranker for LanceDB's vector, full-text and hybrid search (lancedb)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dearlite.errors import UsageError
from dearlite.integrations.ordering import as_reranker, missing, order_texts

try:
    import pyarrow as pa
    from lancedb.rerankers import Reranker as LanceReranker
except ModuleNotFoundError as err:
    raise missing(err, "lancedb", "lancedb", "pyarrow") from None

if TYPE_CHECKING:
    from dearlite.models.chain import Model
    from dearlite.options import Device
    from dearlite.reranker import Reranker


class DearliteReranker(LanceReranker):
    """Sorts search results by relevance, best first, and adds them `_relevance_score` (float32).

    `table.search(query).rerank(DearliteReranker())`; for a vector query give `query_string=` beside it.

    - `model`, `device`, `threads`, `instruction`: those of `dearlite.Reranker.load`; `model` may also be loaded.
    - `column`: the column of the text. None in it counts as an empty text.
    - `return_score`: "relevance", or "all" to keep `_distance` and `_score` too.
    - `raw_scores`: logits instead of scores from 0 to 1.
    """

    def __init__(
        self,
        model: Model | Reranker = None,
        *,
        column: str = "text",
        return_score: str = "relevance",
        device: Device = "auto",
        threads: int | None = None,
        instruction: str | None = None,
        raw_scores: bool = False,
    ) -> None:
        super().__init__(return_score)
        self.column, self.raw_scores = column, raw_scores
        self.reranker = as_reranker(model, device=device, threads=threads, instruction=instruction)

    def __str__(self) -> str:
        return f"DearliteReranker({self.reranker.model})"

    def rerank_hybrid(self, query: str, vector_results: pa.Table, fts_results: pa.Table) -> pa.Table:
        """The rows of both tables, each once, sorted."""
        parts = [table for table in (vector_results, fts_results) if len(table)]
        if len(parts) < 2:
            return self._sorted(query, parts[0] if parts else vector_results)
        merged = self.merge_results(vector_results, fts_results)
        scores = dict(zip(fts_results["_rowid"].to_pylist(), fts_results["_score"].to_pylist(), strict=True))
        of_rows = pa.array([scores.get(row) for row in merged["_rowid"].to_pylist()], pa.float32())
        # a row of both was taken from the first table, which has no _score
        return self._sorted(query, merged.set_column(merged.column_names.index("_score"), "_score", of_rows))

    def rerank_vector(self, query: str, vector_results: pa.Table) -> pa.Table:
        """The rows of a vector search, sorted."""
        return self._sorted(query, vector_results)

    def rerank_fts(self, query: str, fts_results: pa.Table) -> pa.Table:
        """The rows of a full-text search, sorted."""
        return self._sorted(query, fts_results)

    def _sorted(self, query: Any, table: pa.Table) -> pa.Table:
        """The rows of `table` by relevance; equal scores keep their order. Raises UsageError without query or text."""
        if query is None:
            raise UsageError("the search has a vector and no text: give rerank query_string=")
        if self.column not in table.column_names:
            columns = ", ".join(table.column_names)
            raise UsageError(f"the results have no column {self.column!r} but {columns}: name the text's with column=")
        order = order_texts(self.reranker, query, table[self.column].to_pylist(), raw=self.raw_scores)
        rows = table.take(pa.array([position for position, _ in order], pa.int64()))
        scores = pa.array([score for _, score in order], pa.float32())
        return self._keep_relevance_score(rows.append_column("_relevance_score", scores))
