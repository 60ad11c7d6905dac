"""`dearlite models list|show|verify|calibrate`."""

from __future__ import annotations

from typing import Any

import click

from dearlite.errors import ModelFileError, need
from dearlite.files.targets import leads_to_stdout
from dearlite.models.bundle import Bundle
from dearlite.models.calibration import read_activation
from dearlite.models.chain import parse_chain, parse_stage
from dearlite.models.gguf import GgufFile, is_gguf
from dearlite.models.gguf_kinds import TWO_LABELS, exported_record, scoring_kind
from dearlite.models.manifest import Manifest
from dearlite.models.registry import (
    ModelEntry,
    find_model,
    how_to_get,
    load_cascades,
    load_registry,
    model_file,
)
from dearlite.render.facts import print_facts, print_rows
from dearlite.templates.families import FAMILIES


@click.group(invoke_without_command=True)
@click.pass_context
def command(ctx: click.Context) -> None:
    """List, show, verify and calibrate the models of models.toml, and of your own DEARLITE_HOME/models.toml."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_models)


@command.command("list")
def list_models() -> None:
    """List name, kind, size, memory and licence of each model, if its file is on this machine, and its download."""
    rows = []
    known = load_registry()
    for entry in known.values():
        here = "embedded" if entry.embedded else "yes" if model_file(entry).is_file() else "no"
        size, memory = f"{entry.size_mb} MB", f"{entry.memory_mb} MB"
        download = f"{entry.download_mb} MB" if here == "no" and entry.download_mb is not None else ""
        rows.append((entry.name, entry.kind, size, memory, entry.licence, here, download, entry.about))
    for cascade in load_cascades().values():
        models = [known[stage.model] for stage in map(parse_stage, cascade.stages) if stage.model in known]
        complete = all(model_file(model).is_file() for model in models) and len(models) == len(cascade.stages)
        about = f"{', then '.join(cascade.stages)}. {cascade.about}"
        rows.append((cascade.name, cascade.kind, "", "", "", "yes" if complete else "no", "", about))
    print_rows(("name", "kind", "file", "memory", "licence", "here", "download", "about"), rows)


@command.command("show")
@click.argument("model", metavar="NAME|FILE")
def show_model(model: str) -> None:
    """Show the manifest and the quality card of a model file, or the stages of a cascade.

    Of a NAME whose file is not on this machine, show its entry and the command that makes the file.
    """
    if (cascade := load_cascades().get(model)) is not None:
        print_facts({"name": cascade.name, "kind": cascade.kind, "about": cascade.about})
        stages = enumerate(parse_chain([model]), start=1)
        print_rows(("stage", "model", "documents"), [(n, s.model, s.depth or "all") for n, s in stages])
        return
    entry = load_registry().get(model)
    if entry is not None and not model_file(entry).is_file():
        _show_absent(entry)
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
            **_prompt_facts(manifest),
            "pooling": manifest.pooling,
            "tokens": f"{manifest.max_tokens} for query and document together",
            "calibration": "none" if manifest.calibration is None else manifest.calibration,
            "relevance": _origin_of_relevance(manifest),
        }
    )
    print_facts({f"source {key}": value for key, value in manifest.source.items()})
    rows = [(b.device, b.graph, b.quantisation, b.layout, ", ".join(b.requires) or "nothing") for b in manifest.builds]
    print_rows(("device", "graph", "quantisation", "layout", "requires"), rows)
    print_facts(bundle.card(), title="quality card")


@command.command("verify")
@click.argument("model", metavar="NAME|FILE")
def verify_model(model: str) -> None:
    """Hash every part of a model file, and compare its scores with published ones where there are any.

    The file is scored in every way in question: at the last token or at the last position of the padded row, with two
    spaces or one before a passage without a title. Exits with 1 if the file's own way does not give the published
    scores.
    """
    outcome = need("dearlite.export", extra="export").verify(model, report=click.echo)
    if outcome.reproduced is None:
        return
    documents = len(outcome.readings[0].scores)
    pairs = documents * (documents - 1) // 2
    print_rows(
        ("reading", "this file", "largest difference", "mean", "pairs in order"),
        [
            (
                r.name,
                "yes" if r.own else "",
                f"{r.largest_difference:.3f}",
                f"{r.mean_difference:.3f}",
                f"{r.agreeing_pairs} of {pairs}",
            )
            for r in outcome.readings
        ],
    )
    if not outcome.reproduced:
        raise ModelFileError(outcome.message)
    click.echo(outcome.message)


@command.command("calibrate")
@click.argument("model", metavar="NAME|FILE")
@click.argument("source", required=False, metavar="[FOLDER]")
@click.option("--queries", metavar="FILE", help="Queries of the split. [default: FOLDER's]")
@click.option("--corpus", multiple=True, metavar="FILE", help="Documents. [default: FOLDER's]")
@click.option("--run", metavar="FILE", help="Run of the first stage. [default: FOLDER's]")
@click.option("--qrels", metavar="FILE", help="Judgements. [default: FOLDER's]")
@click.option("--depth", type=int, default=100, show_default=True, metavar="N", help="Documents per query.")
@click.option(
    "--split", required=True, metavar="NAME", help="Name of these pairs in the file; never those of a test split."
)
@click.option("--journal", metavar="FILE", help="Keeps each score at once; the same command continues from it.")
@click.option(
    "--prompt", type=click.Choice(list(FAMILIES)), help="Family of a language model in a GGUF, as for rerank."
)
@click.option("-o", "--output", required=True, metavar="FILE", help="The model file to write, with the calibration.")
def calibrate_model(model: str, source: str | None, **options: Any) -> None:
    """Fit a pointwise model's scores to probabilities of relevance, on the judged pairs of a split.

    Hits of the written file have a relevance, and `rerank --min-relevance` drops documents that do not answer. Fit on a
    development split: the printed error is that of the fit.
    """
    from dearlite.render.bar import DocumentProgress

    calibrate = need("dearlite.export", extra="export").calibrate
    with DocumentProgress(0, visible=True, unit="pairs") as progress:
        result = calibrate(model, source, progress=progress.update, **options)
    click.echo(
        f"{result.path}: relevance = sigmoid({result.scale} x score {result.bias:+}), fitted on {result.pairs} pairs, "
        f"{result.relevant} of them relevant; error {result.ece}, without the fit {result.ece_sigmoid}",
        err=leads_to_stdout(options["output"]),  # the file itself is on stdout
    )


def _prompt_facts(manifest: Manifest) -> dict[str, Any]:
    """The words of a template, and its instruction; empty for a form of pairs."""
    template = manifest.template
    if template is None:
        return {}
    own = template.instruction or "none of its own, takes one"
    return {
        "prompt": repr("".join(template.words(None)[0])),
        "instruction": own if template.takes_instruction else "takes none",
    }


def _origin_of_relevance(manifest: Manifest) -> str:
    """The origin of the hits' relevance: the calibration, the makers' own probability, or none."""
    if manifest.calibration is not None:
        return "by the calibration"
    if (curve := read_activation(manifest.activation, manifest.name)) is not None:
        if curve.of_log:
            return "the makers' own probability, exp(score)"
        return f"the makers' own probability, sigmoid({curve.scale:g} x score {curve.bias:+g})"
    return "hits have none"


def _show_absent(entry: ModelEntry) -> None:
    """Prints what models.toml says of a model whose file is not on this machine, and the command that makes it."""
    facts = {
        "name": entry.name,
        "file": f"not on this machine: {how_to_get(entry, model_file(entry))}",
        "size": f"{entry.size_mb} MB, {entry.memory_mb} MB of memory",
        "kind": entry.kind,
        "architecture": entry.architecture,
        "licence": entry.licence,
        "prompt form": entry.prompt,
        "pooling": entry.pooling,
        "tokens": entry.max_tokens,
        "source repository": f"{entry.repository}, revision {entry.revision}",
        "source base": entry.base or "none: a whole model",
        "about": entry.about,
    }
    print_facts({key: value for key, value in facts.items() if value != ""})


# kind of score that a GGUF of another maker states -> the way that it is run
_FOREIGN = {
    None: "run as a listwise model, or with --prompt NAME as a pointwise one",
    "labels": f"run as a pointwise model, by its rank head and the prompt {TWO_LABELS}",
    "encoder": "run as a pointwise model, by its rank head",
}


def _show_gguf(file: GgufFile) -> None:
    """Prints the facts, the source and the quality card that a GGUF records."""
    own = {k.removeprefix("dearlite."): v for k, v in file.metadata.items() if k.startswith("dearlite.")}
    facts: dict[str, Any] = {
        "name": own.get("name", file.metadata.get("general.name", file.path.stem)),
        "file": file.path,
        "size": f"{file.size_bytes / 1e6:.1f} MB",
        "kind": own.get("kind", f"a GGUF of another maker: {_FOREIGN.get(scoring_kind(file))}"),
        "architecture": file.metadata.get("general.architecture", "not stated"),
        "weights": f"{len(file.tensors)} tensors, most of them {file.main_type}",
    }
    if (head := own.pop("head", None)) is not None:
        facts["score head"] = f"{len(head)} values"
    facts |= {key: value for key, value in own.items() if key not in ("name", "kind", "card", "source")}
    print_facts(facts)
    print_facts({f"source {key}": value for key, value in (exported_record(file, "source") or {}).items()})
    print_facts(exported_record(file, "card") or {}, title="quality card")
