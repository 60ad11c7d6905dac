"""What is reranked: queries, the run that names documents for them, and those documents' texts.

A corpus is streamed: of nine million passages only those that the run names are kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

from dearlite.documents import Document, as_document, check_query
from dearlite.errors import InvalidInput, UsageError
from dearlite.files.readers import Record, open_stream, read_lines, reader_for, whole
from dearlite.files.trec import Run, read_run
from dearlite.offline.collection.candidates import read_candidates

# part -> the names that it may have in a collection's folder, the first that is there counts (ours and BEIR's)
FOLDER_LAYOUT: dict[str, tuple[str, ...]] = {
    "queries": ("queries.jsonl", "queries.jsonl.gz", "queries.tsv"),
    "corpus": ("corpus.jsonl.gz", "corpus.jsonl", "corpus.tsv", "corpus.parquet"),
    "qrels": ("qrels.tsv", "qrels/test.tsv", "qrels.txt"),
    "run": ("run.trec", "run.trec.gz"),
}
_NAMES_OF_TEXT = {"text", "contents", "passage", "query", "title"}


@dataclass(frozen=True, slots=True)
class Collection:
    """Queries with their first stage: each query of `run` is in `queries`, each document of it in `documents`.

    `run` holds each query's documents best first, with the first stage's scores. `notes` are what was odd, a line each.
    """

    name: str
    queries: Mapping[str, str]
    documents: Mapping[str, Document]
    run: Run
    qrels: Path | None = None
    sources: Mapping[str, str] = field(default_factory=dict)  # part -> the file that it is from
    notes: tuple[str, ...] = ()

    @property
    def pairs(self) -> int:
        """How many (query, document) pairs there are to score."""
        return sum(map(len, self.run.values()))


def open_collection(
    source: str | Path | None = None,
    *,
    queries: str | Path | None = None,
    corpus: Sequence[str | Path] = (),
    run: str | Path | None = None,
    qrels: str | Path | None = None,
    depth: int | None = 100,
    skip_bad: bool = False,
) -> Collection:
    """The collection in the folder `source` (FOLDER_LAYOUT), in RankGPT's or rank_llm's JSON, or in files of its own.

    The files that are named come before the folder's; a name that is no path is looked for in the folder. Of each query
    the best `depth` documents are taken. Raises UsageError for parts that are nowhere, InvalidInput for what is wrong
    in them; with `skip_bad` documents that are missing or cannot be used are left out and counted.
    """
    if depth is not None and depth < 1:
        raise UsageError(f"depth is {depth}: it must be a whole number from 1")
    folder = Path(source) if source is not None else None
    if folder is not None and not folder.exists():
        raise UsageError(f"{source}: no such folder or file (a collection's folder, or rank_llm's JSON)")
    if folder is not None and folder.is_file():
        given = {"--queries": queries, "--corpus": corpus, "--run": run}
        if named := [name for name, value in given.items() if value]:
            raise UsageError(f"{source} holds queries and documents itself: leave out {' and '.join(named)}")
        names, texts, documents, order, notes = read_candidates(folder, depth=depth, skip_bad=skip_bad)
        found_qrels = None if qrels is None else _part("qrels", qrels, None)
        return Collection(names, texts, documents, order, found_qrels, {"candidates": str(source)}, tuple(notes))
    files = collection_files(folder, {"queries": queries, "run": run}, corpus)
    found, notes = read_run(files["run"][0], depth=depth, skip_bad=skip_bad)
    texts = read_queries(files["queries"][0], wanted=found)
    lost = [query_id for query_id in found if query_id not in texts]
    if lost and not skip_bad:
        raise InvalidInput(
            f"{files['run'][0].name} has {len(lost)} queries that {files['queries'][0].name} lacks ({lost[0]!r} "
            "first): give the queries of this run (or go on without them: --skip-bad)"
        )
    if lost:
        notes.append(f"left out {len(lost)} queries without a text ({lost[0]!r} first)")
    wanted = {document_id for query_id in texts for document_id in found[query_id]}
    documents, unusable = read_corpus(files["corpus"], wanted=wanted, skip_bad=skip_bad)
    notes += unusable
    run_left, more = _with_texts({q: found[q] for q in found if q in texts}, documents, files, skip_bad)
    return Collection(
        name=_name(folder, files["run"][0]),
        queries=texts,
        documents=documents,
        run=run_left,
        qrels=_optional_qrels(qrels, folder),
        sources={part: ", ".join(map(str, paths)) for part, paths in files.items()},
        notes=(*notes, *more),
    )


def collection_files(
    folder: str | Path | None, parts: Mapping[str, str | Path | None], corpus: Sequence[str | Path] = ()
) -> dict[str, list[Path]]:
    """The files of `parts` (part -> the file that was named, None where the folder's own counts) and of the corpus.

    Raises UsageError for one that is nowhere.
    """
    place = None if folder is None else Path(folder)
    files = {part: [_part(part, given, place)] for part, given in parts.items()}
    return files | {
        "corpus": list(chain.from_iterable(_shards(_part("corpus", one, place)) for one in corpus or (None,)))
    }


def read_queries(path: Path, *, wanted: Iterable[str] | None = None) -> dict[str, str]:
    """Query id -> text, of those `wanted` or of all: JSON Lines (`_id` or `id`, `text` or `query`), or TSV."""
    keep = None if wanted is None else set(wanted)
    queries: dict[str, str] = {}
    for where, record in _records(path):
        if isinstance(record, InvalidInput):
            raise record
        if not isinstance(record, Mapping):
            raise InvalidInput(f"{where} is no record of a query: it needs an _id and a text")
        query_id = next(
            (record[name] for name in ("_id", "id", "qid", "query_id") if record.get(name) is not None), None
        )
        text = next((record[name] for name in ("text", "query", "title") if record.get(name)), None)
        if query_id is None or isinstance(query_id, (dict, list)):
            raise InvalidInput(f"{where} has no id of a query: name the field '_id'")
        query_id = str(query_id)
        if keep is not None and query_id not in keep:
            continue
        try:
            text = check_query(text)
        except InvalidInput as err:
            raise InvalidInput(f"{where}, query {query_id!r}: {err}") from None
        if queries.setdefault(query_id, text) != text:
            raise InvalidInput(f"{where}: query {query_id!r} has two texts: keep one")
    return queries


def read_corpus(
    paths: Iterable[Path], *, wanted: set[str], skip_bad: bool = False
) -> tuple[dict[str, Document], list[str]]:
    """The documents of `paths` whose ids are `wanted`, and a line for what was skipped; all others are read past."""
    documents: dict[str, Document] = {}
    skipped: list[str] = []
    for path in paths:
        for where, record in _records(path):
            try:
                if isinstance(record, InvalidInput):
                    raise record
                name = _id_of(record, where)
                if name not in wanted:
                    continue
                document = replace(as_document(record, where), record=None)  # the record itself is not held
                known = documents.setdefault(name, document)
                if (known.title, known.text) != (document.title, document.text):
                    raise InvalidInput(f"{where}: document {name!r} has two texts: keep one")
            except InvalidInput as err:
                if not skip_bad:
                    raise InvalidInput(f"{err} (or go on without it: --skip-bad)") from None
                skipped.append(str(err))
    notes = [f"skipped: {line}" for line in skipped[:3]]
    if len(skipped) > 3:
        notes.append(f"skipped {len(skipped)} records of the corpus in all")
    return documents, notes


def _with_texts(
    run: Mapping[str, Mapping[str, float]],
    documents: Mapping[str, Document],
    files: Mapping[str, Sequence[Path]],
    skip_bad: bool,
) -> tuple[dict[str, dict[str, float]], list[str]]:
    """`run` without the documents that have no text. Raises InvalidInput for such unless `skip_bad`."""
    lost = [
        (query_id, document_id)
        for query_id, found in run.items()
        for document_id in found
        if document_id not in documents
    ]
    if not lost:
        return {query_id: dict(found) for query_id, found in run.items()}, []
    query_id, document_id = lost[0]
    what = f"{len({name for _, name in lost})} documents ({document_id!r} of query {query_id!r} first)"
    if not skip_bad:
        corpus = ", ".join(path.name for path in files["corpus"])
        raise InvalidInput(
            f"{files['run'][0].name} names {what} that {corpus} lacks: give the corpus that this run was made over "
            "(or go on without them: --skip-bad)"
        )
    left = {q: {d: score for d, score in found.items() if d in documents} for q, found in run.items()}
    return left, [f"left out {len(lost)} pairs of {what} that have no text"]


def _records(path: Path) -> Iterator[Record]:
    """The records of a queries or corpus file, with their places."""
    with closing(open_stream(str(path))) as stream:
        if ".tsv" in path.suffixes:
            yield from whole(_tab_separated(read_lines(stream, path.name)), path.name)
        else:
            yield from whole(reader_for(str(path))(stream, path.name), path.name)


def _tab_separated(lines: Iterable[tuple[str, str | InvalidInput]]) -> Iterator[Record]:
    """MS MARCO's form, `id TAB text` without a header, or any columns under a header that names an id and a text."""
    head: list[str] | None = None
    for where, line in lines:
        if isinstance(line, InvalidInput):
            yield where, line
            continue
        cells = line.rstrip("\r\n").split("\t")
        if head is None:
            named = len(cells) > 1 and set(cells) & {"_id", "id", "docid", "qid"} and set(cells) & _NAMES_OF_TEXT
            head = cells if named else ["_id", "text"]
            if named:
                continue
        if len(cells) != len(head):
            yield where, InvalidInput(f"{where} has {len(cells)} columns instead of {len(head)} ({', '.join(head)})")
        else:
            yield where, dict(zip(head, cells, strict=True))


def _id_of(record: object, where: str) -> str:
    if isinstance(record, Mapping):
        for name in ("id", "_id", "docid"):
            if record.get(name) is not None:
                return str(record[name])
    raise InvalidInput(f"{where} has no id: name the field '_id', 'id' or 'docid'")


def _part(part: str, given: str | Path | None, folder: Path | None) -> Path:
    """The file for one part of a collection. Raises UsageError that says where it was looked for."""
    if given is not None:
        for path in [Path(given)] + ([folder / given] if folder is not None else []):
            if path.exists():
                return path
        inside = f", nor in {folder}" if folder is not None else ""
        raise UsageError(f"--{part} {given}: no such file{inside}")
    if folder is None:
        raise UsageError(f"--{part} is missing: give --queries, --corpus and --run, or a folder that holds them")
    for name in FOLDER_LAYOUT[part]:
        if (folder / name).exists():
            return folder / name
    raise UsageError(f"{folder} holds no {part} ({' or '.join(FOLDER_LAYOUT[part])}): add it, or name it with --{part}")


def _optional_qrels(given: str | Path | None, folder: Path | None) -> Path | None:
    if given is None and (folder is None or not any((folder / name).exists() for name in FOLDER_LAYOUT["qrels"])):
        return None
    return _part("qrels", given, folder)


def _shards(path: Path) -> list[Path]:
    """The file itself, or the files of a folder of shards, by name."""
    if path.is_file():
        return [path]
    shards = sorted(one for one in path.iterdir() if one.is_file() and not one.name.startswith("."))
    if not shards:
        raise UsageError(f"{path} is an empty folder: a corpus is a file, or a folder of its shards")
    return shards


def _name(folder: Path | None, run: Path) -> str:
    return f"{folder.resolve().name}/{run.name}" if folder is not None else run.name


def make_collection(
    queries: Mapping[str, str],
    corpus: Mapping[str, object],
    run: Mapping[str, Mapping[str, float] | Sequence[str]],
    *,
    name: str = "collection",
) -> Collection:
    """A Collection of what is in memory: query id -> text, document id -> what `rerank` takes, and a run.

    A run is query id -> document id -> score, or -> document ids, best first. Raises InvalidInput.
    """
    order: dict[str, dict[str, float]] = {}
    for query_id, found in run.items():
        scores = (
            found if isinstance(found, Mapping) else {one: float(-place) for place, one in enumerate(found, start=1)}
        )
        if len(scores) < len(found):
            raise InvalidInput(f"query {query_id!r} names a document twice: ids must be unique")
        order[query_id] = dict(sorted(scores.items(), key=lambda pair: -pair[1]))
    if lost := [query_id for query_id in order if query_id not in queries]:
        raise InvalidInput(f"the run has {len(lost)} queries without a text ({lost[0]!r} first)")
    wanted = {document_id for found in order.values() for document_id in found}
    if missing := sorted(wanted - set(corpus)):
        raise InvalidInput(f"the run names {len(missing)} documents that the corpus lacks ({missing[0]!r} first)")
    documents = {one: replace(as_document(corpus[one], f"document {one!r}"), id=one, record=None) for one in wanted}
    return Collection(name, {one: check_query(queries[one]) for one in order}, documents, order)
