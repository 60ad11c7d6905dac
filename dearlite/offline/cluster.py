"""The same work on many machines, as a Ray Data pipeline: blocks of queries in, a file of run lines a block out.

A *block* is fixed before anything runs: a JSON Lines shard, a row group of a Parquet shard, or a slice of a collection
that the driver cuts into shards first. Ray Data deals blocks to actors that hold the model, holds back what they cannot
take yet, and hands the block of a lost actor to another. A block's file is there when the block is done: no other state.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from dearlite import __version__
from dearlite.api import Reranker
from dearlite.bundle import Bundle
from dearlite.documents import Document
from dearlite.errors import DearliteError, InvalidInput, UsageError, need
from dearlite.gguf_file import GgufFile
from dearlite.offline.candidates import iter_candidates
from dearlite.offline.collection import Collection
from dearlite.offline.journal import digest_of, settings_key
from dearlite.offline.rerank import rerank_collection
from dearlite.options import Listwise
from dearlite.registry import DEFAULT_MODEL, find_model
from dearlite.render.formats import json_text, whole_file

_SHARDS = (".jsonl", ".ndjson", ".json", ".jsonl.gz", ".ndjson.gz", ".parquet")
_RETRIES = 3


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


@dataclass(frozen=True, slots=True)
class BlockDone:
    """What an actor says of a block: pairs scored, what the model took, or the error that ended it, on one line."""

    number: int
    pairs: int = 0
    seconds: float = 0.0
    tokens: int = 0
    error: str = ""


@dataclass(frozen=True, slots=True)
class Scoring:
    """How every block is scored; travels to the actors."""

    model: str | None
    device: str
    threads: int
    depth: int
    skip_bad: bool
    listwise: Listwise | None
    together: int
    loading: Mapping[str, Any]


def rerank_on_ray(
    source: Path | Collection,
    output: Path,
    *,
    scoring: Scoring,
    address: str | None = None,
    actors: tuple[int, int] = (1, 1),
    gpus: float = 0.0,
    block_queries: int = 100,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[BlockDone], int]:
    """Reranks `source` into the folder `output`: part files, and run.trec of all of them; gives what was done and found.

    `source` is a folder of shards (rank_llm's or RankGPT's records) or a Collection, which is cut into shards of
    `block_queries` queries in OUTPUT/blocks. `address` is that of a cluster, None a Ray of this command's own. `actors`
    are the fewest and the most models held at once, each with `scoring.threads` CPUs and `gpus` GPUs. `progress` counts
    blocks. Both folders must be seen by every node. Raises DearliteError naming the first block that failed.
    """
    output.mkdir(parents=True, exist_ok=True)
    if isinstance(source, Collection):
        source = write_blocks(source, output / "blocks", block_queries)
    blocks = list_blocks(source, output, _settings(scoring))
    left = [block for block in blocks if not (output / block.part).exists()]
    found = len(blocks) - len(left)

    def told(count: int) -> None:
        if progress is not None:
            progress(found + count, len(blocks))

    told(0)
    done = list(_run(left, output, scoring, address, actors, gpus, told))
    with whole_file(output / "run.trec") as stream:
        for block in blocks:
            with open(output / block.part, encoding="utf-8") as part:
                stream.writelines(part)
    return done, found


def write_blocks(collection: Collection, folder: Path, size: int) -> Path:
    """Shards of `size` queries with their documents in a folder of `folder` whose name no other content has."""
    if size < 1:
        raise UsageError(f"--block-queries is {size}: it must be 1 or more")
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


def list_blocks(folder: Path, output: Path, settings: bytes) -> list[Block]:
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


class BlockScorer:
    """The actor: one loaded model, called with a block at a time. An error of a block is its result, not a crash."""

    def __init__(self, scoring: Scoring, output: str) -> None:
        self._scoring, self._output = scoring, Path(output)
        self._reranker: Reranker | None = None
        self._failed = ""
        try:
            self._reranker = Reranker.load(
                scoring.model, device=scoring.device, threads=scoring.threads, **scoring.loading
            )
        except DearliteError as err:
            self._failed = str(err)  # told once, for the first block, in place of endless restarts

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Rows of blocks in, rows of BlockDone out."""
        rows = [json.loads(row) for row in batch["block"]]
        return {"done": [json.dumps(asdict(self._score(Block(**row)))) for row in rows]}

    def _score(self, block: Block) -> BlockDone:
        if self._reranker is None:
            return BlockDone(block.number, error=self._failed)
        try:
            collection = read_block(block, depth=self._scoring.depth, skip_bad=self._scoring.skip_bad)
            start = time.perf_counter()
            found = rerank_collection(
                collection, self._reranker, listwise=self._scoring.listwise, together=self._scoring.together
            )
            seconds = time.perf_counter() - start
            found.write_trec(self._output / block.part)
        except DearliteError as err:
            return BlockDone(block.number, error=str(err))
        return BlockDone(block.number, collection.pairs, seconds, found.tokens)


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


def _run(
    blocks: Sequence[Block],
    output: Path,
    scoring: Scoring,
    address: str | None,
    actors: tuple[int, int],
    gpus: float,
    told: Callable[[int], None],
) -> Iterator[BlockDone]:
    """Each block's result as it comes."""
    if not blocks:
        return
    ray = _start(address, actors[0] * scoring.threads)
    from ray.data import ActorPoolStrategy, DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    try:
        results = ray.data.from_items(
            [{"block": json.dumps(asdict(block))} for block in blocks], override_num_blocks=len(blocks)
        ).map_batches(
            BlockScorer,
            fn_constructor_args=(scoring, str(output.resolve())),
            batch_size=1,
            compute=ActorPoolStrategy(min_size=min(actors[0], len(blocks)), max_size=max(actors)),
            num_cpus=scoring.threads if not gpus else 0,
            num_gpus=gpus or None,
            max_restarts=_RETRIES,
            max_task_retries=_RETRIES,
        )
        names = {block.number: block.name for block in blocks}
        for count, row in enumerate(results.iter_rows(), start=1):
            done = BlockDone(**json.loads(row["done"]))
            if done.error:
                raise DearliteError(f"block {names[done.number]}: {done.error}")
            told(count)
            yield done
    except (ray.exceptions.RayError, ray.data.exceptions.RayDataUserCodeException) as err:
        reason = next((line for line in reversed(str(err).splitlines()) if line.strip()), type(err).__name__)
        raise DearliteError(
            f"the cluster gave up: {reason.strip()} (the same command goes on from what is done)"
        ) from None
    finally:
        ray.shutdown()


def _start(address: str | None, cpus: int) -> Any:
    """Ray, connected and quiet."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    ray = need("ray", extra="ray")
    need("ray.data", extra="ray")
    options: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    if address is None:
        options |= {"address": "local", "num_cpus": max(cpus, os.cpu_count() or 1), "include_dashboard": False}
    else:
        options |= {"address": address}
    try:
        ray.init(**options)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as err:
        reason = next(iter(str(err).splitlines()), type(err).__name__)
        raise UsageError(f"no Ray cluster at {address}: {reason}") from None
    return ray


def _settings(scoring: Scoring) -> bytes:
    """What results depend on, read off the files: the driver need not be able to run the model."""
    files = [find_model(scoring.model or DEFAULT_MODEL)]
    files += [Path(scoring.loading["adapter"])] if scoring.loading.get("adapter") else []
    options = {"device": scoring.device, "listwise": str(scoring.listwise)}
    options |= {"depth": str(scoring.depth), "skip_bad": str(scoring.skip_bad)}
    return settings_key(options | {"sha256": " + ".join(map(_hash, files))}, __version__)


def _hash(path: Path) -> str:
    if path.suffix == ".gguf":
        file = GgufFile(path)
        return file.recorded_sha256 or file.sha256()
    return Bundle(path).sha256()


def _groups(path: Path) -> Sequence[int | None]:
    if path.suffix != ".parquet":
        return [None]
    parquet = need("pyarrow.parquet", extra="parquet")
    try:
        return range(parquet.ParquetFile(path).num_row_groups)
    except (OSError, ValueError) as err:
        raise InvalidInput(f"{path.name} is not Parquet ({str(err).splitlines()[0]})") from None
