"""`dearlite models [list|show|verify]`."""

from __future__ import annotations

import click

from dearlite.bundle import Bundle
from dearlite.registry import find_model, load_registry, model_file
from dearlite.render.facts import print_facts, print_rows

_SETTINGS = {"help_option_names": ["-h", "--help"]}


@click.group(invoke_without_command=True, context_settings=_SETTINGS)
@click.pass_context
def command(ctx: click.Context) -> None:
    """The models that have a name: those of models.toml, and your own in DEARLITE_HOME/models.toml."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_models)


@command.command("list", context_settings=_SETTINGS)
def list_models() -> None:
    """Name, kind, size, memory and licence of each, whether its file is here, and what fetching it would download."""
    rows = []
    for entry in load_registry().values():
        here = "embedded" if entry.embedded else "yes" if model_file(entry).is_file() else "no"
        size, memory = f"{entry.size_mb} MB", f"{entry.memory_mb} MB"
        download = f"{entry.download_mb} MB" if here == "no" and entry.download_mb is not None else ""
        rows.append((entry.name, entry.kind, size, memory, entry.licence, here, download, entry.about))
    print_rows(("name", "kind", "file", "memory", "licence", "here", "download", "about"), rows)


@command.command("show", context_settings=_SETTINGS)
@click.argument("model", metavar="NAME|FILE")
def show_model(model: str) -> None:
    """What a model file is: its manifest and its quality card."""
    bundle = Bundle(find_model(model))
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


@command.command("verify", context_settings=_SETTINGS)
@click.argument("model", metavar="NAME|FILE")
def verify_model(model: str) -> None:
    """Hash every part of a model file and compare with its manifest."""
    bundle = Bundle(find_model(model))
    bundle.verify()
    click.echo(f"{bundle.path}: {len(bundle.manifest.members)} members match their sha256")
