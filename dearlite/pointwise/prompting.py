"""The prompts of a pointwise model as token rows: a pair of texts, or a template of one text.

Both kinds have one interface: the query's part is encoded once, then a row for each document.
"""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from dearlite.documents import Document
from dearlite.errors import ModelFileError, UsageError
from dearlite.pointwise.prompts import PAIR_FORMS
from dearlite.pointwise.tokens import PairEncoder, PairLayout, TextEncoder, TokenRow
from dearlite.templates.encoder import TemplateEncoder
from dearlite.templates.template import Template

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from dearlite.models.manifest import Manifest

_PLAIN = re.compile("[0-9A-Za-z]")  # every tokenizer in use makes a token of these characters
_PLAIN_CHARACTERS = 256  # at the beginning of a text
PromptForm = str | Template  # a key of PAIR_FORMS, or the words themselves


class Texts(Protocol):
    """A tokenizer without special tokens."""

    def ids(self, text: str) -> list[int]:
        """The ids of `text`."""

    def first_ids(self, text: str, enough: int = 0) -> tuple[list[int], bool]:
        """The ids of `text`, and True if these are all. Of a long text more than can be read, at least `enough`."""

    def has_tokens(self, text: str) -> bool:
        """True if `text` has a token other than blanks."""

    def offsets(self, text: str) -> NDArray[np.int32]:
        """The range of characters of each token of `text`, (tokens, 2): start and end."""

    @property
    def special_tokens(self) -> dict[str, int]:
        """The text of each special token with its id."""

    @property
    def largest_id(self) -> int:
        """The highest id that the tokenizer gives."""


class Pairs(Texts, Protocol):
    """A tokenizer for pairs of texts."""

    layout: PairLayout

    def pairs(
        self, query_ids: list[int], texts: Iterable[str], *, query_whole: bool = True, blank: Sequence[int] = ()
    ) -> Iterator[TokenRow]:
        """One row per text, in order (PairEncoder.pairs)."""


class Prompt(ABC):
    """The words and tokens of one model's prompts. `texts` is its tokenizer, without special tokens."""

    texts: Texts

    @abstractmethod
    def query(self, query: str) -> Any:
        """The query's part, for `rows` and `room`. Raises InvalidInput for a query that leaves no room."""

    @abstractmethod
    def rows(self, query: Any, documents: Iterable[Document]) -> Iterator[TokenRow]:
        """One row per document, in order, as rows are consumed."""

    @abstractmethod
    def room(self, query: Any) -> int:
        """The number of tokens of a document, title included, that are read beside the query."""

    @property
    def takes_instruction(self) -> bool:
        """True if the words have a place for an instruction."""
        return False

    def with_instruction(self, instruction: str) -> Prompt:
        """The prompts with another instruction, for one that takes it. Raises UsageError if it is too long."""
        raise AssertionError("this prompt takes no instruction")

    @abstractmethod
    def identity(self, name: str) -> dict[str, str]:
        """The words on which scores depend, as names and values; `name` is the manifest's."""


class PairPrompt(Prompt):
    """A query and a document as two texts, joined by the tokenizer's own template for pairs."""

    def __init__(self, form: str, encoder: Pairs) -> None:
        self._form = PAIR_FORMS[form]
        self.texts = self._encoder = encoder
        self._blank = self._encoder.ids(self._form.document(Document("", title="")))  # the prompt's own words

    def query(self, query: str) -> tuple[list[int], bool]:
        return self._encoder.first_ids(self._form.query(query))

    def rows(self, query: tuple[list[int], bool], documents: Iterable[Document]) -> Iterator[TokenRow]:
        ids, whole = query
        return self._encoder.pairs(ids, map(self._form.document, documents), query_whole=whole, blank=self._blank)

    def room(self, query: tuple[list[int], bool]) -> int:
        return self._encoder.layout.room_beside(len(query[0])) - len(self._blank)

    def identity(self, name: str) -> dict[str, str]:
        probe = self._form.query("Q") + "\0" + self._form.document(Document("D", title="T"))
        return {"prompt": f"{name} {hashlib.sha256(probe.encode()).hexdigest()[:16]}"}


class TemplatePrompt(Prompt):
    """A query and a document in the words of a template, which are one text."""

    _DOCUMENT = PAIR_FORMS["plain"]  # a title stands before the text, joined by a space

    def __init__(self, template: Template, texts: Texts, max_tokens: int, instruction: str | None) -> None:
        self.texts, self._max_tokens = texts, max_tokens
        self._template, self._instruction = template, template.words(instruction)[1]
        self._encoder = TemplateEncoder(
            template, texts.ids, texts.special_tokens, max_tokens=max_tokens, instruction=instruction
        )

    def query(self, query: str) -> Any:
        return self._encoder.query(query)

    def rows(self, query: Any, documents: Iterable[Document]) -> Iterator[TokenRow]:
        for document in documents:
            row = self._encoder.row(query, self._DOCUMENT.document(document))
            ids = np.array(row.ids, np.int64)
            types = np.zeros_like(ids)
            types[row.shared :] = 1
            stated = (row.total, query.truncated, row.shared, row.total_is_bound, row.empty)
            yield TokenRow(ids, types, *stated, closing=query.closing)

    def room(self, query: Any) -> int:
        return self._encoder.room(query)

    @property
    def takes_instruction(self) -> bool:
        return self._template.takes_instruction

    def with_instruction(self, instruction: str) -> TemplatePrompt:
        return TemplatePrompt(self._template, self.texts, self._max_tokens, instruction)

    def identity(self, name: str) -> dict[str, str]:
        words = hashlib.sha256(repr(self._template).encode()).hexdigest()[:16]
        stated = {"instruction": self._instruction} if self._template.takes_instruction else {}
        return {"prompt": f"{name} {words}", **stated}


def prompt_of(form: PromptForm, tokenizer_json: bytes, max_tokens: int, instruction: str | None = None) -> Prompt:
    """The prompts of `form`. Raises ModelFileError for a tokenizer that cannot be read, or a limit that is too low."""
    if isinstance(form, Template):
        return TemplatePrompt(form, TextEncoder(tokenizer_json), max_tokens, instruction)
    return PairPrompt(form, PairEncoder(tokenizer_json, max_tokens=max_tokens))


def has_tokens(texts: Texts, text: str) -> bool:
    """True if the tokenizer makes a token of `text` other than blanks; for most texts without a look at its tokens."""
    return bool(_PLAIN.search(text, 0, _PLAIN_CHARACTERS)) or texts.has_tokens(text)


def check_place(instruction: str | None, manifest: Manifest) -> None:
    """Raises UsageError for an instruction to a model whose prompt has no place for it."""
    if instruction is not None and (manifest.template is None or not manifest.template.takes_instruction):
        raise UsageError(
            f"{manifest.name} takes no instruction (its prompt {manifest.prompt} has no place for one): leave it out"
        )


def check_ids(texts: Texts, embedding_rows: int | None, path: Path) -> None:
    """Raises ModelFileError if the tokenizer gives an id that has no row in the embedding of the model in `path`."""
    if embedding_rows is not None and texts.largest_id >= embedding_rows:
        raise ModelFileError(
            f"{path}: its tokenizer has the id {texts.largest_id}, and its embedding {embedding_rows} rows, so that "
            "some texts have no score: export the model again, with the tokenizer of its training"
        )
