"""The same work on many machines, as a Ray Data pipeline: blocks of queries in, a file of run lines a block out.

Ray Data deals blocks to actors that hold the model, holds back what they cannot take yet, and hands the block of a lost
actor to another. A block's file is there when the block is done: there is no other state.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from dearlite.errors import DearliteError, UsageError, first_line, need
from dearlite.files.writing import whole_file
from dearlite.models.bundle import Bundle
from dearlite.models.gguf import GgufFile
from dearlite.models.registry import find_model
from dearlite.offline.cluster.blocks import Block, list_blocks, read_block, write_blocks
from dearlite.offline.collection.collection import Collection
from dearlite.offline.run.journal import settings_key
from dearlite.offline.run.scoring import rerank_collection
from dearlite.options import Call, Listwise
from dearlite.reranker import Reranker
from dearlite.version import __version__

_ATTEMPTS = 4  # at one block, where its actor dies each time: Ray itself would go on for ever

_HOST_AND_PORT = re.compile(r"(ray://)?\[?(?P<host>[^/]+?)\]?:(?P<port>\d+)")
_ANSWER_S = 10.0


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
    """How every block is scored; travels to the actors. `model` is a name that each node knows, or an absolute path."""

    model: str
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
    """Reranks `source` into the folder `output`: part files and run.trec. Gives the blocks done, and how many were.

    `source` is a folder of shards (rank_llm's or RankGPT's records) or a Collection, which is cut into shards of
    `block_queries` queries in OUTPUT/blocks. `address` is that of a cluster, None a Ray of this command's own. `actors`
    are the fewest and the most models held at once, each with `scoring.threads` CPUs and `gpus` GPUs. `progress` counts
    blocks. Both folders must be seen by every node. Raises DearliteError naming the first block that failed.
    """
    if scoring.device == "auto":  # one device for all: a result must not depend on the node it was scored on
        scoring = replace(scoring, device="cuda" if gpus else "cpu")
    output.mkdir(parents=True, exist_ok=True)
    if isinstance(source, Collection):
        source = write_blocks(source, output / "blocks", block_queries)
    settings = _settings(scoring)
    blocks = list_blocks(source, settings)
    left = [block for block in blocks if not (output / block.part).exists()]
    for block in left:
        (output / f"{block.part}.attempts").unlink(missing_ok=True)
    found = len(blocks) - len(left)

    def told(count: int) -> None:
        if progress is not None:
            progress(found + count, len(blocks))

    told(0)
    done = list(_run(left, output, scoring, settings, address, actors, gpus, told))
    with whole_file(output / "run.trec") as stream:
        for block in blocks:
            with open(output / block.part, encoding="utf-8") as part:
                stream.writelines(part)
    return done, found


class BlockScorer:
    """The actor: one loaded model, called with a block at a time. An error of a block is its result, not a crash."""

    def __init__(self, scoring: Scoring, output: str, settings: bytes) -> None:
        self._scoring, self._output = scoring, Path(output)
        self._reranker: Reranker | None = None
        self._failed = ""
        try:
            if _settings(scoring) != settings:
                raise DearliteError(
                    f"node {platform.node()} has another dearlite or another file for {scoring.model}: install the same"
                )
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
        attempts = self._output / f"{block.part}.attempts"
        try:
            with open(attempts, "ab") as stream:
                stream.write(b".")
            if (tried := attempts.stat().st_size) > _ATTEMPTS:
                return BlockDone(block.number, error=f"its actor died {tried - 1} times: is there too little memory?")
            collection = read_block(block, depth=self._scoring.depth, skip_bad=self._scoring.skip_bad)
            start = time.perf_counter()
            call = Call(listwise=self._scoring.listwise, together=self._scoring.together)
            found = rerank_collection(collection, self._reranker, call)
            seconds = time.perf_counter() - start
            found.write_trec(self._output / block.part)
            attempts.unlink(missing_ok=True)
        except (DearliteError, OSError) as err:
            return BlockDone(block.number, error=str(err))
        return BlockDone(block.number, collection.pairs, seconds, found.tokens)


def _run(
    blocks: Sequence[Block],
    output: Path,
    scoring: Scoring,
    settings: bytes,
    address: str | None,
    actors: tuple[int, int],
    gpus: float,
    told: Callable[[int], None],
) -> Iterator[BlockDone]:
    """Each block's result as it comes."""
    if not blocks:
        return
    ray = _start(address, actors[0] * scoring.threads, gpus)
    from ray.data import ActorPoolStrategy, DataContext

    logging.getLogger("ray.data").setLevel(logging.ERROR)  # it logs a plan, a path and an advice on stderr
    DataContext.get_current().enable_progress_bars = False
    try:
        results = ray.data.from_items(
            [{"block": json.dumps(asdict(block))} for block in blocks], override_num_blocks=len(blocks)
        ).map_batches(
            BlockScorer,
            fn_constructor_args=(scoring, str(output.resolve()), settings),
            batch_size=1,
            compute=ActorPoolStrategy(min_size=min(actors[0], len(blocks)), max_size=max(actors)),
            num_cpus=scoring.threads if not gpus else 0,
            num_gpus=gpus or None,
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


def _start(address: str | None, cpus: int, gpus: float) -> Any:
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
        if found := _HOST_AND_PORT.fullmatch(address or ""):  # Ray itself would try for many minutes
            socket.create_connection((found["host"], int(found["port"])), timeout=_ANSWER_S).close()
        ray.init(**options)
    except (OSError, RuntimeError, ValueError, OverflowError) as err:
        reason = first_line(err)
        raise UsageError(f"no Ray cluster at {address}: {reason}") from None
    if address is None and gpus > ray.cluster_resources().get("GPU", 0):
        ray.shutdown()
        raise UsageError(f"--actor-gpus {gpus:g}: Ray finds no such GPU on this machine: leave it out for the CPU")
    return ray


def _settings(scoring: Scoring) -> bytes:
    """What results depend on, read off the files: the driver need not be able to run the model."""
    files = [find_model(scoring.model)]
    files += [Path(scoring.loading["adapter"])] if scoring.loading.get("adapter") else []
    options = {"device": scoring.device, "listwise": str(scoring.listwise)}
    options |= {"depth": str(scoring.depth), "skip_bad": str(scoring.skip_bad)}
    return settings_key(options | {"sha256": " + ".join(map(_hash, files))}, __version__)


def _hash(path: Path) -> str:
    if path.suffix == ".gguf":
        file = GgufFile(path)
        return file.recorded_sha256 or file.sha256()
    return Bundle(path).sha256()
