"""`dearlite rerank QUERY DOCS`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from dearlite.cli.options.cascade import cascade_options, long_of
from dearlite.cli.options.listwise import listwise_of, listwise_options, loading_of
from dearlite.cli.options.run import model_option
from dearlite.deadline import check_budget
from dearlite.documents import Document, check_query
from dearlite.errors import InvalidInput, UsageError
from dearlite.files.readers import FORMATS, read_documents
from dearlite.files.writing import check_output
from dearlite.machine import DEVICES
from dearlite.models.chain import Chain, resolve
from dearlite.options import Listwise
from dearlite.ranking import Ranking, check_top_k
from dearlite.render.bar import DocumentProgress
from dearlite.render.writers import WRITERS, write_ranking


@click.command()
@click.argument("arguments", metavar="[QUERY] DOCS", nargs=-1)
@click.option("-q", "--query", metavar="TEXT", help="The query itself, instead of the file QUERY.")
@model_option
@click.option("--budget", metavar="TIME", help="Stop after 5s, 500ms, 2m, and give the best order so far.")
@cascade_options
@click.option("--min-relevance", type=float, metavar="P", help="Drop what is relevant with a probability below P.")
@click.option("--low-memory", is_flag=True, help="Cascade: one model in memory at a time.")
@click.option("--best-effort", is_flag=True, help="Cascade: pass over a later stage that cannot run, and say so.")
@click.option("-k", "--top-k", type=int, metavar="N", help="Give the best N only.")
@click.option("--format", "form", type=click.Choice(list(WRITERS)), help="Default: table on a terminal, else jsonl.")
@click.option("-o", "--output", metavar="FILE", help="Write there, whole or not at all; its ending tells the format.")
@click.option("--device", type=click.Choice(DEVICES), default="auto", show_default=True, help="Where the model runs.")
@click.option("--threads", type=int, metavar="N", help="Documents scored side by side. [default: one a core]")
@click.option("--docs-format", type=click.Choice(list(FORMATS)), help="Format of DOCS, where its ending does not tell.")
@click.option("--query-id", default="1", show_default=True, metavar="ID", help="The query's id in a TREC run.")
@click.option("--skip-bad", is_flag=True, help="Leave out records that cannot be used, and count them.")
@click.option("--quiet", is_flag=True, help="Say nothing on stderr but errors.")
@listwise_options
def command(
    arguments: tuple[str, ...],
    query: str | None,
    model: tuple[str, ...],
    budget: str | None,
    min_relevance: float | None,
    low_memory: bool,
    best_effort: bool,
    top_k: int | None,
    form: str | None,
    output: str | None,
    device: str,
    threads: int | None,
    docs_format: str | None,
    query_id: str,
    skip_bad: bool,
    quiet: bool,
    **given: Any,
) -> None:
    """Order the documents of DOCS by how well they answer the query in the file QUERY.

    DOCS is JSON Lines, JSON, CSV, TSV, text (a document a line) or Parquet, each also as .gz; - is standard input. A
    record needs `text` (or `contents`, `passage`) and may have `id` and `title`; whatever else it has is kept.

    A listwise model (a .gguf file) compares documents instead of scoring each; the options that begin with "Listwise"
    are for it alone.
    """
    text, docs = _query_and_docs(arguments, query)
    text = _checked_query(text, query is None)
    check_top_k(top_k)
    if min_relevance is not None and not 0 <= min_relevance <= 1:
        raise UsageError(f"--min-relevance {min_relevance:g}: it is a probability from 0 to 1")
    form = form or _form_for(output)
    check_output(output)
    budget_s = None if budget is None else parse_budget(budget)
    chain = resolve(model, best_effort=best_effort)  # before a large file is read
    long = long_of(given | {"model": chain})
    chain.check(calibrated=min_relevance is not None, long=long)
    streams = sys.stderr.isatty() and not quiet
    listwise, loading = listwise_of(given, stream=streams), loading_of(given)
    found = read_documents(docs, format=docs_format, skip_bad=skip_bad)
    loading |= {"device": device, "threads": threads, "low_memory": low_memory, "best_effort": best_effort}
    loading["adaptive"] = given["adaptive"]
    asked: dict[str, Any] = {"listwise": listwise, "budget_s": budget_s, "long": long}
    asked["top_k"] = top_k if min_relevance is None else None  # what is dropped makes room
    ranking = _rank(text, found.documents, chain, loading, asked, quiet)
    whole = ranking
    if min_relevance is not None:
        ranking = whole.above(min_relevance).top(top_k)
    if not quiet:
        _report(ranking, found.skipped)
        if min_relevance is not None:
            _report_dropped(whole, min_relevance)
    write_ranking(ranking, form, output, query_id=query_id)


def _query_and_docs(arguments: tuple[str, ...], query: str | None) -> tuple[str, str]:
    """The query's text and the documents' path. Raises UsageError for too few or too many arguments."""
    wanted = 1 if query is not None else 2
    if len(arguments) != wanted:
        form = "-q TEXT DOCS" if query is not None else "QUERY DOCS (or -q TEXT DOCS)"
        raise UsageError(f"rerank takes {form}: {len(arguments)} given instead of {wanted} (see dearlite rerank -h)")
    if query is not None:
        return query, arguments[0]
    path, docs = arguments
    try:
        return (sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()).decode("utf-8-sig"), docs
    except OSError as err:
        raise UsageError(f"cannot read the query file {path}: {err.strerror} (or give its text: -q TEXT)") from None
    except UnicodeDecodeError:
        raise InvalidInput(f"{path} is not UTF-8: a query is a text file") from None


def _checked_query(text: str, from_file: bool) -> str:
    try:
        return check_query(text)
    except InvalidInput as err:
        raise UsageError(f"{err}{' in its file' if from_file else ''}") from None


def _form_for(output: str | None) -> str:
    """The format where none is named: by the output's ending, by what stdout is otherwise."""
    if output is not None:
        ending = Path(output).suffix.lstrip(".").lower()
        return ending if ending in WRITERS else "jsonl"
    return "table" if sys.stdout.isatty() else "jsonl"


def _rank(
    text: str,
    documents: list[Document],
    chain: Chain,
    loading: dict[str, Any],
    asked: dict[str, Any],
    quiet: bool,
) -> Ranking:
    from dearlite.reranker import Reranker

    listwise: Listwise | None = asked["listwise"]
    streams = listwise is not None and listwise.on_text is not None
    with DocumentProgress(len(documents), visible=not quiet and not streams) as progress:
        try:
            reranker = Reranker.load(chain, **loading)
            if streams:
                click.echo(f"{reranker.model} reasons:", err=True)
            ranking = reranker.rerank(text, documents, progress=progress.update, **asked)
            if streams:
                click.echo(err=True)
            return ranking
        except KeyboardInterrupt:
            progress.close()
            click.echo(
                f"dearlite: interrupted: {progress.done} of {len(documents)} documents scored, none written", err=True
            )
            sys.exit(130)


def _report_dropped(whole: Ranking, least: float) -> None:
    """How many stay, and which were not judged at all. That none stays is an answer too."""
    kept, unknown = len(whole.above(least)), sum(hit.relevance is None for hit in whole)
    dropped = len(whole) - kept - unknown
    unseen = f", and {unknown} were not looked at" if unknown else ""
    said = f"dearlite: {dropped} of {len(whole)} documents are relevant with a probability below {least:g}{unseen}"
    click.echo(said if kept else f"{said}: nothing here answers the query", err=True)


def _report(ranking: Ranking, skipped: list[str]) -> None:
    for line in skipped[:5]:
        click.echo(f"dearlite: skipped: {line}", err=True)
    if len(skipped) > 5:
        click.echo(f"dearlite: skipped {len(skipped)} records in all", err=True)
    for problem in ranking.problems[:5]:
        click.echo(f"dearlite: the model's answer is no whole order: {problem}", err=True)
    for stage in ranking.stages:
        if stage.error:
            click.echo(f"dearlite: {stage.model} did not run, the order is that of the others: {stage.error}", err=True)
    if not ranking.complete:
        looked = ", ".join(f"{stage.model} looked at {stage.looked_at} of {stage.depth}" for stage in ranking.stages)
        click.echo(f"dearlite: the time was over: {looked}; the others stand as they were", err=True)
    if ranking.agreement is not None:
        click.echo(f"dearlite: the passes agree to a Kendall's tau of {ranking.agreement:.2f}", err=True)
    if ranking.query_truncated:
        click.echo("dearlite: the query is too long for the model: only its beginning was read", err=True)
    cut = sum(hit.truncated for hit in ranking)
    if cut:
        click.echo(f"dearlite: {cut} of the {len(ranking)} documents shown did not fit and were cut", err=True)
    if sys.stderr.isatty():
        rate = ranking.total / ranking.elapsed_s
        click.echo(
            f"{ranking.model} on {ranking.device}: {ranking.total} documents in {ranking.elapsed_s:.2f} s "
            f"({rate:.0f} documents/s)",
            err=True,
        )


def parse_budget(text: str) -> float:
    """Seconds out of `5s`, `500ms`, `2m` or a bare number. Raises UsageError."""
    units = {"ms": 0.001, "s": 1.0, "m": 60.0, "": 1.0}
    number = text.strip().rstrip("ms")
    unit = text.strip()[len(number) :]
    try:
        return check_budget(float(number) * units[unit])
    except (ValueError, KeyError):
        raise UsageError(f"--budget {text}: it is a time above 0, such as 5s, 500ms or 2m") from None
