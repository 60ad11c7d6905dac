"""Token ids of a window's prompt: the query and its passages, cut to fit.

All tokens are counted before a model reads any. This module sees texts and ids, never a model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Protocol

from dearlite.documents import Document
from dearlite.errors import InvalidInput, ModelFileError, counted
from dearlite.listwise.decoding import Answer, Tokens
from dearlite.listwise.prompts import ListForm
from dearlite.prefixes import WHOLE_CHARACTERS
from dearlite.templates.chat import ChatTemplate, PromptPart

_MOST_TOKENS = 2**31  # no prompt is longer
_UNSETTLED_TOKENS = 256  # before a cut of a text, which may differ from those of the whole text
_GROWTH = 4
_LEAST_PASSAGE_TOKENS = 4  # a window of shorter passages compares nothing


class Vocabulary(Protocol):
    """The tokenizer interface of this module; `llama.vocabulary` has the implementation for llama.cpp."""

    def encode(self, text: str) -> list[int]:
        """The ids of `text`, in which nothing is a special token."""
        ...

    def token_bytes(self, token: int) -> bytes:
        """The bytes of a token in running text."""
        ...

    def encode_prompt(self, parts: Sequence[PromptPart]) -> list[int]:
        """The ids of a prompt."""
        ...

    def encode_after(self, anchor: str, text: str) -> tuple[int, ...]:
        """The ids of `text` where it follows `anchor`."""
        ...


@dataclass(frozen=True, slots=True)
class Passage:
    """A document as a prompt shows it: `text` is cut by the prompt form, `total` counts the tokens before the cut.

    With `total_is_bound` the document is long: `text` is a beginning that has more tokens than fit in a prompt, unless
    the form cut it before, and `total` is a lower bound.
    """

    text: str
    tokens: tuple[int, ...]  # of `text`
    total: int
    total_is_bound: bool = False

    @property
    def count(self) -> int:
        """The number of tokens of `text`."""
        return len(self.tokens)


@dataclass(frozen=True, slots=True)
class WindowPrompt:
    """The prompt of one window; `used` is the number of tokens of each passage.

    It ends with the answer's opener in the modes that decode identifiers right after the prompt.
    """

    ids: Tokens
    used: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PromptAndAnswer:
    """The `ids` of a prompt and its answer; the answer begins at index `start`."""

    ids: Tokens
    start: int

    @classmethod
    def split(cls, prompt: Sequence[int], ids: Sequence[int]) -> PromptAndAnswer:
        """Splits `ids` (prompt and answer) at the first token that differs from `prompt`, the prompt encoded alone.

        The tokens at the border may be merged differently when an answer follows.
        """
        pairs = enumerate(zip(prompt, ids, strict=False))
        return cls(tuple(ids), next((index for index, (a, b) in pairs if a != b), len(prompt)))


class PromptEncoder:
    """Encodes prompts of one form for one model."""

    # For messages: the passages of a prompt together, the option of their number, and the least number that it takes.
    _unit, _size_option, _least = "window", "--window", 2

    def __init__(self, vocabulary: Vocabulary, form: ListForm, template: ChatTemplate | None) -> None:
        """`template` is the model's chat template. Raises ModelFileError if neither it nor a frame of `form` exists."""
        if form.frame is None and template is None:
            raise ModelFileError(
                "the model file has no chat template, which this prompt form needs: take --prompt plain or rankvicuna"
            )
        self.form = form
        self._vocabulary, self._template = vocabulary, template
        self._answers: dict[int, Answer] = {}  # by number of passages: most windows of a call have the same

    def passage(self, document: Document, most: int | None = None, *, room: int = _MOST_TOKENS) -> Passage:
        """The passage of `document`, cut by the form and to at most `most` tokens.

        `room` is the number of tokens of the longest prompt. Of a document above WHOLE_CHARACTERS no more is read than
        can be in one.
        """
        passage = self._beginning(document, room)
        return passage if most is None else self._cut(passage, most)

    def _beginning(self, document: Document, room: int) -> Passage:
        """The passage of `document`; of a long one, of a beginning that the form cuts or that fills `room`."""
        title, size = document.title, WHOLE_CHARACTERS
        text = document.text if title else document.text.lstrip()
        while len(title) + len(text) > size:
            head = replace(document, title=title[:size], text=text[: max(0, size - len(title))])
            passage = self._passage(head)
            if passage.count < passage.total or passage.count > room + _UNSETTLED_TOKENS:
                return replace(passage, total_is_bound=True)
            size *= _GROWTH
        return self._passage(document)

    def _passage(self, document: Document) -> Passage:
        text, uncut = self.form.passage(document), self.form.passage(document, whole=True)
        tokens = self._vocabulary.encode(text)
        total = len(tokens) if text == uncut else len(self._vocabulary.encode(uncut))
        return Passage(text, tuple(tokens), total)

    def encode(
        self, query: str, passages: Sequence[Passage], *, room: int, reasoned: bool, opened: bool
    ) -> WindowPrompt:
        """The prompt of a window, its passages cut evenly if they do not fit in `room` tokens.

        `reasoned` takes the prompt that asks for reasoning, `opened` appends the answer's "[". Raises InvalidInput if
        passages of 4 tokens do not fit.
        """
        ids, fitting = self._fit(query, passages, room, reasoned, self._opener if opened else "")
        return WindowPrompt(tuple(ids), tuple(passage.count for passage in fitting))

    def encode_with_answer(
        self, query: str, passages: Sequence[Passage], answer: str, *, room: int, reasoned: bool
    ) -> PromptAndAnswer:
        """The prompt followed by its `answer`, together at most `room` tokens: one training example.

        Raises InvalidInput as `encode` does.
        """
        ending = answer if reasoned else self._opener.removesuffix("[") + answer
        ids, fitting = self._fit(query, passages, room, reasoned, ending)
        prompt = self._ids(query, fitting, reasoned, "")
        return PromptAndAnswer.split(prompt, ids)

    def _fit(
        self, query: str, passages: Sequence[Passage], room: int, reasoned: bool, ending: str
    ) -> tuple[list[int], Sequence[Passage]]:
        """The ids of a prompt of at most `room` tokens, and its passages after the cut."""
        query = self._beginning_of_query(query, room)
        ids = self._ids(query, passages, reasoned, ending)
        most = max((passage.count for passage in passages), default=0)
        while len(ids) > room:
            most = self._next_most(passages, most, len(ids) - room)
            if most < _LEAST_PASSAGE_TOKENS:
                raise InvalidInput(
                    f"a {self._unit} of {counted(len(passages), 'passage')} does not fit in {max(0, room)} tokens: the "
                    f"query and the prompt alone leave no room for them; take {self._remedy(len(passages), reasoned)}"
                )
            passages = [self._cut(passage, most) for passage in passages]
            ids = self._ids(query, passages, reasoned, ending)
        return ids, passages

    def _remedy(self, count: int, reasoned: bool) -> str:
        """The ways to make room in a prompt of `count` passages, in words."""
        smaller = [f"a smaller {self._size_option}"] if count > self._least else []
        fewer = ["fewer --reasoning-tokens"] if reasoned else []
        *ways, last = [*smaller, *fewer, "a shorter query"]
        return f"{', '.join(ways)} or {last}" if ways else last

    def _beginning_of_query(self, query: str, room: int) -> str:
        """`query`; of a long one that cannot fit in `room` tokens, a beginning that cannot either."""
        size = WHOLE_CHARACTERS
        while len(query) > size:
            if len(self._vocabulary.encode(query[:size])) > room + _UNSETTLED_TOKENS:
                return query[:size]
            size *= _GROWTH
        return query

    def words(self, text: str) -> Tokens:
        """The ids of words of our own, in which a special token is one, as <think> is in some vocabularies."""
        begun = len(self._vocabulary.encode_prompt([]))  # the token that begins a prompt
        return tuple(self._vocabulary.encode_prompt([PromptPart(text, True)])[begun:])

    def answer(self, count: int) -> Answer:
        """The tokens of an answer over `count` passages, encoded once."""
        if count not in self._answers:
            self._answers[count] = self._encode_answer(count)
        return self._answers[count]

    def _encode_answer(self, count: int) -> Answer:
        names = self.form.identifiers(count)
        paths = tuple(self._vocabulary.encode_after("[", f"{name}] > [") for name in names)
        for name, path in zip(names, paths, strict=True):
            if b"".join(map(self._vocabulary.token_bytes, path)) != f"{name}] > [".encode():
                raise ModelFileError(
                    f"the model's tokenizer cannot encode [{name}] > [, so the model cannot be used for ranking: "
                    "take another model"
                )
        return Answer(self._vocabulary.encode_after("", "\n\n["), paths, tuple(names))

    def _ids(self, query: str, passages: Sequence[Passage], reasoned: bool, ending: str) -> list[int]:
        turns = self.form.turns(query, [passage.text for passage in passages], reasoned=reasoned)
        if self.form.frame is not None:
            before, after = self.form.frame.split("{user}")
            parts = [PromptPart(f"{before}{turns[0][1]}{after}", False)]
        else:
            assert self._template is not None, "checked in __init__"
            parts = self._template.parts(turns)
        if ending:
            parts.append(PromptPart(ending, False))
        return self._vocabulary.encode_prompt(parts)

    @property
    def _opener(self) -> str:
        """The answer's "[", separated from the prompt's text in forms with a frame."""
        frame = self.form.frame
        if frame is None:
            return "["
        if frame.endswith("{user}"):
            return "\n["
        return " ["

    def _cut(self, passage: Passage, most: int) -> Passage:
        """The first `most` tokens of `passage`, at a character's border."""
        if passage.count <= most:
            return passage
        sizes = list(accumulate(len(self._vocabulary.token_bytes(token)) for token in passage.tokens[:most]))
        data = passage.text.encode()
        # A tokenizer may put a blank before a text; that blank is a byte of the first token and not of the text.
        starts_blank = self._vocabulary.token_bytes(passage.tokens[0])[:1] == b" "
        added = 1 if starts_blank and not passage.text.startswith(" ") else 0
        text = data[: sizes[-1] - added].decode("utf-8", "ignore").rstrip()
        return replace(passage, text=text, tokens=tuple(self._vocabulary.encode(text)))

    @staticmethod
    def _next_most(passages: Sequence[Passage], most: int, over: int) -> int:
        """The largest limit below `most` that removes at least `over` tokens from the passages."""
        counts = sorted((passage.count for passage in passages), reverse=True)
        while over > 0 and most > 0:
            longer = sum(count >= most for count in counts)
            step = max(1, over // max(1, longer) // 2)
            over -= sum(min(count, most) - min(count, most - step) for count in counts)
            most -= step
        return most


def labels_part(vocabulary: Vocabulary, paths: Sequence[Tokens], texts: Sequence[str]) -> bool:
    """True if the `paths` of `texts` spell them, and none is the beginning of another."""
    spelt = all(
        b"".join(map(vocabulary.token_bytes, path)) == text.encode() for path, text in zip(paths, texts, strict=True)
    )
    beginnings = {path[:length] for path in paths for length in range(len(path))}
    return spelt and beginnings.isdisjoint(paths) and len(set(paths)) == len(paths)
