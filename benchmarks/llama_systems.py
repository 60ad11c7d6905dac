"""The systems that llama_pointwise.py compares: what loads, and how it is asked for scores. Nothing here measures.

Every system gets the same texts, reads them in DeAR's prompt form, cuts a pair at the same length and tokenises inside
the measured time. A loader imports its packages itself, as in systems.py.
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
    """One row of the table. `ours` has its share of the int8 peak computed."""

    name: str
    load: Callable[[Files], Score]
    ours: bool = False


@dataclass(frozen=True, slots=True)
class LlamaCpp:
    """How llama.cpp is run: documents of one call, tokens of one graph, and what it may do about attention."""

    sequences: int
    ubatch: int
    flash_attention: bool
    unified: bool  # one cache for all sequences, or one each
    shared_prefix: bool = False  # the query's tokens once for all documents of a call that share it


def load_transformers(dtype: str, files: Files) -> Score:
    """A script with transformers: batches of 64 in input order, padded on the right, `torch.inference_mode`."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.set_num_threads(files.threads)
    tokenizer = AutoTokenizer.from_pretrained(files.merged)
    model = AutoModelForSequenceClassification.from_pretrained(files.merged, dtype=getattr(torch, dtype)).eval()
    model.config.pad_token_id = tokenizer.pad_token_id  # the last token is found by it
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


def load_llama_cpp(how: LlamaCpp, files: Files) -> Score:
    """llama.cpp's own batches, no sampling: the first logit of a row's last token, which write_gguf made the score.

    Only last tokens are marked as outputs: the output matrix, and the last layer's tail, run on a row a document.
    Asking for embeddings instead would make every token an output.
    """
    import llama_cpp

    context, memory = _open_llama_cpp(how, files)
    batch = llama_cpp.llama_batch_init(how.sequences * files.max_tokens, 0, how.sequences)

    def run(rows: list[Row]) -> Iterator[float]:
        outputs = _fill(batch, rows, how.shared_prefix)
        llama_cpp.llama_memory_clear(memory, False)
        if (status := llama_cpp.llama_decode(context, batch)) != 0:
            raise RuntimeError(f"llama_decode ended with {status}")
        for place in outputs:
            yield float(llama_cpp.llama_get_logits_ith(context, place)[0])

    def score(work: Work) -> list[float]:
        rows = list(_rows(work, files))
        calls = (rows[start : start + how.sequences] for start in range(0, len(rows), how.sequences))
        return [found for call in calls for found in run(call)]

    return score


def systems(quants: list[str]) -> dict[str, LlamaSystem]:
    """By key; the first one is the reference of quality, and what speeds are compared with."""
    torch = {
        "transformers-fp32": LlamaSystem("transformers fp32, padded 64", partial(load_transformers, "float32")),
        "transformers-bf16": LlamaSystem("transformers bf16, padded 64", partial(load_transformers, "bfloat16")),
    }
    rivals = {
        f"llama.cpp-{key}": LlamaSystem(f"llama.cpp Q8_0, {about}", partial(load_llama_cpp, how))
        for key, (about, how) in LLAMA_CPP.items()
    }
    ours = {f"dearlite-{q}": LlamaSystem(f"dearlite {q}", partial(load_dearlite, q), ours=True) for q in quants}
    return torch | rivals | ours


# Of what was tried (1 to 16 sequences, graphs of 140 to 1,024 tokens, one cache or several) these are best, if barely.
LLAMA_CPP = {
    "plain": ("no flash attention", LlamaCpp(4, 512, flash_attention=False, unified=False)),
    "flash": ("flash attention", LlamaCpp(4, 512, flash_attention=True, unified=False)),
    "prefix": ("flash, query once for 8", LlamaCpp(8, 512, flash_attention=True, unified=True, shared_prefix=True)),
}

Row = tuple[list[int], int]  # token ids, and how many of the first are the query's part


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens of all pairs, those left when a query's part is computed once, and calls: one a pair, one a query."""

    pairs: int
    computed: int
    calls: int


def count_tokens(work: Work, files: Files) -> Tokens:
    """As every system cuts and counts them."""
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
    """The ids that dearlite's own encoder gives: what the quickest tokeniser at hand would hand to llama.cpp."""
    from dearlite.documents import as_document
    from dearlite.pointwise.tokens import PairEncoder

    encoder, form = PairEncoder((files.merged / "tokenizer.json").read_bytes(), max_tokens=files.max_tokens), _form()
    for query, texts in work:
        documents = (form.document(as_document(text, "a document")) for text in texts)
        for row in encoder.pairs(encoder.ids(form.query(query)), documents):
            yield row.ids.tolist(), row.prefix


def _open_llama_cpp(how: LlamaCpp, files: Files) -> tuple[Any, Any]:
    import llama_cpp

    silence = llama_cpp.llama_log_callback(lambda level, text, data: None)
    _KEPT.append(silence)
    llama_cpp.llama_log_set(silence, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    model = llama_cpp.llama_model_load_from_file(str(files.gguf).encode(), llama_cpp.llama_model_default_params())
    if not model:
        raise RuntimeError(f"llama.cpp cannot load {files.gguf}")
    options = llama_cpp.llama_context_default_params()
    options.n_ctx = options.n_batch = how.sequences * -(-files.max_tokens // 256) * 256  # it rounds up to 256 itself
    options.n_ubatch, options.n_seq_max, options.n_outputs_max = how.ubatch, how.sequences, how.sequences
    options.n_threads = options.n_threads_batch = files.threads
    options.flash_attn_type = int(how.flash_attention)
    options.kv_unified = how.unified
    context = llama_cpp.llama_init_from_model(model, options)
    if not context:
        raise RuntimeError(f"llama.cpp cannot open a context for {how}")
    return context, llama_cpp.llama_get_memory(context)


_KEPT: list[Any] = []  # llama.cpp holds their addresses


def _fill(batch: Any, rows: list[Row], shared_prefix: bool) -> list[int]:
    """Puts `rows` into `batch`, one sequence each; the places of their last tokens."""
    place, outputs = 0, []

    def put(token: int, position: int, sequences: list[int], output: bool) -> None:
        nonlocal place
        batch.token[place], batch.pos[place], batch.n_seq_id[place] = token, position, len(sequences)
        for number, sequence in enumerate(sequences):
            batch.seq_id[place][number] = sequence
        batch.logits[place] = output
        place += 1

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
        outputs.append(place - 1)
    batch.n_tokens = place
    return outputs
