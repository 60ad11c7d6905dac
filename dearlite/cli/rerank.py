"""`dearlite rerank QUERY DOCS`."""

from __future__ import annotations

import sys
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from dearlite.checks import whole_number
from dearlite.cli.estimate import Estimate
from dearlite.cli.options.fields import Reading, field_options
from dearlite.cli.options.model import ModelOptions, model_options
from dearlite.cli.options.types import Duration
from dearlite.cli.query import query_and_docs
from dearlite.cli.reports import note_waiting, report, report_dropped
from dearlite.cli.screen import BEST, interrupt_as_event, on_terminal, show_ranking
from dearlite.cli.streams import check_stdout
from dearlite.documents import Document
from dearlite.errors import Cancelled, InvalidInput, UsageError, counted
from dearlite.files.outputs import check_outputs
from dearlite.files.readers import FORMATS, DocumentFile, read_documents
from dearlite.options import Call, Listwise
from dearlite.ranking import Ranking
from dearlite.render.bar import DocumentProgress
from dearlite.render.writers import WRITERS, check_ids, format_of, write_ranking

if TYPE_CHECKING:
    from dearlite.reranker import Reranker


@click.command()
@click.argument("arguments", metavar="[QUERY] DOCS", nargs=-1)
@click.option("-q", "--query", metavar="TEXT", help="Text of the query, in place of the file QUERY.")
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
@click.option("--skip-bad", is_flag=True, help="Leave out records that are unusable, and report their number.")
@click.option("--quiet", is_flag=True, help="Write only errors to stderr.")
@model_options(one_call=True)
def command(
    arguments: tuple[str, ...],
    query: str | None,
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
    model: ModelOptions,
) -> None:
    """Order the documents in DOCS by how well they answer the query in the file QUERY.

    DOCS is JSON Lines, JSON, CSV, TSV, text (one document per line) or Parquet, each also as .gz; - is standard input.
    A record needs a text, in `text`, `contents`, `content`, `body`, `page_content` or --text-field, and may
    have an id and a title; its other fields are kept.

    A listwise model (a .gguf file) compares documents instead of scoring each alone; several -m are a cascade. The
    options of these sections apply to them alone, and those whose help begins with "GGUF" to models in a .gguf file.
    """
    if quiet:
        warnings.simplefilter("ignore")
    text, docs, remark = query_and_docs(arguments, query)
    _check_values(top_k, every, min_relevance, budget_s, model)
    form = form or format_of(output)
    _check_output(output, arguments, docs, model)
    model.chain.check(calibrated=min_relevance is not None)
    note_waiting(docs, "documents")
    records = read_documents(
        docs, format=docs_format, skip_bad=skip_bad, fields=reading.fields, delimiter=reading.delimiter
    )
    if form == "trec":
        records.check_run_ids()
    check_ids(form, query_id, records.documents)
    records.note_ids(positions=form in ("trec", "tsv", "csv"))
    if not quiet:
        for note in filter(None, (remark, *records.notes)):
            click.echo(f"dearlite: {note}", err=True)
    call = Call(
        top_k=top_k if min_relevance is None else None,  # documents that are dropped make room for others
        listwise=_streamed(model.listwise) if sys.stderr.isatty() and not quiet else model.listwise,
        long=model.long,
        budget_s=budget_s,
    )
    screen = on_terminal(form, output)
    ranking, interrupted = _rank(text, records, model, call, skip_bad=skip_bad, quiet=quiet, screen=screen)
    complete = ranking
    if min_relevance is not None:
        ranking = complete.above(min_relevance)
    ranking = ranking.top(top_k)
    if not quiet:
        report(ranking, records.skipped, interrupted=interrupted)
        if min_relevance is not None:
            report_dropped(complete, min_relevance)
    if screen:
        show_ranking(ranking, every=every or top_k is not None, pager=not no_pager)
    else:
        write_ranking(ranking, form, output, query_id=query_id)
    if interrupted:
        sys.exit(130)


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


def _check_output(output: str | None, arguments: tuple[str, ...], docs: str, model: ModelOptions) -> None:
    """Raises UsageError if the output cannot be written, or is a file that the command reads."""
    inputs = {
        "DOCS": docs,
        "QUERY": arguments[:-1],
        "--model": [stage.path for stage in model.chain.stages if stage.path is not None],
        "--adapter": model.loading.adapter,
    }
    check_outputs({"--output": output}, inputs)
    if output is None or output == "-":
        check_stdout()


def _streamed(listwise: Listwise | None) -> Listwise | None:
    """`listwise` with the model's reasoning written to stderr as it comes, in the mode that reasons."""
    if listwise is None or listwise.mode != "reason":
        return listwise
    return replace(listwise, on_text=_write_text)


def _write_text(text: str) -> None:
    """Writes a model's text to stderr. Control characters become spaces: they could change the terminal."""
    sys.stderr.write("".join(char if char.isprintable() or char == "\n" else " " for char in text))
    sys.stderr.flush()


def _rank(
    text: str, records: DocumentFile, model: ModelOptions, call: Call, *, skip_bad: bool, quiet: bool, screen: bool
) -> tuple[Ranking, bool]:
    """The ranking, with progress on stderr, and True if it is the one so far of an interrupted call.

    That is for a `screen`, a table on a terminal. Another interruption exits with 130.
    """
    from dearlite.jobs import no_tokens
    from dearlite.reranker import Reranker

    streams = call.listwise is not None and call.listwise.on_text is not None
    documents = records.documents
    with DocumentProgress(len(documents), visible=not quiet and not streams) as progress:
        try:
            reranker = Reranker.load(model.chain, **model.loading.arguments())
            if reranker.empty_documents([Document(text)]):
                raise UsageError(f"the query {no_tokens(Document(text), reranker.model)}: give at least one word")
            documents = _without_empty(records, reranker, skip_bad)
            if streams:
                click.echo(f"reasoning of {reranker.model}:", err=True)
            with interrupt_as_event(active=screen) as stop:
                counted_by = progress.update if quiet or call.budget_s is not None else Estimate(progress.update, model)
                call = replace(call, progress=counted_by, cancel=stop)
                (ranking,) = reranker.rank([(text, documents)], call)
            if streams:
                click.echo(err=True)
            return ranking, stop is not None and stop.is_set() and not ranking.complete
        except (KeyboardInterrupt, Cancelled) as err:
            progress.close()
            if isinstance(err, Cancelled) and err.partial is not None:
                return err.partial, True
            count = counted(len(documents), "document")
            click.echo(f"dearlite: interrupted: {progress.done} of {count} scored, none written", err=True)
            sys.exit(130)


def _without_empty(records: DocumentFile, reranker: Reranker, skip_bad: bool) -> list[Document]:
    """The documents of which the model's tokenizer makes a token. The others are refused, or skipped and reported."""
    from dearlite.jobs import name_of, no_tokens

    documents = records.documents
    empty = set(reranker.empty_documents(documents))
    reasons = [f"{name_of(documents[i], i)} {no_tokens(documents[i], reranker.model)}" for i in sorted(empty)]
    if reasons and not skip_bad:
        raise InvalidInput(f"{reasons[0]}: remove it, or give it a text (or go on without it: --skip-bad)")
    if len(empty) == len(documents):
        raise InvalidInput(f"{reasons[0]}; no document is left to rank")
    records.skipped += reasons
    return [document for index, document in enumerate(documents) if index not in empty]
