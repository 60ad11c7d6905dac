"""Modes that sort beside `permute` and `first`: seconds, comparisons, tokens read and written, on one list of 20.

    python benchmarks/sorting.py MODEL.gguf [--rounds 3] [--passage-tokens 60] [--sort-k 10] [--reasoning-tokens 64]

The list is that of NovelEval's query with the longest documents (the first stage's 20). Rows run in turn in each round;
figures are medians. "prefill" reads the prompt of the whole window once and gives the rate that "over prefill" compares
with: the seconds of a row over those of its tokens at this rate.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

from measure import describe_machine

from dearlite import Listwise, Reranker
from dearlite.documents import as_document
from dearlite.export.quality.card import load_pairs
from dearlite.listwise.decoding import Step
from dearlite.listwise.groups import GroupEncoder
from dearlite.models.gguf import GgufFile

_DATA = Path(__file__).parents[1] / "export" / "data" / "noveleval"
_WRITTEN = 8  # a call of fewer tokens follows a text that the model writes; a prompt's part has more


def main() -> None:
    """Prints a Markdown table, then a description of the machine as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a .gguf file")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--passage-tokens", type=int, default=60)
    parser.add_argument("--group-size", type=int, default=4)
    parser.add_argument("--sort-k", type=int, default=10)
    parser.add_argument("--reasoning-tokens", type=int, default=64)
    args = parser.parse_args()
    reranker: Any = Reranker.load(args.model)
    query, documents = _longest_list()
    setwise: dict[str, Any] = {"mode": "setwise", "sort_k": args.sort_k, "group_size": args.group_size}
    pairwise: dict[str, Any] = {"mode": "pairwise", "sort_k": args.sort_k}
    ways: dict[str, dict[str, Any]] = {
        "permute": {},
        "first": {"mode": "first"},
        "setwise heap": setwise,
        "setwise bubble": setwise | {"sort": "bubble"},
        "setwise insertion": setwise | {"sort": "insertion"},
        "setwise-sft heap": setwise | {"prompt": "setwise-sft"},
        "rank-r1 heap": setwise | {"prompt": "rank-r1", "reasoning_tokens": args.reasoning_tokens},
        "pairwise heap": pairwise,
        "pairwise sliding": pairwise | {"sort": "sliding"},
    }
    count = _Count(reranker)
    rows: dict[str, list[tuple[float, dict[str, int]]]] = {name: [] for name in ("prefill", *ways)}
    for number in range(args.rounds + 1):
        for name, runs in rows.items():
            count.reset()
            start = time.perf_counter()
            if name == "prefill":
                _prefill(reranker, query, documents, args.passage_tokens)
            else:
                listwise = Listwise(passage_tokens=args.passage_tokens, **ways[name])
                reranker.rerank(query, documents, listwise=listwise)
            if number:  # the first round is the warm-up
                runs.append((time.perf_counter() - start, dict(count.tokens)))
    medians = {name: statistics.median(seconds for seconds, _ in values) for name, values in rows.items()}
    rate = rows["prefill"][0][1]["read"] / medians["prefill"]
    print("| mode | s | prompts | their tokens | tokens read | written | over prefill |")
    print("|---|---|---|---|---|---|---|")
    for name, values in rows.items():
        tokens = values[0][1]
        shown = (tokens["prompts"] or 1, tokens["whole"] or tokens["read"], tokens["read"], tokens["written"])
        share = medians[name] / ((tokens["read"] + tokens["written"]) / rate)
        print(f"| {name} | {medians[name]:.2f} | {' | '.join(f'{value:,}' for value in shown)} | {share:.2f} |")
    facts = {"sha256": GgufFile(args.model).sha256(), "threads": reranker.threads, "tokens/s": round(rate, 1)}
    print(json.dumps(facts | {"machine": describe_machine()}))


class _Count:
    """Counts the tokens of a reranker's calls, and the prompts of its comparisons with their tokens."""

    def __init__(self, reranker: Any) -> None:
        self.tokens: dict[str, int] = {}
        self.reset()
        read, compare = reranker._backend.read, GroupEncoder.compare

        def counted_read(batch: Any, *args: Any, **options: Any) -> None:
            size = sum(map(len, batch.values()))
            self.tokens["read" if size >= _WRITTEN else "written"] += size
            read(batch, *args, **options)

        def counted_compare(encoder: GroupEncoder, *args: Any) -> Any:
            prompt = compare(encoder, *args)
            self.tokens["prompts"] += 1  # the longest prompt is encoded once more, for its length
            self.tokens["whole"] += len(prompt.ids)
            return prompt

        reranker._backend.read = counted_read
        GroupEncoder.compare = counted_compare  # type: ignore[method-assign]

    def reset(self) -> None:
        self.tokens.update(dict.fromkeys(("read", "written", "prompts", "whole"), 0))


def _longest_list() -> tuple[str, list[Any]]:
    pairs = load_pairs(_DATA, "run_bm25.trec")
    groups = [indices[:20] for indices in pairs.by_query().values()]
    indices = max(groups, key=lambda group: sum(len(pairs.rows[i][3]["text"]) for i in group))
    return pairs.rows[indices[0]][2], [pairs.rows[i][3] for i in indices]


def _prefill(reranker: Any, query: str, documents: list[Any], passage_tokens: int) -> None:
    encoder = reranker._encoders.find(Listwise(mode="permute", prompt="chat"))[1]
    passages = [encoder.passage(as_document(document, "a document"), passage_tokens) for document in documents]
    prompt = encoder.encode(query, passages, room=reranker._most_tokens - 600, reasoned=False, opened=True).ids

    def reading() -> Any:
        yield Step(prompt)

    reranker._backend.run([reading()], len(prompt) + 8)


if __name__ == "__main__":
    main()
