"""Files and folders as DOCS of `rerank`: their passages, and results that say where they are."""

from __future__ import annotations

import glob
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dearlite.cli.options.folders import LIMIT_MB, FolderOptions
from dearlite.cli.reports import note
from dearlite.cli.screen import BEST, page
from dearlite.documents import Document
from dearlite.errors import UsageError, counted
from dearlite.files.outputs import check_outputs
from dearlite.files.readers import FORMATS, DocumentFile
from dearlite.files.writing import whole_file
from dearlite.ranking import Hit, Ranking

_SHOWN = 5  # lines about files
_RECORDS = tuple(name for name in FORMATS if name != "txt")


def split_places(
    arguments: tuple[str, ...], *, has_query: bool, docs_format: str | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The arguments of `rerank` with a single DOCS, and the files and folders that DOCS are; none for records.

    Several need the query as an option: `has_query`. Raises UsageError for a file of records among them.
    """
    first = 0 if has_query else 1
    paths = tuple(os.path.expanduser(path) for path in arguments[first:])
    if docs_format is not None or "-" in paths or not 1 <= len(paths) <= (len(paths) if has_query else 1):
        return arguments, ()
    if len(paths) == 1:
        return arguments, paths if _is_place(paths[0]) else ()
    for path in paths:
        if _format_of(path) in _RECORDS and not os.path.isdir(path):
            raise UsageError(f"{path} holds a document per record, and several DOCS are files of text: rank it alone")
    return (*arguments[:first], paths[0]), paths


def _is_place(path: str) -> bool:
    from dearlite.folders.kinds import READERS, ending_of

    if os.path.isdir(path) or (glob.has_magic(path) and not os.path.lexists(path)):
        return True
    return ending_of(path) in READERS and _format_of(path) not in FORMATS


def _format_of(path: str) -> str:
    name = Path(path.lower().removesuffix(".gz"))
    return name.suffix.lstrip(".")


def read_places(paths: Sequence[str], options: FolderOptions, *, output: str | None, quiet: bool) -> DocumentFile:
    """The passages of files and folders as documents. What was read and left out is on stderr, unless `quiet`.

    Raises UsageError if one of the files is the `output`.
    """
    from dearlite.folders.reading import read_folder

    limit_mb = LIMIT_MB if options.limit_mb is None else options.limit_mb
    passages = read_folder(*paths, include=options.include, exclude=options.exclude, limit_mb=limit_mb)
    try:
        check_outputs({"--output": output}, {"DOCS": passages.files})
    except UsageError as err:
        raise UsageError(f"{err}, or leave this one out of DOCS with --exclude") from None
    if not quiet:
        lines = [*passages.problems, *passages.notes]
        for line in lines[:_SHOWN]:
            note(line)
        if len(lines) > _SHOWN:
            note(f"and {counted(len(lines) - _SHOWN, 'file')} more that cannot be read, or not as UTF-8")
        note(passages.summary())
    documents = list(passages)
    return DocumentFile(documents, [document.id or "" for document in documents])


def shaped(ranking: Ranking, top_k: int | None, records: DocumentFile, options: FolderOptions, form: str) -> Ranking:
    """The best `top_k` passages or files of `ranking`; for JSON with the lines around each."""
    if options.by_file:
        from dearlite.folders.grouping import group_by_file

        ranking = group_by_file(ranking)
    ranking = ranking.top(top_k)
    if options.context is None or form == "table":
        return ranking
    context = options.context
    return replace(
        ranking, hits=tuple(replace(hit, document=_fields(hit, records.documents, context)) for hit in ranking)
    )


def _fields(hit: Hit[Any], documents: Sequence[Document], count: int) -> dict[str, Any]:
    """The fields of a passage with the `count` lines `before` and `after` it."""
    from dearlite.folders.context import lines_around

    lines = lines_around(hit.document, documents, count)
    inside = [number for number, line in enumerate(lines) if line.inside]
    before, after = lines[: inside[0]], lines[inside[-1] + 1 :]
    fields = {"id": hit.id, "title": hit.title, "text": hit.text, **hit.document.place_fields()}
    return fields | {"before": [line.text for line in before], "after": [line.text for line in after]}


def write_places(
    rankings: Sequence[Ranking],
    records: DocumentFile,
    options: FolderOptions,
    output: str | None,
    *,
    every: bool,
    pager: bool,
) -> None:
    """Writes the files of `rankings`, or their passages with their lines: a long text goes to the `pager`.

    On a terminal only the best passages are written, unless `every`.
    """
    if options.names_only:
        _write_names(rankings, null=options.null)
        return
    from dearlite.folders.context import Line, lines_around
    from dearlite.render.excerpts import excerpts_text, print_excerpts

    def lines_of(hit: Hit[Any]) -> Sequence[Line]:
        return lines_around(hit.document, records.documents, options.context or 0)

    if output not in (None, "-"):
        with whole_file(str(output)) as stream:
            for ranking in rankings:
                print_excerpts(ranking, lines_of, stream)
        return
    is_screen = sys.stdout.isatty()
    shown = rankings if every or not is_screen else [ranking.top(BEST) for ranking in rankings]
    text = "\n".join(excerpts_text(ranking, lines_of, sys.stdout) for ranking in shown)
    if not (pager and text.count("\n") >= shutil.get_terminal_size().lines and page(text)):
        sys.stdout.write(text)
        sys.stdout.flush()


def _write_names(rankings: Sequence[Ranking[Any]], *, null: bool) -> None:
    """Writes the files, best first, as their bytes; on a terminal bytes that show nothing are escapes."""
    from dearlite.folders.passage import printable_path

    paths = dict.fromkeys(str(hit.document.path) for ranking in rankings for hit in ranking)
    stream = getattr(sys.stdout, "buffer", None)
    if stream is None or (sys.stdout.isatty() and not null):
        sys.stdout.write("".join(f"{printable_path(path)}\n" for path in paths))
    else:
        sys.stdout.flush()
        stream.write(b"".join(os.fsencode(path) + (b"\0" if null else b"\n") for path in paths))
    sys.stdout.flush()
