"""Writes a collection of ir_datasets as a folder that `dearlite batch` and `dearlite eval` read.

    pip install ir_datasets
    python examples/from_ir_datasets.py beir/scifact/test scifact --run bm25.trec

Writes queries.jsonl, corpus.jsonl.gz, qrels.tsv and run.trec. The run is the file named by --run, or the dataset's own
scored documents if it has them. With a run, only the documents in it are written, so MS MARCO's nine million passages
become some thousands. ir_datasets downloads the data; for data that it may not download it prints instructions.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from dearlite.files.json_text import json_text
from dearlite.files.trec import read_run
from dearlite.files.writing import whole_file

QUERY_FIELDS = ("text", "query", "title")
TITLE_FIELDS = ("title", "headline")
TEXT_FIELDS = ("text", "body")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("id", help="the name in ir_datasets with its split, such as beir/nfcorpus/test")
    parser.add_argument("folder", type=Path, help="the folder to write")
    parser.add_argument("--run", type=Path, help="the first stage, a TREC run")
    parser.add_argument("--depth", type=int, default=1000, help="documents per query (default: 1000)")
    options = parser.parse_args()
    try:
        import ir_datasets
    except ModuleNotFoundError:
        sys.exit("ir_datasets is not installed: pip install ir_datasets")
    try:
        dataset = ir_datasets.load(options.id)
    except KeyError:
        sys.exit(f"ir_datasets has no {options.id!r}: its catalogue lists the names")
    counts = write_collection(dataset, options.folder, run=options.run, depth=options.depth)
    print(f"{options.folder}: " + ", ".join(f"{count} {part}" for part, count in counts.items()))


def write_collection(dataset: Any, folder: Path, *, run: Path | None = None, depth: int = 1000) -> dict[str, int]:
    """Writes each part that `dataset` has; returns part -> number of lines. A file appears when it is complete."""
    folder.mkdir(parents=True, exist_ok=True)
    counts: dict[str, int] = {}
    first_stage = _first_stage(dataset, run, depth)
    if first_stage:
        lines = (
            f"{query_id} Q0 {document_id} {rank} {score} first-stage\n"
            for query_id, scores in first_stage.items()
            for rank, (document_id, score) in enumerate(scores.items(), start=1)
        )
        counts["lines of the run"] = _write(folder / "run.trec", lines)
    if dataset.has_qrels():
        lines = (f"{qrel.query_id} 0 {qrel.doc_id} {qrel.relevance}\n" for qrel in dataset.qrels_iter())
        counts["judgements"] = _write(folder / "qrels.tsv", lines)
    if dataset.has_queries():
        rows = ({"_id": query.query_id, "text": _query_text(query)} for query in dataset.queries_iter())
        counts["queries"] = _write(folder / "queries.jsonl", (json_text(row) + "\n" for row in rows))
    if dataset.has_docs():
        doc_ids = {doc_id for scores in first_stage.values() for doc_id in scores}
        rows = map(_document, _documents(dataset, doc_ids))
        counts["documents"] = _write(folder / "corpus.jsonl.gz", (json_text(row) + "\n" for row in rows))
    return counts


def _first_stage(dataset: Any, run: Path | None, depth: int) -> dict[str, dict[str, float]]:
    """Query id -> document id -> score, the best `depth` first; {} if there is no first stage."""
    if run is not None:
        scores_by_query = read_run(run)[0]
    elif dataset.has_scoreddocs():
        scores_by_query = {}
        for row in dataset.scoreddocs_iter():
            scores_by_query.setdefault(row.query_id, {})[row.doc_id] = row.score
    else:
        return {}
    ordered = {
        query_id: sorted(scores.items(), key=lambda pair: -pair[1]) for query_id, scores in scores_by_query.items()
    }
    return {query_id: dict(pairs[:depth]) for query_id, pairs in ordered.items()}


def _documents(dataset: Any, doc_ids: set[str]) -> Iterable[Any]:
    """The documents with these ids, from ir_datasets' index; all documents if `doc_ids` is empty."""
    return dataset.docs_store().get_many_iter(sorted(doc_ids)) if doc_ids else dataset.docs_iter()


def _document(document: Any) -> dict[str, str]:
    title = next((text for field in TITLE_FIELDS if isinstance(text := getattr(document, field, None), str)), "")
    for field in TEXT_FIELDS:
        if isinstance(text := getattr(document, field, None), str):
            return {"_id": document.doc_id, "title": title, "text": text}
    return {"_id": document.doc_id, "title": "", "text": document.default_text()}  # default_text has the title


def _query_text(query: Any) -> str:
    for field in QUERY_FIELDS:
        if isinstance(text := getattr(query, field, None), str):
            return text
    return str(query.default_text())


def _write(path: Path, lines: Iterable[str]) -> int:
    """Writes `path`, gzipped if its name ends in .gz; returns the number of lines."""
    count = 0

    def counted() -> Iterator[str]:
        nonlocal count
        for line in lines:
            count += 1
            yield line

    with whole_file(path) as stream:
        stream.writelines(counted())
    return count


if __name__ == "__main__":
    main()
