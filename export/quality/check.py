"""What an export studies and checks: calibration rows, the card's pairs, and the written file's scores on them.

`python -m dearlite.export.quality.check FILE` scores pairs in a process of its own: the file's memory is then not the
export's, and a machine too small for the model says so in the card instead of losing the file.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dearlite.documents import Document, as_document
from dearlite.errors import DearliteError
from dearlite.export.quality.card import Pairs, compare, load_pairs
from dearlite.machine import peak_memory_mb, versions_of
from dearlite.models.bundle import add_members
from dearlite.pointwise.prompts import PAIR_FORMS
from dearlite.pointwise.tokens import PairEncoder, TokenRow
from dearlite.reranker import Reranker

FLOOR = 0.95  # Kendall's tau against fp32, below which a file is refused
_DATA = Path(__file__).parents[1] / "data"
_PACKAGES = ("dearlite", "onnxruntime", "onnxruntime-gpu", "numpy", "onnx")
_DOCUMENTS = 20  # of each query: all that its first stage has
# What the rows may cost on their way through the network, in multiplications and additions: seconds on two cores. Large
# models get fewer rows, but never less than is of use.
_CALIBRATION_MACS, _CARD_MACS = 1.2e12, 2.6e12
_LEAST_TOKENS, _LEAST_QUERIES = 6000, 3


def calibration_rows(tokenizer: bytes, prompt: str, max_tokens: int, macs_a_token: float) -> list[Any]:
    """The calibration text that ships with the package, as (tokens,) int64 rows of the model's own pairs."""
    with open(_DATA / "calibration.jsonl", encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines]
    wanted = max(_LEAST_TOKENS, _CALIBRATION_MACS / macs_a_token)
    rows = []
    for row in _encode(tokenizer, prompt, max_tokens, [(r["query"], Document(r["text"])) for r in records]):
        rows.append(row.ids)
        if sum(map(len, rows)) >= wanted:
            break
    return rows


def card_pairs(tokenizer: bytes, prompt: str, max_tokens: int, macs_a_token: float) -> Pairs:
    """The named pairs of the quality card: NovelEval's queries, as many as allowed, with BM25's first documents."""
    pairs = load_pairs(_DATA / "noveleval", "run_bm25.trec")
    groups = [places[:_DOCUMENTS] for places in pairs.by_query().values()]
    lengths = [row.tokens_used for row in pair_rows(tokenizer, prompt, max_tokens, pairs)]
    tokens, kept = 0, 0
    for places in groups:
        tokens += sum(lengths[place] for place in places)
        if kept >= _LEAST_QUERIES and tokens * macs_a_token > _CARD_MACS:
            break
        kept += 1
    rows = tuple(pairs.rows[place] for places in groups[:kept] for place in places)
    return Pairs(f"{pairs.name}, {kept} queries, first {_DOCUMENTS}", rows, pairs.grades)


def pair_rows(tokenizer: bytes, prompt: str, max_tokens: int, pairs: Pairs) -> list[TokenRow]:
    """The pairs as token rows of the model's."""
    records = [(query, as_document(record, "a document of the card")) for _, _, query, record in pairs.rows]
    return _encode(tokenizer, prompt, max_tokens, records)


def _encode(tokenizer: bytes, prompt: str, max_tokens: int, pairs: Sequence[tuple[str, Document]]) -> list[TokenRow]:
    encoder, form = PairEncoder(tokenizer, max_tokens=max_tokens), PAIR_FORMS[prompt]
    return [
        row
        for query, document in pairs
        for row in encoder.pairs(encoder.ids(form.query(query)), [form.document(document)])
    ]


def quality_card(path: Path, pairs: Pairs, reference: Sequence[float], device: str) -> dict[str, Any]:
    """The card of the file at `path`: its scores of `pairs` beside the fp32 `reference`, its time and its memory.

    Where the file cannot be scored on this machine the card says why under "not_scored", and has no agreement.
    """
    job = {"device": device, "pairs": [(query, record) for _, _, query, record in pairs.rows]}
    done = subprocess.run(
        [sys.executable, "-m", "dearlite.export.quality.check", str(path)],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"its process ended with {done.returncode}: too little memory?"])[
            -1
        ]
        return {"pairs": pairs.name, "not_scored": last, "versions": versions_of(*_PACKAGES)}
    measured: dict[str, Any] = json.loads(done.stdout)
    card = compare(pairs, reference, measured.pop("scores"))
    return card | measured | {"versions": versions_of(*_PACKAGES)}


def hold_to_floor(card: dict[str, Any], floor: float) -> str:
    """Nothing where the card is good, otherwise what is wrong, in one line."""
    if "not_scored" in card:
        return f"its scores could not be compared with fp32's: {card['not_scored']}"
    if card["kendall_tau"] >= floor:
        return ""
    return f"its order agrees with fp32's by Kendall's tau {card['kendall_tau']}, below {floor}"


def keep_or_refuse(draft: Path, output: Path, card: dict[str, Any], floor: float, *, keep: bool) -> None:
    """Writes `card` into the bundle at `draft`, which is to become `output`, where it is good or is kept all the same.

    A card below the floor is a DearliteError, or with `keep` says so under "below_floor".
    """
    if problem := hold_to_floor(card, floor):
        if not keep:
            raise DearliteError(f"{output} is not written: {problem} (--force keeps it)")
        card["below_floor"] = problem
    add_members(draft, {"card.json": (json.dumps(card, indent=1) + "\n").encode()})


def main() -> None:
    """Scores the pairs on standard input with the file that the command line names, and prints what it took."""
    job = json.load(sys.stdin)
    start = time.perf_counter()
    reranker = Reranker.load(sys.argv[1], device=job["device"])
    loaded = time.perf_counter()
    scores = reranker.score([(query, record) for query, record in job["pairs"]])
    result = {
        "scores": scores,
        "load_s": round(loaded - start, 2),
        "score_s": round(time.perf_counter() - loaded, 2),
        "peak_rss_mb": peak_memory_mb(),
        "cpus": os.cpu_count(),
    }
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    try:
        main()
    except (DearliteError, MemoryError) as err:
        sys.exit(f"{err}" or "too little memory")
