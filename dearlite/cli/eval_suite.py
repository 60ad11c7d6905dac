"""`dearlite eval --suite NAME ROOT`: a published evaluation on the collections that are here."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from dearlite.cli.options import run as run_options
from dearlite.errors import UsageError
from dearlite.files.writing import json_text, whole_file
from dearlite.offline.evaluation.assess import EvaluationOptions, evaluate
from dearlite.offline.evaluation.evaluation import Evaluation, System
from dearlite.offline.evaluation.suites import Suite, SuiteCollection, find_suite
from dearlite.render.evaluation import number, print_evaluation
from dearlite.render.facts import print_rows

_ONE_COLLECTION = ("queries", "corpus", "run_file", "output", "jsonl", "journal")


def evaluate_suite(name: str, given: dict[str, Any], measures: str | None, ties: str, json: str | None) -> None:
    """Every collection of the suite that ROOT holds, then all of them in one table, then those that are missing."""
    suite = find_suite(name)
    if refused := [one for one in _ONE_COLLECTION if given[one]]:
        raise UsageError(
            f"--{refused[0].removesuffix('_file')} is for one collection: give its folder, without --suite"
        )
    if given["source"] is None or not Path(given["source"]).is_dir():
        names = ", ".join(one.folders[0] for one in suite.collections)
        raise UsageError(f"--suite {name} needs the folder that holds its collections' folders ({names})")
    run_options.check(given, json)
    root, found = Path(given["source"]), []
    for one in suite.collections:
        if (folder := one.folder(root)) is not None:
            evaluation = _evaluate(one, folder, given, measures, ties)
            found.append((one, evaluation))
            if json != "-":
                print_evaluation(evaluation)
    missing = [one for one in suite.collections if one.folder(root) is None]
    if json is not None:
        text = json_text(_as_dict(suite, found, missing, root), indent=2) + "\n"
        if json == "-":
            sys.stdout.write(text)
        else:
            with whole_file(Path(json)) as stream:
                stream.write(text)
    if json != "-":
        _print_summary(suite, found)
    for one in missing:
        click.echo(f"dearlite: {one.title} is not here: {one.how_to_get(root)}", err=True)
    if not found:
        raise UsageError(f"{root} holds none of the {len(suite.collections)} collections of {name}")


def _evaluate(one: SuiteCollection, folder: Path, given: dict[str, Any], measures: str | None, ties: str) -> Evaluation:
    if not given["quiet"]:
        click.echo(f"dearlite: {one.title}: {folder}, depth {one.depth}", err=True)
    options = given | {"source": str(folder), "run_file": _run_file(one, folder), "depth": one.depth}
    collection = run_options.collection_of(options)
    published = [
        System(method, "published", None, values.get("seconds"), published=_shares(values))
        for method, values in [*one.published.items(), *one.timed.items()]
    ]
    return evaluate(
        collection,
        run_options.rerank(collection, options),
        EvaluationOptions(
            measures=measures or list(one.measures),
            ties=ties,
            command=click.get_current_context().obj or "",
            published=published,
            title=f"{one.title} ({collection.name}, depth {one.depth})",
        ),
    )


def _run_file(one: SuiteCollection, folder: Path) -> str | None:
    return one.run if (folder / one.run).exists() else None  # else one of the usual names, which `folder` found


def _shares(values: Any) -> dict[str, float]:
    return {measure: value / 100 for measure, value in values.items() if measure != "seconds"}


def _print_summary(suite: Suite, found: list[tuple[SuiteCollection, Evaluation]]) -> None:
    if not found:
        return
    methods = list(dict.fromkeys(method for one, _ in found for method in one.published))
    ours = found[0][1].subject
    rows = []
    for one, evaluation in found:
        for measure in one.measures:
            if measure not in evaluation.measures:
                continue
            values = [evaluation.values[name][measure] for name in ("first stage", ours)]
            cells = [number(100 * value, 2) for value in values]
            theirs = [number(one.published.get(method, {}).get(measure), 2) for method in methods]
            rows.append([one.title, measure, *cells, *theirs])
    print(f"{suite.title}, in percent; the columns after {ours} are as published")
    print_rows(["collection", "measure", "first stage", ours, *methods], rows)
    for one, _ in found:
        if one.note:
            print(f"note: {one.title}: {one.note}")


def _as_dict(
    suite: Suite, found: list[tuple[SuiteCollection, Evaluation]], missing: list[SuiteCollection], root: Path
) -> dict[str, Any]:
    return {
        "suite": suite.name,
        "title": suite.title,
        "collections": [{"title": one.title, "note": one.note} | made.to_dict() for one, made in found],
        "missing": [{"title": one.title, "how": one.how_to_get(root)} for one in missing],
    }
