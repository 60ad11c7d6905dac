"""Blocks: the units that a large run is cut into, fixed before anything runs.

A *block* is a JSON Lines shard, a row group of a Parquet shard, or a slice of a collection, cut into shards first.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from dearlite.documents import Document
from dearlite.errors import InvalidInput, UsageError, first_line, need
from dearlite.files.writing import json_text, whole_file
from dearlite.offline.collection.candidates import iter_candidates
from dearlite.offline.collection.collection import Collection
from dearlite.offline.run.journal import digest_of

_SHARDS = (".jsonl", ".ndjson", ".json", ".jsonl.gz", ".ndjson.gz", ".parquet")


@dataclass(frozen=True, slots=True)
class Block:
    """One unit of work: all of `path`, or its row group `group` where it is Parquet. `part` is the file it becomes."""

    number: int
    path: str
    group: int | None
    part: str

    @property
    def name(self) -> str:
        """How messages call it."""
        where = Path(self.path).name
        return where if self.group is None else f"{where} row group {self.group}"


def write_blocks(collection: Collection, folder: Path, size: int) -> Path:
    """Shards of `size` queries with their documents in a folder of `folder` whose name no other content has."""
    hashed = blake2b(
        json.dumps([size, {q: list(found) for q, found in collection.run.items()}]).encode(), digest_size=8
    )
    for query_id, found in collection.run.items():
        hashed.update(collection.queries[query_id].encode())
        hashed.update(b"".join(digest_of(collection.documents[one]) for one in found))
    place = folder / hashed.hexdigest()
    place.mkdir(parents=True, exist_ok=True)
    names = list(collection.run)
    for number, start in enumerate(range(0, len(names), size)):
        path = place / f"block-{number:06d}.jsonl"
        if path.exists():
            continue
        with whole_file(path) as stream:
            for query_id in names[start : start + size]:
                candidates = []
                for one, score in collection.run[query_id].items():
                    document = collection.documents[one]
                    doc = {"title": document.title, "text": document.text}
                    candidates.append({"docid": one, "score": score, "doc": doc})
                query = {"text": collection.queries[query_id], "qid": query_id}
                stream.write(json_text({"query": query, "candidates": candidates}) + "\n")
    return place


def list_blocks(folder: Path, settings: bytes) -> list[Block]:
    """The blocks of a folder of shards, in the order of their names; `settings` are a part of each part file's name."""
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
    """The block's queries and documents."""
    queries: dict[str, str] = {}
    documents: dict[str, Document] = {}
    run: dict[str, dict[str, float]] = {}
    for one in iter_candidates(Path(block.path), depth=depth, skip_bad=skip_bad, group=block.group):
        if one.query_id in queries:
            raise InvalidInput(f"{block.name}: query {one.query_id!r} comes twice: keep one of them")
        queries[one.query_id] = one.query
        documents |= {str(document.id): document for document in one.documents}
        run[one.query_id] = {str(d.id): score for d, score in zip(one.documents, one.scores, strict=True)}
    return Collection(block.name, queries, documents, run)


def _groups(path: Path) -> Sequence[int | None]:
    if path.suffix != ".parquet":
        return [None]
    parquet = need("pyarrow.parquet", extra="parquet")
    try:
        return range(parquet.ParquetFile(path).num_row_groups)
    except (OSError, ValueError) as err:
        raise InvalidInput(f"{path.name} is not Parquet ({first_line(err)})") from None
