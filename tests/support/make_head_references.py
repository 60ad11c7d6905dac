"""Writes tests/data/cross_encoder_golden.json: the scores of sentence-transformers' own CrossEncoder, in fp32.

    pip install sentence-transformers==5.7.0
    python tests/support/make_head_references.py

The package is no dependency of the tests: with scikit-learn it takes 65 MB, and 17 s to import.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import sentence_transformers
import torch
import transformers
from cross_encoders import CHAINS, PAIRS, write_cross_encoder

GOLDEN = Path(__file__).parents[1] / "data" / "cross_encoder_golden.json"


def scores(folder: Path) -> list[float]:
    encoder = sentence_transformers.CrossEncoder(str(folder), local_files_only=True, device="cpu")
    return [round(float(score), 6) for score in encoder.predict(PAIRS, batch_size=1)]


def main() -> None:
    golden = {}
    for kind in ("modernbert", "bert"):
        for name, chain in CHAINS.items():
            with tempfile.TemporaryDirectory() as folder:
                write_cross_encoder(Path(folder), chain, kind)
                golden[f"{kind} {name}"] = scores(Path(folder))
    origin = {
        "command": "python tests/support/make_head_references.py",
        "sentence-transformers": sentence_transformers.__version__,
        "transformers": transformers.__version__,
        "torch": torch.__version__,
    }
    GOLDEN.write_text(json.dumps({"origin": origin, "scores": golden}, indent=1) + "\n")


if __name__ == "__main__":
    main()
