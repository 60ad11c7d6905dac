"""The input of a reranking: queries, a first-stage run over them, and the texts of the documents that the run names."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from dearlite.checks import whole_number
from dearlite.documents import Document
from dearlite.errors import InvalidInput, UsageError, counted
from dearlite.fields import USUAL, Fields
from dearlite.files.trec import Run, read_run
from dearlite.offline.collection.candidates import read_candidates
from dearlite.offline.collection.memory import as_corpus, as_queries, as_run
from dearlite.offline.collection.texts import read_corpus, read_queries

# part -> its file names in a collection's folder, ours and BEIR's; the first that exists is read
FOLDER_LAYOUT: dict[str, tuple[str, ...]] = {
    "queries": ("queries.jsonl", "queries.jsonl.gz", "queries.tsv"),
    "corpus": ("corpus.jsonl.gz", "corpus.jsonl", "corpus.tsv", "corpus.parquet"),
    "qrels": ("qrels.tsv", "qrels/test.tsv", "qrels.txt"),
    "run": ("run.trec", "run.trec.gz"),
}
DEFAULT_DEPTH = 100


@dataclass(frozen=True, slots=True)
class Collection:
    """Queries with their first-stage run. `queries` has every query of `run`, `documents` every document of it.

    `run` holds the documents of each query, best first, with the first stage's scores; without a first stage
    (`first_stage` is False) all documents in the order of their file. `notes` are remarks on the input (skipped
    records, for example), a line each. `qrels` is what `runs.open_qrels` takes. Ids and numbers of NumPy and pandas
    become plain ones. Raises InvalidInput for a score that is not a number, and for queries or documents of `run` that
    are missing.
    """

    name: str
    queries: Mapping[str, str]
    documents: Mapping[str, Document]
    run: Run
    qrels: Any = None
    sources: Mapping[str, str] = field(default_factory=dict)  # part -> the file or files that it was read from
    notes: tuple[str, ...] = ()
    first_stage: bool = True

    def __post_init__(self) -> None:
        queries, documents = dict(self.queries), dict(self.documents)
        if any(type(query_id) is not str for query_id in queries):
            queries = as_queries(queries)
        if not all(type(key) is str and isinstance(value, Document) for key, value in documents.items()):
            documents = as_corpus(documents)
        run = as_run(self.run)
        if without_text := [query_id for query_id in run if query_id not in queries]:
            raise InvalidInput(
                f"the run has {counted(len(without_text), 'query')} without a text ({without_text[0]!r} first)"
            )
        missing = {name for scores in run.values() for name in scores if name not in documents}
        if missing:
            raise InvalidInput(
                f"the run names {counted(len(missing), 'document')} that the corpus lacks ({min(missing)!r} first)"
            )
        for name, value in (("queries", queries), ("documents", documents), ("run", run)):
            object.__setattr__(self, name, value)

    @property
    def pairs(self) -> int:
        """Number of (query, document) pairs to score."""
        return sum(map(len, self.run.values()))


def open_collection(
    source: str | Path | None = None,
    *,
    queries: str | Path | None = None,
    corpus: Sequence[str | Path] = (),
    run: str | Path | None = None,
    qrels: str | Path | None = None,
    depth: int | None = DEFAULT_DEPTH,
    skip_bad: bool = False,
    fields: Fields = USUAL,
    delimiter: str | None = None,
) -> Collection:
    """The collection in a folder (FOLDER_LAYOUT), in a JSON file of RankGPT or rank_llm, or in separate files.

    A named file replaces the folder's; a name that is no path is looked up in the folder. The best `depth` documents of
    each query are read. `fields` are the fields of a document, `delimiter` is the character between the cells of a
    corpus in CSV or TSV. Raises UsageError for a missing part and InvalidInput for bad content; with `skip_bad`
    documents that are missing or unusable are left out, and the notes count them.
    """
    if depth is not None:
        whole_number("depth", depth)
    folder = Path(source) if source is not None else None
    if folder is not None and not os.path.exists(folder):
        raise UsageError(f"{source}: no such folder or file (a collection's folder, or rank_llm's JSON)")
    if folder is not None and os.path.isfile(folder):
        parts = {"--queries": queries, "--corpus": corpus, "--run": run}
        if named := [option for option, value in parts.items() if value]:
            raise UsageError(f"{source} holds queries and documents itself: leave out {' and '.join(named)}")
        if delimiter is not None:
            raise UsageError(
                f"--delimiter is for a corpus in CSV or TSV, and {source} holds the documents: leave it out"
            )
        name, texts, documents, order, notes = read_candidates(folder, depth=depth, skip_bad=skip_bad, fields=fields)
        judgements = None if qrels is None else _part("qrels", qrels, None)
        return Collection(name, texts, documents, order, judgements, {"candidates": str(source)}, notes)
    files = collection_files(folder, {"queries": queries, "run": run}, corpus)
    first_stage, notes_on_lines = read_run(files["run"][0], depth=depth, skip_bad=skip_bad)
    texts = read_queries(files["queries"][0], ids=first_stage, notes=notes_on_lines)
    without_text = [query_id for query_id in first_stage if query_id not in texts]
    if without_text and not skip_bad:
        raise InvalidInput(
            f"{files['run'][0].name} has {counted(len(without_text), 'query')} that {files['queries'][0].name} lacks "
            f"({without_text[0]!r} first): give the queries of this run (or go on without them: --skip-bad)"
        )
    if without_text:
        notes_on_lines.append(
            f"left out {counted(len(without_text), 'query')} without a text ({without_text[0]!r} first)"
        )
    named_documents = {document_id for query_id in texts for document_id in first_stage[query_id]}
    documents, notes_on_corpus = read_corpus(
        files["corpus"], ids=named_documents, skip_bad=skip_bad, fields=fields, delimiter=delimiter
    )
    kept = {query_id: scores for query_id, scores in first_stage.items() if query_id in texts}
    corpus_names = ", ".join(path.name for path in files["corpus"])
    kept_run, notes_on_run = keep_with_texts(kept, documents, files["run"][0].name, corpus_names, skip_bad)
    return Collection(
        name=_name(folder, files["run"][0]),
        queries=texts,
        documents=documents,
        run=kept_run,
        qrels=_optional_qrels(qrels, folder),
        sources={part: ", ".join(map(str, paths)) for part, paths in files.items()},
        notes=(*notes_on_lines, *notes_on_corpus, *notes_on_run),
    )


def make_collection(
    queries: Any,
    corpus: Any,
    run: Any,
    *,
    name: str = "collection",
) -> Collection:
    """A Collection from memory: query id -> text, document id -> document (as `rerank` takes it), and a run.

    Queries and documents may also be DataFrames or records with their ids. The run is query id -> document id -> score,
    or query id -> document ids, best first; see `as_run` for other forms. Whole numbers, also NumPy's, may be ids.
    Raises InvalidInput naming the query and the document.
    """
    ordered, texts = as_run(run), as_queries(queries)
    if without_text := [query_id for query_id in ordered if query_id not in texts]:
        raise InvalidInput(
            f"the run has {counted(len(without_text), 'query')} without a text ({without_text[0]!r} first)"
        )
    ids = {document_id for scores in ordered.values() for document_id in scores}
    documents = as_corpus(corpus, ids)
    if missing := sorted(ids - documents.keys()):
        raise InvalidInput(
            f"the run names {counted(len(missing), 'document')} that the corpus lacks ({missing[0]!r} first)"
        )
    return Collection(name, {query_id: texts[query_id] for query_id in ordered}, documents, ordered)


def collection_files(
    folder: str | Path | None, parts: Mapping[str, str | Path | None], corpus: Sequence[str | Path] = ()
) -> dict[str, list[Path]]:
    """The files of each of `parts` (part -> the named file, None for the folder's own) and of the corpus.

    Raises UsageError for a part that has no file.
    """
    root = None if folder is None else Path(folder)
    files = {part: [_part(part, name, root)] for part, name in parts.items()}
    shards = (_shards(_part("corpus", name, root)) for name in corpus or (None,))
    return files | {"corpus": list(chain.from_iterable(shards))}


def keep_with_texts(
    run: Mapping[str, Mapping[str, float]],
    documents: Mapping[str, Document],
    run_name: str,
    corpus_name: str,
    skip_bad: bool,
) -> tuple[dict[str, dict[str, float]], list[str]]:
    """`run` without the documents that have no text, and notes. Raises InvalidInput for them unless `skip_bad`."""
    lost = [
        (query_id, document_id)
        for query_id, scores in run.items()
        for document_id in scores
        if document_id not in documents
    ]
    if not lost:
        return {query_id: dict(scores) for query_id, scores in run.items()}, []
    query_id, document_id = lost[0]
    count = f"{len({name for _, name in lost})} documents ({document_id!r} of query {query_id!r} first)"
    if not skip_bad:
        raise InvalidInput(
            f"{run_name} names {count} that {corpus_name} lacks: give the corpus that this run was made over "
            "(or go on without them: --skip-bad)"
        )
    kept = {
        query_id: {document_id: score for document_id, score in scores.items() if document_id in documents}
        for query_id, scores in run.items()
    }
    return kept, [f"left out {len(lost)} pairs of {count} that have no text"]


def folder_part(part: str, folder: str | Path, *, needed: bool = True) -> Path | None:
    """The file of a part in a collection's folder; if it is not `needed`, None for a part that is not there."""
    root = Path(folder)
    if not needed and not any(os.path.exists(root / name) for name in FOLDER_LAYOUT[part]):
        return None
    return _part(part, None, root)


def _part(part: str, name: str | Path | None, folder: Path | None) -> Path:
    """The file for one part of a collection. Raises UsageError that names the paths tried."""
    if name is not None:
        for path in [Path(name)] + ([folder / name] if folder is not None else []):
            if os.path.exists(path):
                return path
        inside = f", nor in {folder}" if folder is not None else ""
        raise UsageError(f"--{part} {name}: no such file{inside}")
    if folder is None:
        raise UsageError(f"--{part} is missing: give --queries, --corpus and --run, or a folder that holds them")
    for file_name in FOLDER_LAYOUT[part]:
        if os.path.exists(folder / file_name):
            return folder / file_name
    raise UsageError(f"{folder} holds no {part} ({' or '.join(FOLDER_LAYOUT[part])}): add it, or name it with --{part}")


def _optional_qrels(name: str | Path | None, folder: Path | None) -> Path | None:
    if name is None and (
        folder is None or not any(os.path.exists(folder / file_name) for file_name in FOLDER_LAYOUT["qrels"])
    ):
        return None
    return _part("qrels", name, folder)


def _shards(path: Path) -> list[Path]:
    """`path` itself if it is a file, or the files of the folder `path`, sorted by name."""
    if os.path.isfile(path):
        return [path]
    shards = sorted(shard for shard in path.iterdir() if os.path.isfile(shard) and not shard.name.startswith("."))
    if not shards:
        raise UsageError(f"{path} is an empty folder: a corpus is a file, or a folder of its shards")
    return shards


def _name(folder: Path | None, run: Path) -> str:
    return f"{folder.resolve().name}/{run.name}" if folder is not None else run.name
