"""Makes a collection of passages from one of sentences: joins adjacent sentences and converts the qrels and the run.

    python passages.py FOLDER OUTPUT SENTENCES

FOLDER (train_squad_sentences) holds corpus.jsonl.gz in the order of the source text, queries.jsonl, qrels.tsv and
run.trec.gz. SENTENCES is the number of sentences per passage. A passage is relevant if one of its sentences is, and its
score in the run is that of its best sentence.
"""

from __future__ import annotations

import gzip
import json
import shutil
import sys
from pathlib import Path


def join(folder: Path, output: Path, sentences: int) -> None:
    """Writes the collection of passages of `sentences` sentences to `output`."""
    output.mkdir(parents=True, exist_ok=True)
    with gzip.open(folder / "corpus.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    passage_of = {row["_id"]: f"p{index // sentences}" for index, row in enumerate(rows)}
    with open(output / "corpus.jsonl", "w", encoding="utf-8") as out:
        for start in range(0, len(rows), sentences):
            text = " ".join(row["text"] for row in rows[start : start + sentences])
            out.write(json.dumps({"_id": passage_of[rows[start]["_id"]], "title": "", "text": text}) + "\n")
    shutil.copyfile(folder / "queries.jsonl", output / "queries.jsonl")
    with (
        open(folder / "qrels.tsv", encoding="utf-8") as lines,
        open(output / "qrels.tsv", "w", encoding="utf-8") as out,
    ):
        grades = dict.fromkeys((query, passage_of[doc], grade) for query, _, doc, grade in map(str.split, lines))
        out.writelines(f"{query} 0 {passage} {grade}\n" for query, passage, grade in grades)
    run: dict[str, dict[str, float]] = {}  # query -> passage -> score of its best sentence, best first
    with gzip.open(folder / "run.trec.gz", "rt", encoding="utf-8") as lines:
        for query, _, doc, _, score, _ in map(str.split, lines):
            run.setdefault(query, {}).setdefault(passage_of[doc], float(score))
    with open(output / "run.trec", "w", encoding="utf-8") as out:
        for query, scores in run.items():
            for rank, (passage, best) in enumerate(scores.items(), start=1):
                out.write(f"{query} Q0 {passage} {rank} {best} passages\n")


if __name__ == "__main__":
    if len(sys.argv) != 4 or not sys.argv[3].isdecimal() or int(sys.argv[3]) < 1:
        sys.exit(__doc__)
    join(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
