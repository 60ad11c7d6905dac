"""Token ids of the prompt of a list: its documents once, then the query. This module sees texts and ids, never a model.

The words and all texts are encoded as one text, as the authors do; the tokens of a document are those that have a
character of it. Special tokens come from the words alone: in a text they are plain characters.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np

from dearlite.errors import InvalidInput, ModelFileError
from dearlite.models.attention import AttentionReading
from dearlite.pointwise.tokens import TextEncoder
from dearlite.prefixes import WHOLE_CHARACTERS
from dearlite.templates.chat import pattern_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dearlite.documents import Document

LEAST_TOKENS = 16  # of a document in a prompt; a shorter beginning says too little
_WORD = re.compile(r"\S+")


@dataclass(frozen=True, slots=True)
class Passage:
    """A document as the prompt shows it: `text` is its beginning; `ends` are the ends of its tokens, in characters.

    `total` counts the tokens of the whole document, or with `total_is_bound` of a beginning of it.
    """

    text: str
    ends: tuple[int, ...]
    total: int
    total_is_bound: bool

    def cut(self, most: int) -> Passage:
        """The first `most` tokens."""
        if len(self.ends) <= most:
            return self
        return Passage(self.text[: self.ends[most - 1]], self.ends[:most], self.total, self.total_is_bound)


@dataclass(frozen=True, slots=True, eq=False)
class ListPrompt:
    """The ids of a list with two queries after it: the caller's, and the one without content.

    `prefix` holds the documents; `tails` are the ids after it. Of each tail the last `rows` tokens are the query's,
    whose attention counts. `spans` are the positions of each document, (start, stop), in the caller's order; `used` are
    the tokens of each document.
    """

    prefix: NDArray[np.int64]
    tails: tuple[NDArray[np.int64], NDArray[np.int64]]
    rows: tuple[int, int]
    spans: tuple[tuple[int, int], ...]
    passages: tuple[Passage, ...]

    @property
    def ids(self) -> NDArray[np.int64]:
        """The whole prompt of the caller's query, (tokens,)."""
        return np.concatenate([self.prefix, self.tails[0]])

    @property
    def tokens(self) -> int:
        """The number of tokens that the model reads."""
        return len(self.prefix) + sum(map(len, self.tails))


@dataclass(frozen=True, slots=True, eq=False)
class _Encoded:
    """The ids of a prompt, and the characters of each, (tokens, 2), in its text; -1 for special tokens."""

    ids: NDArray[np.int64]
    offsets: NDArray[np.int64]

    def span(self, start: int, end: int) -> tuple[int, int]:
        """The positions of the tokens that have one of the characters from `start` to `end`."""
        inside = np.flatnonzero((self.offsets[:, 1] > start) & (self.offsets[:, 0] < end))
        return (int(inside[0]), int(inside[-1]) + 1) if len(inside) else (0, 0)


class ListEncoder(TextEncoder):
    """Encodes prompts of one reading with a bundle's tokenizer."""

    def __init__(self, tokenizer_json: bytes, reading: AttentionReading, max_tokens: int) -> None:
        """`max_tokens` counts the prompt of one query. Raises ModelFileError for words that leave no room."""
        super().__init__(tokenizer_json)
        self.reading, self.max_tokens = reading, max_tokens
        self._before, self._lead = self._split(reading.before, last=True)
        self._after, self._trail = self._split(reading.after, last=False)
        words = len(self._encode([], reading.null_query)[0].ids)
        if words + LEAST_TOKENS > max_tokens:
            raise ModelFileError(
                f"max_tokens {max_tokens} leaves no room beside the {words} tokens of the prompt's own words: it must "
                f"be {words + LEAST_TOKENS} or more"
            )

    def _split(self, words: str, *, last: bool) -> tuple[list[int], str]:
        """The ids of `words`, and the plain words at the side of the texts, which are encoded with them."""
        ids, plain, special = list[int](), "", self.special_tokens
        pieces = re.split(f"({names.pattern})", words) if (names := pattern_of(special)) is not None else [words]
        beside = pieces.pop(-1 if last else 0)
        for piece in filter(None, pieces):
            ids += [special[piece]] if piece in special else self.ids(piece)
        return ids, plain + beside

    def passage(self, document: Document) -> Passage:
        """The passage of `document`: its title and text up to the reading's number of words."""
        whole = f"{document.title}\n{document.text}" if document.title else document.text.lstrip()
        text = whole[:WHOLE_CHARACTERS]
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        words = enumerate(_WORD.finditer(text), start=1)
        end = next((word.end() for number, word in words if number == self.reading.passage_words), len(text))
        text = text[:end].rstrip()
        ends = tuple(accumulate((stop for start, stop in encoding.offsets if start < len(text)), max))
        return Passage(text, ends, len(encoding.ids), len(whole) > WHOLE_CHARACTERS)

    def prompt(self, query: str, passages: Sequence[Passage]) -> ListPrompt:
        """The prompt of a list, its passages cut evenly if they do not fit.

        Raises InvalidInput if they do not fit with `LEAST_TOKENS` tokens each, and for a query that leaves no room.
        """
        self._check_query(query)
        queries = (query, self.reading.null_query)
        most = max((len(passage.ends) for passage in passages), default=0)
        while True:
            cut = [passage.cut(most) for passage in passages]
            encoded = [self._encode([passage.text for passage in cut], text) for text in queries]
            over = max(len(part.ids) for part, _, _ in encoded) - self.max_tokens
            if over <= 0:
                return self._parted(encoded, cut)
            most = _next_most([len(passage.ends) for passage in cut], over)
            if most < LEAST_TOKENS:
                raise InvalidInput(
                    f"a list of {len(passages)} documents does not fit in the {self.max_tokens} tokens that the model "
                    f"reads at once, with {LEAST_TOKENS} tokens or more of each: rank fewer, as by a first stage "
                    "(minilm-l12, then this model for the best 20)"
                )

    def _check_query(self, query: str) -> None:
        """Raises InvalidInput for a query that leaves no room for a document."""
        own = self._encode([], query[:WHOLE_CHARACTERS])[0]
        if len(own.ids) + LEAST_TOKENS > self.max_tokens or len(query) > WHOLE_CHARACTERS:
            raise InvalidInput(
                f"the query and the prompt's words take {len(own.ids)} of the {self.max_tokens} tokens that the model "
                "reads, which leaves no room for a document: shorten the query"
            )

    def _encode(self, passages: Sequence[str], query: str) -> tuple[_Encoded, list[tuple[int, int]], int]:
        """The prompt, the characters of each passage in it, and the character at which the query's part begins."""
        reading = self.reading
        text = self._lead + reading.head
        spans = [(0, 0)] * len(passages)
        order = range(len(passages))
        for number, index in enumerate(reversed(order) if reading.best_last else order, start=1):
            text += reading.separator
            start = len(text)
            text += f"[{number}] {passages[index]}"
            spans[index] = (start, len(text))
        text += reading.separator
        late = len(text)
        text += f"{reading.late}{reading.separator}{reading.query} {query.strip()}{self._trail}"
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        ids = np.array([*self._before, *encoding.ids, *self._after], np.int64)
        offsets = np.full((len(ids), 2), -1, np.int64)
        offsets[len(self._before) : len(self._before) + len(encoding.ids)] = encoding.offsets
        offsets[len(self._before) + len(encoding.ids) :] = len(text)
        return _Encoded(ids, offsets), spans, late

    def _parted(
        self, encoded: Sequence[tuple[_Encoded, list[tuple[int, int]], int]], passages: Sequence[Passage]
    ) -> ListPrompt:
        """The prompts of both queries, parted behind the tokens that they share before the query's part."""
        (own, spans, late), (null, _, _) = encoded
        first = [int(np.flatnonzero(part.offsets[:, 1] > late)[0]) for part, _, _ in encoded]
        shared = min(first)
        differing = np.flatnonzero(own.ids[:shared] != null.ids[:shared])
        shared = int(differing[0]) if len(differing) else shared
        return ListPrompt(
            prefix=own.ids[:shared],
            tails=(own.ids[shared:], null.ids[shared:]),
            rows=(len(own.ids) - first[0], len(null.ids) - first[1]),
            spans=tuple(own.span(*span) for span in spans),
            passages=tuple(passages),
        )


def _next_most(counts: Sequence[int], over: int) -> int:
    """The largest limit of the passages' tokens that removes at least `over` of them; 0 if none does."""
    most = max(counts, default=0)
    while over > 0 and most > 0:
        longest = sum(count >= most for count in counts)
        step = max(1, min(over // longest, most - max((count for count in counts if count < most), default=0)))
        over -= longest * step
        most -= step
        counts = [min(count, most) for count in counts]
    return most
