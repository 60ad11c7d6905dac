"""`dearlite train pointwise|listwise|mine`: parses the options, calls one function, reports the result."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from dearlite.export.train.config import ListwiseConfig, PointwiseConfig, read_config
from dearlite.machine import DEVICES
from dearlite.models.registry import DEFAULT_MODEL
from dearlite.options import Device
from dearlite.render.bar import DocumentProgress


@click.group()
def command() -> None:
    """Train a DeAR: records from a collection and a teacher, then stage 1 or stage 2."""


def _training_options(function: Any) -> Any:
    for option in (
        click.option(
            "--dry-run",
            is_flag=True,
            help="Take a few steps, report sizes, number of steps, memory and time, and train nothing.",
        ),
        click.option(
            "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="A setting that replaces the file's."
        ),
        click.argument("config", metavar="CONFIG.toml"),
    ):
        function = option(function)
    return function


@command.command("pointwise")
@_training_options
def pointwise(config: str, overrides: tuple[str, ...], dry_run: bool) -> None:
    """Stage 1: train a scorer on labels and a teacher's scores.

    Settings that CONFIG.toml does not name have the published values; base, data and output are required. A training
    that was stopped resumes from its last checkpoint. docs/training.md lists the settings.
    """
    from dearlite.export.train.pointwise import train_pointwise

    settings = read_config(Path(config), PointwiseConfig, overrides)
    _report_adapter(train_pointwise(settings, dry_run=dry_run, report=click.echo), settings.base, ".dear")


@command.command("listwise")
@_training_options
def listwise(config: str, overrides: tuple[str, ...], dry_run: bool) -> None:
    """Stage 2: fine-tune a language model to order passages and give its reasons."""
    from dearlite.export.train.listwise import train_listwise

    settings = read_config(Path(config), ListwiseConfig, overrides)
    _report_adapter(train_listwise(settings, dry_run=dry_run, report=click.echo), settings.base, ".gguf")


@command.command("mine")
@click.argument("source", required=False, metavar="[FOLDER]")
@click.option("--queries", metavar="FILE", help="Queries, as batch takes them. [default: FOLDER's]")
@click.option("--corpus", multiple=True, metavar="FILE", help="Documents. [default: FOLDER's]")
@click.option("--qrels", metavar="FILE", help="Relevance judgements. [default: FOLDER's]")
@click.option("--run", metavar="FILE", help="The first stage's run. [default: FOLDER's]")
@click.option("-m", "--model", default=DEFAULT_MODEL, show_default=True, metavar="NAME|FILE", help="The teacher.")
@click.option("-o", "--output", required=True, metavar="FILE", help="The training records, JSON Lines.")
@click.option("--negatives", type=int, default=7, show_default=True, help="Maximum number per query.")
@click.option("--positives", type=int, default=4, show_default=True, help="Maximum number per query.")
@click.option(
    "--depths", default="1-30", show_default=True, metavar="RANKS", help="Ranks to draw negatives from: 1-10,11-50."
)
@click.option(
    "--margin",
    type=float,
    default=0.0,
    show_default=True,
    help="Keep negatives that score more than this below the best positive.",
)
@click.option("--limit", type=int, metavar="N", help="Number of queries, drawn by the seed. [default: all]")
@click.option("--seed", type=int, default=42, show_default=True, help="Seed of all random draws.")
@click.option("--listwise", is_flag=True, help="Write records of stage 2: the teacher's order, its evidence quoted.")
@click.option("--device", type=click.Choice(DEVICES), default="auto", show_default=True, help="Where the teacher runs.")
@click.option("--threads", type=int, metavar="N", help="CPU threads of the teacher. [default: all cores]")
@click.option("--skip-bad", is_flag=True, help="Leave out documents that cannot be used.")
def mine(
    *,
    source: str | None,
    queries: str | None,
    corpus: tuple[str, ...],
    qrels: str | None,
    run: str | None,
    model: str,
    output: str,
    negatives: int,
    positives: int,
    depths: str,
    margin: float,
    limit: int | None,
    seed: int,
    listwise: bool,
    device: Device,
    threads: int | None,
    skip_bad: bool,
) -> None:
    """Make training records from a collection and a teacher.

    Negatives are drawn from the first stage's ranks at --depths. Negatives that the teacher scores above the positives
    are taken for unjudged positives and dropped. The teacher's scores are journalled beside the output: after an
    interruption the same command resumes.
    """
    from dearlite.export.train.records import mine as mining

    options = mining.MiningOptions(
        negatives=negatives,
        positives=positives,
        depths=mining.parse_depths(depths),
        margin=margin,
        limit=limit,
        seed=seed,
        listwise=listwise,
        skip_bad=skip_bad,
    )
    with DocumentProgress(0, visible=True, unit="pairs") as bar:  # mining reports the total with each count
        mined = mining.mine(
            source,
            options=options,
            queries=queries,
            corpus=corpus,
            qrels=qrels,
            run=run,
            model=model,
            device=device,
            threads=threads,
            output=output,
            progress=bar.update,
        )
    click.echo(
        f"{len(mined.records)} records; left out: {mined.false_negatives} negatives that the teacher scores above the "
        f"positives, {mined.without_negative} queries without another negative, {mined.without_positive} without a "
        "positive",
        err=True,
    )


def _report_adapter(folder: Path | None, base: str, suffix: str) -> None:
    from dearlite.export.train.loop import is_first_process

    if folder is not None and is_first_process():
        unpacked = folder / "base"
        shown = unpacked if os.path.isdir(unpacked) else base
        click.echo(f"{folder} holds the adapter: dearlite export {shown} --adapter {folder} -o {folder.name}{suffix}")
