"""Reranking of a run with its files: checks them, opens them, reranks, and writes the outputs."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

from dearlite.errors import UsageError
from dearlite.files.trec import check_run_ids
from dearlite.models.chain import Model, resolve
from dearlite.models.registry import home
from dearlite.offline.collection.collection import Collection
from dearlite.offline.collection.source import Source
from dearlite.offline.run.cache import ScoreCache
from dearlite.offline.run.emptiness import without_empty
from dearlite.offline.run.journal import Journal
from dearlite.offline.run.results import RerankedRun
from dearlite.offline.run.run_files import RunFiles, input_files
from dearlite.offline.run.scoring import rerank_collection
from dearlite.options import Call
from dearlite.reranker import Reranker


def rerank_run(
    collection: Collection,
    model: Model | Reranker,
    *,
    files: RunFiles,
    call: Call,
    loading: Mapping[str, Any],
    skip_bad: bool = False,
) -> RerankedRun:
    """`collection` in the order of `model`, which `Reranker.load` loads with the options `loading` if it is a name.

    Writes `files`. With `skip_bad` documents that are empty for the model are left out. See `dearlite.rerank_run`.
    """
    if isinstance(model, Reranker) and loading.get("instruction") is not None:
        raise UsageError("instruction goes with the name of a model: load the Reranker with it, Reranker.load(...)")
    files.check(input_files(Source(source=collection), model_inputs(model, loading)))
    if files.output is not None:
        check_run_can_hold(collection)
    with ExitStack() as stack:
        path_of_journal = journal_path(collection, model, files)
        journal = None if path_of_journal is None else stack.enter_context(Journal(path_of_journal))
        cache = None if files.cache is None else stack.enter_context(ScoreCache(Path(files.cache)))
        reranker = model if isinstance(model, Reranker) else Reranker.load(model, **loading)
        readable = without_empty(collection, reranker, skip_bad=skip_bad)
        reranked = rerank_collection(readable, reranker, call, journal=journal, cache=cache)
        reranked = replace(reranked, notes=(*readable.notes[len(collection.notes) :], *reranked.notes))
        if files.output is not None:
            reranked.write_trec(files.output)
        if files.jsonl is not None:
            reranked.write_jsonl(files.jsonl)
    return reranked


def check_run_can_hold(collection: Collection) -> None:
    """Raises InvalidInput for an id that a TREC run cannot hold; called before anything is scored."""
    for query_id, scores in collection.run.items():
        check_run_ids(query_id, scores)


def model_inputs(model: Model | Reranker, loading: Mapping[str, Any]) -> dict[str, Any]:
    """Option -> the files of the model and of its adapter, for `RunFiles.check`."""
    stages = () if isinstance(model, Reranker) else resolve(model).stages
    return {
        "--model": [stage.path for stage in stages if stage.path is not None],
        "--adapter": loading.get("adapter"),
    }


def journal_path(collection: Collection, model: Model | Reranker, files: RunFiles) -> Path | None:
    """The path of the journal: `files.journal`, or OUTPUT.journal, or a file in dearlite's own folder.

    The last is for a run that is not written, or that goes to a device or a pipe.

    The name in dearlite's own folder is a hash of the model and the collection's files, so that the same call finds it
    again.
    """
    if files.journal is False:
        return None
    if (beside := files.journal_beside) is not None:
        return beside
    name = model.model if isinstance(model, Reranker) else " ".join(_model_files(model))
    parts = [str(Path(path).resolve()) for path in collection.sources.values()] or [collection.name]
    return home() / "journals" / f"{blake2b(repr([name, *parts]).encode(), digest_size=12).hexdigest()}.journal"


def _model_files(model: Model) -> list[str]:
    """The path of each stage's model file, followed by :DEPTH if the stage has a depth."""
    files = [(stage.path, stage.depth) for stage in resolve(model).stages if stage.path is not None]
    return [f"{path.resolve()}" + (f":{depth}" if depth else "") for path, depth in files]
