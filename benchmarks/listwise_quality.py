"""nDCG@10 and seconds per query of a listwise model's modes on a first stage's run, as a Markdown table.

    python benchmarks/listwise_quality.py MODEL FOLDER [--run run_bm25.trec] [--mode permute ...]
        [--prompt reasonrank ...] [--passage-tokens 60 ...] [--reasoning-tokens 256] [--depth 20]
        [--passes 1] [--queries N]

FOLDER holds corpus.jsonl.gz, queries.jsonl, qrels.tsv and a TREC run. --passage-tokens 0 is the prompt form's own
limit. Each prompt form of --prompt is a row, in the mode that it is made for, after those of --mode. --passes reports
the mean agreement of the passes: how much a mode depends on the order of its input. --queries takes the first N.
MODEL is a .gguf file, or the .dear file of an attention reranker, which has one row.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import ir_measures
from ir_measures import Qrel, ScoredDoc, nDCG

from dearlite import Listwise, Reranker
from dearlite.attention.reranker import AttentionReranker
from dearlite.export.quality.card import Pairs, load_pairs
from dearlite.listwise.forms import FORMS, mode_of, writes_reasons
from dearlite.options import LISTWISE_MODES, ListwiseMode

_SHOW = "| {:<16} | {:>14} | {:>7.4f} | {:>9.2f} | {:>6} | {:>8} | {:>9} |"


def main() -> None:
    """Prints the first stage's row, and one row for each mode and number of passage tokens."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--run", default="run.trec")
    parser.add_argument("--mode", nargs="*", default=list(LISTWISE_MODES), choices=list(LISTWISE_MODES))
    parser.add_argument("--passage-tokens", nargs="+", type=int, default=[0])
    parser.add_argument("--prompt", nargs="*", default=[], choices=list(FORMS), metavar="NAME")
    parser.add_argument("--reasoning-tokens", type=int, default=256)
    parser.add_argument("--depth", type=int, default=20)
    parser.add_argument("--passes", type=int, default=1)
    parser.add_argument("--queries", type=int)
    options = parser.parse_args()
    reranker = Reranker.load(options.model)
    pairs = load_pairs(options.folder, options.run)
    groups = {query_id: indices[: options.depth] for query_id, indices in pairs.by_query().items()}
    groups = dict(list(groups.items())[: options.queries])
    sha256 = reranker.identity()["sha256"][:12]
    print(f"{Path(options.model).name} ({sha256}) on {reranker.device}, {reranker.threads} threads; {pairs.name}")
    print("| mode or prompt   | passage tokens | nDCG@10 | s/query   | faulty | read cut | agreement |")
    print("|---|---|---|---|---|---|---|")
    print(_SHOW.format("(first)", "", ndcg10(pairs, groups), 0, "", "", ""), flush=True)
    for name, listwise in _ways(options, attention=isinstance(reranker, AttentionReranker)):
        orders, seconds, agreements, faulty, cut = {}, [], [], 0, 0
        for query_id, indices in groups.items():
            start = time.perf_counter()
            query, documents = pairs.rows[indices[0]][2], [pairs.rows[i][3] for i in indices]
            ranking = reranker.rerank(query, documents, listwise=listwise)
            seconds.append(time.perf_counter() - start)
            agreements += [] if ranking.agreement is None else [ranking.agreement]
            orders[query_id] = [indices[hit.index] for hit in ranking]
            faulty += bool(ranking.problems)
            cut += sum(hit.truncated for hit in ranking)
        median = statistics.median(seconds)
        agreement = f"{statistics.fmean(agreements):.2f}" if agreements else ""
        faults = f"{faulty}/{len(groups)}"
        row = (name, listwise.passage_tokens or "all", ndcg10(pairs, orders), median, faults, cut, agreement)
        print(_SHOW.format(*row), flush=True)


def _ways(options: argparse.Namespace, *, attention: bool) -> Iterator[tuple[str, Listwise]]:
    """The name and the options of each row."""
    if attention:
        yield "attention", Listwise(passes=options.passes)
        return
    ways: list[tuple[ListwiseMode, str | None]] = [(mode, None) for mode in options.mode]
    ways += [(mode_of(name), name) for name in options.prompt]
    for tokens in options.passage_tokens:
        for mode, prompt in ways:
            thinks = {"reasoning_tokens": options.reasoning_tokens} if writes_reasons(mode, prompt) else {}
            yield (
                prompt or mode,
                Listwise(mode=mode, passage_tokens=tokens or None, prompt=prompt, passes=options.passes, **thinks),
            )


def ndcg10(pairs: Pairs, orders: Mapping[str, Sequence[int]]) -> float:
    """Mean nDCG@10 of the queries of `orders`, by trec_eval's definition; `orders` has indices into `pairs.rows`."""
    qrels = [Qrel(q, d, grade) for q in orders for d, grade in pairs.grades.get(q, {}).items()]
    run = [ScoredDoc(q, pairs.rows[i][1], -float(n)) for q, order in orders.items() for n, i in enumerate(order)]
    return float(ir_measures.calc_aggregate([nDCG @ 10], qrels, run)[nDCG @ 10])


if __name__ == "__main__":
    main()
