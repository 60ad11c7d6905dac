"""A trained adapter on its base in torch: the run that its exported file is to match, or how near a trial came.

    python benchmarks/torch_run.py BASE ADAPTER COLLECTION -o torch.trec [--run FILE] [--max-tokens 512]
    dearlite eval COLLECTION -m exported.dear --baseline torch.trec

    python benchmarks/torch_run.py BASE ADAPTER COLLECTION -o torch.trec --bf16 --depth 20 --queries 50 \
        --without squad_2.jsonl.gz --without squad_5.jsonl.gz --teacher minilm-l12

The texts go through the prompt form and the tokenizer of the export, a pair at a time, so that no padding has a part in
it. COLLECTION is as `dearlite eval` takes it. `--queries` draws so many by a seed, none that a file of training records
given by `--without` has; `--teacher` prints Kendall's tau-b to a model's scores, the mean over queries.
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
from dearlite.ranking import rank_order


def drawn(collection: Collection, count: int | None, without: list[Path], seed: int = 5) -> Collection:
    """`count` of the queries that no record has, all where it is None."""
    seen = {group.query_id for group in (read_groups(without)[0] if without else ())}
    names = [name for name in collection.run if name not in seen]
    if count is not None:
        names = random.Random(seed).sample(names, count)
    return make_collection(collection.queries, collection.documents, {name: collection.run[name] for name in names})


def score(given: argparse.Namespace, collection: Collection) -> dict[str, dict[str, float]]:
    """The model's logits, in fp32 or under bf16 autocast, by query and document."""
    encoder = PairEncoder(load_tokenizer(given.base).backend_tokenizer.to_str().encode(), max_tokens=given.max_tokens)
    form = PAIR_FORMS[given.prompt]
    base = AutoModelForSequenceClassification.from_pretrained(given.base, num_labels=1, dtype=torch.float32)
    base.config.pad_token_id = 0  # no row has padding
    model = PeftModel.from_pretrained(base, given.adapter).eval()
    found = {}
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=given.bf16):
        for name, first in collection.run.items():
            query = encoder.ids(form.query(collection.queries[name]))
            documents = [form.document(collection.documents[one]) for one in first]
            rows = [torch.from_numpy(row.ids)[None] for row in encoder.pairs(query, documents)]
            scores = [float(model(input_ids=row, attention_mask=torch.ones_like(row)).logits[0, 0]) for row in rows]
            found[name] = dict(zip(first, scores, strict=True))
    return found


def taus(ours: Run, teacher: Run) -> dict[str, float]:
    """Kendall's tau-b between two scores of the same documents, of each query with two or more."""
    return {
        name: float(kendalltau(list(scores.values()), [teacher[name][one] for one in scores]).statistic)
        for name, scores in ours.items()
        if len(scores) > 1
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base")
    parser.add_argument("adapter")
    parser.add_argument("collection", type=Path)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--depth", type=int, default=100)
    parser.add_argument("--queries", type=int)
    parser.add_argument("--without", type=Path, action="append", default=[])
    parser.add_argument("--teacher")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--max-tokens", type=int, default=512)
    parser.add_argument("--prompt", default="dear", choices=list(PAIR_FORMS))
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args()
    collection = drawn(
        open_collection(given.collection, run=given.run, depth=given.depth), given.queries, given.without
    )
    start = time.perf_counter()
    found, lines = score(given, collection), []
    for name, scores in found.items():
        names, values = list(scores), list(scores.values())
        for rank, place in enumerate(rank_order(values), start=1):
            lines.append(run_line(name, names[place], rank, values[place], "torch"))
    given.output.write_text("".join(lines), encoding="utf-8")
    print(f"{collection.pairs} pairs in {time.perf_counter() - start:.0f} s")
    if given.teacher:
        taught = rerank_run(collection, model=given.teacher, journal=False)
        each = taus(found, taught.run)
        print(f"Kendall's tau to {given.teacher}: {statistics.mean(each.values()):.4f}, {len(each)} queries")


if __name__ == "__main__":
    main()
