"""`dearlite eval --suite NAME ROOT`: a published evaluation on those of its collections that ROOT holds."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from dearlite.cli.options.run import RunOptions, rerank
from dearlite.errors import UsageError
from dearlite.files.json_text import json_text
from dearlite.files.targets import ending_of, leads_to_stdout
from dearlite.files.writing import write_text
from dearlite.offline.evaluation.assess import EvaluationOptions, prepare
from dearlite.offline.evaluation.evaluation import Evaluation, System
from dearlite.offline.evaluation.measures import check_measures
from dearlite.offline.evaluation.suites import Suite, SuiteCollection, find_suite
from dearlite.render.evaluation import number, print_evaluation
from dearlite.render.facts import print_rows


@dataclass(frozen=True, slots=True)
class SuiteResult:
    """The evaluation of one collection of a suite."""

    collection: SuiteCollection
    evaluation: Evaluation


def evaluate_suite(name: str, options: RunOptions, evaluation_options: EvaluationOptions, *, json: str | None) -> None:
    """Evaluates every collection of the suite that SOURCE holds; prints a table of each and one of all.

    The collections that are missing are reported on stderr. `json` is the file for all results, "-" for stdout.
    `evaluation_options` are those of the user, whose measures replace those of the suite.
    """
    suite = find_suite(name)
    root = _root_of(suite, options)
    named = evaluation_options.measures
    chosen = replace(evaluation_options, measures=check_measures(named) if named else ())
    present = [(collection, folder) for collection in suite.collections if (folder := collection.folder(root))]
    missing = [collection for collection in suite.collections if collection.folder(root) is None]
    if json is not None:
        ending_of(json, ("json",), remedy=", also .gz, for --json")
    inputs = {"of a collection": [path for _, folder in present for path in folder.rglob("*")]}
    options.check_outputs({"--json": json}, inputs)
    for collection in missing:
        click.echo(f"dearlite: {collection.title} is not here: {collection.how_to_get(root)}", err=True)
    if not present:
        raise UsageError(f"{root} holds none of the {len(suite.collections)} collections of {name}")
    results = []
    for collection, folder in present:
        evaluation = _evaluate(collection, folder, options, chosen)
        results.append(SuiteResult(collection, evaluation))
        if not leads_to_stdout(json):
            print_evaluation(evaluation)
    if json is not None:
        write_text(json, json_text(_as_dict(suite, results, missing, root), indent=2) + "\n", json=True)
    if not leads_to_stdout(json):
        _print_summary(suite, results)


def _root_of(suite: Suite, options: RunOptions) -> Path:
    """The folder SOURCE. Raises UsageError if it is none, and for options that name a file of a single collection."""
    values = {
        "--queries": options.source.queries,
        "--corpus": options.source.corpus,
        "--run": options.source.run,
        "--output": options.files.output,
        "--jsonl": options.files.jsonl,
        "--journal": not isinstance(options.files.journal, bool),
    }
    if refused := [option for option, value in values.items() if value]:
        raise UsageError(f"{refused[0]} is for one collection: give its folder, without --suite")
    root = options.source.source
    if not isinstance(root, str) or not os.path.isdir(root):
        folders = ", ".join(collection.folders[0] for collection in suite.collections)
        raise UsageError(f"--suite {suite.name} needs the folder that holds its collections' folders ({folders})")
    return Path(root)


def _evaluate(
    suite_collection: SuiteCollection, folder: Path, options: RunOptions, evaluation_options: EvaluationOptions
) -> Evaluation:
    """The evaluation of one collection with the run and the depth of the suite, beside its published results."""
    title, depth = suite_collection.title, suite_collection.depth
    if not options.quiet:
        click.echo(f"dearlite: {title}: {folder}, depth {depth}", err=True)
    source = replace(options.source, source=str(folder), run=_run_file(suite_collection, folder), depth=depth)
    collection = source.open()
    published = [
        System(method, "published", None, values.get("seconds"), published=_shares(values))
        for method, values in [*suite_collection.published.items(), *suite_collection.timed.items()]
    ]
    assessed = replace(
        evaluation_options,
        measures=evaluation_options.measures or suite_collection.measures,
        published=published,
        title=f"{title} ({collection.name}, depth {depth})",
    )
    assessment = prepare(collection, assessed)
    return assessment.of(rerank(collection, options))


def _run_file(collection: SuiteCollection, folder: Path) -> str | None:
    """The file of the suite's run, None if the folder has one of the usual names instead (see `folder`)."""
    return collection.run if os.path.exists(folder / collection.run) else None


def _shares(values: Mapping[str, float]) -> dict[str, float]:
    """Published percentages as shares, without the time."""
    return {measure: value / 100 for measure, value in values.items() if measure != "seconds"}


def _print_summary(suite: Suite, results: list[SuiteResult]) -> None:
    """Prints one row per collection and measure, in percent, beside the published results."""
    if not results:
        return
    methods = list(dict.fromkeys(method for result in results for method in result.collection.published))
    subject = results[0].evaluation.subject
    rows = []
    for result in results:
        collection, evaluation = result.collection, result.evaluation
        for measure in collection.measures:
            if measure not in evaluation.measures:
                continue
            values = [evaluation.values[name][measure] for name in ("first stage", subject)]
            cells = [number(100 * value, 2) for value in values]
            published = [number(collection.published.get(method, {}).get(measure), 2) for method in methods]
            rows.append([collection.title, measure, *cells, *published])
    print(f"{suite.title}, in percent; the columns after {subject} are as published")
    print_rows(["collection", "measure", "first stage", subject, *methods], rows)
    for result in results:
        if result.collection.note:
            print(f"note: {result.collection.title}: {result.collection.note}")


def _as_dict(suite: Suite, results: list[SuiteResult], missing: list[SuiteCollection], root: Path) -> dict[str, Any]:
    return {
        "suite": suite.name,
        "title": suite.title,
        "collections": [
            {"title": result.collection.title, "note": result.collection.note} | result.evaluation.to_dict()
            for result in results
        ],
        "missing": [{"title": collection.title, "how": collection.how_to_get(root)} for collection in missing],
    }
