"""`dearlite models recommend`."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict

import click

from dearlite.cli.options.types import Duration, Size
from dearlite.files.json_text import json_text
from dearlite.installing import pip_install
from dearlite.machine import nvidia_gpu_present
from dearlite.models.registry import load_registry
from dearlite.models.registry_values import QUALITY
from dearlite.models.requirements import missing_extra
from dearlite.recommend import Candidate, Recommendation, recommend
from dearlite.recommend.choice import MEASURE, seconds_text
from dearlite.recommend.prediction import QUERY_TOKENS
from dearlite.render.facts import print_rows

_NEAREST = 6  # models that are listed where none fits
_HEAD = ("model", "quality", "time", "memory", "licence")


@click.command("recommend")
@click.option(
    "--docs", type=click.IntRange(1), default=100, show_default=True, metavar="N", help="Documents of a query."
)
@click.option(
    "--tokens", type=click.IntRange(1), default=200, show_default=True, metavar="N", help="Tokens of each document."
)
@click.option("--within", type=Duration(), default="2s", show_default=True, help="Longest time of a query.")
@click.option("--memory", type=Size(), help="Most memory, such as 8GB or 512MB. [default: what is free now]")
@click.option("--commercial", is_flag=True, help="Only models whose licence allows commercial use.")
@click.option("--threads", type=int, metavar="N", help="Number of CPU threads. [default: one per physical core]")
@click.option("--measure", is_flag=True, help="Measure this machine again.")
@click.option("--all", "every", is_flag=True, help="List the models that do not fit, too.")
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object instead of tables.")
def recommend_models(
    docs: int,
    tokens: int,
    within: float,
    memory: float | None,
    commercial: bool,
    threads: int | None,
    measure: bool,
    every: bool,
    as_json: bool,
) -> None:
    """Show the time and memory that each model needs here, the best one that fits first.

    Times are predicted, for one query on this machine's CPU with the model loaded and nothing else running. The first
    call measures the machine for a few seconds and keeps the rates in DEARLITE_HOME. Quality is the published nDCG@10
    of MTEB(eng, v2) retrieval; models without that figure are listed apart.
    """
    result = recommend(
        documents=docs,
        tokens=tokens,
        within_s=within,
        memory_mb=memory,
        commercial=commercial,
        threads=threads,
        measure=measure,
        report=lambda line: click.echo(f"dearlite: {line}", err=True),
    )
    if as_json:
        best = result.best and result.best.name
        click.echo(json_text({"best": best, **asdict(result), "gpu": nvidia_gpu_present()}, indent=1))
    else:
        _print(result, every)


def _print(result: Recommendation, every: bool) -> None:
    click.echo(_summary(result))
    click.echo(
        f"{result.documents} documents of {result.tokens} tokens, a query of {QUERY_TOKENS}; at most "
        f"{seconds_text(result.within_s)} and {_megabytes(result.memory_mb)}; CPU, threads: {result.threads}."
    )
    if nvidia_gpu_present():
        click.echo("The times are not those of this machine's GPU: `dearlite bench -m NAME` measures a model on it.")
    fitting, others = ([m for m in result.models if m.fits is fits] for fits in (True, False))
    unranked = [m for m in result.unranked if every or m.fits]
    hidden = len(others) + len(result.unranked) - len(unranked)
    if not every:
        others = [] if fitting else sorted(others, key=lambda m: m.seconds or math.inf)[:_NEAREST]
        hidden -= len(others)
    parts = (
        (f"Quality: {QUALITY[MEASURE]}, nDCG@10", "file", fitting),
        ("Do not fit" if every else "Do not fit, the fastest first", "reason", others),
        ("No figure of this benchmark is published", "file or reason" if every else "file", unranked),
    )
    for title, last, models in parts:
        if models:
            click.echo(f"\n{title}")
            print_rows((*_HEAD, last), map(_row, models), numbers=("quality", "time", "memory"))
    if hidden:
        click.echo(f"{hidden} more {'does' if hidden == 1 else 'do'} not fit: --all lists them.")
    if cut := _cut(result):
        click.echo(f"Documents are cut at a model's maximum: {cut}.")


def _summary(result: Recommendation) -> str:
    best = result.best
    if best is None:
        return f"{result.advice[0].upper()}{result.advice[1:]}."
    source = "which is here" if not best.get else f"`{best.get}`{_download(best, ' downloads ')}"
    if (extra := missing_extra(load_registry()[best.name])) is not None and best.get:
        source += f", after {pip_install(extra)}"
    seconds = "" if best.seconds is None else f"{seconds_text(best.seconds)}, "
    return f"Take {best.name}: {seconds}{_megabytes(best.memory_mb)}; {source}."


def _row(model: Candidate) -> tuple[str, ...]:
    quality = "" if model.quality is None else f"{model.quality:.4f}"
    time = "" if model.seconds is None else seconds_text(model.seconds)
    reasons = ", ".join(reason.removeprefix("too ") for reason in model.reasons)
    place = reasons or ("here" if not model.get else f"get{_download(model, ' ')}")
    return model.name, quality, time, _megabytes(model.memory_mb), model.licence, place


def _download(model: Candidate, before: str) -> str:
    return "" if model.download_mb is None else f"{before}{_megabytes(model.download_mb)}"


def _cut(result: Recommendation) -> str:
    """The models that read less than whole documents, by the number of tokens that they read."""
    lengths: dict[int, list[str]] = {}
    for model in (*result.models, *result.unranked):
        if model.kind == "pointwise" and model.tokens < result.tokens:
            lengths.setdefault(model.tokens, []).append(model.name)
    return "; ".join(f"{count} tokens in {_listed(names)}" for count, names in sorted(lengths.items()))


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)


def _megabytes(value: float) -> str:
    return f"{value:.0f} MB" if value < 999.5 else f"{value / 1000:.1f} GB"
