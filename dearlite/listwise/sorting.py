"""Sorting the documents of a query by a model's comparisons: the state, the questions, and the progress."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from functools import cached_property

from dearlite.documents import Document, as_documents, check_query
from dearlite.errors import Cancelled
from dearlite.foreign import naming
from dearlite.jobs import Job, name_of
from dearlite.listwise.decoding import Decoding, GenerationOptions
from dearlite.listwise.groups import GroupEncoder, continued
from dearlite.listwise.modes import SORTING_MODES
from dearlite.listwise.runner import Runner
from dearlite.listwise.sorts import Group, Sort
from dearlite.listwise.state import ListState
from dearlite.llama.model import Interrupted
from dearlite.options import Call, Listwise
from dearlite.progress import Meter, Progress
from dearlite.ranking import Ranking

_MARGIN = 16  # tokens by which a prompt may be longer than that of the longest passages: texts merge at their borders


class SortState(ListState):
    """One query's documents while they are sorted. Equal comparisons are asked once."""

    def __init__(
        self, query: str, documents: Sequence[Document], encoder: GroupEncoder, options: Listwise, room: int, model: str
    ) -> None:
        """`room` is the number of tokens of the longest prompt, `model` a name for messages."""
        super().__init__(query, documents, encoder, options, room)
        assert (
            options.mode is not None
            and options.sort is not None
            and options.group_size is not None
            and options.sort_k is not None
        ), "checked"
        self._groups, self._form = encoder, encoder.form
        self._sort: Sort = SORTING_MODES[options.mode][options.sort]
        self._best, self._size = options.sort_k, options.group_size
        self._pairwise = options.mode == "pairwise"
        self._winners: dict[Group, int] = {}  # documents as they were shown -> the picked one
        self._answered, self.finished = 0.0, False  # groups, and the share of the round in progress
        for index, document in enumerate(documents):
            with naming(model, name_of(document, index)):
                self.passage(index)

    @property
    def done(self) -> int:
        """The progress, as a number of documents: the share of the largest number of comparisons."""
        count = len(self.documents)
        most = max(1, self._sort.most(count, self._best, self._size))
        return count if self.finished else min(max(0, count - 1), int(count * self._answered / most))

    @cached_property
    def prompt_room(self) -> int:
        """The tokens of the longest prompt: that of the longest passages. Raises InvalidInput if they do not fit."""
        longest = sorted(map(self.passage, self.order), key=lambda passage: -passage.count)[: self._size]
        if len(longest) < 2:
            return 1
        return min(self._room, len(self._groups.compare(self.query, longest, self._room).ids) + _MARGIN)

    def decoding(self, generation: GenerationOptions, on_answer: Callable[[], None]) -> Decoding[None]:
        """Sorts the documents. `on_answer` is called after each comparison of the algorithm."""
        held: list[int] = []
        comparing = self._sort.compare(self.order, self._best, self._size)
        try:
            groups = next(comparing)
            while True:
                shown = [self._orders(members) for members in groups]
                # In this order, prompts that begin with the same document follow each other.
                unknown = sorted({order for orders in shown for order in orders} - self._winners.keys())
                before = self._answered
                for number, order in enumerate(unknown, start=1):
                    yield from self._ask(order, held, generation)
                    self._answered = before + len(groups) * number / len(unknown)
                    on_answer()
                self._answered = before + len(groups)
                picks = [self._pick(members, orders) for members, orders in zip(groups, shown, strict=True)]
                # A document counts as read when its comparisons have changed the order, which is at the round's end.
                self._read.update(*groups)
                groups = comparing.send(picks)
        except StopIteration:
            pass
        for index in set(self.order) - self._read:  # a single document, which is not compared
            passage = self.passage(index)
            self._tokens[index] = (passage.count, passage.total, passage.total_is_bound)
        self._read = set(self.order)
        self.finished = True
        on_answer()

    def _orders(self, members: Group) -> list[Group]:
        """The orders in which `members` are shown: a pair in both, a group in its own or in a shuffled one."""
        if self._pairwise:
            return [members, members[::-1]]
        if self._form.seed is None:
            return [members]
        order = sorted(members)
        random.Random(f"{self._form.seed} {order}").shuffle(order)
        return [tuple(order)]

    def _ask(self, order: Group, held: list[int], generation: GenerationOptions) -> Decoding[None]:
        prompt = self._groups.compare(self.query, [self.passage(index) for index in order], self.prompt_room)
        answer = yield from continued(self._groups.decide(prompt.ids, len(order), generation), held)
        winner = order[answer.positions[0]]
        self._winners[order] = winner
        self.record_tokens(order, prompt)
        if answer.text and generation.on_text is not None:
            generation.on_text("\n\n")  # the next comparison's text follows
        self.record_text(order, self._form.identifiers(len(order)), answer, winner)

    def _pick(self, members: Group, orders: Sequence[Group]) -> int | None:
        """The position of the picked document; None if the orders disagree."""
        winners = {self._winners[order] for order in orders}
        return members.index(winners.pop()) if len(winners) == 1 else None


class SortMeter(Meter):
    """Counts the documents of several queries that are sorted side by side."""

    def __init__(self, states: Sequence[SortState], progress: Progress | None) -> None:
        super().__init__(sum(len(state.documents) for state in states), progress)
        self._states = states

    def update(self) -> None:
        """Counts the comparisons so far."""
        self.reach(max(self.done, sum(state.done for state in self._states)))


def sort_jobs(
    runner: Runner[GroupEncoder], jobs: Sequence[Job], options: Listwise, call: Call, top_k: int | None
) -> list[Ranking]:
    """One Ranking per job, by a mode that sorts; the comparisons of the jobs are decoded side by side.

    Raises Cancelled, of a single job with the ranking so far, and InvalidInput for documents that do not fit.
    """
    start = time.perf_counter()
    backend, encoder, model = runner.backend, runner.encoder, runner.model
    thinking = options.reasoning_tokens if encoder.form.thinks else 0
    checked, size = [(check_query(query), as_documents(docs)) for query, docs in jobs], options.group_size or 2
    encoder.form.check_size(size)
    longest = max((len(documents) for _, documents in checked), default=0)
    label = encoder.answer_tokens(max(2, min(size, longest)))  # no labels for millions, if a list of ten has them
    generation = runner.generation(thinking, options.on_text, call.cancel, label)
    answer = label + thinking
    states = [
        SortState(query, documents, encoder, options, runner.most_tokens - answer, model)
        for query, documents in checked
    ]
    meter = SortMeter(states, call.progress)
    room = max(state.prompt_room for state in states) + answer
    decodings = [state.decoding(generation, meter.update) for state in states]
    try:
        with naming(model, "the documents of a comparison"):
            backend.run(decodings, room, cancel=call.cancel)
    except Interrupted:
        cancelled = Cancelled(meter.done, meter.total)
        if len(states) == 1:
            cancelled.partial = states[0].partial(model, backend.device, time.perf_counter() - start)
        raise cancelled from None
    elapsed_s = (time.perf_counter() - start) / len(states)
    return [state.ranking(model, backend.device, elapsed_s, top_k) for state in states]
