"""The kind of score that a GGUF states, by its metadata and tensors."""

from __future__ import annotations

import json
from typing import Any

from dearlite.errors import ModelFileError
from dearlite.models.gguf import GgufFile
from dearlite.templates.families import FAMILIES, Family

HEAD = "cls.output.weight"  # the last matrix of a rank head, as llama.cpp converts it
TWO_LABELS = "qwen3-reranker"  # the family of decoders with a rank head of the rows yes and no
_ENCODER_HEADS = (HEAD, "cls.weight")


def scoring_kind(file: GgufFile) -> str | None:
    """The way to a pointwise score: "exported" by dearlite, "labels", "encoder"; None for a language model.

    "labels" is a language model whose rank head has a row for each answer, "encoder" a model with llama.cpp's own rank
    head.
    """
    if file.metadata.get("dearlite.kind") == "pointwise":
        return "exported"
    if "dearlite.kind" in file.metadata or not any(name in file.tensors for name in _ENCODER_HEADS):
        return None
    causal = file.metadata.get(f"{file.metadata.get('general.architecture')}.attention.causal", True)
    return "labels" if causal else "encoder"


def takes_instruction(file: GgufFile, prompt: str | None) -> bool:
    """True if the prompt of a pointwise GGUF has a place for an instruction; `prompt` is the family that is named."""
    if scoring_kind(file) == "exported":
        return bool((exported_record(file, "template") or {}).get("instructed"))
    family = _family_of(file, prompt)
    return family is not None and bool(family.instructed or family.chat_instructed)


def prompts_of(file: GgufFile) -> list[str]:
    """The families that a GGUF without a score of its own can be run as with --prompt, those for any model last."""
    architecture = file.metadata.get("general.architecture")
    if scoring_kind(file) is not None or architecture in ("t5", "t5encoder"):
        return []
    if file.metadata.get(f"{architecture}.attention.causal") is False:
        return []
    talks = bool(file.metadata.get("tokenizer.chat_template"))
    return [
        name
        for name, family in FAMILIES.items()
        if family.fits({"model_type": architecture})
        and (family.likelihood or (family.yes != "" and (talks or not family.chat)))
    ]


def how_to_instruct(file: GgufFile, prompt: str | None) -> str:
    """The reason why a GGUF takes no instruction with this `prompt`, with the prompts that take one; empty if none."""
    names = [name for name in prompts_of(file) if takes_instruction(file, name)]
    if not names:
        return ""
    reason = "as a listwise model" if prompt is None else f"with --prompt {prompt}, which has no place for one"
    first = "yes-no" if "yes-no" in names else names[0]
    others = [name for name in names if name != first]
    trained = f" (or {', '.join(others)}, if it was trained with it)" if others else ""
    return f"{reason}: leave it out, or take --prompt {first}{trained}"


def exported_record(file: GgufFile, name: str) -> dict[str, Any] | None:
    """The JSON object `dearlite.NAME` that dearlite wrote; None without one. Raises ModelFileError if it is another."""
    text = file.metadata.get(f"dearlite.{name}")
    if text is None:
        return None
    try:
        record = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        raise ModelFileError(f"{file.path}: its dearlite.{name} is not a JSON object: fetch or export it again")
    return record


def calibration_of(file: GgufFile, prompt: str | None) -> dict[str, Any] | None:
    """The calibration in the file, fitted for the scores by this `prompt`; None without one, or by another prompt."""
    record = exported_record(file, "calibration")
    return record if record is not None and record.get("prompt") == prompt else None


def states_relevance(file: GgufFile, prompt: str | None) -> bool:
    """True if the score of a pointwise GGUF becomes a probability, by a calibration or as its makers do it."""
    if calibration_of(file, prompt) is not None:
        return True
    if scoring_kind(file) == "exported":
        return "dearlite.activation" in file.metadata
    family = _family_of(file, prompt)
    return family is not None and family.scale > 0


def _family_of(file: GgufFile, prompt: str | None) -> Family | None:
    return FAMILIES[TWO_LABELS] if scoring_kind(file) == "labels" else FAMILIES.get(prompt or "")
