"""The systems that pointwise.py compares, one loader each. Nothing is measured here.

All systems get the same texts and tokenise them themselves. A loader imports its packages itself, so that a worker
process holds only the packages of its system.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

from published import FLASHRANK_NAME, MAX_TOKENS, Setting

# Queries in the run's order, each with the texts of its documents.
Work = list[tuple[str, list[str]]]
# Raw logits of all documents of a Work, in order.
Score = Callable[[Work], list[float]]


@dataclass(frozen=True, slots=True)
class System:
    """A row of the table.

    `beside` is the key of a row that runs the same model with other batches: the largest difference between the scores
    of the two rows is the effect of batching on a score.
    """

    name: str
    load: Callable[[Setting], Score]
    beside: str
    needs_published: bool = True


def flat_pairs(work: Work) -> list[tuple[str, str]]:
    """Every (query, text) of `work`, in order."""
    return [(query, text) for query, texts in work for text in texts]


def load_padded_32(setting: Setting) -> Score:
    """Padded batches of 32 in input order, threads within the call, as in most wrappers of this file."""
    return _load_padded(setting, batch=32, by_length=False)


def load_sorted_4(setting: Setting) -> Score:
    """Padded batches of 4, sorted by length, threads within the call."""
    return _load_padded(setting, batch=4, by_length=True)


def load_alone(setting: Setting) -> Score:
    """One document per call, parallel calls of one thread each, without spinning."""
    session, encode = _open_published(setting, threads=1, spinning=False), _published_encoder(setting)
    import numpy as np

    pool = ThreadPoolExecutor(setting.threads)

    def score_row(row: Row) -> float:
        ids, types = (np.array([side], np.int64) for side in row)  # (1, tokens)
        feeds = {"input_ids": ids, "token_type_ids": types, "attention_mask": np.ones_like(ids)}
        return float(session.run(None, feeds)[0][0, 0])

    return lambda work: list(pool.map(score_row, encode(flat_pairs(work))))


def load_cross_encoder(setting: Setting) -> Score:
    """sentence-transformers with its ONNX backend, as documented; the library sorts by length."""
    import torch
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(
        str(setting.sentence_transformers),
        backend="onnx",
        device="cpu",
        max_length=MAX_TOKENS,
        local_files_only=True,
        activation_fn=torch.nn.Identity(),  # raw logits; its default is a sigmoid
        model_kwargs={"provider": "CPUExecutionProvider", "file_name": "onnx/model.onnx"},
    )
    return lambda work: [float(s) for s in model.predict(flat_pairs(work), batch_size=32, show_progress_bar=False)]


def load_flashrank(setting: Setting) -> Score:
    """FlashRank's Ranker: all documents of a query in one padded batch."""
    from flashrank import Ranker, RerankRequest

    cache = str(setting.flashrank_cache)
    ranker = Ranker(model_name=FLASHRANK_NAME, cache_dir=cache, max_length=MAX_TOKENS, log_level="WARNING")

    def score(work: Work) -> list[float]:
        scores: list[float] = []
        for query, texts in work:
            passages = [{"id": index, "text": text} for index, text in enumerate(texts)]
            by_index = {hit["id"]: hit["score"] for hit in ranker.rerank(RerankRequest(query=query, passages=passages))}
            scores += [_logit(float(by_index[index])) for index in range(len(texts))]
        return scores

    return score


def load_rerankers(setting: Setting) -> Score:
    """The `rerankers` package on its FlashRank backend; its cross-encoder backend reads PyTorch weights only."""
    from rerankers import Reranker

    ranker = Reranker(FLASHRANK_NAME, model_type="flashrank", verbose=0, cache_dir=str(setting.flashrank_cache))
    if ranker is None:  # it prints the missing package and returns None
        raise RuntimeError("rerankers returned no ranker: pip install 'rerankers[flashrank]'")

    def score(work: Work) -> list[float]:
        scores: list[float] = []
        for query, texts in work:
            by_index = {
                hit.document.doc_id: hit.score for hit in ranker.rank(query, texts, doc_ids=list(range(len(texts))))
            }
            scores += [_logit(float(by_index[index])) for index in range(len(texts))]
        return scores

    return score


def load_dearlite_rerank(setting: Setting) -> Score:
    """Reranker.rerank, one call per query."""
    from dearlite import Reranker

    reranker = Reranker.load(device="cpu", threads=setting.threads)

    def score(work: Work) -> list[float]:
        scores: list[float] = []
        for query, texts in work:
            by_index = {hit.index: hit.score for hit in reranker.rerank(query, texts)}
            scores += [by_index[index] for index in range(len(texts))]
        return scores

    return score


def load_dearlite_score(setting: Setting) -> Score:
    """Reranker.score, all pairs in one call."""
    from dearlite import Reranker

    reranker = Reranker.load(device="cpu", threads=setting.threads)
    return lambda work: reranker.score(flat_pairs(work))


def load_dearlite_older(setting: Setting) -> Score:
    """Reranker.score with another file, such as one from before the limit of pairs."""
    from dearlite import Reranker

    if setting.older is None:
        raise RuntimeError("needs --older FILE")
    reranker = Reranker.load(setting.older, device="cpu", threads=setting.threads)
    return lambda work: reranker.score(flat_pairs(work))


# The first is the baseline of the others.
SYSTEMS: dict[str, System] = {
    "published-32": System("published int8 file, padded batches of 32", load_padded_32, "published-alone"),
    "published-alone": System("published int8 file, one document per call", load_alone, "published-alone"),
    "published-sorted-4": System("published int8 file, sorted, batches of 4", load_sorted_4, "published-alone"),
    "sentence-transformers": System("sentence-transformers CrossEncoder, ONNX", load_cross_encoder, "published-alone"),
    "flashrank": System("FlashRank Ranker", load_flashrank, "published-alone"),
    "rerankers": System("rerankers (FlashRank inside)", load_rerankers, "published-alone"),
    "dearlite-rerank": System("dearlite, rerank() per query", load_dearlite_rerank, "dearlite-score", False),
    "dearlite-score": System("dearlite, score() all pairs", load_dearlite_score, "dearlite-rerank", False),
    "dearlite-older": System("dearlite, an older file", load_dearlite_older, "dearlite-score", False),
}

# imported module -> name of its package for pip
PIP_NAMES = {
    "dearlite": "dearlite",
    "flashrank": "flashrank",
    "llama_cpp": "llama-cpp-python",
    "numpy": "numpy",
    "onnxruntime": "onnxruntime",
    "optimum": "optimum-onnx",
    "rerankers": "rerankers",
    "sentence_transformers": "sentence-transformers",
    "tokenizers": "tokenizers",
    "torch": "torch",
    "transformers": "transformers",
}

Row = tuple[list[int], list[int]]  # token ids, token types
Encode = Callable[[list[tuple[str, str]]], list[Row]]


def _published_encoder(setting: Setting) -> Encode:
    """The published tokenizer without its own padding to 512, applied to all pairs at once."""
    from tokenizers import Tokenizer

    assert setting.published is not None, "pointwise.py leaves out systems without a file"
    tokenizer = Tokenizer.from_file(str(setting.published / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    return lambda pairs: [(encoding.ids, encoding.type_ids) for encoding in tokenizer.encode_batch_fast(pairs)]


def _open_published(setting: Setting, *, threads: int, spinning: bool) -> Any:
    import onnxruntime

    assert setting.published is not None, "pointwise.py leaves out systems without a file"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    if not spinning:  # ONNX Runtime spins by default
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(
        str(setting.published / "model.onnx"), options, providers=["CPUExecutionProvider"]
    )


def _load_padded(setting: Setting, *, batch: int, by_length: bool) -> Score:
    session = _open_published(setting, threads=setting.threads, spinning=True)
    encode = _published_encoder(setting)
    import numpy as np

    def score(work: Work) -> list[float]:
        rows = encode(flat_pairs(work))
        order = sorted(range(len(rows)), key=lambda i: len(rows[i][0])) if by_length else range(len(rows))
        scores = [0.0] * len(rows)
        remaining = iter(order)
        while chosen := list(islice(remaining, batch)):
            longest = max(len(rows[i][0]) for i in chosen)
            ids = np.zeros((len(chosen), longest), np.int64)
            types, mask = np.zeros_like(ids), np.zeros_like(ids)
            for line, i in enumerate(chosen):
                length = len(rows[i][0])
                ids[line, :length], types[line, :length], mask[line, :length] = *rows[i], 1
            feeds = {"input_ids": ids, "token_type_ids": types, "attention_mask": mask}
            for i, logit in zip(chosen, session.run(None, feeds)[0][:, 0], strict=True):
                scores[i] = float(logit)
        return scores

    return score


def _logit(probability: float) -> float:
    """The logit of a sigmoid's value, all that FlashRank returns: in float32, accurate to about 0.001 near logit 10."""
    clipped = min(max(probability, 1e-12), 1 - 1e-7)
    return math.log(clipped / (1 - clipped))
