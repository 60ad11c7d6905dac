"""Runs and judgements in each form that a caller may have them: a file, an ir_datasets id, or an object in memory."""

from __future__ import annotations

from pathlib import Path

from dearlite.files.trec import Qrels, Run, read_qrels, read_run
from dearlite.offline.collection.irds import dataset_qrels, dataset_run, is_dataset
from dearlite.offline.collection.memory import as_qrels, as_run


def open_run(run: object, name: str, *, skip_bad: bool = False) -> tuple[Run, list[str]]:
    """A run and the notes on its file: of a path, `irds:ID` or a dataset (its scored documents), or as in `as_run`."""
    if is_dataset(run):
        return dataset_run(run), []
    return read_run(run, skip_bad=skip_bad) if isinstance(run, (str, Path)) else (as_run(run, name), [])


def open_qrels(qrels: object) -> Qrels:
    """Judgements: of a path, `irds:ID` or a dataset, or as in `as_qrels`."""
    if is_dataset(qrels):
        return dataset_qrels(qrels)
    return read_qrels(qrels) if isinstance(qrels, (str, Path)) else as_qrels(qrels)
