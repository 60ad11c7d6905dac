"""Reranking on many machines, as a Ray Data pipeline: blocks of queries in, one file of run lines per block out.

Ray Data distributes blocks to actors that hold the model, queues blocks while all actors are busy, and gives the block
of a lost actor to another. The only state is the part files: a block is done when its part file exists.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import re
import socket
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

from dearlite.errors import DearliteError, UsageError, first_line, need
from dearlite.files.writing import whole_file
from dearlite.models.bundle import Bundle
from dearlite.models.gguf import GgufFile
from dearlite.models.registry import find_model
from dearlite.offline.cluster.blocks import Block, list_blocks, read_block, write_blocks
from dearlite.offline.collection.collection import Collection
from dearlite.offline.run.emptiness import without_empty
from dearlite.offline.run.journal import differences, settings_key
from dearlite.offline.run.scoring import rerank_collection
from dearlite.options import Call, Device, Listwise
from dearlite.reranker import Reranker
from dearlite.version import __version__

_ATTEMPTS = 4  # at a block whose actor dies each time; Ray itself would retry for ever

_HOST_AND_PORT = re.compile(r"(ray://)?\[?(?P<host>[^/]+?)\]?:(?P<port>\d+)")
_CONNECT_S = 10.0


@dataclass(frozen=True, slots=True)
class BlockReport:
    """The result of one block: pairs scored, seconds and tokens of the model, or an error message on one line."""

    number: int
    pairs: int = 0
    seconds: float = 0.0
    tokens: int = 0
    error: str = ""


@dataclass(frozen=True, slots=True)
class Scoring:
    """The settings that score every block; they are sent to the actors.

    `model` is a name of models.toml or an absolute path, valid on each node. `loading` are options of `Reranker.load`.
    """

    model: str
    device: Device
    threads: int
    depth: int
    skip_bad: bool
    listwise: Listwise | None
    batch_size: int
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
) -> tuple[list[BlockReport], int]:
    """Reranks `source` into the folder `output`: part files and run.trec.

    Returns reports of the blocks scored now, and the number of blocks that were done before.

    `source` is a folder of shards (records of rank_llm or RankGPT) or a Collection, which is cut into shards of
    `block_queries` queries in OUTPUT/blocks. `address` is that of a cluster; None starts a local Ray for this call.
    `actors` are the least and the greatest number of actors; each holds one model and has `scoring.threads` CPUs and
    `gpus` GPUs. `progress(done, total)` counts blocks. Every node must see both folders. Raises DearliteError naming
    the first block that failed.
    """
    if scoring.device == "auto":  # one device for all nodes: a score must not depend on the node that computed it
        scoring = replace(scoring, device="cuda" if gpus else "cpu")
    output.mkdir(parents=True, exist_ok=True)
    if isinstance(source, Collection):
        source = write_blocks(source, output / "blocks", block_queries)
    settings = _settings(scoring)
    blocks = list_blocks(source, settings)
    remaining = [block for block in blocks if not os.path.exists(output / block.part)]
    for block in remaining:
        (output / f"{block.part}.attempts").unlink(missing_ok=True)
    done_before = len(blocks) - len(remaining)

    def report(count: int) -> None:
        if progress is not None:
            progress(done_before + count, len(blocks))

    report(0)
    reports = []
    with closing(_run(remaining, output, scoring, settings, _Pool(address, *actors, gpus))) as results:
        for result in results:
            reports.append(result)
            report(len(reports))
    with whole_file(output / "run.trec") as stream:
        for block in blocks:
            with open(output / block.part, encoding="utf-8") as part:
                stream.writelines(part)
    return reports, done_before


class BlockScorer:
    """The actor: a loaded model, called with one block at a time. A block that fails gives a report, not a crash."""

    def __init__(self, scoring: Scoring, output: str, settings: bytes) -> None:
        self._scoring, self._output = scoring, Path(output)
        self._reranker: Reranker | None = None
        self._error = ""
        try:
            if _settings(scoring) != settings:
                raise DearliteError(
                    f"node {platform.node()} has another dearlite or another file for {scoring.model}: install the same"
                )
            self._reranker = Reranker.load(
                scoring.model, device=scoring.device, threads=scoring.threads, **scoring.loading
            )
            agree(self._output, settings, self._reranker.identity(scoring.listwise))
        except (DearliteError, OSError) as err:
            self._reranker = None
            self._error = str(err)  # reported for the first block; an exception here would restart the actor endlessly

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Rows of Blocks in, rows of BlockReports out, as JSON."""
        rows = [json.loads(row) for row in batch["block"]]
        return {"done": [json.dumps(asdict(self._score(Block(**row)))) for row in rows]}

    def _score(self, block: Block) -> BlockReport:
        if self._reranker is None:
            return BlockReport(block.number, error=self._error)
        attempts = self._output / f"{block.part}.attempts"
        try:
            with open(attempts, "ab") as stream:
                stream.write(b".")
            if (count := attempts.stat().st_size) > _ATTEMPTS:
                return BlockReport(block.number, error=f"its actor died {count - 1} times: is there too little memory?")
            collection = read_block(block, depth=self._scoring.depth, skip_bad=self._scoring.skip_bad)
            collection = without_empty(collection, self._reranker, skip_bad=self._scoring.skip_bad)
            start = time.perf_counter()
            call = Call(listwise=self._scoring.listwise, batch_size=self._scoring.batch_size)
            reranked = rerank_collection(collection, self._reranker, call)
            seconds = time.perf_counter() - start
            reranked.write_trec(self._output / block.part)
            attempts.unlink(missing_ok=True)
        except (DearliteError, OSError) as err:
            return BlockReport(block.number, error=str(err))
        return BlockReport(block.number, collection.pairs, seconds, reranked.tokens)


@dataclass(frozen=True, slots=True)
class _Pool:
    """The cluster's address (None: local), the least and greatest number of actors, and the GPUs of each."""

    address: str | None
    least: int
    most: int
    gpus: float


def _run(
    blocks: Sequence[Block], output: Path, scoring: Scoring, settings: bytes, pool: _Pool
) -> Generator[BlockReport]:
    """The report of each block, in order of completion. Raises DearliteError for the first one that failed."""
    if not blocks:
        return
    ray = _start(pool, scoring.threads)
    from ray.data import ActorPoolStrategy, DataContext

    logging.getLogger("ray.data").setLevel(logging.ERROR)  # it logs a plan, a path and advice to stderr
    DataContext.get_current().enable_progress_bars = False
    try:
        results = ray.data.from_items(
            [{"block": json.dumps(asdict(block))} for block in blocks], override_num_blocks=len(blocks)
        ).map_batches(
            BlockScorer,
            fn_constructor_args=(scoring, str(output.resolve()), settings),
            batch_size=1,
            compute=ActorPoolStrategy(min_size=min(pool.least, len(blocks)), max_size=max(pool.least, pool.most)),
            num_cpus=scoring.threads if not pool.gpus else 0,
            num_gpus=pool.gpus or None,
        )
        names = {block.number: block.name for block in blocks}
        for row in results.iter_rows():
            report = BlockReport(**json.loads(row["done"]))
            if report.error:
                raise DearliteError(f"block {names[report.number]}: {report.error}")
            yield report
    except (ray.exceptions.RayError, ray.data.exceptions.RayDataUserCodeException) as err:
        reason = next((line for line in reversed(str(err).splitlines()) if line.strip()), type(err).__name__)
        raise DearliteError(
            f"the cluster gave up: {reason.strip()} (the same command resumes from the blocks that are done)"
        ) from None
    finally:
        ray.shutdown()


def _start(pool: _Pool, threads: int) -> Any:
    """The ray module, connected to the cluster, without its log output. Raises UsageError if that fails."""
    address = pool.address
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    ray = need("ray", extra="ray")
    need("ray.data", extra="ray")
    options: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    if address is None:
        options |= {
            "address": "local",
            "num_cpus": max(pool.least * threads, os.cpu_count() or 1),
            "include_dashboard": False,
        }
    else:
        options |= {"address": address}
    try:
        if match := _HOST_AND_PORT.fullmatch(address or ""):  # Ray itself would retry for many minutes
            socket.create_connection((match["host"], int(match["port"])), timeout=_CONNECT_S).close()
        ray.init(**options)
    except Exception as err:  # Ray raises that itself, for a node that needs more than 30 s to start
        reason = first_line(err)
        if address is None:
            raise DearliteError(f"Ray does not start here ({reason.rstrip('.')}): run the same command again") from None
        raise UsageError(f"no Ray cluster at {address}: {reason}") from None
    if address is None and pool.gpus > ray.cluster_resources().get("GPU", 0):
        ray.shutdown()
        raise UsageError(f"--actor-gpus {pool.gpus:g}: Ray finds no such GPU on this machine: leave it out for the CPU")
    return ray


def agree(output: Path, settings: bytes, identity: Mapping[str, str]) -> None:
    """Records a node's `identity` in the folder `output`. Raises DearliteError if a part is of a node with another one.

    Scores of another ONNX Runtime, graph or class of processor differ, and must not stand in one run.
    """
    text = json.dumps(dict(sorted(identity.items())))
    prefix = f"node-{settings.hex()[:16]}-"
    own = output / f"{prefix}{blake2b(text.encode(), digest_size=8).hexdigest()}.json"
    recorded_before = os.path.exists(own)
    if not recorded_before:
        with whole_file(own) as stream:
            stream.write(text)
    for path in sorted(output.glob(f"{prefix}*.json")):
        if path.name == own.name:
            continue
        try:
            other = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:  # another node has just taken its own back
            continue
        changed = differences(other, identity)
        if not recorded_before:  # no part is of this node
            own.unlink(missing_ok=True)
        raise DearliteError(
            f"node {platform.node()} scores otherwise than the nodes before: another {changed}; "
            "use nodes that are alike, or begin in another folder"
        )


def _settings(scoring: Scoring) -> bytes:
    """A hash of all settings that scores depend on. Model files are read, not loaded: the driver may not run them."""
    files = [find_model(scoring.model)]
    files += [Path(scoring.loading["adapter"])] if scoring.loading.get("adapter") else []
    options = {"device": scoring.device, "listwise": str(scoring.listwise)}
    options |= {"depth": str(scoring.depth), "skip_bad": str(scoring.skip_bad)}
    return settings_key(options | {"sha256": " + ".join(map(_hash, files))}, __version__)


def _hash(path: Path) -> str:
    """The SHA-256 that identifies a model file."""
    if path.suffix == ".gguf":
        file = GgufFile(path)
        return file.recorded_sha256 or file.sha256()
    return Bundle(path).sha256()
