"""Blocks: the units of work of a large run, fixed before the run starts.

A *block* is a JSON Lines shard or a row group of a Parquet shard. A collection is first cut into shards.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from dearlite.documents import Document
from dearlite.errors import InvalidInput, UsageError, first_line, need
from dearlite.files.json_text import write_rows
from dearlite.files.writing import whole_file
from dearlite.offline.collection.candidates import CandidateNotes, iter_candidates
from dearlite.offline.collection.collection import Collection
from dearlite.offline.run.journal import digest_of

_SHARDS = (".jsonl", ".ndjson", ".json", ".jsonl.gz", ".ndjson.gz", ".parquet")


@dataclass(frozen=True, slots=True)
class Block:
    """One unit of work: the file `path`, or its row group `group` (Parquet). `part` is the name of its output file."""

    number: int
    path: str
    group: int | None
    part: str

    @property
    def name(self) -> str:
        """The name of the block in messages."""
        file_name = Path(self.path).name
        return file_name if self.group is None else f"{file_name} row group {self.group}"


def write_blocks(collection: Collection, folder: Path, size: int) -> Path:
    """Writes shards of `size` queries with their documents; returns their folder, FOLDER/(hash of the content).

    Shards that are there already are kept.
    """
    ids = {query_id: list(scores) for query_id, scores in collection.run.items()}
    hashed = blake2b(json.dumps([size, ids]).encode(), digest_size=8)
    for query_id, document_ids in ids.items():
        hashed.update(collection.queries[query_id].encode())
        hashed.update(b"".join(digest_of(collection.documents[document_id]) for document_id in document_ids))
    shards = folder / hashed.hexdigest()
    shards.mkdir(parents=True, exist_ok=True)
    query_ids = list(ids)
    for number, start in enumerate(range(0, len(query_ids), size)):
        path = shards / f"block-{number:06d}.jsonl"
        if os.path.exists(path):
            continue
        with whole_file(path) as stream:
            write_rows((_record(collection, query_id) for query_id in query_ids[start : start + size]), stream)
    return shards


def _record(collection: Collection, query_id: str) -> dict[str, Any]:
    """One query with its candidates, in rank_llm's format."""
    candidates = []
    for document_id, score in collection.run[query_id].items():
        document = collection.documents[document_id]
        doc = {"title": document.title, "text": document.text}
        candidates.append({"docid": document_id, "score": score, "doc": doc})
    return {"query": {"text": collection.queries[query_id], "qid": query_id}, "candidates": candidates}


def list_blocks(folder: Path, settings: bytes) -> list[Block]:
    """The blocks of a folder of shards, sorted by file name. `settings` is hashed into the name of each part file."""
    shards = sorted(path for path in folder.iterdir() if path.name.endswith(_SHARDS) and not path.name.startswith("."))
    if not shards:
        raise UsageError(f"{folder} holds no shards ({', '.join(_SHARDS)})")
    blocks: list[Block] = []
    for path in shards:
        status = path.stat()
        for group in _groups(path):
            identity = f"{path.resolve()} {status.st_size} {status.st_mtime_ns} {group}".encode()
            name = blake2b(settings + identity, digest_size=8).hexdigest()
            blocks.append(Block(len(blocks), str(path.resolve()), group, f"part-{len(blocks):06d}-{name}.trec"))
    return blocks


def read_block(block: Block, *, depth: int | None, skip_bad: bool) -> Collection:
    """The queries, documents and first-stage run of a block."""
    queries: dict[str, str] = {}
    documents: dict[str, Document] = {}
    run: dict[str, dict[str, float]] = {}
    notes = CandidateNotes()
    for candidates in iter_candidates(Path(block.path), depth=depth, skip_bad=skip_bad, group=block.group):
        query_id = candidates.query_id
        if query_id in queries:
            raise InvalidInput(f"{block.name}: query {query_id!r} comes twice: keep one of them")
        queries[query_id] = candidates.query
        ids = [str(document.id) for document in candidates.documents]
        documents |= dict(zip(ids, candidates.documents, strict=True))
        run[query_id] = dict(zip(ids, candidates.scores, strict=True))
        notes.add(candidates)
    return Collection(block.name, queries, documents, run, notes=notes.lines())


def _groups(path: Path) -> Sequence[int | None]:
    """The row groups of a Parquet file; one None for any other file."""
    if path.suffix != ".parquet":
        return [None]
    parquet = need("pyarrow.parquet", extra="parquet")
    try:
        return range(parquet.ParquetFile(path).num_row_groups)
    except (OSError, ValueError) as err:
        raise InvalidInput(f"{path.name} is not Parquet ({first_line(err)})") from None
