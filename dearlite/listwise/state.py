"""The state of one query during listwise ranking, and the progress over all windows."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from dearlite.documents import Document
from dearlite.hits import TokenCounts, make_hit, unread_hit
from dearlite.listwise.answers import sentences_naming
from dearlite.listwise.decoding import Order
from dearlite.listwise.tokens import Passage, PromptEncoder, WindowPrompt
from dearlite.listwise.windows import window_spans
from dearlite.options import Listwise
from dearlite.progress import Meter, Progress
from dearlite.ranking import Ranking


class ListState:
    """One query's documents, their current order, and the results of the model so far."""

    def __init__(
        self, query: str, documents: Sequence[Document], encoder: PromptEncoder, options: Listwise, room: int
    ) -> None:
        """`room` is the number of tokens of the longest prompt."""
        self.query, self.documents, self._room = query, documents, room
        self.order = list(range(len(documents)))
        self._encoder, self._options = encoder, options
        self._passages: dict[int, Passage] = {}
        self._tokens: dict[int, TokenCounts] = {}
        self._scores: dict[int, float] = {}
        self._reasons: dict[int, str] = {}
        self._texts: list[str] = []
        self._problems: list[str] = []
        self._read: set[int] = set()  # indices of the documents in prompts that were answered
        self._hurried = False  # True if the end of a budget cut a text

    def passage(self, index: int) -> Passage:
        """The passage of the document at `index` of the caller's list."""
        if index not in self._passages:
            self._passages[index] = self._encoder.passage(
                self.documents[index], self._options.passage_tokens, room=self._room
            )
        return self._passages[index]

    def record_tokens(self, indices: Sequence[int], prompt: WindowPrompt) -> None:
        """Records the tokens of each document in a prompt; a document's last prompt counts."""
        for index, used in zip(indices, prompt.used, strict=True):
            passage = self.passage(index)
            self._tokens[index] = (used, passage.total, passage.total_is_bound)

    def record_text(self, indices: Sequence[int], names: Sequence[str], order: Order, whole: int | None = None) -> None:
        """Records the text of an answer about the documents `indices`, shown as `names`.

        Each gets the sentences that name it as its reason; the document `whole` gets the whole text if none does.
        """
        self._hurried |= order.hurried
        if not order.text:
            return
        self._texts.append(order.text)
        for index, reason in zip(indices, sentences_naming(order.text, names), strict=True):
            if reason or index == whole:
                self._reasons[index] = reason or order.text

    def ranking(self, model: str, device: str, elapsed_s: float, top_k: int | None) -> Ranking:
        """The Ranking of the current order; without scores from a prompt, a hit's score counts the documents below.

        Of a call that was ended early, the documents of no prompt keep their places and have no score.
        """
        count, unscored = len(self.order), len(self.order) - len(self._read)
        hits = tuple(
            make_hit(
                self.documents[i],
                rank,
                i,
                self._scores.get(i, count - rank),
                self._tokens[i],
                self._reasons.get(i),
            )
            if i in self._read
            else unread_hit(self.documents[i], rank, i)
            for rank, i in enumerate(self.order[:top_k], start=1)
        )
        return Ranking(
            hits=hits,
            query=self.query,
            model=model,
            device=device,
            elapsed_s=elapsed_s,
            total=count,
            reasoning=tuple(self._texts),
            problems=tuple(self._problems),
            complete=not unscored and not self._hurried,
            unscored=unscored,
        )

    def partial(self, model: str, device: str, elapsed_s: float) -> Ranking | None:
        """The ranking so far of a call that was ended early; None if no prompt was answered."""
        return replace(self.ranking(model, device, elapsed_s, None), complete=False) if self._read else None


class WindowState(ListState):
    """One query's documents in windows."""

    def __init__(
        self, query: str, documents: Sequence[Document], encoder: PromptEncoder, options: Listwise, room: int
    ) -> None:
        """`room` is the number of tokens of the longest prompt."""
        super().__init__(query, documents, encoder, options, room)
        self.spans = window_spans(len(documents), *options.span)

    def windows(self) -> Generator[tuple[int, int], Order, None]:
        """Yields the span of each window, from the end of the list; is sent the window's order and applies it."""
        for start, end in self.spans:
            order = yield start, end
            indices = self.order[start:end]
            self._read.update(indices)
            self.order[start:end] = [indices[position] for position in order.positions]
            if order.scores is not None:
                self._scores.update(zip(indices, order.scores, strict=True))
            names = self._encoder.form.identifiers(end - start)
            self.record_text(
                indices, names, order, self.order[start] if self._encoder.form.reasoning == "think" else None
            )
            self._problems += [f"documents {start + 1} to {end}: {problem}" for problem in order.problems]
            if order.scores is not None:
                self._keep_order_of_scores(end)

    def _keep_order_of_scores(self, end: int) -> None:
        """Lowers the scores from position `end` on, all by the same amount, to at most the window's lowest score.

        Scores of different windows are not comparable; this keeps them in the order of the ranking.
        """
        below = self.order[end:]
        if not below:
            return
        floor = self._scores[self.order[end - 1]]
        drop = self._scores[below[0]] - floor
        if drop > 0:
            for index in below:
                self._scores[index] = min(self._scores[index] - drop, floor)


class WindowMeter(Meter):
    """Counts documents read over all windows, in proportion to the prompt tokens read."""

    def __init__(self, states: Sequence[WindowState], progress: Progress | None) -> None:
        super().__init__(sum(end - start for state in states for start, end in state.spans), progress)

    @contextmanager
    def round(self, prompts: Sequence[WindowPrompt]) -> Iterator[Callable[[int], None]]:
        """Yields the callback that counts the tokens read during one round of windows."""
        before, documents = self.done, sum(len(prompt.used) for prompt in prompts)
        tokens, read = sum(len(prompt.ids) for prompt in prompts), 0

        def on_tokens(count: int) -> None:
            nonlocal read
            read += count
            self.reach(before + min(documents - 1, documents * read // tokens))

        yield on_tokens
        self.reach(before + documents)
