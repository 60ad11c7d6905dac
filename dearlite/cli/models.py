"""`dearlite models [list|show|verify]`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from dearlite.errors import ModelFileError, need
from dearlite.models.bundle import Bundle
from dearlite.models.chain import parse_chain, parse_stage
from dearlite.models.gguf import GgufFile, is_gguf
from dearlite.models.registry import find_model, load_cascades, load_registry, model_file
from dearlite.render.facts import print_facts, print_rows


@click.group(invoke_without_command=True)
@click.pass_context
def command(ctx: click.Context) -> None:
    """The models that have a name: those of models.toml, and your own in DEARLITE_HOME/models.toml."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_models)


@command.command("list")
def list_models() -> None:
    """Name, kind, size, memory and licence of each, whether its file is here, and what fetching it would download."""
    rows = []
    for entry in load_registry().values():
        here = "embedded" if entry.embedded else "yes" if model_file(entry).is_file() else "no"
        size, memory = f"{entry.size_mb} MB", f"{entry.memory_mb} MB"
        download = f"{entry.download_mb} MB" if here == "no" and entry.download_mb is not None else ""
        rows.append((entry.name, entry.kind, size, memory, entry.licence, here, download, entry.about))
    known = load_registry()
    for cascade in load_cascades().values():
        models = [known[stage.model] for stage in map(parse_stage, cascade.stages) if stage.model in known]
        whole = all(model_file(model).is_file() for model in models) and len(models) == len(cascade.stages)
        about = f"{', then '.join(cascade.stages)}. {cascade.about}"
        rows.append((cascade.name, cascade.kind, "", "", "", "yes" if whole else "no", "", about))
    print_rows(("name", "kind", "file", "memory", "licence", "here", "download", "about"), rows)


@command.command("show")
@click.argument("model", metavar="NAME|FILE")
def show_model(model: str) -> None:
    """What a model file is: its manifest and its quality card. Of a cascade, its stages."""
    if (cascade := load_cascades().get(model)) is not None:
        print_facts({"name": cascade.name, "kind": cascade.kind, "about": cascade.about})
        stages = enumerate(parse_chain([model]), start=1)
        print_rows(("stage", "model", "documents"), [(n, s.model, s.depth or "all") for n, s in stages])
        return
    path = find_model(model)
    if is_gguf(path):
        _show_gguf(GgufFile(path))
        return
    bundle = Bundle(path)
    manifest = bundle.manifest
    print_facts(
        {
            "name": manifest.name,
            "file": bundle.path,
            "sha256 of manifest": bundle.sha256(),
            "size": f"{bundle.path.stat().st_size / 1e6:.1f} MB",
            "kind": manifest.kind,
            "architecture": manifest.architecture,
            "licence": manifest.licence,
            "prompt form": manifest.prompt,
            "pooling": manifest.pooling,
            "tokens": f"{manifest.max_tokens} for query and document together",
            "calibration": "none: relevance is not given" if manifest.calibration is None else manifest.calibration,
        }
    )
    print_facts({f"source {key}": value for key, value in manifest.source.items()})
    rows = [(b.device, b.graph, b.quantisation, b.layout, ", ".join(b.requires) or "nothing") for b in manifest.builds]
    print_rows(("device", "graph", "quantisation", "layout", "requires"), rows)
    print_facts(bundle.card(), title="quality card")


@command.command("verify")
@click.argument("model", metavar="NAME|FILE")
def verify_model(model: str) -> None:
    """Hash every part of a model file, and hold it to its published scores where there are any.

    The scores are taken by every reading in question: at the last token or the last position of the padded row, with
    two spaces before a passage without a title or one. Ends with 1 where the file's own reading does not give them.
    """
    path = find_model(model)
    if is_gguf(path):
        file = GgufFile(path)
        hashed = "the file matches its sha256" if file.verify() else "it records no sha256, so nothing else was checked"
        click.echo(f"{path}: {len(file.tensors)} tensors where they belong, and {hashed}")
        return
    bundle = Bundle(path)
    bundle.verify()
    click.echo(f"{bundle.path}: {len(bundle.manifest.members)} members match their sha256")
    known = load_registry()
    entry = known.get(model) or known.get(bundle.manifest.name)
    if entry is None or not entry.golden:
        click.echo(f"{bundle.manifest.name}: no scores of it are published, so nothing else can be checked")
        return
    golden = need("dearlite.export.decoders.published_scores", extra="export")
    readings = golden.readings(bundle, entry.golden)
    pairs = len(golden.DOCUMENTS) * (len(golden.DOCUMENTS) - 1) // 2
    print_rows(
        ("reading", "this file", "largest difference", "mean", "pairs in order"),
        [
            (r.name, "yes" if r.own else "", f"{r.largest:.3f}", f"{r.mean:.3f}", f"{r.agreeing} of {pairs}")
            for r in readings
        ],
    )
    reproduces, line = golden.verdict(readings, entry.golden)
    if not reproduces:
        raise ModelFileError(line)
    click.echo(line)


@command.command("calibrate")
@click.argument("model", metavar="NAME|FILE")
@click.argument("source", required=False, metavar="[FOLDER]")
@click.option("--queries", metavar="FILE", help="Queries of the split. [default: FOLDER's]")
@click.option("--corpus", multiple=True, metavar="FILE", help="Documents. [default: FOLDER's]")
@click.option("--run", "run_file", metavar="FILE", help="The first stage. [default: FOLDER's]")
@click.option("--qrels", metavar="FILE", help="Judgements. [default: FOLDER's]")
@click.option("--depth", type=int, default=100, show_default=True, metavar="N", help="Documents of each query.")
@click.option("--split", required=True, metavar="NAME", help="What these pairs are called in the file: no test's.")
@click.option("--journal", metavar="FILE", help="Where scores are kept at once: the same command goes on from them.")
@click.option("-o", "--output", required=True, metavar="FILE", help="The .dear file with the calibration in it.")
def calibrate_model(model: str, split: str, journal: str | None, output: str, **given: Any) -> None:
    """Fit what a pointwise model's scores mean as probabilities, on the judged pairs of a split.

    Its hits then have a relevance, and `rerank --min-relevance` can drop what does not answer. Fit on a development
    split: the error that is printed is that of the fit.
    """
    from dearlite.files.trec import read_qrels
    from dearlite.files.writing import check_output
    from dearlite.offline.collection.collection import collection_files, open_collection
    from dearlite.render.bar import DocumentProgress

    path = find_model(model)
    check_output(output)
    parts = {"queries": given["queries"], "run": given["run_file"], "qrels": given["qrels"]}
    files = collection_files(given["source"], parts, given["corpus"])
    judged = files["qrels"][0]
    collection = open_collection(
        queries=files["queries"][0],
        corpus=files["corpus"],
        run=files["run"][0],
        qrels=judged,
        depth=given["depth"],
        skip_bad=True,
    )
    calibrate = need("dearlite.export.quality.calibrate", extra="export").calibrate
    with DocumentProgress(collection.pairs, visible=True, what="pairs") as progress:
        made = calibrate(
            path,
            collection,
            read_qrels(judged),
            Path(output),
            split=split,
            progress=progress.update,
            journal=None if journal is None else Path(journal),
        )
    click.echo(
        f"{output}: relevance = sigmoid({made['scale']} x score {made['bias']:+}), fitted on {made['pairs']} pairs, "
        f"{made['relevant']} of them relevant; error {made['ece']}, of the bare sigmoid {made['ece_sigmoid']}"
    )


def _show_gguf(file: GgufFile) -> None:
    """A listwise model: what it says of itself, and what it was measured to be."""
    ours = {k.removeprefix("dearlite."): v for k, v in file.metadata.items() if k.startswith("dearlite.")}
    facts: dict[str, Any] = {
        "name": ours.get("name", file.metadata.get("general.name", file.path.stem)),
        "file": file.path,
        "size": f"{file.size_bytes / 1e6:.1f} MB",
        "kind": ours.get("kind", "a GGUF of another maker: run as a listwise model"),
        "architecture": file.metadata.get("general.architecture", "not stated"),
        "weights": f"{len(file.tensors)} tensors, most of them {file.main_type}",
    }
    facts |= {key: value for key, value in ours.items() if key not in ("name", "kind", "card", "source")}
    print_facts(facts)
    print_facts({f"source {key}": value for key, value in _record(file, "source").items()})
    print_facts(_record(file, "card"), title="quality card")


def _record(file: GgufFile, name: str) -> dict[str, Any]:
    """A JSON object of the file's own metadata, empty where it has none. Raises ModelFileError for anything else."""
    try:
        found = json.loads(file.metadata.get(f"dearlite.{name}") or "{}")
    except (TypeError, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ModelFileError(f"{file.path}: its dearlite.{name} is no JSON object: fetch or export it again")
    return found
