"""A collection that ir_datasets serves, as the folder that `dearlite batch` and `dearlite eval` read.

    pip install ir_datasets
    python examples/from_ir_datasets.py beir/scifact/test scifact --run bm25.trec

Writes queries.jsonl, corpus.jsonl.gz and qrels.tsv, and run.trec: the file given, or the dataset's own scored documents
where it has them. With a run only the documents that it names are written, so MS MARCO's nine million passages become
some thousand. ir_datasets downloads what it can, and says what it may not.
"""

from __future__ import annotations

import argparse
import gzip
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from dearlite.files.trec import read_run
from dearlite.files.writing import json_text, whole_file

QUERY_FIELDS = ("text", "query", "title")
TITLE_FIELDS = ("title", "headline")
TEXT_FIELDS = ("text", "body")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("id", help="as ir_datasets names it, its split with it: beir/nfcorpus/test")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--run", type=Path, help="a TREC run, the first stage")
    parser.add_argument("--depth", type=int, default=1000, help="documents of each query (1000)")
    given = parser.parse_args()
    try:
        import ir_datasets
    except ModuleNotFoundError:
        sys.exit("ir_datasets is not installed: pip install ir_datasets")
    try:
        dataset = ir_datasets.load(given.id)
    except KeyError:
        sys.exit(f"ir_datasets knows no {given.id!r}: its catalogue lists the names")
    counts = write_collection(dataset, given.folder, run=given.run, depth=given.depth)
    print(f"{given.folder}: " + ", ".join(f"{count} {what}" for what, count in counts.items()))


def write_collection(dataset: Any, folder: Path, *, run: Path | None = None, depth: int = 1000) -> dict[str, int]:
    """The parts that `dataset` has, each written whole; gives how many lines each has."""
    folder.mkdir(parents=True, exist_ok=True)
    counts: dict[str, int] = {}
    found = _first_stage(dataset, run, depth)
    if found:
        lines = (
            f"{query_id} Q0 {document_id} {rank} {score} first-stage\n"
            for query_id, scores in found.items()
            for rank, (document_id, score) in enumerate(scores.items(), start=1)
        )
        counts["lines of the run"] = _write(folder / "run.trec", lines)
    if dataset.has_qrels():
        lines = (f"{one.query_id} 0 {one.doc_id} {one.relevance}\n" for one in dataset.qrels_iter())
        counts["judgements"] = _write(folder / "qrels.tsv", lines)
    if dataset.has_queries():
        rows = ({"_id": one.query_id, "text": _query_text(one)} for one in dataset.queries_iter())
        counts["queries"] = _write(folder / "queries.jsonl", (json_text(row) + "\n" for row in rows))
    if dataset.has_docs():
        rows = map(_document, _documents(dataset, {one for scores in found.values() for one in scores}))
        counts["documents"] = _write(folder / "corpus.jsonl.gz", (json_text(row) + "\n" for row in rows))
    return counts


def _first_stage(dataset: Any, run: Path | None, depth: int) -> dict[str, dict[str, float]]:
    if run is not None:
        found = read_run(run)[0]
    elif dataset.has_scoreddocs():
        found = {}
        for one in dataset.scoreddocs_iter():
            found.setdefault(one.query_id, {})[one.doc_id] = one.score
    else:
        return {}
    ordered = {query_id: sorted(scores.items(), key=lambda pair: -pair[1]) for query_id, scores in found.items()}
    return {query_id: dict(pairs[:depth]) for query_id, pairs in ordered.items()}


def _documents(dataset: Any, wanted: set[str]) -> Iterable[Any]:
    """Those of the run by ir_datasets' own index, all where there is no run."""
    return dataset.docs_store().get_many_iter(sorted(wanted)) if wanted else dataset.docs_iter()


def _document(one: Any) -> dict[str, str]:
    title = next((text for field in TITLE_FIELDS if isinstance(text := getattr(one, field, None), str)), "")
    for field in TEXT_FIELDS:
        if isinstance(text := getattr(one, field, None), str):
            return {"_id": one.doc_id, "title": title, "text": text}
    return {"_id": one.doc_id, "title": "", "text": one.default_text()}  # which holds the title already


def _query_text(one: Any) -> str:
    for field in QUERY_FIELDS:
        if isinstance(text := getattr(one, field, None), str):
            return text
    return str(one.default_text())


def _write(path: Path, lines: Iterable[str]) -> int:
    """`lines` as the file `path`, gzip where its name says so; it appears when it is whole."""
    count = 0

    def counted() -> Iterator[str]:
        nonlocal count
        for line in lines:
            count += 1
            yield line

    if path.suffix != ".gz":
        with whole_file(path) as stream:
            stream.writelines(counted())
        return count
    part = path.with_name(f".{path.name}.part")
    try:
        with gzip.open(part, "wt", encoding="utf-8") as stream:
            stream.writelines(counted())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return count


if __name__ == "__main__":
    main()
