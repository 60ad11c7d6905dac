"""What can be asked of a listwise model, as one record: the library and the command line share its names and checks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from threading import Event
from typing import TYPE_CHECKING

from dearlite.checks import whole_number
from dearlite.errors import UsageError

if TYPE_CHECKING:
    from dearlite.progress import Progress

# name -> what it does, for --help
LONG_MODES = {
    "truncate": "what does not fit is cut, as the model was trained",
    "chunk": "overlapping passages, the best one counts",
    "cascade": "the stage before picks a document's best passages",
}
LEAST_PASSAGE_TOKENS = 16  # a passage of fewer says nothing

# name -> what it does, for --help
LISTWISE_MODES = {
    "permute": "decodes identifiers under a mask, always a permutation",
    "first": "one pass, order and scores from the first token",
    "reason": "the model reasons first, then as permute",
    "generate": "free text, read strictly",
}
DEFAULT_REASONING_TOKENS = 512


@dataclass(frozen=True, slots=True)
class Listwise:
    """How a listwise model ranks. What is None the model file decides.

    `window` documents are compared at once, windows lie `stride` apart, from the end of the list to its head.
    `passage_tokens` is the most tokens of a document that are shown, `prompt` an entry of `list_prompts.LIST_FORMS`,
    `reasoning_tokens` the most that are written in mode "reason". `on_text` hears what the model writes as it comes.
    With several `passes` the documents are shown again in shuffled orders, and the mean rank counts.
    """

    mode: str = "permute"
    window: int | None = None
    stride: int | None = None
    passage_tokens: int | None = None
    prompt: str | None = None
    reasoning_tokens: int = DEFAULT_REASONING_TOKENS
    passes: int = 1
    on_text: Callable[[str], None] | None = None

    def checked(self, window: int, stride: int) -> Listwise:
        """These options with the model's own `window` and `stride` where none is set. Raises UsageError.

        Where only the window is set, the stride is half of it, as the model's own usually are.
        """
        if self.mode not in LISTWISE_MODES:
            raise UsageError(f"no mode {self.mode!r}: it is one of {', '.join(LISTWISE_MODES)}")
        for name, least in (("passage_tokens", 4), ("reasoning_tokens", 1), ("passes", 1)):
            if (value := getattr(self, name)) is not None:
                whole_number(name, value, least)
        own = stride if self.window is None else max(1, self.window // 2) if isinstance(self.window, int) else 1
        full = replace(
            self,
            window=window if self.window is None else self.window,
            stride=own if self.stride is None else self.stride,
        )
        assert full.window is not None and full.stride is not None
        check_window(full.window, full.stride)
        return full

    @property
    def span(self) -> tuple[int, int]:
        """(window, stride) of options that were `checked`."""
        assert self.window is not None and self.stride is not None
        return self.window, self.stride


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """The options of one call, as `Reranker.rerank` and `rerank_many` take them; `together` is of `rerank_many`."""

    top_k: int | None = None
    listwise: Listwise | None = None
    progress: Progress | None = None
    cancel: Event | None = None
    budget_s: float | None = None
    long: Long | None = None
    together: int = 8


@dataclass(frozen=True, slots=True)
class Long:
    """What to do with long documents. `passage_tokens` is the length of a passage, None for what the model reads.

    Neighbouring passages share a quarter of their tokens; `keep` is how many of a document a stage hands on.
    """

    mode: str = "truncate"
    passage_tokens: int | None = None
    keep: int = 1

    def __str__(self) -> str:
        return f"{self.mode} passage_tokens={self.passage_tokens} keep={self.keep}"

    def checked(self) -> Long:
        """These options. Raises UsageError."""
        if self.mode not in LONG_MODES:
            raise UsageError(f"no long mode {self.mode!r}: it is one of {', '.join(LONG_MODES)}")
        for name, least in (("passage_tokens", LEAST_PASSAGE_TOKENS), ("keep", 1)):
            if (value := getattr(self, name)) is not None:
                whole_number(name, value, least)
        return self


def check_window(window: int, stride: int) -> None:
    """Raises UsageError unless every document but those at a window's foot is seen twice or once, and none never."""
    whole_number("window", window)
    whole_number("stride", stride)
    if window < 2:
        raise UsageError("window is 1: a listwise model compares documents, give it 2 or more")
    if stride > window:
        raise UsageError(f"stride {stride} is larger than window {window}: documents between windows would be skipped")
