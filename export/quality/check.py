"""The gate of an export: the quality card of a written `.dear` file, and its refusal below the floor.

The file is scored by a worker (scorer.py), so that the export can go on where the machine is too small for the model:
the card says so then.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dearlite.errors import DearliteError, ModelFileError
from dearlite.export.quality.card import Pairs, compare_scores
from dearlite.export.quality.gate import QualityGate
from dearlite.export.quality.worker import call_worker
from dearlite.files.json_text import json_text
from dearlite.machine import versions_of
from dearlite.models.bundle_writer import add_members

# --quant of a `.dear` file -> those that are nearer to fp32
_NEARER = {"int8": "take --quant int8-accurate or fp32", "int8-accurate": "take --quant fp32"}
_PACKAGES = ("dearlite", "onnxruntime", "onnxruntime-gpu", "numpy", "onnx")


def quality_card(
    path: Path, pairs: Pairs, reference: Sequence[float], device: str, probes: Sequence[str] = ()
) -> dict[str, Any]:
    """The card of the file at `path`: its scores of `pairs` compared with the fp32 scores `reference`, time and memory.

    If the file cannot be scored on this machine, the card has the reason under "not_scored", and no comparison. Raises
    ModelFileError if one of the texts `probes` has no score.
    """
    try:
        result = _score(path, device, [(query, record) for _, _, query, record in pairs.rows], probes)
    except ModelFileError:
        raise
    except DearliteError as err:
        return {"pairs": pairs.name, "not_scored": str(err), "versions": versions_of(*_PACKAGES)}
    card = compare_scores(pairs, reference, result.pop("scores"))
    return card | result | {"versions": versions_of(*_PACKAGES)}


def check_probes(path: Path, device: str, probes: Sequence[str]) -> None:
    """Raises ModelFileError if the file at `path` has no score for one of `probes`.

    Passes a file that this machine cannot score at all (no such device, too little memory).
    """
    try:
        _score(path, device, [], probes)
    except ModelFileError:
        raise
    except DearliteError:
        return


def _score(path: Path, device: str, pairs: Sequence[Any], probes: Sequence[str]) -> dict[str, Any]:
    """The result of the scorer. Raises ModelFileError for a probe without a score, DearliteError without a result."""
    job = {"device": device, "pairs": pairs, "probes": list(probes)}
    result: dict[str, Any] = call_worker("dearlite.export.quality.scorer", str(path), job, name="the scorer")
    if fault := result.pop("probe_fault"):
        raise ModelFileError(
            f"the file has no score for a text of its own tokens ({fault}): its parts do not belong together, fetch "
            "model and tokenizer again, both of one revision"
        )
    return result


def tau_below_floor(card: dict[str, Any], floor: float) -> str:
    """The fault of the card in one line: no comparison, or a Kendall's tau below `floor`. Empty for a good card."""
    if "not_scored" in card:
        return f"its scores could not be compared with those of fp32: {card['not_scored']}"
    if card["kendall_tau"] >= floor:
        return ""
    return f"its order agrees with that of fp32 by a Kendall's tau of {card['kendall_tau']}, below {floor}"


def keep_or_refuse(draft: Path, output: Path, card: dict[str, Any], gate: QualityGate, quant: str) -> None:
    """Writes `card` into the bundle `draft`, the later `output`. Raises DearliteError unless `gate` lets it pass."""
    remedy = _NEARER.get(quant, "") if "kendall_tau" in card else ""
    gate.apply(output, card, tau_below_floor(card, gate.floor), remedy)
    add_members(draft, {"card.json": (json_text(card, indent=1) + "\n").encode()})
