"""`dearlite batch --ray`: the same run as blocks on a Ray cluster."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from dearlite.cli.options.cascade import long_of
from dearlite.cli.options.listwise import listwise_of, loading_of
from dearlite.cli.options.run import collection_of
from dearlite.errors import UsageError, need
from dearlite.models.registry import find_model
from dearlite.offline.cluster.ray import Scoring, rerank_on_ray
from dearlite.offline.collection.collection import FOLDER_LAYOUT
from dearlite.render.bar import DocumentProgress

_ONE_PROCESS = ("journal", "no_journal", "cache", "jsonl")


def rerank_blocks(address: str, actors: str, gpus: float, block_queries: int, given: dict[str, Any]) -> None:
    """The blocks of what was named, into the folder --output."""
    need("ray.data", extra="ray")
    if given["output"] is None or Path(given["output"]).is_file():
        raise UsageError("--ray needs -o FOLDER, which every node sees: a part file a block goes there, and run.trec")
    if refused := [name for name in _ONE_PROCESS if given[name]]:
        raise UsageError(
            f"--{refused[0].replace('_', '-')} is of one process: with --ray the part files keep the state"
        )
    if len(given["model"]) != 1:
        raise UsageError("--ray runs one model, not a cascade: give one -m")
    if long_of(given) is not None:
        raise UsageError("--long is of one process: leave it out, or --ray")
    (model,) = given["model"]
    find_model(model)
    size = _actors(actors)
    if block_queries < 1:
        raise UsageError(f"--block-queries is {block_queries}: it must be 1 or more")
    listwise, loading = listwise_of(dict(given), stream=False), loading_of(given)
    scoring = Scoring(
        model=_seen_by_all(model),
        device=given["device"],
        threads=given["threads"] or 1,
        depth=given["depth"],
        skip_bad=given["skip_bad"],
        listwise=listwise,
        together=given["together"],
        loading={name: _seen_by_all(value) for name, value in loading.items() if value is not None},
    )
    source = Path(given["source"]) if given["source"] is not None and _holds_shards(given) else collection_of(given)
    with DocumentProgress(0, visible=not given["quiet"], unit="blocks") as progress:
        first = True

        def update(count: int, total: int) -> None:
            nonlocal first
            if first and count and not given["quiet"]:
                click.echo(f"dearlite: going on: {count} of {total} blocks are done already", err=True)
            first = False
            progress.update(count, total)

        try:
            done, found = rerank_on_ray(
                source,
                Path(given["output"]),
                scoring=scoring,
                address=None if address == "local" else address,
                actors=size,
                gpus=gpus,
                block_queries=block_queries,
                progress=update,
            )
        except KeyboardInterrupt:
            progress.close()
            click.echo("dearlite: interrupted: the same command goes on from the blocks that are done", err=True)
            sys.exit(130)
    if not given["quiet"]:
        pairs, seconds = sum(one.pairs for one in done), sum(one.seconds for one in done)
        known = f", {found} were there" if found else ""
        rate = f", {pairs / seconds:.0f} pairs/s an actor" if seconds else ""
        click.echo(f"{len(done)} blocks, {pairs} pairs{rate}{known}: {given['output']}/run.trec", err=True)


def _seen_by_all(value: Any) -> Any:
    """A file of this folder by its whole path: an actor works in another folder."""
    return str(Path(value).resolve()) if isinstance(value, str) and Path(value).is_file() else value


def _holds_shards(given: dict[str, Any]) -> bool:
    """Whether SOURCE is a folder of shards: one that has no file of a collection's layout."""
    folder = Path(given["source"])
    named = any(given[name] for name in ("queries", "corpus", "run_file"))
    return folder.is_dir() and not named and not any((folder / name).exists() for name in FOLDER_LAYOUT["queries"])


def _actors(text: str) -> tuple[int, int]:
    low, _, high = text.partition("-")
    if not low.isdecimal() or not (high or low).isdecimal() or not 1 <= int(low) <= int(high or low):
        raise UsageError(f"--actors {text}: it is a number from 1, or MIN-MAX")
    return int(low), int(high or low)
