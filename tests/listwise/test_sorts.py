"""Sorting algorithms with a simulated judge, against references written from the papers' descriptions."""

import random
from functools import cmp_to_key
from itertools import combinations

import pytest

from dearlite.listwise.sorts import PAIRWISE_SORTS, SETWISE_SORTS, sort

ALL = [
    *(pytest.param(*row, id=f"setwise {row[0]}") for row in SETWISE_SORTS.items()),
    *(pytest.param(*row, id=f"pairwise {row[0]}") for row in PAIRWISE_SORTS.items()),
]


class Worth:
    """A judge with a value for each document; its answer to a group is unreadable with probability `mute`."""

    def __init__(self, values, chance, mute=0.0):
        self.values, self.asked = values, []
        self._chance, self._mute, self._memory = chance, mute, {}

    def __call__(self, members):
        self.asked.append(tuple(members))
        if tuple(members) not in self._memory:
            best = max(range(len(members)), key=lambda position: (self.values[members[position]], -position))
            self._memory[tuple(members)] = None if self._chance.random() < self._mute else best
        return self._memory[tuple(members)]


# The references: recursive where the code is iterative, on arrays of the published layout.


def reference_heap(count, judge, best, group):
    array, children = list(range(count)), group - 1

    def heapify(size, node):
        first = children * node + 1
        if first >= size:
            return
        places = [node, *range(first, min(first + children, size))]
        pick = judge(tuple(array[place] for place in places)) or 0
        if pick:
            array[node], array[places[pick]] = array[places[pick]], array[node]
            heapify(size, places[pick])

    for node in reversed(range(count // children + 1)):
        heapify(count, node)
    for taken, last in enumerate(range(count - 1, 0, -1), start=1):
        array[last], array[0] = array[0], array[last]
        if taken == best:
            break
        heapify(last, 0)
    top = array[::-1][:best]
    return top + [document for document in range(count) if document not in top]


def reference_bubble(count, judge, best, group):
    array, children = list(range(count)), group - 1
    for front in range(min(best, count - 1)):
        start, end = count - group, count
        while True:
            start = max(start, front)
            pick = judge(tuple(array[start:end])) or 0
            array[start], array[start + pick] = array[start + pick], array[start]
            if start == front:
                break
            start, end = start - children, end - children
    return array[:best] + [document for document in range(count) if document not in array[:best]]


def reference_insertion(count, judge, best, group):
    best = min(best, count)
    top = reference_heap(best, judge, best, group)
    for start in range(best, count, group - 1):
        chunk = list(range(start, min(count, start + group - 1)))
        while chunk and (pick := judge((top[-1], *chunk))):
            document = chunk[pick - 1]
            chunk.remove(document)
            places = list(range(best))  # the places that it may take
            while len(places) > 1:
                middle = (len(places) - 1) // 2
                places = places[: middle + 1] if judge((top[places[middle]], document)) else places[middle + 1 :]
            top = [*top[: places[0]], document, *top[places[0] : -1]]
    return top + [document for document in range(count) if document not in top]


def reference_pair_heap(count, judge, best, group):
    array = list(range(count))

    def heapify(size, node):
        largest = node
        for child in (2 * node + 1, 2 * node + 2):
            if child < size and judge((array[largest], array[child])):
                largest = child
        if largest != node:
            array[node], array[largest] = array[largest], array[node]
            heapify(size, largest)

    for node in range(count // 2, -1, -1):
        heapify(count, node)
    for taken, last in enumerate(range(count - 1, 0, -1), start=1):
        array[last], array[0] = array[0], array[last]
        if taken == best:
            break
        heapify(last, 0)
    top = array[::-1][:best]
    return top + [document for document in range(count) if document not in top]


def reference_sliding(count, judge, best, group):
    array = list(range(count))
    for front in range(min(best, count)):
        for lower in range(count - 1, front, -1):
            if judge((array[lower - 1], array[lower])):
                array[lower - 1], array[lower] = array[lower], array[lower - 1]
    return array[:best] + [document for document in range(count) if document not in array[:best]]


def reference_all_pairs(count, judge, best, group):
    points = [0.0] * count
    for a, b in combinations(range(count), 2):
        pick = judge((a, b))
        points[a] += {0: 1, 1: 0, None: 0.5}[pick]
        points[b] += {0: 0, 1: 1, None: 0.5}[pick]
    return sorted(range(count), key=cmp_to_key(lambda a, b: (points[b] > points[a]) - (points[b] < points[a]) or a - b))


REFERENCES = {
    id(SETWISE_SORTS["heap"]): reference_heap,
    id(SETWISE_SORTS["bubble"]): reference_bubble,
    id(SETWISE_SORTS["insertion"]): reference_insertion,
    id(PAIRWISE_SORTS["heap"]): reference_pair_heap,
    id(PAIRWISE_SORTS["sliding"]): reference_sliding,
    id(PAIRWISE_SORTS["allpair"]): reference_all_pairs,
}


def cases(chance, number):
    for _ in range(number):
        count = chance.randint(1, 40)
        yield count, chance.randint(1, 45), chance.randint(2, 9), chance.choice((0.0, 0.0, 0.3))


@pytest.mark.parametrize(("name", "algorithm"), ALL)
def test_same_comparisons_and_result_as_the_reference(name, algorithm):
    chance = random.Random(name)
    for count, best, group, mute in cases(chance, 200):
        values = [chance.randrange(2 * count) for _ in range(count)]
        judge = Worth(values, random.Random(count), mute)
        ranking = sort(algorithm, count, judge, best=best, group=group)
        reference = Worth(values, random.Random(count), mute)
        expected = REFERENCES[id(algorithm)](count, reference, best, group)
        assert sorted(ranking) == list(range(count))
        assert ranking == expected
        assert judge.asked == reference.asked
        assert len(judge.asked) <= algorithm.most(count, best, group)


@pytest.mark.parametrize(("name", "algorithm"), ALL)
def test_a_consistent_judge_gets_its_own_order_at_the_head(name, algorithm):
    chance = random.Random(name)
    for count, best, group, _ in cases(chance, 100):
        values = chance.sample(range(count), count)
        ranking = sort(algorithm, count, Worth(values, chance), best=best, group=group)
        truth = sorted(range(count), key=lambda document: -values[document])
        head = count if name == "allpair" else best
        assert ranking[:head] == truth[:head]
        below = ranking[head:]
        assert below == sorted(below)  # the prior order


@pytest.mark.parametrize(("name", "algorithm"), ALL)
def test_a_judge_without_an_answer_leaves_the_prior_order(name, algorithm):
    best = 1 if name in ("heap", "insertion") else 9  # a heap moves its last document to the root, which keeps it
    assert sort(algorithm, 9, lambda members: None, best=best, group=4) == list(range(9))


@pytest.mark.parametrize(("name", "algorithm"), ALL)
def test_the_order_so_far_is_a_permutation_after_each_comparison(name, algorithm):
    chance = random.Random(name)
    for count, best, group, mute in cases(chance, 50):
        judge = Worth([chance.random() for _ in range(count)], chance, mute)
        ranking = list(range(count))
        comparing = algorithm.compare(ranking, best, group)
        picks = None
        while True:
            try:
                groups = comparing.send(picks)
            except StopIteration:
                break
            assert sorted(ranking) == list(range(count))
            assert all(len(set(members)) == len(members) >= 2 for members in groups)
            picks = [judge(members) for members in groups]


def test_the_order_of_a_heap_being_built_obeys_its_comparisons():
    ranking = list(range(13))
    comparing = SETWISE_SORTS["heap"].compare(ranking, 3, 4)
    assert next(comparing) == [(3, 10, 11, 12)]
    assert comparing.send([2]) == [(2, 7, 8, 9)]
    assert ranking == [0, 1, 2, 4, 5, 6, 7, 8, 9, 11, 3, 10, 12]  # 11 beat 3, 10 and 12
    assert comparing.send([0]) == [(1, 4, 5, 6)]


@pytest.mark.parametrize(
    ("algorithm", "count", "best", "group", "most"),
    [
        (SETWISE_SORTS["heap"], 20, 10, 4, 10 + 6 * 3 + 3 * 2),  # building: five sink 1 level, one 2, one 3
        (SETWISE_SORTS["bubble"], 20, 10, 4, 7 + 6 * 3 + 5 * 3 + 4 * 3),
        (SETWISE_SORTS["insertion"], 20, 10, 4, 17 + 10 * 5),  # a heap of ten; a search among ten places: 4
        (PAIRWISE_SORTS["sliding"], 20, 10, 4, 145),
        (PAIRWISE_SORTS["allpair"], 20, 10, 4, 190),
    ],
)
def test_worst_case_of_comparisons(algorithm, count, best, group, most):
    assert algorithm.most(count, best, group) == most


def test_the_worst_case_of_the_heap_is_reached():
    """The last documents are the best, so that each document sinks to the end of the heap."""
    judge = Worth(list(range(40)), random.Random(0))
    sort(SETWISE_SORTS["heap"], 40, judge, best=1, group=4)
    assert len(judge.asked) == SETWISE_SORTS["heap"].most(40, 1, 4)
