"""Sorting by comparisons of a few documents: the algorithms of setwise and pairwise ranking, pure.

An algorithm is a coroutine. It yields rounds of groups of documents, whose members it has not compared yet in this
state, and is sent the position of the best member of each group: 0, the first, is the member that holds the better
place already and keeps it; None is an answer that decides nothing, and the first keeps its place too. The list
`ranking` is changed in place and is a whole permutation at every moment: the best order so far. This module sees
indices, never a text or a model.

Sources: Setwise (heapsort, bubblesort), arXiv 2310.09497; Setwise Insertion, arXiv 2504.10509; pairwise ranking
prompting (all pairs, heapsort, sliding), arXiv 2306.17563.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import combinations

Group = tuple[int, ...]
Picks = Sequence[int | None]
Comparing = Generator[Sequence[Group], Picks, None]
Judge = Callable[[Group], int | None]


@dataclass(frozen=True, slots=True)
class Sort:
    """A sorting algorithm.

    `compare(ranking, best, group)` sorts the first `best` documents of `ranking` by groups of `group` documents; those
    below keep their order. `most(count, best, group)` is the largest number of groups that it yields for `count`
    documents.
    """

    compare: Callable[[list[int], int, int], Comparing]
    most: Callable[[int, int, int], int]


def sort(algorithm: Sort, count: int, judge: Judge, *, best: int, group: int) -> list[int]:
    """The permutation of `count` documents that `algorithm` makes with `judge`, best first."""
    ranking = list(range(count))
    comparing = algorithm.compare(ranking, best, group)
    try:
        groups = next(comparing)
        while True:
            groups = comparing.send([judge(members) for members in groups])
    except StopIteration:
        return ranking


def heap(ranking: list[int], best: int, group: int) -> Comparing:
    """Heapsort: a heap in which every document has group - 1 children, from which the best are taken in turn."""
    count, children = len(ranking), group - 1
    prior = {document: position for position, document in enumerate(ranking)}
    tree, top = list(ranking), list[int]()
    for node in range((count - 2) // children, -1, -1):
        yield from _sift(tree, count, node, children)
        ranking[:] = _downwards(tree, count, children, prior)
    for size in range(count - 1, 0, -1):
        top.append(tree[0])
        if len(top) == best:
            break
        tree[0] = tree[size]
        yield from _sift(tree, size, 0, children)
        ranking[:] = top + _downwards(tree, size, children, prior)
    ranking[:] = _with_the_rest(top, prior)


def bubble(ranking: list[int], best: int, group: int) -> Comparing:
    """Bubblesort: one pass from the end to the head for each of the best; neighbouring groups share a document."""
    prior = {document: position for position, document in enumerate(ranking)}
    count = len(ranking)
    for front in range(min(best, count - 1)):
        end = count
        while end - front > 1:
            start = max(front, end - group)
            (pick,) = yield [tuple(ranking[start:end])]
            if pick:
                ranking[start], ranking[start + pick] = ranking[start + pick], ranking[start]
            end = start + 1
    ranking[:] = _with_the_rest(ranking[:best], prior)


def insertion(ranking: list[int], best: int, group: int) -> Comparing:
    """Setwise Insertion: the first `best` are sorted; a document below replaces the last of them if it beats that one.

    The documents below are compared with the last of the best, group - 1 at a time in their order. A document that
    beats it is inserted among the best by a binary search. Where the order is good, most groups cost one comparison.
    """
    prior = {document: position for position, document in enumerate(ranking)}
    top, below = ranking[:best], ranking[best:]
    yield from _at_head(ranking, top, heap(top, best, group))
    for start in range(0, len(below), group - 1):
        candidates = below[start : start + group - 1]
        while candidates:
            (pick,) = yield [(top[-1], *candidates)]
            if not pick:
                break
            document = candidates.pop(pick - 1)
            low, high = 0, len(top) - 1  # it ranks above the last
            while low < high:
                middle = (low + high) // 2
                (above,) = yield [(top[middle], document)]
                low, high = (low, middle) if above else (middle + 1, high)
            top.insert(low, document)
            del top[-1]
            ranking[:] = _with_the_rest(top, prior)


def all_pairs(ranking: list[int], best: int, group: int) -> Comparing:
    """Every pair, in one round: a document's points are the pairs that it wins, and half of those without a winner."""
    pairs = list(combinations(ranking, 2))
    if not pairs:
        return
    picks = yield pairs
    points = dict.fromkeys(ranking, 0.0)
    for pair, pick in zip(pairs, picks, strict=True):
        for position, document in enumerate(pair):
            points[document] += 0.5 if pick is None else float(pick == position)
    ranking.sort(key=lambda document: -points[document])


def heap_of_pairs(ranking: list[int], best: int, group: int) -> Comparing:
    """Heapsort with two children each, in which the best of three documents is found by two pairs."""
    comparing = heap(ranking, best, 3)
    try:
        groups = next(comparing)
        while True:
            (members,) = groups
            winner = 0
            for position in range(1, len(members)):
                (pick,) = yield [(members[winner], members[position])]
                winner = position if pick else winner
            groups = comparing.send([winner])
    except StopIteration:
        return


def _most_of_heap(count: int, best: int, group: int) -> int:
    build = sum(_height(node, count, group - 1) for node in range(count))
    return build + sum(_height(0, size, group - 1) for size in range(max(1, count - best + 1), count))


def _most_of_bubble(count: int, best: int, group: int) -> int:
    return sum(-(-(count - front - 1) // (group - 1)) for front in range(min(best, count - 1)))


def _most_of_insertion(count: int, best: int, group: int) -> int:
    top = min(count, best)
    search = (top - 1).bit_length()  # comparisons of a binary search among `top` places
    return _most_of_heap(top, top, group) + (count - top) * (1 + search)


SETWISE_SORTS = {
    "heap": Sort(heap, _most_of_heap),
    "bubble": Sort(bubble, _most_of_bubble),
    "insertion": Sort(insertion, _most_of_insertion),
}
PAIRWISE_SORTS = {  # of pairs; `group` has no meaning
    "heap": Sort(heap_of_pairs, lambda count, best, group: 2 * _most_of_heap(count, best, 3)),
    "sliding": Sort(
        lambda ranking, best, group: bubble(ranking, best, 2),
        lambda count, best, group: _most_of_bubble(count, best, 2),
    ),
    "allpair": Sort(all_pairs, lambda count, best, group: count * (count - 1) // 2),
}


def _sift(tree: list[int], size: int, node: int, children: int) -> Comparing:
    """Lets the document at `node` sink until it beats its children, among the first `size` documents of `tree`."""
    while children * node + 1 < size:
        below = range(children * node + 1, min(children * (node + 1) + 1, size))
        (pick,) = yield [(tree[node], *(tree[child] for child in below))]
        if not pick:
            return
        child = below[pick - 1]
        tree[node], tree[child] = tree[child], tree[node]
        node = child


def _downwards(tree: Sequence[int], size: int, children: int, prior: dict[int, int]) -> list[int]:
    """The first `size` documents of `tree`: each above its children, and otherwise in their prior order."""
    order, reachable = list[int](), [(prior[tree[0]], 0)]
    while reachable:
        _, node = heappop(reachable)
        order.append(tree[node])
        for child in range(children * node + 1, min(children * (node + 1) + 1, size)):
            heappush(reachable, (prior[tree[child]], child))
    return order


def _at_head(ranking: list[int], head: list[int], comparing: Comparing) -> Comparing:
    """`comparing`, which sorts `head`, with every change of it shown at the head of `ranking`."""
    try:
        groups = next(comparing)
        while True:
            ranking[: len(head)] = head
            groups = comparing.send((yield groups))
    except StopIteration:
        ranking[: len(head)] = head


def _with_the_rest(top: Sequence[int], prior: dict[int, int]) -> list[int]:
    """`top`, and below it all other documents in their prior order."""
    above = set(top)
    return [*top, *(document for document in prior if document not in above)]


def _height(node: int, size: int, children: int) -> int:
    """The number of levels below `node` in a heap of `size` documents."""
    levels = 0
    while children * node + 1 < size:
        node, levels = children * node + 1, levels + 1
    return levels
