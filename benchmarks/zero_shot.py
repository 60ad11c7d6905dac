"""An instruct model as a zero-shot reranker: its prompts and engines beside transformers in fp32, as a Markdown table.

    python benchmarks/zero_shot.py SmolLM2-135M-Instruct.Q4_1.gguf WORK [COLLECTION] [--queries 8] [--threads 2]

The first table has each engine on the first `--queries`, the second nDCG@10 of the GGUF over all. WORK gets the weights
that transformers unpacks from the GGUF, their exports, and the scores, which a second run reads again. COLLECTION
(default: the package's NovelEval) holds corpus.jsonl.gz, queries.jsonl, qrels.tsv and a TREC run.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from dearlite import Reranker
from dearlite.documents import as_document
from dearlite.export import export
from dearlite.export.quality.card import Pairs, compare_scores, load_pairs
from dearlite.export.train.base import unpack_base

QUANTS = ("fp32", "int8", "int8-accurate", "fp16")  # of yes-no in a .dear file
PROMPTS = ("yes-no", "upr", "query-likelihood")  # of GGUF files
NOVELEVAL = Path(__file__).parents[1] / "export" / "data" / "noveleval"
_SHOW = "| {:<16} | {:<24} | {:>8.4f} | {:>8.4f} | {:>8.3f} | {:>6.3f} | {:>7.4f} |"


def rows_of(reranker: Any, pairs: Pairs) -> Iterator[Any]:
    """The token rows of a reranker's prompts."""
    for _, identifier, query, record in pairs.rows:
        yield from reranker._prompt.rows(reranker._prompt.query(query), [as_document(record, identifier)])


@torch.inference_mode()
def torch_scores(model: Any, reranker: Any, pairs: Pairs) -> list[float]:
    """The scores by transformers of the prompts of `reranker`, a GGUF: one at a time, in fp32."""
    reading, scores = reranker._settings.reading, []
    for row in rows_of(reranker, pairs):
        logits = model(input_ids=torch.from_numpy(row.ids)[None], logits_to_keep=row.closing + 1).logits[0].double()
        if reading.likelihood:
            table = torch.log_softmax(logits, -1)[:-1]
            query = torch.from_numpy(row.ids[-row.closing :])
            scores.append(float(table.gather(1, query[:, None]).sum()))
        else:
            yes, no = reading.tokens
            scores.append(float(logits[-1, yes] - logits[-1, no]))
    return scores


def library_scores(reranker: Reranker, pairs: Pairs) -> list[float]:
    return reranker.score([(query, record) for _, _, query, record in pairs.rows])


def first_queries(pairs: Pairs, count: int) -> Pairs:
    """The pairs of the first `count` queries."""
    positions = [position for group in list(pairs.by_query().values())[:count] for position in group]
    return Pairs(f"{pairs.name}, first {count} queries", tuple(pairs.rows[i] for i in positions), pairs.grades)


def spread_within(pairs: Pairs, scores: Sequence[float]) -> float:
    """The mean over the queries of the standard deviation of their documents' scores."""
    return fmean(pstdev(scores[i] for i in positions) for positions in pairs.by_query().values())


@dataclass(frozen=True, slots=True)
class Known:
    """The scores that were measured, in a file: one entry for each engine, prompt and number of pairs."""

    path: Path

    def scores(self, prompt: str, engine: str, pairs: Pairs, compute: Callable[[], list[float]]) -> list[float]:
        table: dict[str, list[float]] = json.loads(self.path.read_text()) if self.path.exists() else {}
        name = f"{prompt}, {engine}, {len(pairs.rows)} pairs"
        if name not in table:
            start = time.perf_counter()
            table[name] = compute()
            self.path.write_text(json.dumps(table))
            print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
        return table[name]


def make_files(base: Path, work: Path) -> dict[str, tuple[Path, str | None]]:
    """The exports of the unpacked weights by engine, with the prompt that is named for each; missing ones are made."""
    files: dict[str, tuple[Path, str | None]] = {}
    for quant in QUANTS:
        path = work / f"yes-no-{quant}.dear"
        if not path.exists():
            export(base, output=path, quant=quant, prompt="yes-no", card=False)
        files[f"ONNX Runtime, {quant}"] = path, None
    half = work / "f16.gguf"
    if not half.exists():
        export(base, output=half, quant="f16", card=False)
    return files | {"llama.cpp, f16": (half, "yes-no")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gguf", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("collection", type=Path, nargs="?", default=NOVELEVAL)
    parser.add_argument("--run", default="run_bm25.trec")
    parser.add_argument("--queries", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    every = load_pairs(options.collection, options.run)
    base = Path(unpack_base(str(options.gguf), options.work))
    files = make_files(base, options.work) | {f"llama.cpp, {options.gguf.name}": (options.gguf, "yes-no")}
    known, load = Known(options.work / "scores.json"), partial(Reranker.load, threads=options.threads)
    compare_engines(known, files, load, base, first_queries(every, options.queries))
    first = [-float(rank) for rank in range(len(every.rows))]
    print(f"{every.name}, {len(every.rows)} pairs: nDCG@10 of the run {compare_scores(every, first, first)['ndcg10']}")
    for prompt in PROMPTS:
        reranker = load(options.gguf, prompt=prompt)
        values = known.scores(prompt, options.gguf.name, every, partial(library_scores, reranker, every))
        print(f"{prompt}: nDCG@10 {compare_scores(every, values, values)['ndcg10']}", flush=True)


def compare_engines(
    known: Known, files: dict[str, tuple[Path, str | None]], load: Callable[..., Reranker], base: Path, pairs: Pairs
) -> None:
    """Prints a row for each prompt and engine."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    print(f"{pairs.name}, {len(pairs.rows)} pairs", flush=True)
    print("| prompt | engine | mean difference | largest | spread | tau | nDCG@10 |\n|---|---|---|---|---|---|---|")
    for prompt in PROMPTS:
        words = load(next(reversed(files.values()))[0], prompt=prompt)
        reference = known.scores(prompt, "transformers", pairs, partial(torch_scores, model, words, pairs))
        rows = {"transformers, fp32": reference}
        for engine, (path, named) in files.items():
            if named is None and prompt != "yes-no":
                continue
            reranker = load(path, prompt=None if named is None else prompt)
            if named is None:
                both = zip(rows_of(reranker, pairs), rows_of(words, pairs), strict=True)
                same = [np.array_equal(ours.ids, theirs.ids) for ours, theirs in both]
                print(f"{engine}: {sum(same)} of {len(same)} prompts have the ids of the GGUF's vocabulary")
            rows[engine] = known.scores(prompt, path.name, pairs, partial(library_scores, reranker, pairs))
            reranker.close()
        for engine, values in rows.items():
            card, errors = compare_scores(pairs, reference, values), np.abs(np.subtract(values, reference))
            spread, tau = spread_within(pairs, values), card["kendall_tau"]
            print(_SHOW.format(prompt, engine, errors.mean(), errors.max(), spread, tau, card["ndcg10"]), flush=True)


if __name__ == "__main__":
    main()
