"""The texts of the package that an export reads: pairs to calibrate the rounding with, and pairs of the quality card.

Both are encoded as token rows of the model. Large models get fewer rows, down to a least number that is still of use.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from dearlite.documents import Document, as_document
from dearlite.errors import CheckpointError, ModelFileError
from dearlite.export.quality.card import Pairs, load_pairs
from dearlite.pointwise.prompting import PromptForm, prompt_of
from dearlite.pointwise.tokens import PairEncoder, TokenRow

DATA = Path(__file__).parents[1] / "data"
_DOCUMENTS = 20  # of each query: all that its first stage has
# Most multiplications and additions of all rows in the network: seconds on two cores.
_CALIBRATION_MACS, _CARD_MACS = 1.2e12, 2.6e12
_LEAST_TOKENS, _LEAST_QUERIES = 6000, 3


def noveleval_pairs() -> Pairs:
    """NovelEval's queries with the documents of its BM25 run."""
    return load_pairs(DATA / "noveleval", "run_bm25.trec")


def calibration_rows(tokenizer: bytes, prompt: PromptForm, max_tokens: int, macs_per_token: float) -> list[Any]:
    """The pairs of calibration.jsonl as (tokens,) int64 rows, as many as `macs_per_token` allows."""
    with open(DATA / "calibration.jsonl", encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines]
    least_tokens = max(_LEAST_TOKENS, _CALIBRATION_MACS / macs_per_token)
    rows = []
    for row in encode_pairs(tokenizer, prompt, max_tokens, [(r["query"], Document(r["text"])) for r in records]):
        rows.append(row.ids)
        if sum(map(len, rows)) >= least_tokens:
            break
    return rows


def card_pairs(tokenizer: bytes, prompt: PromptForm, max_tokens: int, macs_per_token: float) -> Pairs:
    """The pairs of the quality card: NovelEval's queries, as many as `macs_per_token` allows, with BM25's documents."""
    pairs = noveleval_pairs()
    groups = [positions[:_DOCUMENTS] for positions in pairs.by_query().values()]
    lengths = [row.tokens_used for row in pair_rows(tokenizer, prompt, max_tokens, pairs)]
    tokens, queries = 0, 0
    for positions in groups:
        tokens += sum(lengths[position] for position in positions)
        if queries >= _LEAST_QUERIES and tokens * macs_per_token > _CARD_MACS:
            break
        queries += 1
    rows = tuple(pairs.rows[position] for positions in groups[:queries] for position in positions)
    return Pairs(f"{pairs.name}, {queries} queries, first {_DOCUMENTS}", rows, pairs.grades)


def pair_rows(tokenizer: bytes, prompt: PromptForm, max_tokens: int, pairs: Pairs) -> list[TokenRow]:
    """One token row for each of `pairs`."""
    records = [(query, as_document(record, "a document of the card")) for _, _, query, record in pairs.rows]
    return encode_pairs(tokenizer, prompt, max_tokens, records)


def pair_types(folder: Path, tokenizer: bytes, max_tokens: int) -> tuple[list[int], list[int]]:
    """The token types of a pair in the tokenizer's own template, and in PairEncoder.

    Raises CheckpointError, which names `folder`, if the two give a pair other ids.
    """
    original = Tokenizer.from_str(tokenizer.decode())
    original.no_truncation()
    original.no_padding()
    pair = original.encode("a", "a")
    try:
        encoder = PairEncoder(tokenizer, max_tokens=max_tokens)
        (row,) = encoder.pairs(encoder.ids("a"), ["a"])
        same = row.ids.tolist() == pair.ids
    except (ValueError, IndexError, ModelFileError):  # the template leaves out a text, or puts the document first
        same = False
    if not same:
        raise CheckpointError(f"{folder}: its tokenizer joins a pair in a way that is not supported")
    return list(pair.type_ids), list(row.types.tolist())


def encode_pairs(
    tokenizer: bytes, prompt: PromptForm, max_tokens: int, pairs: Sequence[tuple[str, Document]]
) -> list[TokenRow]:
    """One token row for each (query, document), in the prompt form `prompt`."""
    form = prompt_of(prompt, tokenizer, max_tokens)
    return [row for query, document in pairs for row in form.rows(form.query(query), [document])]
