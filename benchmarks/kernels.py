"""Time per document by operator, on one thread: `python benchmarks/kernels.py [MODEL] [--documents N] [--rounds N]`.

Every document is scored in each round, and the shortest time of each node counts: other work on the machine disturbs
some rounds only.
"""

from __future__ import annotations

import argparse
import json
import os
from collections import Counter
from pathlib import Path

import onnxruntime as ort

from dearlite.export.quality.card import load_pairs
from dearlite.models.bundle import Bundle
from dearlite.models.registry import DEFAULT_MODEL, find_model
from dearlite.pointwise.tokens import PairEncoder

COLLECTION = Path(__file__).parents[1] / "export" / "data" / "noveleval"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default=DEFAULT_MODEL, help="a name or a .dear file")
    parser.add_argument("--documents", type=int, default=60, help="number of documents to score")
    parser.add_argument("--rounds", type=int, default=3, help="number of times that each is scored")
    options = parser.parse_args()
    bundle = Bundle(find_model(options.model))
    build = next(b for b in bundle.manifest.builds if b.layout == "one-document")
    encoder = PairEncoder(bundle.read("tokenizer.json"), max_tokens=bundle.manifest.max_tokens)
    session_options = ort.SessionOptions()
    session_options.intra_op_num_threads = 1
    session_options.enable_profiling = True
    session_options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    values = {name: ort.OrtValue.ortvalue_from_numpy(t) for name, t in bundle.tensors(build.tensors).items()}
    session_options.add_external_initializers(list(values), list(values.values()))
    session = ort.InferenceSession(bundle.read(build.graph), session_options, providers=["CPUExecutionProvider"])
    rows = load_pairs(COLLECTION, "run_bm25.trec").rows[: options.documents]
    pairs = [row for _, _, query, record in rows for row in encoder.pairs(encoder.ids(query), [record["text"]])]
    tokens = sum(row.tokens_used for row in pairs)
    for row in pairs * options.rounds:
        session.run(["score"], {"ids": row.ids, "types": row.types})
    log = session.end_profiling()
    events = json.loads(Path(log).read_text())
    os.remove(log)
    nodes = [event for event in events if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")]
    per_round = len(nodes) // options.rounds  # the same nodes in the same order
    time_by_operator: Counter[str] = Counter()
    for same in zip(*(nodes[start : start + per_round] for start in range(0, len(nodes), per_round)), strict=True):
        time_by_operator[same[0]["args"]["op_name"]] += min(node["dur"] for node in same)
    print(f"{bundle.manifest.name}, {build.graph}: {len(rows)} documents of {tokens / len(rows):.0f} tokens")
    for name, microseconds in time_by_operator.most_common():
        share = microseconds / sum(time_by_operator.values())
        print(f"{name:28} {microseconds / 1000 / len(rows):8.3f} ms per document {share:6.1%}")
    print(f"{'total':28} {sum(time_by_operator.values()) / 1000 / len(rows):8.3f} ms per document")


if __name__ == "__main__":
    main()
