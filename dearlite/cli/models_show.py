"""The facts of a model that `dearlite models show` prints: of a file, or of an entry of models.toml without one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dearlite.models.bundle import Bundle
from dearlite.models.calibration import read_activation
from dearlite.models.entries import ModelEntry
from dearlite.models.gguf import GgufFile, is_gguf
from dearlite.models.gguf_kinds import TWO_LABELS, exported_record, prompts_of, scoring_kind
from dearlite.models.manifest import Manifest
from dearlite.models.registry import how_to_get, model_file
from dearlite.models.registry_values import QUALITY
from dearlite.models.requirements import licence_of
from dearlite.render.facts import print_facts, print_rows
from dearlite.templates.families import FAMILIES


def show_file(path: Path, entry: ModelEntry | None) -> None:
    """Prints the manifest and the quality card of a model file; `entry` is that of its name in models.toml."""
    if is_gguf(path):
        _show_gguf(GgufFile(path))
        print_facts(_registered(entry))
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
            "tokens": f"{manifest.max_tokens} for "
            + ("query and document together" if manifest.attention is None else "the prompt of a list"),
            "calibration": "none" if manifest.calibration is None else manifest.calibration,
            "relevance": _origin_of_relevance(manifest),
        }
    )
    print_facts({f"source {key}": value for key, value in manifest.source.items()})
    rows = [(b.device, b.graph, b.quantisation, b.layout, ", ".join(b.requires) or "nothing") for b in manifest.builds]
    print_rows(("device", "graph", "quantisation", "layout", "requires"), rows)
    print_facts(bundle.card() | _known_difference(entry), title="quality card")
    print_facts(_registered(entry))


def _prompt_facts(manifest: Manifest) -> dict[str, Any]:
    """The words of a template, or of a list's prompt, and its instruction; empty for a form of pairs."""
    template, reading = manifest.template, manifest.attention
    if reading is not None:
        return {"heads": reading.heads, "prompt": repr(reading.before + reading.head), "instruction": reading.late}
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


def show_entry(entry: ModelEntry) -> None:
    """Prints what models.toml says of a model whose file is not on this machine, and the command that makes it."""
    facts = {
        "name": entry.name,
        "file": f"not on this machine: {how_to_get(entry, model_file(entry))}",
        "size": f"{_size(entry.size_mb)}, {_size(entry.memory_mb)} of memory",
        "kind": entry.kind,
        "architecture": entry.architecture,
        "licence": licence_of(entry),
        "prompt form": entry.prompt,
        "pooling": entry.pooling,
        "tokens": entry.max_tokens,
        "source repository": f"{entry.repository}, revision {entry.revision}",
        "source base": entry.base or "none: a whole model",
        **_registered(entry),
    }
    print_facts({key: value for key, value in facts.items() if value != ""})


def _size(megabytes: int) -> str:
    """A size in words. Example: 7519 -> "7.5 GB"."""
    return f"{megabytes} MB" if megabytes < 1000 else f"{megabytes / 1000:.1f} GB"


def _known_difference(entry: ModelEntry | None) -> dict[str, Any]:
    """The quality card's line on a file whose scores are known to differ from those that its makers publish."""
    if entry is None or entry.known_difference is None:
        return {}
    return {
        "published_scores": f"those of the unquantised model differ by up to {entry.known_difference}, for the "
        "publisher's int8 weights, their limit of pairs and int8 activations together"
    }


def _registered(entry: ModelEntry | None) -> dict[str, Any]:
    """The facts of a model that only models.toml states: parameters, quality, purpose; empty without an entry."""
    if entry is None:
        return {}
    facts: dict[str, Any] = {}
    if entry.parameters is not None:
        facts["parameters"] = f"{entry.parameters / 1e6:,.0f} million"
    facts |= {f"published nDCG@10, {QUALITY[name]}": figure for name, figure in entry.quality.items()}
    if entry.golden:
        facts["published scores"] = f"`dearlite models verify {entry.name}` compares them"
    return facts | ({"about": entry.about} if entry.about else {})


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
        "name": own.get("name", file.path.stem),
        "file": file.path,
        "size": f"{file.size_bytes / 1e6:.1f} MB",
        "kind": own.get("kind", f"a GGUF of another maker: {_FOREIGN.get(scoring_kind(file))}"),
        "architecture": file.metadata.get("general.architecture", "not stated"),
        "weights": f"{len(file.tensors)} tensors, most of them {file.main_type}",
    }
    if scoring_kind(file) is None:
        facts |= _language_model(file)
    if (head := own.pop("head", None)) is not None:
        facts["score head"] = f"{len(head)} values"
    facts |= {key: value for key, value in own.items() if key not in ("name", "kind", "card", "source")}
    print_facts(facts)
    print_facts({f"source {key}": value for key, value in (exported_record(file, "source") or {}).items()})
    print_facts(exported_record(file, "card") or {}, title="quality card")


def _language_model(file: GgufFile) -> dict[str, Any]:
    """The facts of a language model that choose its prompt: its title, context, chat template, and what fits."""
    architecture = file.metadata.get("general.architecture")
    names = prompts_of(file)
    own = [name for name in names if FAMILIES[name].model_types]
    fits = ", ".join(name for name in names if name not in own) or "none"
    return {
        "title": file.metadata.get("general.name", "not stated"),
        "context": f"{file.metadata.get(f'{architecture}.context_length', 'not stated')} tokens",
        "chat template": "yes" if file.metadata.get("tokenizer.chat_template") else "none",
        "--prompt": fits + (f"; {', '.join(own)}, if it was trained with it" if own else ""),
    }
