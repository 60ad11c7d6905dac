"""What a model does on this machine: seconds to load, documents a second, memory, and how near it comes to the limit.

The documents are made of the model's own vocabulary, so that any model can be measured without data.
"""

from __future__ import annotations

import json
import random
import re
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dearlite.errors import UsageError
from dearlite.machine import Memory, memory_now

if TYPE_CHECKING:
    from dearlite.models.manifest import Build, Manifest
    from dearlite.pointwise.reranker import PointwiseReranker
    from dearlite.pointwise.tokens import TokenRow

DEFAULT_TOKENS = 140
PREDICTED_DOCUMENTS = (100, 10_000)
_ROUNDS = 5
_ROUND_S = 2.0  # about what a round takes where the number of documents is not given
_MOST_DOCUMENTS = 200
_QUERY_WORDS = 12
_RECORD_BYTES = 1000  # of a document and its hit, beside its text
_PEAK_SHAPE = (1024, 8192, 3072)  # rows, inputs, outputs; the latter two stand in data/u8s8_product.onnx


@dataclass(frozen=True, slots=True)
class Measurement:
    """What `measure` found. Rates are medians of five rounds; `documents_per_s_range` has the lowest and the highest.

    `tokens_per_s` counts the tokens that were computed: a query's part that its documents share is counted once.
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
    matrices_gops: float  # 10^9 additions and multiplications a second, in products with the model's matrices
    int8_peak_gops: float | None  # the same in a large int8 product alone; None where nothing runs in int8
    share_of_int8_peak: float | None
    predicted: tuple[dict[str, float | None], ...]


def measure(
    model: str | Path | None = None,
    *,
    documents: int | None = None,
    tokens: int | None = None,
    threads: int | None = None,
    device: str = "auto",
) -> Measurement:
    """Loads `model`, scores one document, then `documents` of `tokens` tokens (query included), six times.

    `documents` is as many as take two seconds, and `tokens` 140 or the model's most, where they are not given. The
    first of the six rounds is not counted. Raises what `Reranker.load` raises, and UsageError for unfit `tokens`.
    """
    start = time.perf_counter()
    from dearlite.pointwise.reranker import PointwiseReranker
    from dearlite.reranker import Reranker

    reranker = Reranker.load(model, device=device, threads=threads)
    if not isinstance(reranker, PointwiseReranker):
        raise UsageError(f"{reranker.model} is a listwise model: bench measures pointwise ones")
    load_s = time.perf_counter() - start
    manifest = reranker.bundle.manifest
    corpus = _Corpus(reranker, tokens)
    start = time.perf_counter()
    reranker.rerank(corpus.query, corpus.texts(1))
    first_score_s = time.perf_counter() - start
    if documents is None:
        documents = min(_MOST_DOCUMENTS, reranker.threads * max(1, int(_ROUND_S / first_score_s)))
    texts = corpus.texts(documents)
    build = next(b for b in manifest.builds if (b.device, b.quantisation) == (reranker.device, reranker.quantisation))
    reranker.rerank(corpus.query, texts)
    memory = memory_now()  # before the large product below has memory of its own
    peak = _Int8Peak(reranker.threads) if reranker.device == "cpu" and "int8" in build.quantisation else None
    rates, peaks = [], []
    for _ in range(_ROUNDS):  # side by side: a busy machine slows both
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
        predicted=tuple(_predict(n, load_s, rate, memory, len(texts[0])) for n in PREDICTED_DOCUMENTS),
    )


def operations(manifest: Manifest, build: Build, tokens: int, documents: int) -> float:
    """Additions and multiplications in the products of `tokens` tokens with the model's matrices.

    A matrix is a tensor of two sides that is no table of the embedding or of the rotation. The exporter's graphs run
    the last layer on one token a document, but for its keys and values; attention itself is not counted.
    """
    matrices = {
        name: manifest.tensors[name].shape
        for name in build.tensors
        if len(manifest.tensors[name].shape) == 2 and not re.search(r"embed|table|rotary|\.scale$", name)
    }
    layers = [int(found[1]) for name in matrices if (found := re.match(r"layer\.(\d+)\.", name))]
    last = f"layer.{max(layers)}." if layers else "no layer"
    total = 0
    for name, (inputs, outputs) in matrices.items():
        per_document = name.startswith(last) and not re.search(r"qkv|kv", name)
        per_document |= bool(layers) and not name.startswith("layer.")  # the head, a pooler
        total += 2 * inputs * outputs * (documents if per_document else tokens)
    return total


def _predict(documents: int, load_s: float, rate: float, memory: Memory, characters: int) -> dict[str, float | None]:
    """One call for so many documents of the measured length, loading included."""
    more_mb = documents * (characters + _RECORD_BYTES) / 2**20
    peak = memory.peak_rss_mb
    return {
        "documents": documents,
        "seconds": load_s + documents / rate,
        "memory_mb": None if peak is None else peak + more_mb,
    }


class _Corpus:
    """A query, and documents that fill a pair to exactly `tokens` tokens where the vocabulary allows it."""

    def __init__(self, reranker: PointwiseReranker, tokens: int | None) -> None:
        from dearlite.pointwise.prompts import PAIR_FORMS
        from dearlite.pointwise.tokens import PairEncoder

        manifest, tokenizer = reranker.bundle.manifest, reranker.bundle.read("tokenizer.json")
        self._form = PAIR_FORMS[manifest.prompt]
        self._encoder = PairEncoder(tokenizer, max_tokens=manifest.max_tokens)
        self._words = _vocabulary(json.loads(tokenizer))
        self._random = random.Random(0)
        self.query = " ".join(self._random.choices(self._words, k=_QUERY_WORDS))
        self._wanted = min(DEFAULT_TOKENS, manifest.max_tokens) if tokens is None else tokens
        least = self._row(self._words[0]).tokens_total
        if not least <= self._wanted <= manifest.max_tokens:
            raise UsageError(
                f"--tokens {self._wanted}: a pair of {reranker.model} has {least} (query and one word) to "
                f"{manifest.max_tokens} tokens"
            )
        row = self._row(self.texts(1)[0])
        self.tokens, self._prefix = row.tokens_used, row.prefix

    def texts(self, count: int) -> list[str]:
        return [self._text() for _ in range(count)]

    def computed_tokens(self, documents: int, *, shared: bool) -> int:
        return documents * self.tokens - (documents - 1) * self._prefix * shared

    def _text(self) -> str:
        words = self._random.choices(self._words, k=self._wanted)
        count = self._wanted
        for _ in range(8):  # most words are one token: this is exact after two steps
            missing = self._wanted - self._row(" ".join(words[:count])).tokens_total
            if not missing:
                break
            count = max(1, min(len(words), count + missing))
        return " ".join(words[:count])

    def _row(self, text: str) -> TokenRow:
        from dearlite.documents import as_document

        query = self._encoder.ids(self._form.query(self.query))
        document = as_document(text, "a document of the benchmark")
        return next(self._encoder.pairs(query, [self._form.document(document)]))


def _vocabulary(tokenizer: dict[str, Any]) -> list[str]:
    """The words of a tokenizer.json, those that begin a word where they are marked."""
    vocabulary = tokenizer["model"]["vocab"]
    pieces = list(vocabulary) if isinstance(vocabulary, dict) else [piece for piece, *_ in vocabulary]
    marked = [piece[1:] for piece in pieces if piece[:1] in ("Ġ", "▁")]
    return sorted({piece for piece in marked or pieces if piece.isascii() and piece.isalnum()}) or ["a"]


class _Int8Peak:
    """A large u8 x s8 product in as many threads as the model has: what these cores can do at most."""

    def __init__(self, threads: int) -> None:
        import numpy as np

        from dearlite.pointwise.onnxruntime import PROVIDERS, onnxruntime

        ort = onnxruntime()
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        graph = resources.files("dearlite").joinpath("data/u8s8_product.onnx").read_bytes()
        rows, inputs, outputs = _PEAK_SHAPE
        # Small numbers: a product whose sums saturate takes as long.
        weights = ort.OrtValue.ortvalue_from_numpy(np.full((inputs, outputs), -2, np.int8))
        options.add_external_initializers(["b"], [weights])
        self._session = ort.InferenceSession(graph, options, providers=[PROVIDERS["cpu"]])
        self._feeds = {"a": np.full((rows, inputs), 3, np.uint8)}
        self._threads = threads
        self.gops()

    def gops(self) -> float:
        """10^9 additions and multiplications a second, of all threads together."""
        start = time.perf_counter()
        with ThreadPoolExecutor(self._threads) as pool:
            found = list(pool.map(lambda _: self._session.run(None, self._feeds)[0][0, 0], range(self._threads)))
        elapsed_s = time.perf_counter() - start
        rows, inputs, outputs = _PEAK_SHAPE
        assert all(value == -6 * inputs for value in found)
        return 2 * rows * inputs * outputs * self._threads / elapsed_s / 1e9
