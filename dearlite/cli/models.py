"""`dearlite models list|show|recommend|get|path|remove|verify|calibrate`."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import click

from dearlite.cli.models_files import get_model, path_model, remove_model
from dearlite.cli.models_recommend import recommend_models
from dearlite.cli.models_show import show_entry, show_file
from dearlite.cli.screen import paged
from dearlite.errors import ModelFileError, UsageError, need
from dearlite.files.targets import leads_to_stdout
from dearlite.machine import available_memory_mb
from dearlite.models.chain_names import parse_chain, parse_stage
from dearlite.models.entries import ModelEntry
from dearlite.models.formats import DEAR, LEXICAL, LISTWISE_GGUF
from dearlite.models.registry import find_entry, find_model, load_cascades, load_lexical, load_registry, model_file
from dearlite.render.facts import print_facts, print_rows
from dearlite.templates.families import STATED


@click.group(invoke_without_command=True)
@click.option("-v", "--verbose", is_flag=True, help="Describe each model of the list, too.")
@click.pass_context
def command(ctx: click.Context, verbose: bool) -> None:
    """List, show, choose, fetch, remove and verify models: those of models.toml, and of your own in DEARLITE_HOME."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_models, verbose=verbose)
    elif verbose:
        raise UsageError("-v describes the models of the list: `dearlite models -v`, or `dearlite models list -v`")


@command.command("list")
@click.option("-v", "--verbose", is_flag=True, help="Describe each model, too.")
def list_models(verbose: bool = False) -> None:
    """List name, kind, size, memory and licence of each model: those on this machine first, then those that fit it.

    `dearlite models show NAME` has parameters, published quality, source and download, `dearlite models get NAME`
    fetches or makes the file. The repository at the Hub, OWNER/NAME, is a name too.
    """
    with paged():
        _print_list(verbose)


def _print_list(verbose: bool) -> None:
    known = load_registry()
    places = {entry.name: _place_of(entry) for entry in known.values()}
    memory_mb = available_memory_mb()
    entries = sorted(known.values(), key=lambda e: (_PLACES.index(places[e.name]), e.memory_mb > memory_mb))
    rows = [(e.name, e.kind, _gb(e.size_mb), _gb(e.memory_mb), e.licence, places[e.name]) for e in entries]
    print_rows(("name", "kind", "GB", "memory", "licence", "here"), rows, numbers=("GB", "memory"))
    cascades = []
    for cascade in load_cascades().values():
        models = [stage.model for stage in map(parse_stage, cascade.stages)]
        complete = all(places.get(model) in _PLACES[:2] for model in models)
        cascades.append((cascade.name, ", then ".join(cascade.stages), "yes" if complete else "no"))
    print_rows(("cascade", "stages", "here"), cascades)
    lexical, here = load_lexical().values(), "yes" if importlib.util.find_spec(LEXICAL.packages[0]) else "no"
    print_rows(("by words", "k1", "b", "language", "here"), [(e.name, e.k1, e.b, e.language, here) for e in lexical])
    if verbose:
        descriptions = [(entry.name, entry.about) for entry in entries]
        descriptions += [(cascade.name, cascade.about) for cascade in load_cascades().values()]
        descriptions += [(words.name, words.about) for words in lexical]
        print_rows(("name", "about"), descriptions)


_PLACES = ("embedded", "yes", "unusable", "no")  # of a model's file, best first


def _place_of(entry: ModelEntry) -> str:
    """The entry of _PLACES for a model: "unusable" is a file here without the package that runs it."""
    file = model_file(entry)
    if not os.path.isfile(file):
        return "no"
    packages = (DEAR if file.suffix == ".dear" else LISTWISE_GGUF).packages
    runnable = any(map(importlib.util.find_spec, packages))
    return "unusable" if not runnable else "yes" if entry.embedded is None else "embedded"


def _gb(megabytes: int) -> str:
    """Gigabytes with two decimals, with one from 10 on. Example: 35 -> "0.04"."""
    return f"{megabytes / 1000:.{1 if megabytes >= 10_000 else 2}f}"


@command.command("show")
@click.argument("model", metavar="NAME|FILE")
def show_model(model: str) -> None:
    """Show the manifest and the quality card of a model file, or the stages of a cascade.

    Of a NAME whose file is not on this machine, show its entry and the command that makes the file.
    """
    if (words := load_lexical().get(model)) is not None:
        print_facts(asdict(words))
        return
    if (cascade := load_cascades().get(model)) is not None:
        print_facts({"name": cascade.name, "kind": cascade.kind, "about": cascade.about})
        stages = enumerate(parse_chain([model]), start=1)
        print_rows(("stage", "model", "documents"), [(n, s.model, s.depth or "all") for n, s in stages])
        return
    entry = find_entry(model)
    if entry is not None and not os.path.isfile(model_file(entry)):
        show_entry(entry)
        return
    show_file(find_model(model), entry)


for subcommand in (recommend_models, get_model, path_model, remove_model):
    command.add_command(subcommand)


@command.command("verify")
@click.argument("model", metavar="NAME|FILE")
def verify_model(model: str) -> None:
    """Hash every part of a model file, and compare its scores with published ones where there are any.

    Each published score is printed beside the file's own, as a raw score or, where its makers publish those, as a
    probability. A model of DeAR is scored in every way in question: at the last token or at the last position of the
    padded row, with two spaces or one before a passage without a title. Exits with 1 if the file does not give the
    published scores, within the tolerance of their source and the error that the file states of itself.
    """
    outcome = need("dearlite.export", extra="export").verify(model, report=click.echo)
    if outcome.reproduced is None:
        return
    if outcome.scores:
        rows = [
            (
                compared.document[:22],
                "probability" if compared.probability else "score",
                f"{compared.published:.3f}",
                f"{compared.own:.3f}",
                f"{compared.difference:+.3f}",
                f"{compared.allowed:.3f}",
            )
            for compared in outcome.scores
        ]
        head = ("document", "as", "published", "this file", "difference", "allowed")
        print_rows(head, rows, numbers=head[2:])
    else:
        _print_readings(outcome.readings)
    if not outcome.reproduced:
        raise ModelFileError(outcome.message)
    click.echo(outcome.message)


def _print_readings(readings: Sequence[Any]) -> None:
    """Prints the readings of a model of DeAR with their distance from the published scores."""
    documents = len(readings[0].scores)
    pairs = documents * (documents - 1) // 2
    print_rows(
        ("reading", "this file", "largest difference", "mean", "pairs in order"),
        [
            (
                r.name,
                "yes" if r.own else "",
                f"{r.largest_difference:.3f}",
                f"{r.mean_difference:.3f}",
                f"{r.agreeing_pairs} of {pairs}",
            )
            for r in readings
        ],
    )


@command.command("calibrate")
@click.argument("model", metavar="NAME|FILE")
@click.argument("source", required=False, metavar="[FOLDER]")
@click.option("--queries", metavar="FILE", help="Queries of the split. [default: FOLDER's]")
@click.option("--corpus", multiple=True, metavar="FILE", help="Documents. [default: FOLDER's]")
@click.option("--run", metavar="FILE", help="Run of the first stage. [default: FOLDER's]")
@click.option("--qrels", metavar="FILE", help="Judgements. [default: FOLDER's]")
@click.option("--depth", type=int, default=100, show_default=True, metavar="N", help="Documents per query.")
@click.option(
    "--split", required=True, metavar="NAME", help="Name of these pairs in the file; never those of a test split."
)
@click.option("--journal", metavar="FILE", help="Keeps each score at once; the same command continues from it.")
@click.option(
    "--prompt",
    type=click.Choice(STATED),
    metavar="NAME",
    help=f"Family of a language model in a GGUF, as for rerank: {', '.join(STATED)}.",
)
@click.option("-o", "--output", required=True, metavar="FILE", help="The model file to write, with the calibration.")
def calibrate_model(model: str, source: str | None, **options: Any) -> None:
    """Fit a pointwise model's scores to probabilities of relevance, on the judged pairs of a split.

    Hits of the written file have a relevance, and `rerank --min-relevance` drops documents that do not answer. Fit on a
    development split: the printed error is that of the fit.
    """
    from dearlite.render.bar import DocumentProgress

    calibrate = need("dearlite.export", extra="export").calibrate
    with DocumentProgress(0, visible=True, unit="pairs") as progress:
        result = calibrate(model, source, progress=progress.update, **options)
    click.echo(
        f"{result.path}: relevance = sigmoid({result.scale} x score {result.bias:+}), fitted on {result.pairs} pairs, "
        f"{result.relevant} of them relevant; error {result.ece}, without the fit {result.ece_sigmoid}",
        err=leads_to_stdout(options["output"]),  # the file itself is on stdout
    )
