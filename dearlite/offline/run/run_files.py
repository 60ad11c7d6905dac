"""The files that a reranking of a run writes, and their check against its inputs before anything is read."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dearlite.errors import UsageError
from dearlite.files.outputs import check_outputs, make_folder
from dearlite.files.targets import Name, ending_of, find_target
from dearlite.offline.collection.collection import FOLDER_LAYOUT, Collection
from dearlite.offline.collection.source import Source

RUN_ENDINGS = ("trec", "run", "res", "txt")
ROW_ENDINGS = ("jsonl", "ndjson")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFiles:
    """The files that a reranking writes: TREC run, JSON Lines, journal and score cache. None: not written.

    `journal` is a path, True for the default path (`rerank_run.journal_path`), or False for none. "-" as run or JSON
    Lines is stdout.
    """

    output: str | Path | None = None
    jsonl: str | Path | None = None
    journal: str | Path | bool = True
    cache: str | Path | None = None

    def check(
        self, inputs: Mapping[str, Name | Iterable[Name] | None], others: Mapping[str, str | Path | None] | None = None
    ) -> None:
        """Raises UsageError if a file cannot be written, or is one of `inputs` or another output.

        `inputs` and `others` map options to files; `others` are further outputs.
        """
        if self.output is not None:
            ending_of(self.output, RUN_ENDINGS, remedy=", each also .gz; JSON Lines: --jsonl")
        if self.jsonl is not None:
            ending_of(self.jsonl, ROW_ENDINGS, remedy=", each also .gz")
        own = {"--output": self.output, "--jsonl": self.jsonl, "--cache": self.cache, "--journal": self.journal_beside}
        if self.journal_beside is not None:
            make_folder(self.journal_beside.parent)
        check_outputs(own | dict(others or {}), inputs)

    def refuse_any(self, option: str) -> None:
        """Raises UsageError if a file is named that `option`, a run that was reranked before, leaves unwritten."""
        journal = None if isinstance(self.journal, bool) else self.journal
        named = {"--output": self.output, "--jsonl": self.jsonl, "--journal": journal, "--cache": self.cache}
        if names := [name for name, path in named.items() if path is not None]:
            raise UsageError(f"{names[0]} would not be written: {option} measures a run that was reranked before")

    @property
    def journal_beside(self) -> Path | None:
        """The path of the journal, if it is named or lies beside the run; None for none, and for dearlite's folder."""
        if not isinstance(self.journal, bool):
            return Path(self.journal)
        if not self.journal or self.output is None or str(self.output) == "-" or not find_target(self.output).is_file:
            return None
        return Path(f"{self.output}.journal")


def input_files(source: Source, others: Mapping[str, Any] | None = None) -> dict[str, list[Path]]:
    """Option -> the files that `source` may read; `others` are further options with a file or files, or other values.

    A folder gives all files that a collection may have in it, and a corpus that is a folder its shards.
    """
    named = {"--queries": source.queries, "--corpus": source.corpus, "--run": source.run, "--qrels": source.qrels}
    folder = source.source if isinstance(source.source, (str, Path)) else None
    files = {option: _paths(value) for option, value in (named | dict(others or {})).items()}
    if isinstance(source.source, Collection):
        files["SOURCE"] = [Path(name) for text in source.source.sources.values() for name in (text, *text.split(", "))]
    if folder is not None:
        files |= {option: [*paths, *(Path(folder) / path for path in paths)] for option, paths in files.items()}
        files["SOURCE"] = [Path(folder), *(Path(folder) / name for names in FOLDER_LAYOUT.values() for name in names)]
    shards = [path for corpus in files["--corpus"] if os.path.isdir(corpus) for path in corpus.iterdir()]
    return files | {"--corpus": files["--corpus"] + shards}


def _paths(value: Any) -> list[Path]:
    """The paths of an option's value; none for a value that names no file, as a dict of judgements."""
    values = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    return [Path(item) for item in values if isinstance(item, (str, Path))]
