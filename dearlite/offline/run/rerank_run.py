"""What `rerank_run` does: files are checked, opened and closed around the work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from hashlib import blake2b
from pathlib import Path
from threading import Event
from typing import Any

from dearlite.files.trec import Qrels
from dearlite.files.writing import check_output
from dearlite.loading import Model
from dearlite.models.chain import parse_chain
from dearlite.models.registry import DEFAULT_MODEL, find_model, home
from dearlite.offline.collection.collection import Collection, open_collection
from dearlite.offline.run.cache import ScoreCache
from dearlite.offline.run.journal import Journal
from dearlite.offline.run.results import RerankedRun
from dearlite.offline.run.scoring import rerank_collection
from dearlite.options import Listwise, Long
from dearlite.progress import Progress, line_progress
from dearlite.reranker import Reranker


def collection_of(
    source: str | Path | Collection | None,
    queries: str | Path | None,
    corpus: str | Path | Sequence[str | Path],
    run: str | Path | None,
    qrels: str | Path | Qrels | None,
    depth: int | None,
    skip_bad: bool,
) -> Collection:
    """`source` itself where it is a Collection, otherwise what `open_collection` reads."""
    if isinstance(source, Collection):
        return source
    return open_collection(
        source,
        queries=queries,
        corpus=[corpus] if isinstance(corpus, (str, Path)) else corpus,
        run=run,
        qrels=qrels if isinstance(qrels, (str, Path)) else None,
        depth=depth,
        skip_bad=skip_bad,
    )


def rerank_run(
    collection: Collection,
    *,
    model: Model | Reranker,
    device: str,
    threads: int | None,
    listwise: Listwise | None,
    long: Long | None,
    together: int,
    output: str | Path | None,
    jsonl: str | Path | None,
    journal: str | Path | bool,
    cache: str | Path | None,
    progress: Progress | bool | None,
    cancel: Event | None,
    loading: Mapping[str, Any] | None = None,
) -> RerankedRun:
    """See `dearlite.rerank_run`. `loading` is what else `Reranker.load` takes."""
    for path in (output, jsonl):
        check_output(path)
    with ExitStack() as stack:
        place = journal_path(collection, model, output, journal)
        log = None if place is None else stack.enter_context(Journal(place))
        scores = None if cache is None else stack.enter_context(ScoreCache(Path(cache)))
        reranker = (
            model
            if isinstance(model, Reranker)
            else Reranker.load(model, device=device, threads=threads, **(loading or {}))
        )
        found = rerank_collection(
            collection,
            reranker,
            listwise=listwise,
            long=long,
            together=together,
            journal=log,
            cache=scores,
            progress=line_progress() if progress is True else progress or None,
            cancel=cancel,
        )
        if output is not None:
            found.write_trec(output)
        if jsonl is not None:
            found.write_jsonl(jsonl)
    return found


def journal_path(
    collection: Collection, model: Model | Reranker, output: str | Path | None, journal: str | Path | bool
) -> Path | None:
    """Where the journal is: beside the output, or in dearlite's own folder under a name that this work always has."""
    if journal is False:
        return None
    if journal is not True:
        return Path(journal)
    if output is not None:
        return Path(f"{output}.journal")
    name = model.model if isinstance(model, Reranker) else " ".join(_files_of(model))
    parts = [str(Path(path).resolve()) for path in collection.sources.values()] or [collection.name]
    return home() / "journals" / f"{blake2b(repr([name, *parts]).encode(), digest_size=12).hexdigest()}.journal"


def _files_of(model: Model) -> list[str]:
    """The files of a model or a chain, with their depths."""
    given = [model or DEFAULT_MODEL] if model is None or isinstance(model, (str, Path)) else list(model)
    stages = parse_chain(given)
    return [f"{find_model(one.model).resolve()}" + (f":{one.depth}" if one.depth else "") for one in stages]
