"""Token ids of (query, document) pairs, truncated to fit. This module sees texts and ids, never a model.

Special tokens come from the tokenizer's template only: a text that contains "[SEP]" or "</s>" is encoded as plain
characters, so that no document can forge its own end.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from dearlite.errors import EngineError, ModelFileError, first_line, need
from dearlite.foreign import Foreign, engine_errors
from dearlite.pointwise.condensing import condenser
from dearlite.pointwise.offsets import joined_offsets
from dearlite.prefixes import WHOLE_CHARACTERS, first_ids

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Limits of one call of the tokenizer: a call cannot be interrupted, and should not hold a whole corpus in memory.
_CHUNK_DOCUMENTS = 128
_CHUNK_CHARACTERS = 1_000_000
_LIBRARY = "the tokenizers library"
_PROBE_CHARACTERS = 256  # enough to find a token in any usual text
_MARK = re.compile(r"<.+>|\[.+\]|\|.+\||\{.+\}", re.DOTALL)
_BLANK_MARKS = " \u2581\u0120"  # the blank as SentencePiece and byte-level vocabularies write it


@dataclass(frozen=True, slots=True, eq=False)
class TokenRow:
    """One encoded pair. `tokens_total` is the number of tokens before truncation, or a lower bound of it."""

    ids: NDArray[np.int64]  # (tokens,)
    types: NDArray[np.int64]  # (tokens,): 0 in the query's part, 1 in the document's
    tokens_total: int
    query_truncated: bool = False
    prefix: int = 0  # number of leading ids that are the query's part, the same for all documents of a query
    tokens_total_is_bound: bool = False  # True if only the beginning of a long text was encoded
    empty: bool = False  # True if no token is the document's own
    closing: int = 0  # number of last ids that are the query, where it closes the prompt by itself

    @property
    def tokens_used(self) -> int:
        """The number of tokens in the row, special tokens included."""
        return len(self.ids)

    @property
    def truncated(self) -> bool:
        """True if the query or the document was truncated."""
        return self.tokens_used < self.tokens_total


def cut_longest_first(query: int, document: int, room: int) -> tuple[int, int]:
    """The numbers of tokens kept of query and document to fit both in `room`: the longer one loses tokens first.

    This is the strategy `longest_first` of the tokenizers library.
    Example: (10, 500, 100) -> (10, 90); (80, 80, 100) -> (50, 50).
    """
    if query + document <= room:
        return query, document
    short, long = min(query, document), max(query, document)
    if short > room - short:
        short, long = room // 2, room - room // 2
    else:
        long = room - short
    return (long, short) if query > document else (short, long)


@dataclass(frozen=True, slots=True)
class PairLayout:
    """The special ids around the two texts of a pair, and the truncation of the texts to `max_tokens` of all together.

    Raises ModelFileError if the special ids leave no room for texts.
    """

    before: Sequence[int]
    between: Sequence[int]
    after: Sequence[int]
    max_tokens: int

    def __post_init__(self) -> None:
        if self.room < 2:
            raise ModelFileError(
                f"max_tokens {self.max_tokens} leaves no room for a query and a document: it must be larger"
            )

    @property
    def specials(self) -> int:
        """The number of special ids."""
        return len(self.before) + len(self.between) + len(self.after)

    @property
    def room(self) -> int:
        """The number of tokens of both texts."""
        return self.max_tokens - self.specials

    def room_beside(self, query_tokens: int) -> int:
        """The number of document tokens that fit beside `query_tokens`; at least half of the room for the pair."""
        return max(self.room - query_tokens, self.room - self.room // 2)

    def row(self, query: Sequence[int], document: Sequence[int], *, bound: bool, empty: bool) -> TokenRow:
        """The row of a query and a document. `bound`: not all of their tokens are given."""
        keep_query, keep_document = cut_longest_first(len(query), len(document), self.room)
        first = [*self.before, *query[:keep_query], *self.between]
        second = [*document[:keep_document], *self.after]
        types = np.zeros(len(first) + len(second), np.int64)
        types[len(first) :] = 1
        total = len(query) + len(document) + self.specials
        ids, query_truncated = np.array(first + second, np.int64), keep_query < len(query)
        return TokenRow(ids, types, total, query_truncated, len(first), bound, empty)


class TextEncoder:
    """Encodes texts with a bundle's tokenizer, without special tokens: those in a text become plain characters."""

    enough = 1  # tokens of a text that can be read

    def __init__(self, tokenizer_json: bytes) -> None:
        """`tokenizer_json` is the published file; truncation and padding set in it are switched off."""
        tokenizers = need("tokenizers", extra=None)
        try:
            with engine_errors(_LIBRARY):
                raw = json.loads(tokenizer_json)
                tokenizer = tokenizers.Tokenizer.from_str(tokenizer_json.decode())
                if (model := _without_special_pieces(raw)) is not None:
                    tokenizer.model = tokenizers.models.Unigram(**model)
                # Marks as "<think>" and "<tool_call>", which many published files do not call special: a text that has
                # one would write a part of the template. Added words, and blanks, are texts.
                marks = [token for token in tokenizer.get_added_tokens_decoder().values() if _is_mark(token)]
                tokenizer.add_special_tokens(marks)
                self._marks = frozenset(token.content for token in marks)
                tokenizer.no_padding()
                tokenizer.no_truncation()
                tokenizer.encode_special_tokens = True  # special tokens in a text become plain characters
                self._tokenizer: Any = Foreign(_LIBRARY, tokenizer)
                self._condense = condenser(raw)
                self._prepare()
        except EngineError as err:
            reason = first_line(err.__cause__ or err)
            raise ModelFileError(
                f"the tokenizer in the model file cannot be read ({reason}): export the model again"
            ) from err

    def _prepare(self) -> None:
        """Reads what a subclass needs of the tokenizer. Errors of the library are those of the model file."""

    @property
    def special_tokens(self) -> dict[str, int]:
        """The text of each special token with its id."""
        added = self._tokenizer.get_added_tokens_decoder()
        return {t.content: number for number, t in added.items() if t.special or t.content in self._marks}

    @property
    def largest_id(self) -> int:
        """The highest id that the tokenizer gives; of a vocabulary with holes, perhaps a lower one."""
        added = self._tokenizer.get_added_tokens_decoder()
        own: int = self._tokenizer.get_vocab_size(with_added_tokens=False)
        return max([own - 1, *map(int, added)])

    def ids(self, text: str) -> list[int]:
        """The ids of `text` alone, without special tokens."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def first_ids(self, text: str, enough: int = 0) -> tuple[list[int], bool]:
        """The ids of `text`, and True if these are all. Of a long text more than can be read, at least `enough`."""
        return first_ids(text, max(enough, self.enough), self.ids, self._condense)

    def has_tokens(self, text: str) -> bool:
        """True if `text` has a token other than blanks."""
        text, start, size = text.strip(), 0, _PROBE_CHARACTERS
        while start < len(text):
            encoding = self._tokenizer.encode(text[start : start + size], add_special_tokens=False)
            if any(token.strip(_BLANK_MARKS) for token in encoding.tokens):
                return True
            start, size = start + size, min(2 * size, WHOLE_CHARACTERS)
        return False

    def offsets(self, text: str) -> NDArray[np.int32]:
        """The range of characters of each token of `text`, (tokens, 2): start and end."""
        return joined_offsets(text, lambda part: self._tokenizer.encode(part, add_special_tokens=False))


class PairEncoder(TextEncoder):
    """Encodes (query, document) pairs with a bundle's tokenizer."""

    def __init__(self, tokenizer_json: bytes, *, max_tokens: int) -> None:
        """`tokenizer_json` is the published file; truncation and padding set in it are switched off."""
        super().__init__(tokenizer_json)
        before, between, after = self._specials
        self.layout = PairLayout(before, between, after, max_tokens)
        self.enough = self.layout.room + 1

    def _prepare(self) -> None:
        self._specials = self._template()

    def pairs(
        self, query_ids: list[int], texts: Iterable[str], *, query_whole: bool = True, blank: Sequence[int] = ()
    ) -> Iterator[TokenRow]:
        """One row per text, in order. Texts are taken and encoded in chunks, as rows are consumed.

        `query_whole` is False if the query has more tokens than `query_ids`. `blank` are the ids of a text without a
        document: a row with no others is `empty`.
        """
        texts, blank = iter(texts), list(blank)
        while chunk := _chunk(texts):
            short = [text for text in chunk if len(text) <= WHOLE_CHARACTERS]
            encodings = self._encoded(short)
            for text in chunk:
                if len(text) <= WHOLE_CHARACTERS:
                    ids, whole = next(encodings).ids, True
                else:
                    ids, whole = self.first_ids(text, len(query_ids) + 1)  # the longer text loses tokens first
                yield self.layout.row(query_ids, ids, bound=not (whole and query_whole), empty=ids == blank)

    def _encoded(self, texts: list[str]) -> Iterator[Any]:
        """The encodings of `texts`. If the library fails, they are encoded one by one, to find the text that it is."""
        try:
            yield from self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        except EngineError:
            yield from (self._tokenizer.encode(text, add_special_tokens=False) for text in texts)

    def _template(self) -> tuple[list[int], list[int], list[int]]:
        """The special ids before, between and after the two texts, found by encoding a pair of single words."""
        encoding: Any = self._tokenizer.encode("a", "a")
        sides = encoding.sequence_ids  # None for a special token, 0 for the query, 1 for the document
        last_query = max(i for i, side in enumerate(sides) if side == 0)
        first_document = min(i for i, side in enumerate(sides) if side == 1)
        first_query = sides.index(0)
        last_document = max(i for i, side in enumerate(sides) if side == 1)
        ids = encoding.ids
        return ids[:first_query], ids[last_query + 1 : first_document], ids[last_document + 1 :]


def _is_mark(token: Any) -> bool:
    """True for an added token in brackets or bars that is not called special."""
    return not token.special and _MARK.fullmatch(token.content) is not None


def _without_special_pieces(raw: Mapping[str, Any]) -> dict[str, Any] | None:
    """The arguments of a unigram model whose special pieces match no text; None if the tokenizer has another model.

    A unigram model looks for its pieces in the text itself, so that it would read "</s>" in a document as the special
    token. A blank, which it never sees, takes a piece out of reach; the piece keeps its id.
    """
    model = raw.get("model") or {}
    if model.get("type") != "Unigram":
        return None
    special = {token["content"] for token in raw.get("added_tokens") or () if token.get("special")}
    vocabulary = [(f" {piece}" if piece in special else piece, score) for piece, score in model["vocab"]]
    return {"vocab": vocabulary, "unk_id": model.get("unk_id"), "byte_fallback": bool(model.get("byte_fallback"))}


def _chunk(texts: Iterator[str]) -> list[str]:
    """The next texts for one call of the tokenizer; empty at the end."""
    chunk: list[str] = []
    characters = 0
    for text in islice(texts, _CHUNK_DOCUMENTS):
        chunk.append(text)
        characters += len(text)
        if characters > _CHUNK_CHARACTERS:
            break
    return chunk
