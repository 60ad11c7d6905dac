"""`dearlite train pointwise|listwise|mine`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from dearlite.errors import UsageError, need
from dearlite.export.train.config import ListwiseConfig, PointwiseConfig, read_config
from dearlite.files.writing import check_output
from dearlite.machine import DEVICES
from dearlite.models.registry import DEFAULT_MODEL, find_model
from dearlite.render.bar import DocumentProgress


@click.group()
def command() -> None:
    """Train a DeAR: records from a collection and a teacher, then stage 1 or stage 2."""


def _training(function: Any) -> Any:
    for option in (
        click.option("--dry-run", is_flag=True, help="Sizes, steps, memory and time, by a few real steps; then stop."),
        click.option(
            "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="A setting in place of the file's."
        ),
        click.argument("config", metavar="CONFIG.toml"),
    ):
        function = option(function)
    return function


@command.command("pointwise")
@_training
def pointwise(config: str, overrides: tuple[str, ...], dry_run: bool) -> None:
    """Stage 1: a scorer, taught by labels and a teacher's scores.

    The settings are published values where CONFIG.toml says nothing; base, data and output must stand in it. A training
    that was stopped goes on from its last checkpoint. docs/training.md lists the settings.
    """
    settings = read_config(Path(config), PointwiseConfig, overrides)
    for package in ("transformers", "peft", "accelerate"):
        need(package, extra="train")
    from dearlite.export.train.pointwise import train_pointwise

    _end(train_pointwise(settings, dry_run=dry_run, say=_say), settings.base, ".dear")


@command.command("listwise")
@_training
def listwise(config: str, overrides: tuple[str, ...], dry_run: bool) -> None:
    """Stage 2: a language model that orders passages and says why, by supervised fine-tuning."""
    settings = read_config(Path(config), ListwiseConfig, overrides)
    for package in ("transformers", "peft", "trl"):
        need(package, extra="train")
    from dearlite.export.train.listwise import train_listwise

    _end(train_listwise(settings, dry_run=dry_run, say=_say), settings.base, ".gguf")


@command.command("mine")
@click.argument("source", required=False, metavar="[FOLDER]")
@click.option("--queries", metavar="FILE", help="Queries, as batch takes them. [default: FOLDER's]")
@click.option("--corpus", multiple=True, metavar="FILE", help="Documents. [default: FOLDER's]")
@click.option("--qrels", metavar="FILE", help="Judgements. [default: FOLDER's]")
@click.option("--run", "run_file", metavar="FILE", help="The first stage. [default: FOLDER's]")
@click.option("-m", "--model", default=DEFAULT_MODEL, show_default=True, metavar="NAME|FILE", help="The teacher.")
@click.option("-o", "--output", required=True, metavar="FILE", help="The records, JSON Lines.")
@click.option("--negatives", type=int, default=7, show_default=True, help="Of each query, at most.")
@click.option("--positives", type=int, default=4, show_default=True, help="Of each query, at most.")
@click.option("--depths", default="1-30", show_default=True, metavar="RANKS", help="Where negatives are: 1-10,11-50.")
@click.option(
    "--margin", type=float, default=0.0, show_default=True, help="A negative stays so far below the positive."
)
@click.option("--limit", type=int, metavar="N", help="So many queries, drawn by the seed.")
@click.option("--seed", type=int, default=42, show_default=True)
@click.option("--listwise", is_flag=True, help="Records of stage 2: the teacher's order, its evidence quoted.")
@click.option("--device", type=click.Choice(DEVICES), default="auto", show_default=True)
@click.option("--threads", type=int, metavar="N")
@click.option("--skip-bad", is_flag=True, help="Leave out what cannot be used.")
def mine(**given: Any) -> None:
    """Make training records from a collection and a teacher.

    Negatives are drawn from the first stage at set depths; those that the teacher likes better than the positives are
    taken for unjudged positives and dropped. The teacher's scores are journalled beside the output: after a stop the
    same command goes on.
    """
    from dearlite.export.train.records import mine as mining_module
    from dearlite.offline.collection.collection import collection_files

    check_output(given["output"])
    find_model(given["model"])
    if given["negatives"] < 1 or given["positives"] < 1:
        raise UsageError("--negatives and --positives are 1 or more")
    mining = mining_module.Mining(
        negatives=given["negatives"],
        positives=given["positives"],
        depths=mining_module.parse_depths(given["depths"]),
        margin=given["margin"],
        limit=given["limit"],
        seed=given["seed"],
        skip_bad=given["skip_bad"],
    )
    parts = {"queries": given["queries"], "run": given["run_file"], "qrels": given["qrels"]}
    files = collection_files(given["source"], parts, given["corpus"])
    collection, positives, lost = mining_module.candidates(
        files["queries"][0], files["corpus"], files["qrels"][0], files["run"][0], mining
    )
    with DocumentProgress(collection.pairs, visible=True, what="pairs") as progress:
        found = mining_module.mine(
            collection,
            positives,
            mining,
            model=given["model"],
            device=given["device"],
            threads=given["threads"],
            journal=Path(f"{given['output']}.journal"),
            without_positive=lost,
            progress=progress.update,
        )
        if given["listwise"]:
            from dearlite.export.train.records.evidence import listwise_records

            found = listwise_records(
                found, model=given["model"], device=given["device"], threads=given["threads"], seed=given["seed"]
            )
    mining_module.write_records(found.records, Path(given["output"]))
    click.echo(
        f"{len(found.records)} records; left out: {found.false_negatives} negatives that the teacher likes better than "
        f"the positives, {found.without_negative} queries with no other, {found.without_positive} without a positive",
        err=True,
    )


def _say(line: str) -> None:
    if os.environ.get("RANK", "0") == "0":  # of torchrun's processes one speaks
        click.echo(line)


def _end(folder: Path | None, base: str, suffix: str) -> None:
    if folder is not None:
        unpacked = folder / "base"
        shown = unpacked if unpacked.is_dir() else base
        _say(f"{folder} holds the adapter: dearlite export {shown} --adapter {folder} -o {folder.name}{suffix}")
