"""The systems that llama_pointwise.py compares, one loader each. Nothing is measured here.

All systems get the same texts, use DeAR's prompt form, truncate a pair at the same length and tokenise within the
measured time. A loader imports its packages itself, as in systems.py.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

from llama_files import Files
from systems import Score, Work, flat_pairs

BATCH = 64


@dataclass(frozen=True, slots=True)
class LlamaSystem:
    """A row of the table. For `ours`, the share of the int8 peak is computed."""

    name: str
    load: Callable[[Files], Score]
    ours: bool = False


@dataclass(frozen=True, slots=True)
class LlamaCpp:
    """Settings of llama.cpp: documents per call (`sequences`), tokens per graph (`ubatch`), attention and cache."""

    sequences: int
    ubatch: int
    flash_attention: bool
    unified: bool  # True: one cache for all sequences, False: one each
    shared_prefix: bool = False  # compute the query's tokens once for all documents of a call


def load_transformers(dtype: str, files: Files) -> Score:
    """A script with transformers: batches of 64 in input order, padded on the right, `torch.inference_mode`."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.set_num_threads(files.threads)
    tokenizer = AutoTokenizer.from_pretrained(files.merged)
    model = AutoModelForSequenceClassification.from_pretrained(files.merged, dtype=getattr(torch, dtype)).eval()
    model.config.pad_token_id = tokenizer.pad_token_id  # transformers finds the last token by it
    form = _form()

    def score(work: Work) -> list[float]:
        pairs = [(form.query(query), form.document(document)) for query, document in flat_documents(work)]
        scores: list[float] = []
        for start in range(0, len(pairs), BATCH):
            rows = tokenizer(
                pairs[start : start + BATCH], truncation="longest_first", max_length=files.max_tokens,
                padding=True, padding_side="right", return_tensors="pt",
            )  # fmt: skip
            with torch.inference_mode():
                logits = model(input_ids=rows["input_ids"], attention_mask=rows["attention_mask"]).logits
            scores += logits[:, 0].float().tolist()
        return scores

    return score


def load_dearlite(quant: str, files: Files) -> Score:
    """Reranker.score, all pairs in one call."""
    from dearlite import Reranker

    reranker = Reranker.load(files.dear[quant], device="cpu", threads=files.threads)
    return lambda work: reranker.score(flat_pairs(work))


def load_llama_cpp(settings: LlamaCpp, files: Files) -> Score:
    """llama.cpp's batches without sampling: the first logit of a row's last token, which is the score (write_gguf).

    Only last tokens are marked as outputs, so the output matrix and the last layer's tail run on one row per document.
    Embeddings in place of logits would make every token an output.
    """
    import llama_cpp

    context, memory = _open_llama_cpp(settings, files)
    batch = llama_cpp.llama_batch_init(settings.sequences * files.max_tokens, 0, settings.sequences)

    def run(rows: list[Row]) -> Iterator[float]:
        outputs = _fill(batch, rows, settings.shared_prefix)
        llama_cpp.llama_memory_clear(memory, False)
        if (status := llama_cpp.llama_decode(context, batch)) != 0:
            raise RuntimeError(f"llama_decode ended with {status}")
        for index in outputs:
            yield float(llama_cpp.llama_get_logits_ith(context, index)[0])

    def score(work: Work) -> list[float]:
        rows = list(_rows(work, files))
        calls = (rows[start : start + settings.sequences] for start in range(0, len(rows), settings.sequences))
        return [logit for call in calls for logit in run(call)]

    return score


def systems(quants: list[str]) -> dict[str, LlamaSystem]:
    """Key -> system. The first is the reference for quality and the baseline for speed."""
    torch = {
        "transformers-fp32": LlamaSystem("transformers fp32, padded 64", partial(load_transformers, "float32")),
        "transformers-bf16": LlamaSystem("transformers bf16, padded 64", partial(load_transformers, "bfloat16")),
    }
    rivals = {
        f"llama.cpp-{key}": LlamaSystem(f"llama.cpp Q8_0, {description}", partial(load_llama_cpp, settings))
        for key, (description, settings) in LLAMA_CPP.items()
    }
    ours = {f"dearlite-{q}": LlamaSystem(f"dearlite {q}", partial(load_dearlite, q), ours=True) for q in quants}
    return torch | rivals | ours


# Of the settings that were tried (1 to 16 sequences, graphs of 140 to 1,024 tokens, one cache or several) the fastest,
# by small differences.
LLAMA_CPP = {
    "plain": ("no flash attention", LlamaCpp(4, 512, flash_attention=False, unified=False)),
    "flash": ("flash attention", LlamaCpp(4, 512, flash_attention=True, unified=False)),
    "prefix": ("flash, query once for 8", LlamaCpp(8, 512, flash_attention=True, unified=True, shared_prefix=True)),
}

Row = tuple[list[int], int]  # token ids, and the number of leading ids that are the query's part


@dataclass(frozen=True, slots=True)
class Tokens:
    """Token counts of a Work, for systems that compute each query's part once."""

    pairs: int  # tokens of all pairs
    computed: int  # tokens that are computed: each query's part once
    calls: int  # one per pair and one per query


def count_tokens(work: Work, files: Files) -> Tokens:
    """The counts of `work`; all systems truncate in the same way."""
    rows = list(_rows(work, files))
    shared = [prefix for (before, _), (ids, prefix) in pairwise(rows) if ids[:prefix] == before[:prefix]]
    total = sum(len(ids) for ids, _ in rows)
    return Tokens(total, total - sum(shared), 2 * len(rows) - len(shared))


def flat_documents(work: Work) -> Iterator[tuple[str, Any]]:
    """Every (query, Document) of `work`, in order."""
    from dearlite.documents import as_document

    return ((query, as_document(text, "a document")) for query, text in flat_pairs(work))


def _form() -> Any:
    from dearlite.pointwise.prompts import PAIR_FORMS

    return PAIR_FORMS["dear"]


def _rows(work: Work, files: Files) -> Iterator[Row]:
    """The ids of dearlite's encoder, the fastest tokeniser available, as input for llama.cpp."""
    from dearlite.documents import as_document
    from dearlite.pointwise.tokens import PairEncoder

    encoder, form = PairEncoder((files.merged / "tokenizer.json").read_bytes(), max_tokens=files.max_tokens), _form()
    for query, texts in work:
        documents = (form.document(as_document(text, "a document")) for text in texts)
        for row in encoder.pairs(encoder.ids(form.query(query)), documents):
            yield row.ids.tolist(), row.prefix


def _open_llama_cpp(settings: LlamaCpp, files: Files) -> tuple[Any, Any]:
    import llama_cpp

    silence = llama_cpp.llama_log_callback(lambda level, text, data: None)
    _KEPT.append(silence)
    llama_cpp.llama_log_set(silence, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    model = llama_cpp.llama_model_load_from_file(str(files.gguf).encode(), llama_cpp.llama_model_default_params())
    if not model:
        raise RuntimeError(f"llama.cpp cannot load {files.gguf}")
    options = llama_cpp.llama_context_default_params()
    options.n_ctx = options.n_batch = (
        settings.sequences * -(-files.max_tokens // 256) * 256
    )  # llama.cpp rounds up to 256
    options.n_ubatch, options.n_seq_max, options.n_outputs_max = settings.ubatch, settings.sequences, settings.sequences
    options.n_threads = options.n_threads_batch = files.threads
    options.flash_attn_type = int(settings.flash_attention)
    options.kv_unified = settings.unified
    context = llama_cpp.llama_init_from_model(model, options)
    if not context:
        raise RuntimeError(f"llama.cpp cannot open a context for {settings}")
    return context, llama_cpp.llama_get_memory(context)


_KEPT: list[Any] = []  # callbacks whose addresses llama.cpp holds: they must not be freed


def _fill(batch: Any, rows: list[Row], shared_prefix: bool) -> list[int]:
    """Puts `rows` into `batch`, one sequence each; returns the batch indices of their last tokens."""
    index, outputs = 0, []

    def put(token: int, position: int, sequences: list[int], output: bool) -> None:
        nonlocal index
        batch.token[index], batch.pos[index], batch.n_seq_id[index] = token, position, len(sequences)
        for number, sequence in enumerate(sequences):
            batch.seq_id[index][number] = sequence
        batch.logits[index] = output
        index += 1

    known: list[int] = []
    for sequence, (ids, prefix) in enumerate(rows):
        start = 0
        if shared_prefix:
            start = prefix
            if ids[:prefix] != known:
                known = ids[:prefix]
                sharing = [other for other, row in enumerate(rows) if row[0][:prefix] == known]
                for position, token in enumerate(known):
                    put(token, position, sharing, False)
        for position in range(start, len(ids)):
            put(ids[position], position, [sequence], position == len(ids) - 1)
        outputs.append(index - 1)
    batch.n_tokens = index
    return outputs
