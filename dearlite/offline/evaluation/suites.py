"""Published evaluations (suites.toml): their collections, the files of each, and the values that the authors report."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Any

from dearlite.errors import UsageError
from dearlite.offline.collection.collection import FOLDER_LAYOUT

_OPTIONAL = {"how": "", "note": "", "timed": {}}


@dataclass(frozen=True, slots=True)
class SuiteCollection:
    """One collection. `published` is method -> measure -> value in percent; `timed` also has `seconds` per query.

    `folders` are the names that its folder may have. `ir_datasets` is its id in that library; if that is empty, `how`
    explains how to get the collection.
    """

    folders: tuple[str, ...]
    title: str
    ir_datasets: str
    how: str
    run: str
    depth: int
    measures: tuple[str, ...]
    note: str
    published: Mapping[str, Mapping[str, float]]
    timed: Mapping[str, Mapping[str, float]]

    def folder(self, root: Path) -> Path | None:
        """The collection's folder in `root`; None if no folder with one of its names holds all parts."""
        for name in self.folders:
            if os.path.isdir(root / name) and not self.missing(root / name):
                return root / name
        return None

    def missing(self, folder: Path) -> list[str]:
        """The parts that `folder` lacks, each with its possible file names."""
        layout = FOLDER_LAYOUT | {"run": (self.run, *(FOLDER_LAYOUT["run"] if self.run == "run.trec" else ()))}
        return [
            f"{part} ({' or '.join(dict.fromkeys(names))})"
            for part, names in layout.items()
            if not any(os.path.exists(folder / name) for name in names)
        ]

    def how_to_get(self, root: Path) -> str:
        """Instruction for getting the collection into `root`, on one line."""
        folder = next((root / name for name in self.folders if os.path.isdir(root / name)), None)
        if folder is not None:
            return f"{folder} lacks {', '.join(self.missing(folder))}"
        if self.ir_datasets:
            return f"python examples/from_ir_datasets.py {self.ir_datasets} {root / self.folders[0]} --run RUN"
        return self.how


@dataclass(frozen=True, slots=True)
class Suite:
    """A published evaluation."""

    name: str
    title: str
    collections: tuple[SuiteCollection, ...]


def find_suite(name: str) -> Suite:
    """The suite called `name`. Raises UsageError with the nearest known names."""
    suites = load_suites(
        resources.files("dearlite.offline.evaluation").joinpath("suites.toml").read_text(encoding="utf-8")
    )
    if name not in suites:
        nearest = get_close_matches(name, suites, cutoff=0.4) or list(suites)
        raise UsageError(f"no suite {name!r} (nearest: {', '.join(nearest)})")
    return suites[name]


def load_suites(text: str) -> dict[str, Suite]:
    """Suites by name. Raises ValueError for unknown and missing keys."""
    suites = {}
    for name, table in tomllib.loads(text).items():
        if set(table) != {"title", "collection"}:
            raise ValueError(f"suite {name}: its keys are {sorted(table)} instead of title and collection")
        suites[name] = Suite(name, table["title"], tuple(map(_collection, table["collection"])))
    return suites


def _collection(table: Mapping[str, Any]) -> SuiteCollection:
    names = {field.name for field in fields(SuiteCollection)}
    full = _OPTIONAL | dict(table)
    if set(full) != names or not (full["ir_datasets"] or full["how"]):
        wrong = sorted(set(full) ^ names) or ["ir_datasets and how are both empty"]
        raise ValueError(f"collection {table.get('title')!r}: unknown or missing: {', '.join(wrong)}")
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in full.items()}
    return SuiteCollection(**values)
