"""`dearlite rerank QUERY DOCS`."""

from __future__ import annotations

import sys
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from dearlite.cli.options.fields import Reading, field_options
from dearlite.cli.options.model import ModelOptions, model_options
from dearlite.cli.options.types import Duration
from dearlite.cli.query import query_and_docs
from dearlite.cli.streams import check_stdout
from dearlite.documents import Document
from dearlite.errors import InvalidInput, UsageError
from dearlite.files.outputs import check_outputs
from dearlite.files.readers import FORMATS, DocumentFile, read_documents
from dearlite.options import Call, Listwise
from dearlite.ranking import Ranking, check_top_k
from dearlite.render.bar import DocumentProgress
from dearlite.render.writers import WRITERS, check_ids, format_of, write_ranking

if TYPE_CHECKING:
    from dearlite.reranker import Reranker

_SHOWN = 5  # messages of one kind on stderr


@click.command()
@click.argument("arguments", metavar="[QUERY] DOCS", nargs=-1)
@click.option("-q", "--query", metavar="TEXT", help="Text of the query, in place of the file QUERY.")
@click.option("-k", "--top-k", type=int, metavar="N", help="Write only the best N documents. [default: all]")
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

    A listwise model (a .gguf file) compares documents instead of scoring each alone. Options whose help begins with
    "Listwise" apply only to listwise models, with "GGUF" only to models in a .gguf file, and with "Cascade" only to
    cascades of several -m.
    """
    if quiet:
        warnings.simplefilter("ignore")
    text, docs, remark = query_and_docs(arguments, query)
    check_top_k(top_k)
    if min_relevance is not None and not 0 <= min_relevance <= 1:
        raise UsageError(f"--min-relevance {min_relevance:g}: it is a probability from 0 to 1")
    if budget_s is not None and model.loading.low_memory:
        raise UsageError(
            "--low-memory loads a stage within the call, and loading cannot keep to --budget: drop one of the two"
        )
    form = form or format_of(output)
    _check_output(output, arguments, docs, model)
    model.chain.check(calibrated=min_relevance is not None)
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
    ranking = complete = _rank(text, records, model, call, skip_bad=skip_bad, quiet=quiet)
    if min_relevance is not None:
        ranking = complete.above(min_relevance).top(top_k)
    if not quiet:
        _report(ranking, records.skipped)
        if min_relevance is not None:
            _report_dropped(complete, min_relevance)
    write_ranking(ranking, form, output, query_id=query_id)


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


def _rank(text: str, records: DocumentFile, model: ModelOptions, call: Call, *, skip_bad: bool, quiet: bool) -> Ranking:
    """The ranking, with progress on stderr. An interruption exits with 130."""
    from dearlite.reranker import Reranker, no_tokens

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
            (ranking,) = reranker.rank([(text, documents)], replace(call, progress=progress.update))
            if streams:
                click.echo(err=True)
            return ranking
        except KeyboardInterrupt:
            progress.close()
            click.echo(
                f"dearlite: interrupted: {progress.done} of {len(documents)} documents scored, none written", err=True
            )
            sys.exit(130)


def _without_empty(records: DocumentFile, reranker: Reranker, skip_bad: bool) -> list[Document]:
    """The documents of which the model's tokenizer makes a token. The others are refused, or skipped and reported."""
    from dearlite.reranker import name_of, no_tokens

    documents = records.documents
    empty = set(reranker.empty_documents(documents))
    reasons = [f"{name_of(documents[i], i)} {no_tokens(documents[i], reranker.model)}" for i in sorted(empty)]
    if reasons and not skip_bad:
        raise InvalidInput(f"{reasons[0]}: remove it, or give it a text (or go on without it: --skip-bad)")
    if len(empty) == len(documents):
        raise InvalidInput(f"{reasons[0]}; no document is left to rank")
    records.skipped += reasons
    return [document for index, document in enumerate(documents) if index not in empty]


def _report_dropped(ranking: Ranking, min_relevance: float) -> None:
    """Reports the documents below `min_relevance` and those without a relevance. An empty result is valid."""
    kept = len(ranking.above(min_relevance))
    unscored = sum(hit.relevance is None for hit in ranking)
    dropped = len(ranking) - kept - unscored
    message = f"dearlite: {dropped} of {len(ranking)} documents have a relevance below {min_relevance:g}"
    message += f", and {unscored} were not scored" if unscored else ""
    click.echo(message if kept else f"{message}: no document answers the query", err=True)


def _report(ranking: Ranking, skipped: list[str]) -> None:
    for line in skipped[:_SHOWN]:
        click.echo(f"dearlite: skipped: {line}", err=True)
    if len(skipped) > _SHOWN:
        click.echo(f"dearlite: skipped {len(skipped)} records in all", err=True)
    for problem in ranking.problems[:_SHOWN]:
        click.echo(f"dearlite: the model's answer is not a complete order: {problem}", err=True)
    for stage in ranking.stages:
        if stage.error:
            click.echo(
                f"dearlite: stage {stage.model} did not run, the order is that of the other stages: {stage.error}",
                err=True,
            )
    if not ranking.complete:
        counts = ", ".join(f"{stage.model} read {stage.looked_at} of {stage.depth}" for stage in ranking.stages)
        click.echo(
            f"dearlite: the time budget ran out: {counts} documents; the others keep their earlier order", err=True
        )
    if ranking.agreement is not None:
        click.echo(f"dearlite: agreement of the passes: Kendall's tau {ranking.agreement:.2f}", err=True)
    if ranking.query_truncated:
        click.echo("dearlite: the query is longer than the model's input: only its beginning was read", err=True)
    truncated = sum(hit.truncated for hit in ranking)
    if truncated:
        click.echo(
            f"dearlite: {truncated} of the {len(ranking)} documents shown are longer than the model's input and were "
            "truncated",
            err=True,
        )
    if sys.stderr.isatty():
        scored = ranking.total - ranking.unscored
        rate = scored / ranking.elapsed_s
        count = f"{scored} of {ranking.total}" if ranking.unscored else f"{ranking.total}"
        click.echo(
            f"{ranking.model} on {ranking.device}: {count} documents in {ranking.elapsed_s:.2f} s "
            f"({rate:.{int(rate < 10)}f} documents/s)",
            err=True,
        )
