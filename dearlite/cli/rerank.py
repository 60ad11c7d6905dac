"""`dearlite rerank QUERY DOCS`."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence

import click

from dearlite.checks import whole_number
from dearlite.cli.calls import rank_all
from dearlite.cli.options.fields import Reading, field_options
from dearlite.cli.options.folders import FolderOptions, folder_options
from dearlite.cli.options.model import ModelOptions, model_options
from dearlite.cli.options.types import Duration
from dearlite.cli.places import read_places, shaped, split_places, write_places
from dearlite.cli.query import check_fusion, queries_and_docs, sub_queries_of
from dearlite.cli.reports import note_waiting, report, report_dropped, report_no_words
from dearlite.cli.screen import BEST, on_terminal, show_rankings
from dearlite.cli.streams import check_stdout
from dearlite.errors import UsageError, printable
from dearlite.files.outputs import check_outputs
from dearlite.files.readers import FORMATS, read_documents
from dearlite.options import FUSIONS, MOST_SUB_QUERIES, Call, Fuse
from dearlite.ranking import Ranking
from dearlite.render.writers import WRITERS, check_format, check_ids, format_of, write_ranking, write_rankings


@click.command()
@click.argument("arguments", metavar="[QUERY] DOCS...", nargs=-1)
@click.option(
    "-q",
    "--query",
    multiple=True,
    metavar="TEXT",
    help="Text of the query, in place of the file QUERY. Given several times, the documents are ranked for each, and "
    "the rankings fused.",
)
@click.option(
    "--fuse",
    type=click.Choice(list(FUSIONS)),
    help=f"Fusion of several -q: {'; '.join(f'{name}, {text}' for name, text in FUSIONS.items())}. [default: max]",
)
@click.option(
    "--decompose",
    metavar="NAME|FILE",
    help="Instruct model (GGUF) that splits the query into sub-queries: at most "
    f"{MOST_SUB_QUERIES}, shown on stderr, ranked beside the query as further -q.",
)
@click.option(
    "--queries",
    metavar="FILE",
    help="Rank DOCS for each query of FILE: a query per line, or JSON Lines or TSV with ids. Replaces QUERY.",
)
@click.option(
    "-k",
    "--top-k",
    type=int,
    metavar="N",
    help=f"Write only the best N documents. [default: all; on a terminal the best {BEST}, or as many as fit]",
)
@click.option("--all", "every", is_flag=True, help="Write all documents, on a terminal too.")
@click.option("--no-pager", is_flag=True, help="On a terminal: do not show a long result with PAGER.")
@click.option(
    "--format",
    "form",
    type=click.Choice(list(WRITERS)),
    help="Format of the result. [default: the ending of --output; table on a terminal, otherwise jsonl]",
)
@click.option("-o", "--output", metavar="FILE", help="File to write instead of stdout. A failure leaves it unchanged.")
@click.option(
    "--min-relevance",
    type=float,
    metavar="P",
    help="Drop documents whose probability of relevance is below P, from 0 to 1; for calibrated models. "
    "[default: keep all]",
)
@click.option(
    "--budget",
    "budget_s",
    type=Duration(),
    metavar="TIME",
    help="Stop after TIME (5s, 500ms, 2m) and write the best order so far. [default: no limit]",
)
@click.option(
    "--docs-format",
    type=click.Choice(list(FORMATS)),
    help="Format of DOCS. [default: from the ending of its name]",
)
@click.option(
    "--query-id", default="1", show_default=True, metavar="ID", help="Id of the query in the result, for --format trec."
)
@field_options
@folder_options
@click.option("--skip-bad", is_flag=True, help="Leave out records that are unusable, and report their number.")
@click.option("--quiet", is_flag=True, help="Write only errors to stderr.")
@model_options(one_call=True)
def command(
    arguments: tuple[str, ...],
    query: tuple[str, ...],
    fuse: Fuse | None,
    decompose: str | None,
    queries: str | None,
    top_k: int | None,
    every: bool,
    no_pager: bool,
    form: str | None,
    output: str | None,
    min_relevance: float | None,
    budget_s: float | None,
    docs_format: str | None,
    query_id: str,
    skip_bad: bool,
    quiet: bool,
    reading: Reading,
    places: FolderOptions,
    model: ModelOptions,
) -> None:
    """Order the documents in DOCS by how well they answer the query in the file QUERY.

    DOCS is JSON Lines, JSON, CSV, TSV, text (one document per line) or Parquet, each also as .gz; - is standard input.
    A record needs a text, in `text`, `contents`, `content`, `body`, `page_content` or --text-field, and may
    have an id and a title; its other fields are kept.

    DOCS may also be folders and files of text: Markdown, reStructuredText, HTML, source code, .eml, PDF, .docx; several
    of them with -q. Their passages are ranked, and results name the lines or the page. Hidden files, those that
    .gitignore names, binaries and large files are left out.

    A listwise model (a .gguf file) compares documents instead of scoring each alone; several -m are a cascade. The
    options of these sections apply to them alone, and those whose help begins with "GGUF" to models in a .gguf file.
    """
    if quiet:
        warnings.simplefilter("ignore")
    arguments, paths = split_places(arguments, has_query=bool(query) or queries is not None, docs_format=docs_format)
    jobs, docs, remark = queries_and_docs(arguments, query, queries, query_id)
    check_fusion(jobs, fuse, decompose)
    _check_values(top_k, every, min_relevance, budget_s, model)
    named, form = form, form or format_of(output)
    places.check(reading, used=bool(paths), several=queries is not None, named=named, form=form, output=output)
    check_format(form, output)
    _check_output(output, [*arguments[:-1], *filter(None, [queries])], paths or docs, model, decompose)
    model.chain.check(calibrated=min_relevance is not None)
    note_waiting(docs, "documents")
    fields, delimiter = reading.fields, reading.delimiter
    records = (
        read_places(paths, places, output=output, quiet=quiet)
        if paths
        else read_documents(docs, format=docs_format, skip_bad=skip_bad, fields=fields, delimiter=delimiter)
    )
    if form == "trec":
        records.check_run_ids()
    for name in jobs:
        check_ids(form, name, records.documents)
    records.note_ids(positions=form in ("trec", "tsv", "csv", "parquet"))
    remarks = [] if quiet else [f"dearlite: {note}" for note in (remark, *records.notes) if note]
    for note in remarks:
        click.echo(printable(note), err=True)
    if decompose is not None:
        jobs = {name: sub_queries_of(query_of, decompose, model, quiet=quiet) for name, query_of in jobs.items()}
    call = Call(
        # documents that are dropped, or grouped, make room for others
        top_k=top_k if min_relevance is None and not places.by_file else None,
        listwise=model.listwise,
        long=model.long,
        budget_s=budget_s,
    )
    screen = on_terminal(form, output)
    results = rank_all(
        jobs, records, model, call, fuse=fuse, skip_bad=skip_bad or bool(paths), quiet=quiet, screen=screen
    )
    rankings = {
        name: shaped(ranking if min_relevance is None else ranking.above(min_relevance), top_k, records, places, form)
        for name, ranking in results.rankings.items()
    }
    if not quiet:
        remarks += report(rankings, records.skipped, interrupted=results.interrupted, named=queries is not None)
        if model.chain.stages[0].kind == "lexical":
            remarks += report_no_words(results.rankings, named=queries is not None)
        if min_relevance is not None:
            remarks.append(report_dropped(list(results.rankings.values()), min_relevance))
    every = every or top_k is not None
    if places.own_output(form):
        write_places(list(rankings.values()), records, places, output, every=every, pager=screen and not no_pager)
    elif screen:
        show_rankings(list(rankings.values()), every=every, pager=not no_pager, remarks=remarks)
    else:
        _write(rankings, form, output, several=queries is not None)
    if results.interrupted:
        sys.exit(130)


def _write(rankings: dict[str, Ranking], form: str, output: str | None, *, several: bool) -> None:
    """Writes the ranking of the query, or the rankings of `several`, in the format `form`."""
    if several:
        write_rankings(rankings, form, output)
    else:
        ((query_id, ranking),) = rankings.items()
        write_ranking(ranking, form, output, query_id=query_id)


def _check_values(
    top_k: int | None, every: bool, min_relevance: float | None, budget_s: float | None, model: ModelOptions
) -> None:
    """Raises UsageError for values out of range, and for options that exclude each other."""
    if top_k is not None:
        whole_number("--top-k", top_k, otherwise="; for all documents leave it out, or on a terminal give --all")
    if every and top_k is not None:
        raise UsageError(f"--all and -k {top_k} exclude each other: leave one out")
    if min_relevance is not None and not 0 <= min_relevance <= 1:
        raise UsageError(f"--min-relevance {min_relevance:g}: it is a probability from 0 to 1")
    if budget_s is not None and model.loading.low_memory:
        raise UsageError(
            "--low-memory loads a stage within the call, and loading cannot keep to --budget: drop one of the two"
        )


def _check_output(
    output: str | None, queries: Sequence[str], docs: str | Sequence[str], model: ModelOptions, decompose: str | None
) -> None:
    """Raises UsageError if the output cannot be written, or is a file that the command reads."""
    inputs = {
        "DOCS": docs,
        "QUERY": queries,
        "--model": [stage.path for stage in model.chain.stages if stage.path is not None],
        "--adapter": model.loading.adapter,
        "--decompose": decompose,
    }
    check_outputs({"--output": output}, inputs)
    if output is None or output == "-":
        check_stdout()
