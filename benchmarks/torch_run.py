"""Scores a collection with a trained adapter in torch: the reference run of its exported file, or a trial's agreement.

    python benchmarks/torch_run.py BASE ADAPTER COLLECTION -o torch.trec [--run FILE] [--max-tokens 512]
    dearlite eval COLLECTION -m exported.dear --baseline torch.trec

    python benchmarks/torch_run.py BASE ADAPTER COLLECTION -o torch.trec --bf16 --depth 20 --queries 50 \
        --without squad_2.jsonl.gz --without squad_5.jsonl.gz --teacher minilm-l12

Texts are encoded by the export's prompt form and tokenizer, one pair at a time, so that padding has no effect.
COLLECTION is as for `dearlite eval`. `--queries N` draws N queries by a seed, without those in the training records
named by `--without`. `--teacher` prints the mean over queries of Kendall's tau-b to a model's scores.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from pathlib import Path

import torch
from peft import PeftModel
from scipy.stats import kendalltau
from transformers import AutoModelForSequenceClassification

from dearlite import rerank_run
from dearlite.export.train.base import load_tokenizer
from dearlite.export.train.records.groups import read_groups
from dearlite.files.trec import Run, run_line
from dearlite.offline.collection.collection import Collection, make_collection, open_collection
from dearlite.pointwise.prompts import PAIR_FORMS
from dearlite.pointwise.tokens import PairEncoder
from dearlite.scores import rank_order


def draw_queries(collection: Collection, count: int | None, without: list[Path], seed: int = 5) -> Collection:
    """`collection` with `count` random queries (None: all) of those that are in no record of `without`."""
    excluded = {group.query_id for group in (read_groups(without)[0] if without else ())}
    names = [name for name in collection.run if name not in excluded]
    if count is not None:
        names = random.Random(seed).sample(names, count)
    return make_collection(collection.queries, collection.documents, {name: collection.run[name] for name in names})


def score(options: argparse.Namespace, collection: Collection) -> dict[str, dict[str, float]]:
    """The model's logits, in fp32 or under bf16 autocast, by query and document."""
    encoder = PairEncoder(
        load_tokenizer(options.base).backend_tokenizer.to_str().encode(), max_tokens=options.max_tokens
    )
    form = PAIR_FORMS[options.prompt]
    base = AutoModelForSequenceClassification.from_pretrained(options.base, num_labels=1, dtype=torch.float32)
    base.config.pad_token_id = 0  # no row has padding
    model = PeftModel.from_pretrained(base, options.adapter).eval()
    run = {}
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=options.bf16):
        for name, first in collection.run.items():
            query = encoder.ids(form.query(collection.queries[name]))
            documents = [form.document(collection.documents[doc_id]) for doc_id in first]
            rows = [torch.from_numpy(row.ids)[None] for row in encoder.pairs(query, documents)]
            scores = [float(model(input_ids=row, attention_mask=torch.ones_like(row)).logits[0, 0]) for row in rows]
            run[name] = dict(zip(first, scores, strict=True))
    return run


def taus(run: Run, teacher: Run) -> dict[str, float]:
    """Kendall's tau-b between two runs' scores of the same documents, for each query with two documents or more."""
    return {
        name: float(kendalltau(list(scores.values()), [teacher[name][doc_id] for doc_id in scores]).statistic)
        for name, scores in run.items()
        if len(scores) > 1
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base")
    parser.add_argument("adapter")
    parser.add_argument("collection", type=Path)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--depth", type=int, default=100)
    parser.add_argument("--queries", type=int, help="number of queries, drawn by a seed (default: all)")
    parser.add_argument("--without", type=Path, action="append", default=[], help="training records to exclude")
    parser.add_argument("--teacher", help="a name or a model file")
    parser.add_argument("--bf16", action="store_true", help="compute under bf16 autocast")
    parser.add_argument("--max-tokens", type=int, default=512)
    parser.add_argument("--prompt", default="dear", choices=list(PAIR_FORMS))
    parser.add_argument("-o", "--output", type=Path, required=True, help="the run, in TREC format")
    options = parser.parse_args()
    collection = draw_queries(
        open_collection(options.collection, run=options.run, depth=options.depth), options.queries, options.without
    )
    start = time.perf_counter()
    run, lines = score(options, collection), []
    for name, scores in run.items():
        names, values = list(scores), list(scores.values())
        for rank, index in enumerate(rank_order(values), start=1):
            lines.append(run_line(name, names[index], rank, values[index], "torch"))
    options.output.write_text("".join(lines), encoding="utf-8")
    print(f"{collection.pairs} pairs in {time.perf_counter() - start:.0f} s")
    if options.teacher:
        teacher = rerank_run(collection, model=options.teacher, journal=False)
        agreement = taus(run, teacher.run)
        print(
            f"Kendall's tau to {options.teacher}: {statistics.mean(agreement.values()):.4f}, {len(agreement)} queries"
        )


if __name__ == "__main__":
    main()
