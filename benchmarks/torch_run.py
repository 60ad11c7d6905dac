"""A trained adapter on its base in torch, fp32: the run that its exported file is to match.

    python benchmarks/torch_run.py BASE ADAPTER COLLECTION -o torch.trec [--run FILE] [--max-tokens 512]
    dearlite eval COLLECTION -m exported.dear --baseline torch.trec

The texts go through the prompt form and the tokenizer of the export, a pair at a time, so that no padding has a part in
it. COLLECTION is as `dearlite eval` takes it.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification

from dearlite.export.train_base import load_tokenizer
from dearlite.offline.collection import open_collection
from dearlite.offline.trec import run_line
from dearlite.prompts import PAIR_FORMS
from dearlite.ranking import rank_order
from dearlite.tokens import PairEncoder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base")
    parser.add_argument("adapter")
    parser.add_argument("collection", type=Path)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--max-tokens", type=int, default=512)
    parser.add_argument("--prompt", default="dear", choices=list(PAIR_FORMS))
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args()
    encoder = PairEncoder(load_tokenizer(given.base).backend_tokenizer.to_str().encode(), max_tokens=given.max_tokens)
    form = PAIR_FORMS[given.prompt]
    base = AutoModelForSequenceClassification.from_pretrained(given.base, num_labels=1, dtype=torch.float32)
    base.config.pad_token_id = encoder.ids("")[0] if encoder.ids("") else 0  # no row has padding
    model = PeftModel.from_pretrained(base, given.adapter).eval()
    collection = open_collection(given.collection, run=given.run)
    start, lines = time.perf_counter(), []
    with torch.inference_mode():
        for name, found in collection.run.items():
            query = encoder.ids(form.query(collection.queries[name]))
            documents = [form.document(collection.documents[one]) for one in found]
            rows = [torch.from_numpy(row.ids)[None] for row in encoder.pairs(query, documents)]
            scores = [float(model(input_ids=row, attention_mask=torch.ones_like(row)).logits[0, 0]) for row in rows]
            for rank, place in enumerate(rank_order(scores), start=1):
                lines.append(run_line(name, list(found)[place], rank, scores[place], "torch"))
    given.output.write_text("".join(lines), encoding="utf-8")
    print(f"{collection.pairs} pairs in {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
