"""`dearlite batch --ray`: the reranking of a run as blocks on a Ray cluster."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from dearlite.checks import whole_number
from dearlite.cli.options.run import RunOptions, open_source, resume_notice
from dearlite.errors import UsageError, counted, need
from dearlite.fields import USUAL
from dearlite.files.outputs import check_outputs, make_folder
from dearlite.offline.cluster.ray import Scoring, rerank_on_ray
from dearlite.offline.collection.collection import FOLDER_LAYOUT, Collection
from dearlite.offline.collection.source import Source
from dearlite.offline.run.run_files import RunFiles, input_files
from dearlite.render.bar import DocumentProgress


def rerank_blocks(
    options: RunOptions, *, address: str, actors: tuple[int, int], gpus: float, block_queries: int
) -> None:
    """Reranks the source in blocks into the folder --output, with progress and a summary on stderr."""
    need("ray.data", extra="ray")
    output = _output_folder(options)
    whole_number("--block-queries", block_queries)
    _check_output(output, options)
    scoring = _scoring_of(options)
    folder = _folder_of_shards(options.source)
    source = open_source(options) if folder is None else folder
    if isinstance(source, Collection) and not source.first_stage:
        raise UsageError("--ray divides a run, and none is named: give --run, or leave out --ray")
    with DocumentProgress(0, visible=not options.quiet, unit="blocks") as progress:
        try:
            blocks, resumed = rerank_on_ray(
                source,
                output,
                scoring=scoring,
                address=None if address == "local" else address,
                actors=actors,
                gpus=gpus,
                block_queries=block_queries,
                progress=resume_notice(progress, "blocks are already scored", quiet=options.quiet),
            )
        except KeyboardInterrupt:
            progress.close()
            click.echo("dearlite: interrupted: the same command resumes from the blocks that are done", err=True)
            sys.exit(130)
    if not options.quiet:
        pairs, seconds = sum(block.pairs for block in blocks), sum(block.seconds for block in blocks)
        earlier = f", {resumed} scored earlier" if resumed else ""
        rate = f", {pairs / seconds:.0f} pairs/s per actor" if seconds else ""
        click.echo(f"{counted(len(blocks), 'block')}, {pairs} pairs{rate}{earlier}: {output}/run.trec", err=True)


def _output_folder(options: RunOptions) -> Path:
    """The folder --output. Raises UsageError if it is missing, and for options that a cluster does not take."""
    if options.files.output is None or os.path.isfile(options.files.output):
        raise UsageError(
            "--ray needs -o FOLDER, a folder that every node sees: it gets one part file per block and run.trec"
        )
    if names := _one_process_options(options.files):
        raise UsageError(f"{names[0]} is of one process: with --ray the part files keep the results")
    if options.model.chain.cascade:
        raise UsageError("--ray runs one model, not a cascade: give one -m, without a depth")
    if options.model.long is not None:
        raise UsageError("--long is of one process: leave it out, or --ray")
    return Path(options.files.output)


def _check_output(output: Path, options: RunOptions) -> None:
    """Makes the folder. Raises UsageError if it cannot be written, or if its run.trec is an input."""
    make_folder(output)
    check_outputs({"--output": output / "run.trec"}, input_files(options.source, options.model_files()))


def _one_process_options(files: RunFiles) -> list[str]:
    """The names of the options that only a single process takes, among the given ones."""
    values = {
        "--journal": not isinstance(files.journal, bool),
        "--no-journal": files.journal is False,
        "--cache": files.cache is not None,
        "--jsonl": files.jsonl is not None,
    }
    return [name for name, is_set in values.items() if is_set]


def _scoring_of(options: RunOptions) -> Scoring:
    """The settings of every block. Paths are absolute, because an actor works in another folder."""
    assert options.source.depth is not None  # --depth has a default
    (stage,) = options.model.chain.stages
    loading = options.model.loading
    listwise_loading = {
        "instruction": loading.instruction,
        "prompt": loading.prompt,
        "gpu_layers": loading.gpu_layers,
        "adapter": None if loading.adapter is None else _absolute(loading.adapter),
    }
    return Scoring(
        model=_absolute(stage.model),
        device=loading.device,
        threads=loading.threads or 1,
        depth=options.source.depth,
        skip_bad=options.source.skip_bad,
        listwise=options.model.listwise,
        batch_size=options.batch_size,
        loading={name: value for name, value in listwise_loading.items() if value is not None},
    )


def _absolute(name: str) -> str:
    """The absolute path of the file `name`; the name of a model is returned unchanged."""
    return str(Path(name).resolve()) if os.path.isfile(name) else name


def _folder_of_shards(source: Source) -> Path | None:
    """SOURCE if it is a folder of shards, that is a folder without any query file of a collection's layout."""
    if not isinstance(source.source, str) or source.queries or source.corpus or source.run:
        return None
    shards = _shards_of(source)
    if shards is not None and (source.fields != USUAL or source.delimiter is not None):
        raise UsageError(
            "shards are read by the known names: rename their fields, or leave out --text-field and its like"
        )
    return shards


def _shards_of(source: Source) -> Path | None:
    assert isinstance(source.source, str)
    folder = Path(source.source)
    collection = any(os.path.exists(folder / name) for name in FOLDER_LAYOUT["queries"])
    return folder if os.path.isdir(folder) and not collection else None
