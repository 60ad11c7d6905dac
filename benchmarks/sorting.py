"""Modes that sort or think beside `permute` and `first`: seconds, prompts, tokens read and written, on one list of 20.

    python benchmarks/sorting.py MODEL.gguf [--modes first rank1 ...] [--rounds 3] [--passage-tokens 60] [--sort-k 10]
        [--reasoning-tokens 64]

The list is that of NovelEval's query with the longest documents (the first stage's 20). A row is printed when its
rounds are over; figures are medians. Before each run of a mode the prompt of the whole window is read once, which gives
the rate that "over prefill" compares with: the seconds of a row over those of its tokens at this rate.
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
from dearlite.listwise.forms import writes_reasons
from dearlite.listwise.group_prompts import find_group_form
from dearlite.listwise.tokens import PromptEncoder
from dearlite.models.gguf import GgufFile
from dearlite.options import SORTS

_DATA = Path(__file__).parents[1] / "export" / "data" / "noveleval"
_WRITTEN = 8  # fewer tokens of a sequence in a call follow a text that the model writes; a prompt's part has more
_WAYS: dict[str, dict[str, Any]] = {
    "permute": {"mode": "permute"},
    "first": {"mode": "first"},
    "reasonrank": {"prompt": "reasonrank"},
    "rearank": {"prompt": "rearank"},
    "rankzephyr-think": {"prompt": "rankzephyr-think"},
    "rank1": {"prompt": "rank1"},
    "setwise-heap": {"mode": "setwise"},
    "setwise-bubble": {"mode": "setwise", "sort": "bubble"},
    "setwise-insertion": {"mode": "setwise", "sort": "insertion"},
    "setwise-sft-heap": {"mode": "setwise", "prompt": "setwise-sft"},
    "rank-r1-heap": {"mode": "setwise", "prompt": "rank-r1"},
    "pairwise-heap": {"mode": "pairwise"},
    "pairwise-sliding": {"mode": "pairwise", "sort": "sliding"},
}


def main() -> None:
    """Prints a Markdown table, then a description of the machine as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a .gguf file")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--passage-tokens", type=int, default=60)
    parser.add_argument("--group-size", type=int, default=4)
    parser.add_argument("--sort-k", type=int, default=10)
    parser.add_argument("--reasoning-tokens", type=int, default=64)
    parser.add_argument("--modes", nargs="+", choices=list(_WAYS), default=list(_WAYS), metavar="MODE")
    args = parser.parse_args()
    reranker: Any = Reranker.load(args.model)
    query, documents = _longest_list()
    count, rates = _Count(reranker), list[float]()
    print("| mode | s | prompts | their tokens | tokens read | written | over prefill |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for name in args.modes:
        listwise = _listwise(name, args)
        prefills, runs, tokens = list[float](), list[float](), dict[str, int]()
        for number in range(args.rounds + 1):  # the first round is the warm-up
            count.reset()
            start = time.perf_counter()
            _prefill(reranker, query, documents, args.passage_tokens)
            middle, prefill = time.perf_counter(), count.tokens["read"]
            count.reset()
            reranker.rerank(query, documents, listwise=listwise)
            if number:
                prefills.append((middle - start) / prefill)
                runs.append(time.perf_counter() - middle)
                tokens = dict(count.tokens)
        rates.append(1 / statistics.median(prefills))
        seconds = statistics.median(runs)
        share = seconds / ((tokens["read"] + tokens["written"]) / rates[-1])
        shown = " | ".join(f"{tokens[key]:,}" for key in ("prompts", "whole", "read", "written"))
        print(f"| {name} | {seconds:.2f} | {shown} | {share:.2f} |", flush=True)
    rate = round(statistics.median(rates), 1)
    facts = {"sha256": GgufFile(args.model).sha256(), "threads": reranker.threads, "tokens/s": rate}
    print(json.dumps(facts | {"machine": describe_machine()}))


def _listwise(name: str, args: argparse.Namespace) -> Listwise:
    way = _WAYS[name]
    form = find_group_form(Listwise(**way))[0] if way.get("mode") in SORTS else way.get("prompt")
    sorts = {"sort_k": args.sort_k} if way.get("mode") in SORTS else {}
    groups = {"group_size": args.group_size} if way.get("mode") == "setwise" else {}
    thinks = {"reasoning_tokens": args.reasoning_tokens} if writes_reasons(way.get("mode"), form) else {}
    return Listwise(passage_tokens=args.passage_tokens, **(sorts | groups | thinks | way))


class _Count:
    """Counts the tokens of a reranker's calls, and the prompts of its comparisons with their tokens."""

    def __init__(self, reranker: Any) -> None:
        self.tokens: dict[str, int] = {}
        self.reset()
        read, encode = reranker._backend.read, PromptEncoder.encode

        def counted_read(batch: Any, *args: Any, **options: Any) -> None:
            for ids in batch.values():
                self.tokens["read" if len(ids) >= _WRITTEN else "written"] += len(ids)
            read(batch, *args, **options)

        def counted_encode(encoder: PromptEncoder, *args: Any, **options: Any) -> Any:
            prompt = encode(encoder, *args, **options)
            self.tokens["prompts"] += 1  # a mode that sorts encodes the longest prompt once more, for its length
            self.tokens["whole"] += len(prompt.ids)
            return prompt

        reranker._backend.read = counted_read
        PromptEncoder.encode = counted_encode  # type: ignore[method-assign]

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
