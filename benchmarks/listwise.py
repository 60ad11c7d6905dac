"""The parts of a listwise window: prefill beside llama.cpp's own best, and the cost that each mode adds.

    python benchmarks/listwise.py MODEL.gguf [--rounds 5] [--json FILE]

One real window of 20 documents (NovelEval, the first stage's documents of the query with the longest ones). Each round
runs every row once, in turn, in this process; figures are medians. "raw" rows call llama_decode alone, without lock,
thread, callback or check.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from measure import describe_machine, peak_rss_mb

from dearlite import Listwise, Reranker
from dearlite.documents import as_document
from dearlite.export.quality.card import load_pairs
from dearlite.listwise.decoding import GenerationOptions, Step, first, generate, permute
from dearlite.models.gguf import GgufFile

_DATA = Path(__file__).parents[1] / "export" / "data" / "noveleval"
_FREE_TOKENS = 256  # about the length of DeAR's reasoning
_DECODED = 64  # tokens per sequence, when sequences are decoded together
_TOGETHER = 8


def main() -> None:
    """Prints the figures and a description of the machine as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a .gguf file")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--passage-tokens", type=int, help="maximum per passage (default: the prompt form's)")
    parser.add_argument("--json", type=Path, help="also write all rounds to this file")
    args = parser.parse_args()
    reranker: Any = Reranker.load(args.model)
    window = _Window(reranker, args.passage_tokens)
    raw = {size: _Raw(reranker, len(window.prompt), size) for size in (256, 512)}
    rows: dict[str, Callable[[], float]] = {
        **{f"raw prefill, ubatch {size}": partial(bare.prefill, window.prompt) for size, bare in raw.items()},
        "prefill": lambda: window.time(window.only_prefill),
        "first": lambda: window.time(lambda: first(window.prompt, window.answer)),
        "permute": lambda: window.time(lambda: permute(window.prompt, window.answer)),
        "free text, 256 tokens": lambda: window.time(lambda: generate(window.prompt, window.answer, window.writing)),
        "decode alone": lambda: window.decode_together(1),
        "decode 8 together": lambda: window.decode_together(_TOGETHER),
    }
    times: dict[str, list[float]] = {name: [] for name in rows}
    for number in range(args.rounds + 1):
        for name, run in rows.items():
            seconds = run()
            if number:  # the first round is the warm-up
                times[name].append(seconds)
    medians = {name: statistics.median(values) for name, values in times.items()}
    result = _figures(medians, len(window.prompt))
    result |= {"rounds": times, "peak_rss_mb": peak_rss_mb(), "machine": describe_machine()}
    result |= {"model": Path(args.model).name, "sha256": GgufFile(args.model).sha256(), "threads": reranker.threads}
    if args.json:
        args.json.write_text(json.dumps(result, indent=1))
    print(json.dumps({key: value for key, value in result.items() if key != "rounds"}, indent=1))


def _figures(s: dict[str, float], tokens: int) -> dict[str, Any]:
    """The report's figures from `s`, the median seconds of each row, and the prompt's number of tokens."""
    best = min(value for name, value in s.items() if name.startswith("raw"))
    after = {name: s[name] - s["prefill"] for name in ("first", "permute", "free text, 256 tokens")}
    return {
        "prompt_tokens": tokens,
        "seconds": {name: round(value, 3) for name, value in s.items()},
        "prefill tokens/s": round(tokens / s["prefill"], 1),
        "share of the raw best": round(best / s["prefill"], 3),
        "first over prefill": round(s["first"] / s["prefill"] - 1, 4),
        "after prefill": {name: round(value, 3) for name, value in after.items()},
        "free text over permute, after prefill": round(after["free text, 256 tokens"] / after["permute"], 2),
        "decode tokens/s alone": round(_DECODED / s["decode alone"], 1),
        "decode tokens/s of 8 together": round(_TOGETHER * _DECODED / s["decode 8 together"], 1),
        "together over alone": round(_TOGETHER * s["decode alone"] / s["decode 8 together"], 2),
    }


class _Window:
    """The prompt of one window, and the measurements on it."""

    def __init__(self, reranker: Any, passage_tokens: int | None) -> None:
        pairs = load_pairs(_DATA, "run_bm25.trec")
        groups = {q: indices[:20] for q, indices in pairs.by_query().items()}
        indices = max(groups.values(), key=lambda group: sum(len(pairs.rows[i][3]["text"]) for i in group))
        encoder = reranker._encoders.find(Listwise(mode="permute", prompt="chat"))[1]
        passages = [encoder.passage(as_document(pairs.rows[i][3], "a document"), passage_tokens) for i in indices]
        self.backend = reranker._backend
        room = self.backend.context_tokens - 600
        self.prompt = encoder.encode(pairs.rows[indices[0]][2], passages, room=room, reasoned=False, opened=True).ids
        self.answer = encoder.answer(20)
        self.room = len(self.prompt) + 512
        self.writing = GenerationOptions(self.backend.vocabulary.token_bytes, frozenset(), _FREE_TOKENS)

    def time(self, make: Callable[[], Any]) -> float:
        """Seconds of one run of the coroutine that `make` returns."""
        start = time.perf_counter()
        self.backend.run([make()], self.room)
        return time.perf_counter() - start

    def only_prefill(self) -> Any:
        yield Step(self.prompt)

    def decode_together(self, count: int) -> float:
        """Seconds from the first to the last of `_DECODED` tokens of `count` sequences, after 256 prompt tokens."""
        token_times: list[float] = []
        writing = replace(self.writing, max_tokens=_DECODED, on_text=lambda _: token_times.append(time.perf_counter()))
        self.backend.run([generate(self.prompt[:256], self.answer, writing) for _ in range(count)], 512)
        return token_times[-1] - token_times[count - 1]


class _Raw:
    """Bare calls of llama.cpp in a separate context."""

    def __init__(self, reranker: Any, tokens: int, ubatch: int) -> None:
        self._llama = llama = reranker._backend._llama
        params = llama.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = tokens + 512, tokens, ubatch
        params.n_threads = params.n_threads_batch = reranker.threads
        params.flash_attn_type, params.no_perf = llama.LLAMA_FLASH_ATTN_TYPE_AUTO, True
        self._context = llama.llama_init_from_model(reranker._backend._objects.model, params)

    def prefill(self, prompt: tuple[int, ...]) -> float:
        llama = self._llama
        llama.llama_memory_clear(llama.llama_get_memory(self._context), False)
        ids = (ctypes.c_int32 * len(prompt))(*prompt)
        start = time.perf_counter()
        if llama.llama_decode(self._context, llama.llama_batch_get_one(ids, len(prompt))):
            raise SystemExit("llama_decode failed")
        llama.llama_get_logits_ith(self._context, -1)
        return time.perf_counter() - start


if __name__ == "__main__":
    main()
