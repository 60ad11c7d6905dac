"""Token ids of texts and pairs by the vocabulary of a GGUF, with the interface of `tokens.PairEncoder`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dearlite.pointwise.offsets import joined_offsets
from dearlite.pointwise.tokens import PairLayout, TokenRow
from dearlite.prefixes import WHOLE_CHARACTERS, first_ids

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dearlite.llama.vocabulary import LlamaVocabulary

_PROBE_CHARACTERS = 256  # enough to find a token in any usual text
_SKIPPED_CHARACTERS = 64  # blanks, and characters of tokens that were not found, before the next token


class GgufTexts:
    """Encodes texts as llama.cpp does, without special tokens: those in a text become plain characters."""

    enough = 1  # tokens of a text that can be read

    def __init__(self, vocabulary: LlamaVocabulary) -> None:
        self._vocabulary = vocabulary

    @property
    def special_tokens(self) -> dict[str, int]:
        """The text of each special token with its id."""
        return self._vocabulary.special_tokens

    @property
    def largest_id(self) -> int:
        """The highest id of the vocabulary."""
        return self._vocabulary.size - 1

    def ids(self, text: str) -> list[int]:
        """The ids of `text`."""
        return self._vocabulary.encode(text)

    def first_ids(self, text: str, enough: int = 0) -> tuple[list[int], bool]:
        """The ids of `text`, and True if these are all. Of a long text more than can be read, at least `enough`."""
        return first_ids(text, max(enough, self.enough), self.ids)

    def has_tokens(self, text: str) -> bool:
        """True if `text` has a token other than blanks."""
        text, start, size = text.strip(), 0, _PROBE_CHARACTERS
        while start < len(text):
            if any(self._vocabulary.token_bytes(token).strip() for token in self.ids(text[start : start + size])):
                return True
            start, size = start + size, min(2 * size, WHOLE_CHARACTERS)
        return False

    def offsets(self, text: str) -> NDArray[np.int32]:
        """The range of characters of each token of `text`, (tokens, 2): start and end.

        llama.cpp gives no offsets: each token's own text is found in what follows the token before. One that the
        tokenizer has changed, or a part of a character, is not found and has an empty range.
        """
        return joined_offsets(text, self._encoding)

    def _encoding(self, text: str) -> _Encoding:
        ids = self.ids(text)
        lower = text.lower()
        plain = lower if len(lower) == len(text) else text  # for vocabularies without capital letters
        offsets, end = [], 0
        for token in ids:
            piece = self._vocabulary.token_bytes(token).decode("utf-8", "ignore").strip()
            start = text.find(piece, end, end + len(piece) + _SKIPPED_CHARACTERS) if piece else -1
            if start < 0 and piece:
                start = plain.find(piece, end, end + len(piece) + _SKIPPED_CHARACTERS)
            offsets.append((end, end) if start < 0 else (start, start + len(piece)))
            end = offsets[-1][1]
        return _Encoding(ids, offsets)


class GgufPairs(GgufTexts):
    """Encodes pairs: the special ids of `layout` around the two texts."""

    def __init__(self, vocabulary: LlamaVocabulary, layout: PairLayout) -> None:
        super().__init__(vocabulary)
        self.layout = layout
        self.enough = layout.room + 1

    def pairs(
        self, query_ids: list[int], texts: Iterable[str], *, query_whole: bool = True, blank: Sequence[int] = ()
    ) -> Iterator[TokenRow]:
        """One row per text, in order (`tokens.PairEncoder.pairs`)."""
        for text in texts:
            ids, whole = self.first_ids(text, len(query_ids) + 1)  # the longer text loses tokens first
            yield self.layout.row(query_ids, ids, bound=not (whole and query_whole), empty=ids == list(blank))


@dataclass(frozen=True, slots=True)
class _Encoding:
    ids: list[int]
    offsets: list[tuple[int, int]]
