"""Prompt forms of listwise models: the words around a query and its passages. Training renders with the same code.

These strings are an interface: the weights were trained with them, and one different character costs quality. A model
file names its form (`dearlite.prompt`); the form is never guessed from a model's name. This module sees texts, never
tokens.

Sources: DeAR's model card ("plain") and evaluation code ("chat"), arXiv 2508.16998; RankGPT, arXiv 2304.09542;
RankVicuna, arXiv 2309.15088; RankZephyr, arXiv 2312.02724.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dearlite.documents import Document
from dearlite.errors import UsageError
from dearlite.options import ListwiseMode
from dearlite.templates.chat import Turn


@dataclass(frozen=True, slots=True)
class PassageLimit:
    """The part of a passage that a form shows, cut as its authors did: the first `most` characters or words.

    Words are joined again with single spaces, also before characters are counted in the unit "joined".
    """

    unit: str  # an entry of _CUTS
    most: int


@dataclass(frozen=True, slots=True)
class ListForm:
    """The prompt of a listwise model. Its texts have the slots {n} and {query}, and {passages} or {i} and {passage}.

    `each_passage` makes turns per passage, with {i} and {passage}; `passage_line` makes the lines of {passages}.
    `frame` is the text around the only user turn, with the slot {user}; None if the model's chat template renders the
    prompt. `reasoned_tail` replaces `tail` if the model may reason before it ranks. Field names and values are hashed
    into `Reranker.identity`: renaming a field invalidates journals and caches.
    """

    identifiers_from: int
    limit: PassageLimit
    head: tuple[Turn, ...]
    each_passage: tuple[Turn, ...] = ()
    tail: tuple[Turn, ...] = ()
    reasoned_tail: tuple[Turn, ...] = ()
    passage_line: str = ""
    frame: str | None = None
    titled: str = "Title: {title} Content: {text}"
    renumbers: bool = False  # True if [3] in a passage is shown as (3), because it is no identifier
    reasons_as: str | None = None  # name of the form that asks for reasoning; None if the authors give none
    max_new_tokens: int = 200

    @property
    def mode(self) -> ListwiseMode:
        """The mode that the form is made for: that of a call which names none."""
        return "permute"

    @property
    def reasoning(self) -> str:
        """The style of reasoning as stated in a model file: "steps", "think" or "none"."""
        return "steps" if self.reasons_as else "none"

    def passage(self, document: Document, *, whole: bool = False) -> str:
        """The text of `document` in a prompt, cut to the form's limit, or uncut if `whole`."""
        text = document.text
        if document.title:
            text = fill(self.titled, title=document.title, text=text)
        text = text.removeprefix("Title: Content: ").strip()
        if self.renumbers:
            text = without_identifiers(text)
        return _CUTS[self.limit.unit](text, None if whole else self.limit.most)

    def identifiers(self, count: int) -> list[str]:
        """The identifiers of `count` passages. Example: 3 passages, from 0 -> "0", "1", "2"."""
        return [str(number) for number in range(self.identifiers_from, self.identifiers_from + count)]

    def turns(self, query: str, passages: Sequence[str], *, reasoned: bool = False) -> list[Turn]:
        """The conversation up to the answer. `passages` are texts from `passage`, perhaps cut further."""
        named = list(zip(self.identifiers(len(passages)), passages, strict=True))
        lines = "\n".join(fill(self.passage_line, i=i, passage=text) for i, text in named)
        values = {"n": str(len(passages)), "query": query, "passages": lines}
        turns = [(role, fill(text, **values)) for role, text in self.head]
        turns += [(role, fill(text, i=i, passage=p)) for i, p in named for role, text in self.each_passage]
        tail = self.reasoned_tail if reasoned and self.reasoned_tail else self.tail
        return turns + [(role, fill(text, **values)) for role, text in tail]


def find_form(name: str, *, reasoned: bool = False) -> ListForm:
    """The form called `name`, or with `reasoned` the form that asks for reasoning instead. Raises UsageError."""
    if name not in LIST_FORMS:
        raise UsageError(f"no listwise prompt form {name!r}: it is one of {', '.join(LIST_FORMS)}")
    form = LIST_FORMS[name]
    if not reasoned:
        return form
    if form.reasons_as is None:
        able = ", ".join(other for other, form in LIST_FORMS.items() if form.reasons_as)
        raise UsageError(f"the prompt form {name!r} does not allow reasoning: take one of {able} (--prompt)")
    return LIST_FORMS[form.reasons_as]


_IDENTIFIER = re.compile(r"\[(\d+)\]")
_SLOT = re.compile(r"\{(\w+)\}")


def fill(text: str, /, **values: str) -> str:
    """`text` with its {slots} filled in one pass, so that a slot's name inside a value is not replaced."""
    return _SLOT.sub(lambda match: values[match[1]], text)


def without_identifiers(text: str) -> str:
    """`text` with [3] as (3), because it is no identifier."""
    return _IDENTIFIER.sub(r"(\1)", text)


_CUTS: dict[str, Callable[[str, int | None], str]] = {
    "characters": lambda text, most: text[:most].rstrip(),
    "words": lambda text, most: " ".join(text.split()[:most]),
    "joined": lambda text, most: " ".join(text.split())[:most],  # characters behind the joining
    "whole": lambda text, _: text,
}

_CHAT_HEAD = (
    ("system", "You are RankLLM, an assistant that ranks passages by relevance to the query."),
    (
        "user",
        "I will provide you with {n} passages, each indicated by number identifier [].\n"
        "Rank the passages based on their relevance to query: {query}.",
    ),
    ("assistant", "Okay, please provide the passages."),
)
_CHAT_PASSAGE = (("user", "[{i}] {passage}"), ("assistant", "Received passage [{i}]."))
_CHAT_STEPS = (
    "Search Query: {query}.\n"
    "Rank the {n} passages above based on their relevance to the search query. The passages should be listed in "
    "descending order using identifiers.\n"
    "Please follow the steps below:\n"
    "Step 1. List the information requirements to answer the query.\n"
    "Step 2. For each requirement, find the passages containing that information.\n"
    "Step 3. Rank passages that best cover clear and diverse information. Include all passages.\n"
    "Output format strictly: [2] > [1] > [3]"
)
RANKLLM_WINDOW = (
    "I will provide you with {n} passages, each indicated by a numerical identifier []. Rank the passages based on "
    "their relevance to the search query: {query}.\n\n{passages}\nSearch Query: {query}.\n"
    "Rank the {n} passages above based on their relevance to the search query. All the passages should be included and "
    "listed using identifiers, in descending order of relevance. "
)
_RANKLLM_HEAD = f"{RANKLLM_WINDOW}The output format should be [] > [], e.g., "

LIST_FORMS: dict[str, ListForm] = {
    "plain": ListForm(
        identifiers_from=0,
        limit=PassageLimit("characters", 300),
        head=(
            (
                "user",
                "I will provide you with {n} passages, each indicated by a number identifier [].\n"
                "Rank the passages based on their relevance to the search query: {query}.\n\n"
                "{passages}\n\n"
                "Search Query: {query}.\n"
                "Rank the passages above based on their relevance to the search query. "
                "Output the ranking as a list of numbers.",
            ),
        ),
        passage_line="[{i}] {passage}",
        frame="{user}",
        titled="{title} {text}",
        reasons_as="chat",
        max_new_tokens=50,
    ),
    "chat": ListForm(
        identifiers_from=1,
        limit=PassageLimit("words", 300),
        head=_CHAT_HEAD,
        each_passage=_CHAT_PASSAGE,
        tail=(("user", f"{_CHAT_STEPS} ... Only output the ranking using identifiers; no explanations."),),
        reasoned_tail=(("user", _CHAT_STEPS),),
        reasons_as="chat",
        max_new_tokens=1024,
    ),
    "rankgpt": ListForm(
        identifiers_from=1,
        limit=PassageLimit("words", 300),
        head=(
            (
                "system",
                "You are RankGPT, an intelligent assistant that can rank passages based on their relevancy to the "
                "query.",
            ),
            (
                "user",
                "I will provide you with {n} passages, each indicated by number identifier []. \n"
                "Rank the passages based on their relevance to query: {query}.",
            ),
            ("assistant", "Okay, please provide the passages."),
        ),
        each_passage=_CHAT_PASSAGE,
        tail=(
            (
                "user",
                "Search Query: {query}. \nRank the {n} passages above based on their relevance to the search query. "
                "The passages should be listed in descending order using identifiers. The most relevant passages "
                "should be listed first. The output format should be [] > [], e.g., [20] > [19]. Only response the "
                "ranking results, do not say any word or explain.",
            ),
        ),
    ),
    "rankzephyr": ListForm(
        identifiers_from=1,
        limit=PassageLimit("words", 300),
        head=(
            (
                "system",
                "You are RankLLM, an intelligent assistant that can rank passages based on their relevancy to the "
                "query",
            ),
            (
                "user",
                f"{_RANKLLM_HEAD}[2] > [1], Answer concisely and directly and only respond with the ranking results, "
                "do not say any word or explain.",
            ),
        ),
        passage_line="[{i}] {passage}",
        renumbers=True,
    ),
    "rankvicuna": ListForm(
        identifiers_from=1,
        limit=PassageLimit("words", 300),
        head=(
            (
                "user",
                f"{_RANKLLM_HEAD}[4] > [2], Only respond with the ranking results, do not say any word or explain.",
            ),
        ),
        passage_line="[{i}] {passage}",
        # Vicuna 1.1's conversation format; its weights come without a chat template.
        frame="A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
        "detailed, and polite answers to the user's questions. USER: {user} ASSISTANT:",
        renumbers=True,
    ),
}
