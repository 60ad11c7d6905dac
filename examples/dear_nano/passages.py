"""A collection of sentences as one of passages: so many neighbouring sentences joined, its qrels and run along with it.

    python passages.py FOLDER OUTPUT SENTENCES

FOLDER holds corpus.jsonl.gz in the order of the source's text, queries.jsonl, qrels.tsv and run.trec.gz
(train_squad_sentences). A passage is relevant where one of its sentences is, and stands in the run where its best
sentence stood.
"""

from __future__ import annotations

import gzip
import json
import shutil
import sys
from pathlib import Path


def join(folder: Path, output: Path, sentences: int) -> None:
    """Writes the passages' collection to `output`."""
    output.mkdir(parents=True, exist_ok=True)
    with gzip.open(folder / "corpus.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    passage_of = {row["_id"]: f"p{place // sentences}" for place, row in enumerate(rows)}
    with open(output / "corpus.jsonl", "w", encoding="utf-8") as out:
        for start in range(0, len(rows), sentences):
            text = " ".join(row["text"] for row in rows[start : start + sentences])
            out.write(json.dumps({"_id": passage_of[rows[start]["_id"]], "title": "", "text": text}) + "\n")
    shutil.copyfile(folder / "queries.jsonl", output / "queries.jsonl")
    with (
        open(folder / "qrels.tsv", encoding="utf-8") as lines,
        open(output / "qrels.tsv", "w", encoding="utf-8") as out,
    ):
        judged = dict.fromkeys((query, passage_of[name], grade) for query, _, name, grade in map(str.split, lines))
        out.writelines(f"{query} 0 {name} {grade}\n" for query, name, grade in judged)
    ranks: dict[str, dict[str, float]] = {}  # query -> passage -> its best sentence's score, best first
    with gzip.open(folder / "run.trec.gz", "rt", encoding="utf-8") as lines:
        for query, _, name, _, score, _ in map(str.split, lines):
            ranks.setdefault(query, {}).setdefault(passage_of[name], float(score))
    with open(output / "run.trec", "w", encoding="utf-8") as out:
        for query, found in ranks.items():
            for rank, (name, score) in enumerate(found.items(), start=1):
                out.write(f"{query} Q0 {name} {rank} {score} passages\n")


if __name__ == "__main__":
    if len(sys.argv) != 4 or not sys.argv[3].isdecimal() or int(sys.argv[3]) < 1:
        sys.exit(__doc__)
    join(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
