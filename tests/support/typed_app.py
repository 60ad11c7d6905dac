"""A small app on `Ranking[T]`, which mypy --strict accepts; `WRONG` marks the uses that it must refuse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from dearlite import Document, Hit, Listwise, Long, Passage, Ranking, Reranker, arerank, read_folder, rerank


@dataclass(frozen=True)
class Note:
    """A document of the app."""

    text: str
    page: int


NOTES = [Note("Coffee is good for diet", 1), Note("Edison's bulb, 1879", 2)]
QUERY = "who invented the light bulb?"


def pages(ranking: Ranking[Note]) -> list[int]:
    return [hit.document.page for hit in ranking[:3]]


def names(ranking: Ranking[str]) -> list[str]:
    return [hit.document for hit in ranking]


def total(ranking: Ranking) -> int:  # documents of any type
    return ranking.total


def best(ranking: Ranking[Note]) -> Note:
    hit: Hit[Note] = ranking.top(1)[0]
    return hit.document


async def later() -> Note:
    return best(await arerank(QUERY, NOTES, progress=True))


pages(rerank(QUERY, NOTES))
names(rerank(QUERY, ["a", "b"], device="cpu"))
total(rerank(QUERY, NOTES))
reranker = Reranker.load("minilm-l12", device="auto")
first: list[Note] = [best(ranking) for ranking in reranker.rerank_many([(QUERY, NOTES)])]
reranker.rerank(QUERY, ["a"], listwise=Listwise(mode="reason"), long=Long("chunk"), progress=True)

# What docs/api.md says of T
frame: Any = None  # a library without stubs
mappings: list[dict[str, object]] = [{"text": "a", "page": 1}]
texts: Ranking[str] = rerank(QUERY, (note.text for note in NOTES))
rows: Ranking[dict[str, object]] = rerank(QUERY, mappings)
frame_rows: Ranking[dict[str, Any]] = rerank(QUERY, frame)
passages: list[Passage] = [cast(Passage, hit.document) for hit in rerank(QUERY, read_folder("notes"))]
documents: Ranking[Document] = rerank(QUERY, [Document("a")])
own: list[Note] = [cast(Note, hit.document) for hit in rerank(QUERY, [Document("a", record=NOTES[0])])]

names(rerank(QUERY, mappings))  # WRONG
names(rerank(QUERY, read_folder("notes")))  # WRONG
names(rerank(QUERY, NOTES))  # WRONG
pages(reranker.rerank(QUERY, ["a"]))  # WRONG
pages(rerank(QUERY, NOTES)[0])  # WRONG
wrong_type: list[str] = [best(rerank(QUERY, NOTES))]  # WRONG
author = rerank(QUERY, NOTES)[0].document.author  # WRONG
score = rerank(QUERY, NOTES)[0].score + 1  # WRONG
rerank(QUERY, NOTES, device="gpu")  # WRONG
Reranker.load(device="gpu")  # WRONG
Listwise(mode="permut")  # WRONG
Long("chnk")  # WRONG
Reranker("minilm-l12")  # WRONG
rerank(QUERY, NOTES, progress=5)  # WRONG
