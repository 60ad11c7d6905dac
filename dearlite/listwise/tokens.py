"""A query and its passages to the token ids of one prompt, and what had to be cut to make them fit.

Everything is counted before a model reads anything. Sees texts and ids, never a model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

from dearlite.documents import Document
from dearlite.errors import InvalidInput, ModelFileError
from dearlite.listwise.chat_template import ChatTemplate, Piece
from dearlite.listwise.decoding import Answer, Tokens
from dearlite.listwise.prompts import ListForm

_LEAST_PASSAGE_TOKENS = 4  # a window whose passages are shorter than this compares nothing


class Vocabulary(Protocol):
    """What encoding needs of a tokenizer; backends.llama_vocabulary has the real one."""

    def text(self, text: str) -> list[int]:
        """The ids of `text`, in which nothing is special."""
        ...

    def piece(self, token: int) -> bytes:
        """The bytes of a token in running text."""
        ...

    def prompt(self, pieces: Sequence[Piece]) -> list[int]:
        """The ids of a prompt."""
        ...

    def after(self, anchor: str, text: str) -> tuple[int, ...]:
        """The ids of `text` where it follows `anchor`."""
        ...


@dataclass(frozen=True, slots=True)
class Passage:
    """A document's text as a prompt shows it: `text` is what its form lets through, `total` the whole's tokens."""

    text: str
    tokens: tuple[int, ...]  # of `text`
    total: int

    @property
    def count(self) -> int:
        """Tokens of `text`."""
        return len(self.tokens)


@dataclass(frozen=True, slots=True)
class WindowPrompt:
    """One prompt, ending with the answer's opener where the mode asks for it at once; `used` is tokens by passage."""

    ids: Tokens
    used: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Answered:
    """A prompt and its answer: `ids` of both, the answer's from `start` on."""

    ids: Tokens
    start: int

    @classmethod
    def after(cls, prompt: Sequence[int], ids: Sequence[int]) -> Answered:
        """`ids` of both, where `prompt` is what the first part is without an answer: they may be joined differently."""
        shared = next((at for at, pair in enumerate(zip(prompt, ids, strict=False)) if pair[0] != pair[1]), len(prompt))
        return cls(tuple(ids), shared)


class PromptEncoder:
    """Prompts of one form for one model."""

    def __init__(self, vocabulary: Vocabulary, form: ListForm, template: ChatTemplate | None) -> None:
        """`template` is the model's; a form without a frame of its own needs one (ModelFileError)."""
        if form.frame is None and template is None:
            raise ModelFileError(
                "the model file has no chat template, which this prompt form needs: take --prompt plain or rankvicuna"
            )
        self.form = form
        self._vocabulary, self._template = vocabulary, template

    def passage(self, document: Document, most: int | None = None) -> Passage:
        """What stands for `document`, of at most `most` tokens."""
        text, whole = self.form.passage(document), self.form.passage(document, whole=True)
        tokens = self._vocabulary.text(text)
        total = len(tokens) if text == whole else len(self._vocabulary.text(whole))
        passage = Passage(text, tuple(tokens), total)
        return passage if most is None else self._cut(passage, most)

    def encode(
        self, query: str, passages: Sequence[Passage], *, room: int, reasoned: bool, opened: bool
    ) -> WindowPrompt:
        """The prompt for a window, its passages cut evenly where they do not fit in `room` tokens.

        `opened` appends the answer's "[". Raises InvalidInput where even short passages would not fit.
        """
        ids, fitting = self._fit(query, passages, room, reasoned, self._opener if opened else "")
        return WindowPrompt(tuple(ids), tuple(passage.count for passage in fitting))

    def answered(self, query: str, passages: Sequence[Passage], answer: str, *, room: int, reasoned: bool) -> Answered:
        """The prompt with its `answer` behind it, both in `room` tokens: what a model is trained with.

        Raises InvalidInput as `encode` does.
        """
        ending = answer if reasoned else self._opener.removesuffix("[") + answer
        ids, fitting = self._fit(query, passages, room, reasoned, ending)
        prompt = self._ids(query, fitting, reasoned, "")
        return Answered.after(prompt, ids)

    def _fit(
        self, query: str, passages: Sequence[Passage], room: int, reasoned: bool, ending: str
    ) -> tuple[list[int], Sequence[Passage]]:
        """The ids of a prompt in at most `room` tokens, and the passages as they were cut for it."""
        ids = self._ids(query, passages, reasoned, ending)
        most = max((passage.count for passage in passages), default=0)
        while len(ids) > room:
            most = self._next_most(passages, most, len(ids) - room)
            if most < _LEAST_PASSAGE_TOKENS:
                raise InvalidInput(
                    f"a window of {len(passages)} passages does not fit in {room} tokens: the query and the prompt "
                    "alone leave no room for them; take a smaller --window or a shorter query"
                )
            passages = [self._cut(passage, most) for passage in passages]
            ids = self._ids(query, passages, reasoned, ending)
        return ids, passages

    def answer(self, count: int) -> Answer:
        """The tokens of an answer over `count` passages."""
        names = self.form.identifiers(count)
        paths = tuple(self._vocabulary.after("[", f"{name}] > [") for name in names)
        for name, path in zip(names, paths, strict=True):
            if b"".join(map(self._vocabulary.piece, path)) != f"{name}] > [".encode():
                raise ModelFileError(
                    f"the model's tokenizer cannot spell [{name}] > [: it cannot be asked for an order"
                )
        return Answer(self._vocabulary.after("", "\n\n["), paths, tuple(names))

    def _ids(self, query: str, passages: Sequence[Passage], reasoned: bool, ending: str) -> list[int]:
        turns = self.form.turns(query, [passage.text for passage in passages], reasoned=reasoned)
        if self.form.frame is not None:
            before, after = self.form.frame.split("{user}")
            pieces = [Piece(f"{before}{turns[0][1]}{after}", False)]
        else:
            assert self._template is not None, "checked when the encoder was made"
            pieces = self._template.pieces(turns)
        if ending:
            pieces.append(Piece(ending, False))
        return self._vocabulary.prompt(pieces)

    @property
    def _opener(self) -> str:
        """The answer's "[", on a new line where the form's own text goes before it."""
        frame = self.form.frame
        return "[" if frame is None else "\n[" if frame.endswith("{user}") else " ["

    def _cut(self, passage: Passage, most: int) -> Passage:
        """The first `most` tokens, as text: whole characters."""
        if passage.count <= most:
            return passage
        sizes = list(accumulate(len(self._vocabulary.piece(token)) for token in passage.tokens[:most]))
        data = passage.text.encode()
        # A tokenizer may put a blank before a text, which is not the text's own.
        extra = 1 if self._vocabulary.piece(passage.tokens[0])[:1] == b" " and not passage.text.startswith(" ") else 0
        text = data[: sizes[-1] - extra].decode("utf-8", "ignore").rstrip()
        return Passage(text, tuple(self._vocabulary.text(text)), passage.total)

    @staticmethod
    def _next_most(passages: Sequence[Passage], most: int, over: int) -> int:
        """The largest cap below `most` that takes at least `over` tokens from the passages."""
        counts = sorted((passage.count for passage in passages), reverse=True)
        while over > 0 and most > 0:
            longer = sum(count >= most for count in counts)
            step = max(1, over // max(1, longer) // 2)
            over -= sum(min(count, most) - min(count, most - step) for count in counts)
            most -= step
        return most
