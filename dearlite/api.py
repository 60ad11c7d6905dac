"""The library's front door: `rerank` for one call, `Reranker` to keep a model loaded."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from dearlite.documents import Document, as_document, as_documents, check_query
from dearlite.errors import BundleError, Cancelled, InvalidInput
from dearlite.prompts import PAIR_FORMS
from dearlite.ranking import Ranking, check_top_k, make_hits
from dearlite.registry import DEFAULT_MODEL, find_model

if TYPE_CHECKING:
    from dearlite.bundle import Bundle
    from dearlite.tokens import TokenRow

Progress = Callable[[int, int], None]


def rerank(
    query: str,
    docs: Iterable[object],
    *,
    model: str | Path | None = None,
    top_k: int | None = None,
    device: str = "auto",
    threads: int | None = None,
    progress: Progress | None = None,
    cancel: Event | None = None,
) -> Ranking:
    """`docs` ordered by how well they answer `query`, best first.

    `docs` are strings, mappings with `text` (or `contents`, `passage`) and optional `id` and `title`, or objects with
    those attributes; none is changed. `model` is a name of models.toml or a model file, the embedded one when None.
    `progress(done, total)` is called as documents are scored; setting `cancel` ends the call with Cancelled.
    The model is loaded for this call: keep a Reranker for more than one.
    """
    reranker = Reranker.load(model, device=device, threads=threads)
    return reranker.rerank(query, docs, top_k=top_k, progress=progress, cancel=cancel)


class Reranker:
    """A loaded model. It may be used from several threads at once."""

    def __init__(self, bundle: Bundle, *, device: str = "auto", threads: int | None = None) -> None:
        """Opens an engine for `bundle`; `Reranker.load` is the usual way here."""
        from dearlite.backends.onnx import OnnxBackend
        from dearlite.devices import check_threads
        from dearlite.tokens import PairEncoder

        manifest = bundle.manifest
        if manifest.kind != "pointwise" or manifest.prompt not in PAIR_FORMS:
            what = f"kind {manifest.kind!r} and prompt {manifest.prompt!r}"
            raise BundleError(f"{bundle.path} has {what}, which this dearlite cannot run: update dearlite")
        self.bundle = bundle
        self.model = manifest.name
        self._form = PAIR_FORMS[manifest.prompt]
        self._encoder = PairEncoder(bundle.read("tokenizer.json"), max_tokens=manifest.max_tokens)
        self._backend = OnnxBackend(bundle, device=device, threads=check_threads(threads))
        for note in self._backend.notes:
            warnings.warn(note, stacklevel=3)

    @classmethod
    def load(cls, model: str | Path | None = None, *, device: str = "auto", threads: int | None = None) -> Reranker:
        """A Reranker for a name of models.toml or a model file; None is the embedded default.

        `device` is "auto" (CUDA where it works, otherwise the CPU, with a warning that says why), "cpu" or "cuda".
        `threads` is how many documents are scored side by side on a CPU; None is one for each physical core.
        """
        from dearlite.bundle import Bundle

        return cls(Bundle(find_model(str(model or DEFAULT_MODEL))), device=device, threads=threads)

    @property
    def device(self) -> str:
        """What really runs the model: "cpu" or "cuda"."""
        return self._backend.device

    @property
    def quantisation(self) -> str:
        """How the graph that was chosen for this machine computes, "int8-per-row" say."""
        return self._backend.build.quantisation

    @property
    def threads(self) -> int:
        """How many documents are scored side by side on a CPU."""
        return self._backend.threads

    def rerank(
        self,
        query: str,
        docs: Iterable[object],
        *,
        top_k: int | None = None,
        progress: Progress | None = None,
        cancel: Event | None = None,
    ) -> Ranking:
        """`docs` ordered by how well they answer `query`; see `dearlite.rerank`."""
        start = time.perf_counter()
        top_k = check_top_k(top_k)
        query, documents = check_query(query), as_documents(docs)
        tokens: list[tuple[int, int]] = []
        query_truncated = False

        def rows() -> Iterator[TokenRow]:
            nonlocal query_truncated
            ids = self._encoder.ids(self._form.query(query))
            for row in self._encoder.pairs(ids, map(self._form.document, documents)):
                tokens.append((row.tokens_used, row.tokens_total))
                query_truncated |= row.query_truncated
                yield row

        scores = self._scores(rows(), len(documents), progress, cancel)
        return Ranking(
            hits=make_hits(documents, scores, tokens, top_k),
            query=query,
            model=self.model,
            device=self.device,
            elapsed_s=time.perf_counter() - start,
            total=len(documents),
            query_truncated=query_truncated,
        )

    def score(
        self,
        pairs: Iterable[tuple[str, object]],
        *,
        progress: Progress | None = None,
        cancel: Event | None = None,
    ) -> list[float]:
        """The raw logit of each (query, document) pair, in order; a document is what `rerank` takes."""
        checked = [_pair(pair, place) for place, pair in enumerate(pairs)]

        def rows() -> Iterator[TokenRow]:
            for query, documents in _runs_of_one_query(checked):
                ids = self._encoder.ids(self._form.query(query))
                yield from self._encoder.pairs(ids, map(self._form.document, documents))

        return self._scores(rows(), len(checked), progress, cancel)

    def _scores(
        self, rows: Iterator[TokenRow], total: int, progress: Progress | None, cancel: Event | None
    ) -> list[float]:
        scores: list[float] = []
        with closing(self._backend.score(rows)) as stream:
            for score in stream:
                scores.append(score)
                if progress is not None:
                    progress(len(scores), total)
                if cancel is not None and cancel.is_set() and len(scores) < total:
                    raise Cancelled(len(scores), total)
        return scores


def _pair(pair: object, place: int) -> tuple[str, Document]:
    if not isinstance(pair, Sequence) or isinstance(pair, str) or len(pair) != 2:
        raise InvalidInput(f"pair {place} is not (query, document)")
    return check_query(pair[0]), as_document(pair[1], f"the document of pair {place}")


def _runs_of_one_query(pairs: Sequence[tuple[str, Document]]) -> Iterator[tuple[str, list[Document]]]:
    """Neighbouring pairs that share a query, together: the query is then encoded once."""
    start = 0
    for end in range(1, len(pairs) + 1):
        if end == len(pairs) or pairs[end][0] != pairs[start][0]:
            yield pairs[start][0], [document for _, document in pairs[start:end]]
            start = end
