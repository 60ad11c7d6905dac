"""Token ids of a template's prompts, for every engine: the query's part once, then a row for each document.

This module sees texts and ids, never a model. Words and texts that stand side by side in a part are encoded together,
as the makers' code does it; a special token of the words ends what is encoded together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from dearlite.errors import InvalidInput, ModelFileError, UsageError
from dearlite.prefixes import first_ids
from dearlite.templates.chat import pattern_of
from dearlite.templates.template import Template, pieces_of

# Tokens before a document's text that may be merged with its beginning: they are no part of the shared prefix.
_UNSETTLED_TOKENS = 2
_DOCUMENT = "document"
_QUERY_ALONE = "{query}"


@dataclass(frozen=True, slots=True)
class QueryWords:
    """A prompt without its document: ids before and after the text that holds the document, and that text's words.

    `left` and `right` are encoded together with the document between them. `shared` ids are the same for all documents.
    """

    before: tuple[int, ...]
    left: str
    right: str
    after: tuple[int, ...]
    left_ids: tuple[int, ...]
    right_ids: tuple[int, ...]
    truncated: bool  # True if the query was cut
    closing: int = 0  # number of last ids that are the query, if it is the last part by itself

    @property
    def count(self) -> int:
        """The number of tokens without a document."""
        return len(self.before) + len(self.left_ids) + len(self.right_ids) + len(self.after)


@dataclass(frozen=True, slots=True)
class PromptRow:
    """One prompt. `total` counts its tokens before the document was cut, or is a lower bound of them."""

    ids: list[int]
    shared: int  # number of leading ids that are the same for (nearly) all documents of the query
    total: int
    total_is_bound: bool
    empty: bool  # True if no token is the document's own


@dataclass(frozen=True, slots=True)
class _Text:
    """Words with slots that are encoded together: (words, slot after them)."""

    pieces: tuple[tuple[str, str], ...]

    def filled(self, texts: Mapping[str, str]) -> str:
        return "".join(words + (texts[slot] if slot else "") for words, slot in self.pieces)

    def has(self, name: str) -> bool:
        return any(slot == name for _, slot in self.pieces)

    def around_document(self, texts: Mapping[str, str]) -> tuple[str, str]:
        """The text before the document, and the one after it."""
        at = next(index for index, (_, slot) in enumerate(self.pieces) if slot == _DOCUMENT)
        left = _Text((*self.pieces[:at], (self.pieces[at][0], "")))
        return left.filled(texts), _Text(self.pieces[at + 1 :]).filled(texts)


class TemplateEncoder:
    """Encodes prompts of one template with one model's vocabulary."""

    def __init__(
        self,
        template: Template,
        encode: Callable[[str], list[int]],
        special: Mapping[str, int],
        *,
        max_tokens: int,
        instruction: str | None = None,
    ) -> None:
        """`encode` makes the ids of a text in which nothing is a special token; `special` maps those tokens to ids.

        `max_tokens` counts the whole prompt. Raises ModelFileError if the words alone are as long, and UsageError if
        they are so with `instruction`.
        """
        self._encode, self._max_tokens, self._limit = encode, max_tokens, template.max_query_tokens
        parts, self._instruction = template.words(instruction)
        texts = [text for part in parts for text in _texts_of(part, special)]
        at = next(n for n, text in enumerate(texts) if isinstance(text, _Text) and text.has(_DOCUMENT))
        self._head, self._tail = texts[:at], texts[at + 1 :]
        self._closes = parts[-1] == _QUERY_ALONE
        document = texts[at]
        assert isinstance(document, _Text)
        self._document = document
        self.fixed = self._words("").count  # tokens of a prompt of empty texts
        if self.fixed >= max_tokens and instruction is not None:
            raise UsageError(
                f"the instruction and the prompt's words take {self.fixed} of the {max_tokens} tokens that the model "
                "reads, which leaves no room for a query: shorten the instruction"
            )
        if self.fixed >= max_tokens:
            raise ModelFileError(
                f"max_tokens {max_tokens} leaves no room beside the {self.fixed} tokens of the prompt's own words: it "
                "must be larger"
            )

    def query(self, query: str) -> QueryWords:
        """The prompt around a document. Raises InvalidInput if the query leaves no room for one."""
        words = self._words(query)
        if words.count >= self._max_tokens:
            raise InvalidInput(
                f"the query and the prompt's words take {words.count} of the {self._max_tokens} tokens that the model "
                "reads, which leaves no room for a document: shorten the query"
            )
        return words

    def room(self, words: QueryWords) -> int:
        """The number of tokens that a document may have beside the query."""
        return self._max_tokens - words.count

    def row(self, words: QueryWords, document: str) -> PromptRow:
        """The prompt of one document, which is cut to fit."""
        enough = self._max_tokens - len(words.before) - len(words.after)
        left, right = list(words.left_ids), list(words.right_ids)
        ids, whole = first_ids(words.left + document + words.right, enough + 1, self._encode)
        total = len(ids)
        if total > enough:
            if right:  # what is cut off is the document's, never the words after it
                ids, whole = first_ids(words.left + document, enough + 1, self._encode)
                total = len(ids) + len(right)
            ids = ids[: enough - len(right)] + right
        settled = max(0, len(left) - _UNSETTLED_TOKENS)
        same = next((n for n, (a, b) in enumerate(zip(left[:settled], ids, strict=False)) if a != b), settled)
        return PromptRow(
            ids=[*words.before, *ids, *words.after],
            shared=len(words.before) + same,
            total=total + len(words.before) + len(words.after),
            total_is_bound=not whole,
            empty=len(ids) <= len(left) + len(right) and ids == self._encode(words.left + words.right),
        )

    def _words(self, query: str) -> QueryWords:
        texts = {"query": query, "instruction": self._instruction}
        truncated = False

        def ids_of(parts: list[int | _Text]) -> tuple[int, ...]:
            nonlocal truncated
            ids: list[int] = []
            for part in parts:
                if isinstance(part, int):
                    ids.append(part)
                    continue
                # One token more than is read tells a query that fits from one that does not.
                limit = self._limit if part.has("query") else None
                own, _ = first_ids(part.filled(texts), (limit or self._max_tokens) + 1, self._encode)
                truncated |= limit is not None and len(own) > limit
                ids += own[:limit]
            return tuple(ids)

        left, right = self._document.around_document(texts)
        most = self._max_tokens + 1
        words = QueryWords(
            before=ids_of(self._head),
            left=left,
            right=right,
            after=ids_of(self._tail),
            left_ids=tuple(first_ids(left, most, self._encode)[0]),
            right_ids=tuple(first_ids(right, most, self._encode)[0]) if right else (),
            truncated=False,
            closing=len(ids_of(self._tail[-1:])) if self._closes else 0,
        )
        return replace(words, truncated=truncated)


def _texts_of(part: str, special: Mapping[str, int]) -> list[int | _Text]:
    """The ids of the special tokens in a part's words, and the texts between them."""
    names = pattern_of(special)
    texts: list[int | _Text] = []
    pieces: list[tuple[str, str]] = []

    def close() -> None:
        if any(words or slot for words, slot in pieces):
            texts.append(_Text(tuple(pieces)))
        pieces.clear()

    for words, slot in pieces_of(part):
        end = 0
        for match in names.finditer(words) if names is not None else ():
            pieces.append((words[end : match.start()], ""))
            close()
            texts.append(special[match[0]])
            end = match.end()
        pieces.append((words[end:], slot))
    close()
    return texts
