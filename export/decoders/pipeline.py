"""A decoder's export from end to end: calibrate, write, score the file against fp32, and keep it only if it is good."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dearlite.errors import DearliteError
from dearlite.export.decoders.bundle import write_bundle
from dearlite.export.decoders.quantisations import QUANTISATIONS
from dearlite.export.numerics.forward import ForwardPass
from dearlite.export.quality.check import FLOOR, calibration_rows, card_pairs, keep_or_refuse, pair_rows, quality_card
from dearlite.export.source.checkpoint import TensorSource
from dearlite.export.source.families import LlamaShape, macs_per_token, shape_of
from dearlite.models.facts import PointwiseFacts


def export_decoder(
    source: TensorSource,
    tokenizer: bytes,
    facts: PointwiseFacts,
    output: Path,
    *,
    quant: str = "int8",
    devices: Sequence[str] = ("cpu",),
    pad_id: int | None = None,
    members: dict[str, bytes] | None = None,
    carded: bool = True,
    floor: float = FLOOR,
    keep: bool = False,
) -> dict[str, Any]:
    """Writes `source` to `output`, and returns its quality card, empty where it is not `carded`.

    `pad_id` is the token that rows are padded with. Where the file's order of the card's pairs agrees with fp32's by
    less than `floor` (Kendall's tau), a DearliteError says so and nothing is left behind, unless `keep`; the card then
    says so under "below_floor".
    """
    plan, shape = QUANTISATIONS[quant], shape_of(source.config, facts.max_tokens)
    work = macs_per_token(shape)
    prompt, max_tokens = facts.prompt, facts.max_tokens
    calibration = calibration_rows(tokenizer, prompt, max_tokens, work) if plan.int8 else []
    pairs = card_pairs(tokenizer, prompt, max_tokens, work) if carded else None
    scored = [row.ids for row in pair_rows(tokenizer, prompt, max_tokens, pairs)] if pairs is not None else []
    padding = pad_id if facts.pooling == "last-position" else None
    forward = ForwardPass(shape, calibration, scored, block_hadamard=plan.uses_block_hadamard(shape), pad_id=padding)
    draft = output.with_name(output.name + ".draft")
    try:
        write_bundle(
            source,
            tokenizer,
            facts,
            draft,
            plan=plan,
            members=members,
            pad_id=pad_id,
            devices=devices,
            forward=forward if calibration or scored else None,
        )
        card: dict[str, Any] = {}
        if pairs is not None:
            card = {"reference": "the merged weights in fp32", "calibration_tokens": sum(map(len, calibration))}
            card |= quality_card(draft, pairs, forward.scores, devices[0])
            keep_or_refuse(draft, output, card, floor, keep=keep)
        draft.replace(output)
    except OSError as err:
        raise DearliteError(f"cannot write {output}: {err.strerror or err}") from None
    finally:
        draft.unlink(missing_ok=True)
    return card


def check_disk(output: Path, shape: LlamaShape, quant: str) -> None:
    """Told before the work: the file's size from the shapes, against what is free."""
    needed = (shape.vocabulary * shape.hidden + macs_per_token(shape)) * QUANTISATIONS[quant].bytes_per_weight * 1.05
    free = shutil.disk_usage(output.parent).free
    if needed > free:
        raise DearliteError(f"{output} needs {needed / 1e9:.1f} GB of disk and {free / 1e9:.1f} GB are free: make room")
