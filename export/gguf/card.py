"""The quality card of a listwise file: its logits beside the fp32 reference's, on named text, and the gate.

llama.cpp runs in a process of its own (worker.py): it turns the text into tokens, so that the card reads rows as the
runtime does, and compares its logits with the reference's, which lie in a file between the two.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dearlite.errors import DearliteError
from dearlite.export.quality.card import load_pairs
from dearlite.machine import versions_of

# A file with a matrix in the wrong order agrees at hardly any position; the worst that is none, SmolLM2 135M in iq4_xs,
# at 0.74.
FLOOR = 0.7
_DATA = Path(__file__).parents[1] / "data"
ROW_TOKENS = 200
_CARD_MACS = 5e11  # what the rows may cost on their way through the network: seconds on two cores
_LEAST_TOKENS, _MOST_TOKENS = 600, 2000
_MOST_LOGITS, _MOST_POSITIONS = 2**25, 1000  # 134 MB of float32
_CONTEXT = 8  # tokens before the first position that is compared, where a row has them


@dataclass(frozen=True, slots=True)
class CardRows:
    """Token rows, and the positions of each whose logits are compared."""

    name: str
    ids: tuple[tuple[int, ...], ...]
    positions: tuple[tuple[int, ...], ...]


def card_rows(vocabulary_file: Path, macs_a_token: float, vocabulary: int, max_tokens: int) -> CardRows:
    """NovelEval's queries, each before a document of its first stage, cut to ROW_TOKENS; as many as are allowed.

    `vocabulary_file` is a GGUF with the model's tokenizer. Positions are spread evenly over the rows.
    """
    pairs = load_pairs(_DATA / "noveleval", "run_bm25.trec")
    groups = list(pairs.by_query().values())
    turns = [group[n] for n in range(max(map(len, groups))) for group in groups if n < len(group)]
    wanted = min(_MOST_TOKENS, max(_LEAST_TOKENS, _CARD_MACS / macs_a_token))
    # A row of fewer tokens than this is rare, so a few more texts than are needed are given.
    count = min(len(turns), int(wanted / 40) + 8)
    texts = [_text(pairs.rows[place]) for place in turns[:count]]
    found = run_worker("tokenise", {"path": str(vocabulary_file), "texts": texts})
    rows: list[tuple[int, ...]] = []
    for ids in found["rows"]:
        row = tuple(ids[: min(ROW_TOKENS, max_tokens)])
        if row and sum(map(len, rows)) < wanted:
            rows.append(row)
    places = [(n, at) for n, row in enumerate(rows) for at in range(min(_CONTEXT, len(row) - 1), len(row))]
    most = max(1, min(len(places), _MOST_POSITIONS, _MOST_LOGITS // vocabulary))
    kept = [places[n] for n in np.linspace(0, len(places) - 1, most).astype(int)]
    positions = tuple(tuple(at for row, at in kept if row == n) for n in range(len(rows)))
    return CardRows(f"{pairs.name}, {len(rows)} rows of at most {ROW_TOKENS} tokens", tuple(rows), positions)


def _text(row: tuple[str, str, str, dict[str, Any]]) -> str:
    _, _, query, record = row
    return f"{query}\n{record.get('title') or ''}\n{record.get('text') or ''}"


def agreement_card(path: Path, rows: CardRows, logits: Path) -> dict[str, Any]:
    """The card of the GGUF at `path` against the reference's logits, a .npy file of (positions, vocabulary) float32.

    Where the file cannot be run on this machine the card says why under "not_compared".
    """
    card: dict[str, Any] = {"reference": "the merged weights in fp32", "text": rows.name}
    job = {"path": str(path), "rows": rows.ids, "positions": rows.positions, "logits": str(logits)}
    try:
        card |= run_worker("compare", job)
    except DearliteError as err:
        card["not_compared"] = str(err)[:400]
    return card | {"versions": versions()}


def hold_to_floor(card: dict[str, Any], floor: float) -> str:
    """Nothing where the card is good, otherwise what is wrong, in one line."""
    if "not_compared" in card:
        return f"its logits could not be compared with fp32's: {card['not_compared']}"
    if card["argmax_agreement"] >= floor:
        return ""
    return (
        f"its likeliest token is fp32's at {card['argmax_agreement']:.4f} of {card['positions']} positions, below "
        f"{floor}: take a wider --quant"
    )


def run_worker(task: str, job: dict[str, Any]) -> Any:
    """What worker.py answers. Raises DearliteError with its last line when it fails, or is killed for its memory."""
    done = subprocess.run(
        [sys.executable, "-m", "dearlite.export.gguf.worker", task],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        raise DearliteError(
            lines[-1] if lines else f"llama.cpp ended with {done.returncode}: too little memory or disk?"
        )
    return json.loads(done.stdout)


def versions() -> dict[str, str]:
    """What made the file."""
    return versions_of("dearlite", "llama-cpp-python", "gguf", "numpy")
