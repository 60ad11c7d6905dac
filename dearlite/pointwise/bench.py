"""Measures a pointwise model on this machine: load time, documents per second, memory, share of the int8 peak.

The documents are random words of the model's own vocabulary, so that any model can be measured without data.
"""

from __future__ import annotations

import json
import random
import re
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dearlite.errors import UsageError
from dearlite.machine import Memory, memory_now
from dearlite.options import Device

if TYPE_CHECKING:
    from dearlite.models.manifest import Build, Manifest
    from dearlite.pointwise.kernels import ProductRates
    from dearlite.pointwise.reranker import PointwiseReranker
    from dearlite.pointwise.tokens import TokenRow

DEFAULT_TOKENS = 140
PREDICTED_DOCUMENTS = (100, 10_000)
_ROUNDS = 5
_ROUND_S = 2.0  # approximate duration of a round if the number of documents is not given
_MOST_DOCUMENTS = 200
_QUERY_WORDS = 12
_RECORD_BYTES = 1000  # memory for a document and its hit, besides its text
_PEAK_SHAPE = (1024, 8192, 3072)  # rows, inputs, outputs


@dataclass(frozen=True, slots=True)
class Prediction:
    """The cost of one call with `documents` documents of the measured length, loading included."""

    documents: int
    seconds: float
    memory_mb: float | None  # None where the system does not report the peak


@dataclass(frozen=True, slots=True)
class Measurement:
    """The result of `measure`. Rates are medians of five rounds; `documents_per_s_range` is the lowest and highest.

    `tokens_per_s` counts computed tokens: the part of a query that all documents share is counted once.
    """

    model: str
    file: str
    device: str
    quantisation: str
    threads: int
    documents: int
    tokens_per_document: int
    load_s: float
    first_score_s: float
    documents_per_s: float
    documents_per_s_range: tuple[float, float]
    tokens_per_s: float
    memory: Memory
    matrices_gops: float  # 10^9 additions and multiplications per second in products with the model's matrices
    int8_peak_gops: float | None  # the same in a large int8 product alone; None unless the model runs in int8 on a CPU
    share_of_int8_peak: float | None
    kernels: str | None  # of the model's int8 products, in words; None like `int8_peak_gops`
    product_rates: ProductRates | None  # of small products on one core; None like `int8_peak_gops`
    predicted: tuple[Prediction, ...]


def measure(
    model: str | Path | None = None,
    *,
    documents: int | None = None,
    tokens: int | None = None,
    threads: int | None = None,
    device: Device = "auto",
) -> Measurement:
    """The speed and memory of a pointwise model on this machine.

    Loads `model` (a name of models.toml or a file; None: the embedded model), scores one document, then scores
    `documents` documents of `tokens` tokens each (query included) in six rounds, of which the first is not counted.
    Nothing else should run at the same time.

    `documents` defaults to the number scored in two seconds (at most 200), `tokens` to 140 or the model's maximum.
    Raises the errors of `Reranker.load`, and UsageError for a listwise model or if `tokens` does not fit the model.

        >>> measurement = measure("minilm-l12", threads=2)  # doctest: +SKIP
        >>> measurement.documents_per_s, measurement.memory.peak_rss_mb  # doctest: +SKIP
    """
    start = time.perf_counter()
    from dearlite.pointwise.gguf_reranker import GgufReranker
    from dearlite.pointwise.kernels import kernels_of, product_rates
    from dearlite.pointwise.reranker import PointwiseReranker
    from dearlite.reranker import Reranker

    reranker = Reranker.load(model, device=device, threads=threads)
    if not isinstance(reranker, PointwiseReranker):
        raise UsageError(f"{reranker.model} reads a list, and bench measures pointwise models: take another -m")
    if isinstance(reranker, GgufReranker):
        raise UsageError(f"{reranker.model} is a GGUF, and bench measures .dear files: take another -m")
    load_s = time.perf_counter() - start
    manifest = reranker.bundle.manifest
    corpus = _RandomCorpus(reranker, tokens)
    start = time.perf_counter()
    reranker.rerank(corpus.query, corpus.texts(1))
    first_score_s = time.perf_counter() - start
    if documents is None:
        documents = min(_MOST_DOCUMENTS, reranker.threads * max(1, int(_ROUND_S / first_score_s)))
    texts = corpus.texts(documents)
    build = reranker._onnx.build
    reranker.rerank(corpus.query, texts)
    memory = memory_now()  # before the large product below allocates memory
    peak = _Int8Peak(reranker.threads) if reranker.device == "cpu" and "int8" in build.quantisation else None
    rates, peaks = [], []
    for _ in range(_ROUNDS):  # in turn: other load on the machine slows both
        start = time.perf_counter()
        reranker.rerank(corpus.query, texts)
        rates.append(documents / (time.perf_counter() - start))
        if peak is not None:
            peaks.append(peak.gops())
    rate = statistics.median(rates)
    computed = corpus.computed_tokens(documents, shared=build.layout == "shared-prefix")
    gops = operations(manifest, build, computed, documents) / documents * rate / 1e9
    highest = statistics.median(peaks) if peaks else None
    return Measurement(
        model=reranker.model,
        file=str(reranker.bundle.path),
        device=reranker.device,
        quantisation=reranker.quantisation,
        threads=reranker.threads,
        documents=documents,
        tokens_per_document=corpus.tokens,
        load_s=load_s,
        first_score_s=first_score_s,
        documents_per_s=rate,
        documents_per_s_range=(min(rates), max(rates)),
        tokens_per_s=computed / documents * rate,
        memory=memory,
        matrices_gops=gops,
        int8_peak_gops=highest,
        share_of_int8_peak=None if highest is None else gops / highest,
        kernels=None if peak is None else kernels_of(reranker.bundle, build),
        product_rates=None if peak is None else product_rates(),
        predicted=tuple(_predict(count, load_s, rate, memory, len(texts[0])) for count in PREDICTED_DOCUMENTS),
    )


def operations(manifest: Manifest, build: Build, tokens: int, documents: int) -> float:
    """The number of additions and multiplications in products with the model's matrices, for `tokens` tokens.

    A matrix is a two-dimensional tensor that is no table of the embedding or of the rotation. The exporter's graphs run
    the last layer on one token per document, except for its keys and values. Attention itself is not counted.
    """
    matrices = {
        name: manifest.tensors[name].shape
        for name in build.tensors
        if len(manifest.tensors[name].shape) == 2 and not re.search(r"embed|table|rotary|\.scale$", name)
    }
    layers = [int(match[1]) for name in matrices if (match := re.match(r"layer\.(\d+)\.", name))]
    last = f"layer.{max(layers)}." if layers else "no layer"
    total = 0
    for name, (inputs, outputs) in matrices.items():
        per_document = name.startswith(last) and not re.search(r"qkv|kv", name)
        per_document |= bool(layers) and not name.startswith("layer.")  # the head, a pooler
        total += 2 * inputs * outputs * (documents if per_document else tokens)
    return total


def _predict(documents: int, load_s: float, rate: float, memory: Memory, characters: int) -> Prediction:
    """One call with `documents` documents of `characters` characters each, at `rate` documents per second."""
    more_mb = documents * (characters + _RECORD_BYTES) / 2**20
    peak = memory.peak_rss_mb
    return Prediction(documents, load_s + documents / rate, None if peak is None else peak + more_mb)


class _RandomCorpus:
    """A random query, and random documents that make pairs of exactly `tokens` tokens if the vocabulary allows it."""

    def __init__(self, reranker: PointwiseReranker, tokens: int | None) -> None:
        from dearlite.pointwise.prompting import prompt_of

        manifest, tokenizer = reranker.bundle.manifest, reranker.bundle.read("tokenizer.json")
        self._prompt = prompt_of(manifest.template or manifest.prompt, tokenizer, manifest.max_tokens)
        self._words = _vocabulary(json.loads(tokenizer))
        self._random = random.Random(0)
        self.query = " ".join(self._random.choices(self._words, k=_QUERY_WORDS))
        self._target = min(DEFAULT_TOKENS, manifest.max_tokens) if tokens is None else tokens
        least = self._row(self._words[0]).tokens_total
        if not least <= self._target <= manifest.max_tokens:
            raise UsageError(
                f"--tokens {self._target}: a pair of {reranker.model} has {least} (query and one word) to "
                f"{manifest.max_tokens} tokens"
            )
        row = self._row(self.texts(1)[0])
        self.tokens, self._prefix = row.tokens_used, row.prefix

    def texts(self, count: int) -> list[str]:
        return [self._text() for _ in range(count)]

    def computed_tokens(self, documents: int, *, shared: bool) -> int:
        """The tokens computed for `documents` documents; with `shared`, the query's part is computed once."""
        if shared:
            return self._prefix + documents * (self.tokens - self._prefix)
        return documents * self.tokens

    def _text(self) -> str:
        words = self._random.choices(self._words, k=self._target)
        count = self._target
        for _ in range(8):  # most words are one token: two steps usually reach the target
            missing = self._target - self._row(" ".join(words[:count])).tokens_total
            if not missing:
                break
            count = max(1, min(len(words), count + missing))
        return " ".join(words[:count])

    def _row(self, text: str) -> TokenRow:
        from dearlite.documents import as_document

        document = as_document(text, "a document of the benchmark")
        return next(self._prompt.rows(self._prompt.query(self.query), [document]))


def _vocabulary(tokenizer: dict[str, Any]) -> list[str]:
    """The ASCII words of a tokenizer.json; only those that begin a word, if the tokenizer marks these."""
    vocabulary = tokenizer["model"]["vocab"]
    pieces = list(vocabulary) if isinstance(vocabulary, dict) else [piece for piece, *_ in vocabulary]
    marked = [piece[1:] for piece in pieces if piece[:1] in ("Ġ", "▁")]
    return sorted({piece for piece in marked or pieces if piece.isascii() and piece.isalnum()}) or ["a"]


class _Int8Peak:
    """A large u8 x s8 product on each of the model's threads: the highest int8 rate that these cores reach."""

    def __init__(self, threads: int) -> None:
        import numpy as np

        from dearlite.pointwise.kernels import open_product

        rows, inputs, outputs = _PEAK_SHAPE
        # Small numbers, so that sums do not saturate and `gops` can check them; saturation does not change the speed.
        self._session = open_product(np.full((inputs, outputs), -2, np.int8))
        self._feeds = {"a": np.full((rows, inputs), 3, np.uint8)}
        self._threads = threads
        self.gops()

    def gops(self) -> float:
        """10^9 additions and multiplications per second, of all threads together."""
        start = time.perf_counter()
        with ThreadPoolExecutor(self._threads) as pool:
            sums = list(pool.map(lambda _: self._session.run(None, self._feeds)[0][0, 0], range(self._threads)))
        elapsed_s = time.perf_counter() - start
        rows, inputs, outputs = _PEAK_SHAPE
        assert all(value == -6 * inputs for value in sums)
        return 2 * rows * inputs * outputs * self._threads / elapsed_s / 1e9
