"""Rankings as files: one entry of WRITERS is one format."""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from dearlite.errors import DearliteError
from dearlite.files.trec import run_line, score_text
from dearlite.ranking import Ranking, hit_fields


def write_ranking(ranking: Ranking, form: str, output: str | None, *, query_id: str = "1") -> None:
    """Writes `ranking` in the format `form` to the file `output`, whole or not at all; None is stdout."""
    if output is None:
        try:
            WRITERS[form](ranking, sys.stdout, query_id)
            sys.stdout.flush()
        except BrokenPipeError:  # `| head` has seen enough; what is still buffered goes nowhere, without complaint
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    with whole_file(Path(output)) as stream:
        WRITERS[form](ranking, stream, query_id)


@contextmanager
def whole_file(path: Path) -> Iterator[TextIO]:
    """A text stream that becomes `path` when the block ends well, and leaves nothing behind when it does not."""
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent or ".")
    except OSError as err:
        raise DearliteError(f"cannot write {path}: {err.strerror}") from None
    try:
        with open(handle, "w", encoding="utf-8", newline="\n") as stream:
            yield stream
        os.chmod(name, 0o666 & ~_umask())  # mkstemp's files are their owner's alone
        os.replace(name, path)
    except OSError as err:
        Path(name).unlink(missing_ok=True)
        raise DearliteError(f"cannot write {path}: {err.strerror}") from None
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _write_jsonl(ranking: Ranking, stream: TextIO, query_id: str) -> None:
    for hit in ranking:
        stream.write(json_text(hit_fields(hit)) + "\n")


def _write_json(ranking: Ranking, stream: TextIO, query_id: str) -> None:
    head = {
        "query": ranking.query,
        "model": ranking.model,
        "device": ranking.device,
        "elapsed_s": round(ranking.elapsed_s, 3),
        "total": ranking.total,
        "complete": ranking.complete,
    }
    if ranking.agreement is not None:
        head["agreement"] = round(ranking.agreement, 4)
    if ranking.stages:
        head["stages"] = [asdict(stage) for stage in ranking.stages]
    stream.write(json_text(head | {"hits": ranking.to_dicts()}, indent=2) + "\n")


def _write_tsv(ranking: Ranking, stream: TextIO, query_id: str) -> None:
    stream.write("rank\tscore\tindex\tid\ttitle\ttext\n")
    for hit in ranking:
        cells = (hit.rank, score_text(hit.score), hit.index, hit.id or "", hit.title, hit.text)
        stream.write("\t".join(re.sub(r"\s", " ", str(cell)) for cell in cells) + "\n")


def _write_trec(ranking: Ranking, stream: TextIO, query_id: str) -> None:
    """TREC run lines, `qid Q0 docid rank score tag`; a document without an id is named by its index."""
    for hit in ranking:
        name = str(hit.index) if hit.id is None else hit.id
        stream.write(run_line(query_id, name, hit.rank, hit.score, ranking.model))


def _write_table(ranking: Ranking, stream: TextIO, query_id: str) -> None:
    from dearlite.render.table import print_ranking

    print_ranking(ranking, stream)


def json_text(value: Any, indent: int | None = None) -> str:
    """`value` as JSON that can be written as UTF-8."""
    text = json.dumps(value, ensure_ascii=False, indent=indent, default=str)
    try:
        text.encode()
    except UnicodeEncodeError:  # half a surrogate pair in the caller's record: escaped, as it was in theirs
        text = json.dumps(value, indent=indent, default=str)
    return text


WRITERS: dict[str, Callable[[Ranking, TextIO, str], None]] = {
    "table": _write_table,
    "jsonl": _write_jsonl,
    "json": _write_json,
    "tsv": _write_tsv,
    "trec": _write_trec,
}
