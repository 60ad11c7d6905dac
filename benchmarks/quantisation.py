"""Error of each int8 variant against fp32: `python benchmarks/quantisation.py CHECKPOINT COLLECTION`.

CHECKPOINT is a Hugging Face folder of the LLaMA family with tokenizer.json. Its `score` head is replaced by several
random ones, so that the result does not depend on one head. COLLECTION is as for quality.py. Every file is made by the
exporter and scored by the runtime; the fp32 file is the reference.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from dearlite import Reranker
from dearlite.export.decoders.bundle import DecoderModel, write_decoder
from dearlite.export.decoders.quantisations import QUANTISATIONS, Quantisation
from dearlite.export.numerics.forward import ForwardPass
from dearlite.export.quality.card import Pairs, compare_scores, load_pairs
from dearlite.export.quality.texts import calibration_rows
from dearlite.export.source.checkpoint import Checkpoint
from dearlite.export.source.families import macs_per_token, shape_of
from dearlite.export.source.merge import MergedCheckpoint
from dearlite.models.facts import PointwiseFacts


def variant(way: str, last_way: str, *, rotated: bool, mixed: bool) -> Quantisation:
    return Quantisation(int8=True, rotated=rotated, block_hadamard=mixed, way=way, last_way=last_way)


INT8 = QUANTISATIONS["int8"]
# name -> (plan, True if it is calibrated; otherwise weights are rounded to the nearest)
VARIANTS = {
    "plain": (variant("int8-per-row", "int8-per-row", rotated=False, mixed=False), False),
    "rotated": (variant("int8-per-row", "int8-per-row", rotated=True, mixed=False), False),
    "… last row in 15 bits": (variant("int8-per-row", "int16-per-row", rotated=True, mixed=False), False),
    "… Hadamard before down": (variant("int8-per-row", "int16-per-row", rotated=True, mixed=True), False),
    "… weights by GPTQ": (replace(INT8, leading=False), True),
    "… leading directions apart (`int8`)": (INT8, True),
    "… all activations in 15 bits (`int8-accurate`)": (QUANTISATIONS["int8-accurate"], True),
}


class RandomHead(MergedCheckpoint):
    """A checkpoint whose score head is a random unit vector."""

    def __init__(self, checkpoint: Checkpoint, seed: int) -> None:
        super().__init__(checkpoint, None, require_head=False)
        head = np.random.default_rng(seed).standard_normal((1, self.config["hidden_size"]))
        self.head = (head / np.linalg.norm(head)).astype(np.float32)

    @property
    def names(self) -> Any:
        return [*super().names, "score.weight"]

    def shape(self, name: str) -> tuple[int, ...]:
        return self.head.shape if name == "score.weight" else super().shape(name)

    def rows(self, name: str, start: int, stop: int) -> Any:
        return self.head[start:stop] if name == "score.weight" else super().rows(name, start, stop)


def scores(
    source: RandomHead, plan: Quantisation, calibrated: bool, tokenizer: bytes, pairs: Pairs, max_tokens: int
) -> list[float]:
    facts = PointwiseFacts(
        name="trial",
        architecture=source.config["model_type"],
        prompt="dear",
        pooling="last-token",
        max_tokens=max_tokens,
        licence="not stated",
        source={},
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trial.dear"
        forward = None
        if calibrated:
            shape = shape_of(source.config, max_tokens)
            rows = calibration_rows(tokenizer, "dear", max_tokens, macs_per_token(shape))
            forward = ForwardPass(shape, rows, [], block_hadamard=plan.uses_block_hadamard(shape))
        write_decoder(DecoderModel(source=source, tokenizer=tokenizer, facts=facts), path, plan=plan, forward=forward)
        return Reranker.load(path).score([(query, record) for _, _, query, record in pairs.rows])


def head_of_run(pairs: Pairs, depth: int) -> Pairs:
    rows = [pairs.rows[i] for indices in pairs.by_query().values() for i in islice(indices, depth)]
    return Pairs(f"{pairs.name}, first {depth}", tuple(rows), pairs.grades)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("collection", type=Path)
    parser.add_argument("--run", default="run_bm25.trec")
    parser.add_argument("--depth", type=int, default=10, help="documents per query")
    parser.add_argument("--heads", type=int, default=3, help="number of random heads")
    parser.add_argument("--max-tokens", type=int, default=140)
    options = parser.parse_args()
    pairs = head_of_run(load_pairs(options.collection, options.run), options.depth)
    tokenizer = (options.checkpoint / "tokenizer.json").read_bytes()
    cards_by_variant: dict[str, list[dict[str, Any]]] = {name: [] for name in VARIANTS}
    for seed in range(options.heads):
        source = RandomHead(Checkpoint(options.checkpoint), seed)
        reference = scores(source, QUANTISATIONS["fp32"], False, tokenizer, pairs, options.max_tokens)
        for name, (plan, calibrated) in VARIANTS.items():
            quantised = scores(source, plan, calibrated, tokenizer, pairs, options.max_tokens)
            cards_by_variant[name].append(compare_scores(pairs, reference, quantised))
    print(f"{pairs.name}, {len(pairs.rows)} pairs, {options.heads} random heads\n")
    print("| variant | error, % of spread | tau |\n|---|---|---|")
    for name, cards in cards_by_variant.items():
        error = 100 * fmean(card["mean_error"] / card["spread_of_scores"] for card in cards)
        print(f"| {name} | {error:.1f} | {fmean(card['kendall_tau'] for card in cards):.3f} |")


if __name__ == "__main__":
    main()
