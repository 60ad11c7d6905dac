"""Every document of some files for every query, where no first stage has chosen the documents of each."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dearlite.documents import Document
from dearlite.errors import InvalidInput, UsageError
from dearlite.fields import USUAL, Fields
from dearlite.files.readers import read_documents
from dearlite.offline.collection.collection import Collection
from dearlite.offline.collection.texts import read_queries


def all_pairs(
    queries: str | Path,
    documents: Sequence[str | Path],
    *,
    qrels: str | Path | None = None,
    skip_bad: bool = False,
    fields: Fields = USUAL,
    delimiter: str | None = None,
) -> Collection:
    """The collection of each query of a file with all documents of the files `documents`, in their order.

    A document without an id is named by its position in all files, from 0. Raises UsageError for a file that does not
    exist, and InvalidInput for two documents of one id, which a run could not tell apart.
    """
    for option, path in (("queries", queries), *(("documents", path) for path in documents)):
        if str(path) != "-" and not os.path.isfile(path):
            raise UsageError(f"no such file: {path} ({option})")
    notes: list[str] = []
    texts = read_queries(Path(queries), notes=notes)
    if not texts:
        raise InvalidInput(f"{Path(queries).name} holds no queries: give JSON Lines with _id and text, or TSV")
    by_id: dict[str, Document] = {}
    locations: dict[str, str] = {}
    position = 0
    for path in documents:
        file = read_documents(str(path), skip_bad=skip_bad, fields=fields, delimiter=delimiter)
        file.note_ids(positions=True)
        notes += [f"skipped: {line}" for line in file.skipped[:3]]
        notes += [f"skipped {len(file.skipped)} records of {Path(path).name} in all"] if len(file.skipped) > 3 else []
        notes += file.notes
        for document, where in zip(file.documents, file.locations, strict=True):
            name = str(position) if document.id is None else document.id
            position += 1
            if name in by_id:
                raise InvalidInput(
                    f"{where}: id {name!r} is already at {locations[name]}, and a run names each document once: name "
                    "another field (--id-field, '' for positions)"
                )
            by_id[name], locations[name] = replace(document, id=name, record=None), where
    order = {name: float(-rank) for rank, name in enumerate(by_id, start=1)}
    names = ", ".join(Path(path).name for path in documents)
    return Collection(
        name=f"{Path(queries).name} x {names}",
        queries=texts,
        documents=by_id,
        run=dict.fromkeys(texts, order),
        qrels=qrels,
        sources={"queries": str(queries), "documents": ", ".join(map(str, documents))},
        notes=tuple(notes),
        first_stage=False,
    )
