"""The export of a decoder: calibrates, writes the file, scores it against fp32, and keeps it if it is accurate."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dearlite.errors import DearliteError
from dearlite.export.decoders.bundle import DecoderModel, write_decoder
from dearlite.export.decoders.quantisations import QUANTISATIONS
from dearlite.export.numerics.forward import ForwardPass
from dearlite.export.quality.check import check_probes, keep_or_refuse, quality_card
from dearlite.export.quality.gate import DEFAULT_GATE, QualityGate
from dearlite.export.quality.texts import calibration_rows, card_pairs, pair_rows
from dearlite.export.source.families import LlamaShape, macs_per_token, shape_of
from dearlite.files.drafts import Draft, workplace
from dearlite.files.targets import reason_of


def export_decoder(
    model: DecoderModel,
    output: Path,
    *,
    quant: str = "int8",
    devices: Sequence[str] = ("cpu",),
    gate: QualityGate = DEFAULT_GATE,
) -> dict[str, Any]:
    """The quality card of the file written to `output`; empty if `gate` requests no card.

    Raises DearliteError, and leaves no file, if the order of the card's pairs agrees with fp32's by less than
    `gate.floor`, unless `gate.force`.
    """
    facts, tokenizer = model.facts, model.tokenizer
    plan, shape = QUANTISATIONS[quant], shape_of(model.source.config, facts.max_tokens)
    macs = macs_per_token(shape)
    calibration = calibration_rows(tokenizer, facts.form, facts.max_tokens, macs) if plan.int8 else []
    pairs = card_pairs(tokenizer, facts.form, facts.max_tokens, macs) if gate.card else None
    rows = [] if pairs is None else pair_rows(tokenizer, facts.form, facts.max_tokens, pairs)
    forward = ForwardPass(
        shape,
        calibration,
        [row.ids for row in rows],
        block_hadamard=plan.uses_block_hadamard(shape),
        pad_id=model.pad_id if facts.pooling == "last-position" else None,
    )
    card: dict[str, Any] = {}
    try:
        with Draft(output, folder=True) as draft:
            file = draft.path / "model.dear"
            write_decoder(model, file, plan=plan, devices=devices, forward=forward if calibration or rows else None)
            if pairs is not None:
                card = {"reference": "the merged weights in fp32", "calibration_tokens": sum(map(len, calibration))}
                card |= quality_card(file, pairs, forward.scores, devices[0], model.probes)
                keep_or_refuse(file, output, card, gate, quant)
            else:
                check_probes(file, devices[0], model.probes)
            draft.commit(file)
    except OSError as err:
        raise DearliteError(f"cannot write {output}: {reason_of(err)}") from None
    return card


def check_disk(output: Path, shape: LlamaShape, quant: str) -> None:
    """Raises DearliteError if the disk has less free space than the file will need, computed from its shapes."""
    needed = (shape.vocabulary * shape.hidden + macs_per_token(shape)) * QUANTISATIONS[quant].bytes_per_weight * 1.05
    free = shutil.disk_usage(workplace(output)).free
    if needed > free:
        raise DearliteError(f"{output} needs {needed / 1e9:.1f} GB of disk and {free / 1e9:.1f} GB are free: make room")
