"""The quality card of a listwise file: its logits compared with those of the fp32 reference, on named text.

llama.cpp runs in a worker (worker.py). It also turns the text into tokens, so that the card reads the rows that the
runtime reads. The reference's logits reach the worker in a file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dearlite.errors import DearliteError
from dearlite.export.gguf.worker import call_llama
from dearlite.export.quality.texts import noveleval_pairs
from dearlite.llama.bindings import ENGINES
from dearlite.machine import versions_of

ROW_TOKENS = 200
_CARD_MACS = 5e11  # most multiplications and additions of all rows in the network: seconds on two cores
_LEAST_TOKENS, _MOST_TOKENS = 600, 2000
_SHORT_ROW_TOKENS = 40  # hardly any row is shorter
_MOST_LOGITS, _MOST_POSITIONS = 2**25, 1000  # 134 MB of float32
_CONTEXT = 8  # tokens before the first position that is compared, if the row has them


@dataclass(frozen=True, slots=True)
class CardRows:
    """Token rows of the card, and the positions of each row whose logits are compared."""

    name: str
    ids: tuple[tuple[int, ...], ...]
    positions: tuple[tuple[int, ...], ...]


def card_rows(vocabulary_file: Path, macs_per_token: float, vocabulary: int, max_tokens: int) -> CardRows:
    """Rows of a NovelEval query and a document of its first stage, cut to ROW_TOKENS; as many as the limits allow.

    `vocabulary_file` is a GGUF with the model's tokenizer, `vocabulary` its number of tokens. Positions are spread
    evenly over the rows.
    """
    pairs = noveleval_pairs()
    groups = list(pairs.by_query().values())
    in_turn = [group[n] for n in range(max(map(len, groups))) for group in groups if n < len(group)]
    least_tokens = min(_MOST_TOKENS, max(_LEAST_TOKENS, _CARD_MACS / macs_per_token))
    count = min(len(in_turn), int(least_tokens / _SHORT_ROW_TOKENS) + 8)  # a few more texts than are needed
    texts = [_text(pairs.rows[position]) for position in in_turn[:count]]
    encoded = call_llama("tokenise", {"path": str(vocabulary_file), "texts": texts})
    rows: list[tuple[int, ...]] = []
    for ids in encoded["rows"]:
        row = tuple(ids[: min(ROW_TOKENS, max_tokens)])
        if row and sum(map(len, rows)) < least_tokens:
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
    """The card of the GGUF at `path`, compared with the reference's logits, a .npy file of (positions, vocabulary) f32.

    If the file cannot be run on this machine, the card has the reason under "not_compared".
    """
    card: dict[str, Any] = {"reference": "the merged weights in fp32", "text": rows.name}
    job = {"path": str(path), "rows": rows.ids, "positions": rows.positions, "logits": str(logits)}
    try:
        card |= call_llama("compare", job)
    except DearliteError as err:
        card["not_compared"] = str(err)[:400]
    return card | {"versions": versions()}


def agreement_below_floor(card: dict[str, Any], floor: float) -> str:
    """The fault of the card in one line: no comparison, or an agreement below `floor`. Empty for a good card."""
    if "not_compared" in card:
        return f"its logits could not be compared with those of fp32: {card['not_compared']}"
    if card["argmax_agreement"] >= floor:
        return ""
    return (
        f"its likeliest token is that of fp32 at {card['argmax_agreement']:.4f} of {card['positions']} positions, "
        f"below {floor}: choose a wider --quant"
    )


def versions() -> dict[str, str]:
    """The versions of the packages that write the file."""
    return versions_of("dearlite", *ENGINES.values(), "gguf", "numpy")
