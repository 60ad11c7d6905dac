"""A listwise ranking on its way: one query's documents, their order so far, and how much has been read."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager

from dearlite.documents import Document
from dearlite.listwise.answers import sentences_naming
from dearlite.listwise.decoding import Order
from dearlite.listwise.tokens import Passage, PromptEncoder, WindowPrompt
from dearlite.listwise.windows import window_spans
from dearlite.options import Listwise
from dearlite.progress import Meter, Progress
from dearlite.ranking import Ranking, make_hit


class WindowState:
    """One query on its way: its documents, their order so far, and what each window said."""

    def __init__(self, query: str, documents: Sequence[Document], encoder: PromptEncoder, options: Listwise) -> None:
        self.query, self.documents = query, documents
        self.order = list(range(len(documents)))
        self.spans = window_spans(len(documents), *options.span)
        self._encoder, self._options = encoder, options
        self._passages: dict[int, Passage] = {}
        self._tokens: dict[int, tuple[int, int]] = {}
        self._scores: dict[int, float] = {}
        self._reasons: dict[int, str] = {}
        self._texts: list[str] = []
        self._problems: list[str] = []

    def windows(self) -> Generator[tuple[int, int], Order, None]:
        """Each window's span, from the end of the list; it is sent the order and applies it."""
        for start, end in self.spans:
            order = yield start, end
            indices = self.order[start:end]
            self.order[start:end] = [indices[place] for place in order.positions]
            for place, index in enumerate(indices):
                if order.scores is not None:
                    self._scores[index] = order.scores[place]
            names = self._encoder.form.identifiers(end - start)
            for index, said in zip(indices, sentences_naming(order.text, names), strict=True):
                if said:
                    self._reasons[index] = said
            if order.text:
                self._texts.append(order.text)
            self._problems += [f"documents {start + 1} to {end}: {problem}" for problem in order.problems]
            if order.scores is not None:
                self._keep_order_of_scores(end)

    def passage(self, index: int) -> Passage:
        """The document at `index` of the caller's list, as prompts show it."""
        if index not in self._passages:
            self._passages[index] = self._encoder.passage(self.documents[index], self._options.passage_tokens)
        return self._passages[index]

    def saw(self, start: int, end: int, prompt: WindowPrompt) -> None:
        """Notes what the window's prompt shows of each document: its last one counts."""
        for index, used in zip(self.order[start:end], prompt.used, strict=True):
            self._tokens[index] = (used, self.passage(index).total)

    def _keep_order_of_scores(self, end: int) -> None:
        """Lowers all scores from place `end` on by as much as keeps the best of them below the window's last."""
        below = self.order[end:]
        if below and self._scores:
            floor = self._scores[self.order[end - 1]]
            drop = self._scores[below[0]] - floor
            for index in below if drop > 0 else ():
                self._scores[index] = min(self._scores[index] - drop, floor)

    def ranking(self, model: str, device: str, elapsed_s: float, top_k: int | None) -> Ranking:
        """What came of it."""
        count = len(self.order)
        hits = tuple(
            make_hit(
                self.documents[i],
                rank,
                i,
                self._scores.get(i, count - rank),
                self._tokens[i],
                self._reasons.get(i),
            )
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
        )


class WindowMeter(Meter):
    """Counts documents read, over all windows: a window's are read as its prompt is."""

    def __init__(self, work: Sequence[WindowState], progress: Progress | None) -> None:
        super().__init__(sum(end - start for one in work for start, end in one.spans), progress)

    @contextmanager
    def round(self, prompts: Sequence[WindowPrompt]) -> Iterator[Callable[[int], None]]:
        """What to tell of tokens as they are read, during one round of windows."""
        before, documents = self.done, sum(len(prompt.used) for prompt in prompts)
        tokens, read = sum(len(prompt.ids) for prompt in prompts), 0

        def heard(count: int) -> None:
            nonlocal read
            read += count
            self.reach(before + min(documents - 1, documents * read // tokens))

        yield heard
        self.reach(before + documents)
