"""Options of a call as frozen records, with the checks that the library and the command line share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from threading import Event
from typing import TYPE_CHECKING, Literal

from dearlite.checks import instance, whole_number
from dearlite.errors import UsageError
from dearlite.readable import valid_text

if TYPE_CHECKING:
    from dearlite.progress import Progress

Device = Literal["auto", "cpu", "cuda"]
LongMode = Literal["truncate", "chunk", "cascade"]
ListwiseMode = Literal["permute", "first", "reason", "generate", "setwise", "pairwise", "pointwise"]
SortName = Literal["heap", "bubble", "insertion", "sliding", "allpair"]
Fuse = Literal["max", "mean", "rrf"]

# fusion of several queries -> description, for --help
FUSIONS: dict[Fuse, str] = {
    "max": "best score (best rank unless the model is pointwise)",
    "mean": "mean score (mean rank unless the model is pointwise)",
    "rrf": "reciprocal ranks, the sum of 1 / (60 + rank)",
}
# mode -> description, for --help
LONG_MODES: dict[LongMode, str] = {
    "truncate": "cut at the length that the model reads, as in its training",
    "chunk": "MaxP: read in overlapping passages, the best passage counts",
    "cascade": "passage selection: the previous stage picks the best passages of a document",
}
LEAST_PASSAGE_TOKENS = 16  # a shorter passage carries too little meaning to score

# mode -> description, for --help
LISTWISE_MODES: dict[ListwiseMode, str] = {
    "permute": "decodes identifiers under a mask, always a permutation",
    "first": "FIRST: one forward pass, order and scores from the first token",
    "reason": "chain of thought: writes its reasoning first, then as permute",
    "generate": "free generation, parsed strictly",
    "setwise": "sorts by picking the best of a few documents",
    "pairwise": "sorts by comparing two documents, in both orders",
    "pointwise": "Rank1: reasons about each document alone, the score is P(true)",
}
# mode that sorts -> its algorithms, the default first
SORTS: dict[ListwiseMode, tuple[SortName, ...]] = {
    "setwise": ("heap", "bubble", "insertion"),
    "pairwise": ("heap", "sliding", "allpair"),
}
DEFAULT_GROUP_SIZE = 4
DEFAULT_SORT_K = 10
_SORTING = ("group_size", "sort", "sort_k", "shuffle_seed")  # fields of the modes that sort
DEFAULT_REASONING_TOKENS = 512
MOST_SUB_QUERIES = 5  # that a model splits a query into
MOST_PASSES = 100  # the orders of all passes are in memory at once, and the mean rank has settled long before


@dataclass(frozen=True, slots=True)
class Listwise:
    """Options of a listwise model. The model file decides every option that is None.

    - `mode`: "permute" decodes identifiers under a mask, so that the answer is always a permutation; "first" takes
      order and scores from the logits of the first token; "reason" writes reasoning, then decodes like "permute";
      "generate" writes free text, which is parsed strictly; "setwise" sorts by the model's picks of the best of a few
      documents, "pairwise" by its picks of the better of two, asked in both orders; "pointwise" reasons about each
      document alone, and scores it by the probability of "true". Default: that of the prompt form, which is "permute"
      for most models and "reason" for one that was trained to think.
    - `window`: number of documents in one prompt, 2 or more.
    - `stride`: distance between two windows in documents, from 1 to `window`. Windows run from the end of the list to
      its head. Default: half of `window` if that is set, otherwise the file's.
    - `passage_tokens`: maximum number of tokens of a document in the prompt, 4 or more.
    - `prompt`: name of a prompt form, a key of `dearlite.listwise.forms.FORMS` that goes with the mode.
    - `reasoning_tokens`: maximum number of tokens that mode "reason" writes for a window, mode "pointwise" for a
      document, and mode "setwise" for a comparison with a prompt that asks for reasoning ("rank-r1"), 1 or more; the
      other modes refuse it. Reasoning that reaches it is closed, and the answer follows.
    - `group_size`: number of documents in one comparison of mode "setwise", 2 or more; default 4.
    - `sort`: the algorithm of a mode that sorts, one of `dearlite.options.SORTS`; default "heap".
    - `sort_k`: number of documents at the head that a mode that sorts puts in order, 1 or more; default 10. Those below
      keep the order in which they were given ("allpair" orders all).
    - `shuffle_seed`: shuffles the documents of each comparison of mode "setwise", the same in every run; default: as
      the authors of the prompt form did.
    - `passes`: number of passes, 1 to 100. Each pass after the first shuffles the documents; the mean rank counts. An
      attention reranker takes this option alone.
    - `on_text`: function that is called with each piece of text as the model writes it.

    A call with a value outside these ranges raises UsageError.
    """

    mode: ListwiseMode | None = None
    window: int | None = None
    stride: int | None = None
    passage_tokens: int | None = None
    prompt: str | None = None
    reasoning_tokens: int = DEFAULT_REASONING_TOKENS
    passes: int = 1
    on_text: Callable[[str], None] | None = None
    group_size: int | None = None
    sort: SortName | None = None
    sort_k: int | None = None
    shuffle_seed: int | None = None

    @property
    def sorts(self) -> bool:
        """True for a mode that sorts by comparisons, and has no windows."""
        return self.mode in SORTS

    @property
    def beside_passes(self) -> dict[str, object]:
        """Field -> value of what is set beside `passes` and `on_text`: an attention reranker takes none of these."""
        names = (field.name for field in fields(self) if field.name not in ("passes", "on_text"))
        return {name: value for name in names if (value := getattr(self, name)) != getattr(Listwise(), name)}

    @property
    def has_windows(self) -> bool:
        """True for a mode that reads the list in windows."""
        return not self.sorts and self.mode != "pointwise"

    def in_mode(self, mode: ListwiseMode) -> Listwise:
        """These options for a call that names its own `mode`, without the fields that this mode does not take."""
        options = replace(self, mode=mode)
        takes = {
            "window stride": options.has_windows,
            "sort_k": options.sorts,
            "sort": self.sort in SORTS.get(mode, ()),
            "group_size shuffle_seed": mode == "setwise",
            "reasoning_tokens": mode in ("reason", "pointwise") or (mode == "setwise" and self.mode in (mode, None)),
        }
        dropped = [name for names, taken in takes.items() if not taken for name in names.split()]
        return replace(options, **{name: getattr(Listwise(), name) for name in dropped})

    def check_values(self) -> None:
        """Raises UsageError for a value that no mode accepts."""
        if self.mode is not None and self.mode not in tuple(LISTWISE_MODES):
            raise UsageError(f"no mode {self.mode!r}: it is one of {', '.join(LISTWISE_MODES)}")
        if self.passage_tokens is not None:
            whole_number("passage_tokens", self.passage_tokens, 4)
        for name in ("reasoning_tokens", "passes"):
            whole_number(name, getattr(self, name))
        if self.on_text is not None and not callable(self.on_text):
            raise UsageError(f"on_text is {self.on_text!r}: it must be a function that takes a text, or be left out")
        check_window(sys.maxsize if self.window is None else self.window, 1 if self.stride is None else self.stride)
        if self.passes > MOST_PASSES:
            raise UsageError(f"passes is {self.passes}: it must be {MOST_PASSES} or less")

    def checked(self, window: int, stride: int, mode: ListwiseMode = "permute") -> Listwise:
        """These options, with the model file's `window`, `stride` and `mode` where they are None. Raises UsageError.

        If `self.window` is set and `self.stride` is not, the stride is half the window, as in most model files. The
        fields of sorting get their defaults in the modes that sort.
        """
        self.check_values()
        return (self if self.mode is not None else replace(self, mode=mode))._checked(window, stride)

    def _checked(self, window: int, stride: int) -> Listwise:
        """`checked` for options with a mode."""
        assert self.mode is not None
        if self.reasoning_tokens != DEFAULT_REASONING_TOKENS and self.mode not in ("reason", "setwise", "pointwise"):
            raise UsageError(
                f"reasoning_tokens is {self.reasoning_tokens}, and mode {self.mode} writes no reasoning: "
                "use mode reason"
            )
        if self.sorts:
            return self._checked_sort(window, stride)
        for name in _SORTING:
            if (value := getattr(self, name)) is not None:
                raise UsageError(
                    f"{name} is {value}, and mode {self.mode} compares no groups: use mode "
                    f"{'setwise' if name in ('group_size', 'shuffle_seed') else 'setwise or pairwise'}"
                )
        if not self.has_windows:
            self._refuse_windows()
            return replace(self, window=window, stride=stride)
        if self.window is not None:
            window = whole_number("window", self.window)
            stride = max(1, window // 2)
        if self.stride is not None:
            stride = self.stride
        check_window(window, stride)
        return replace(self, window=window, stride=stride)

    def _checked_sort(self, window: int, stride: int) -> Listwise:
        """`checked` for a mode that sorts."""
        assert self.mode is not None
        self._refuse_windows()
        algorithms = SORTS[self.mode]
        if self.sort is not None and self.sort not in algorithms:
            raise UsageError(f"no sort {self.sort!r} of mode {self.mode}: it is one of {', '.join(algorithms)}")
        for name, least in (("group_size", 2), ("sort_k", 1), ("shuffle_seed", 0)):
            if (value := getattr(self, name)) is not None:
                whole_number(name, value, least)
        for name in ("group_size", "shuffle_seed"):
            if self.mode == "pairwise" and (value := getattr(self, name)) is not None:
                raise UsageError(
                    f"{name} is {value}, and mode pairwise compares two documents in both orders: use mode setwise"
                )
        return replace(
            self,
            window=window,
            stride=stride,
            group_size=2 if self.mode == "pairwise" else self.group_size or DEFAULT_GROUP_SIZE,
            sort=self.sort or algorithms[0],
            sort_k=self.sort_k or DEFAULT_SORT_K,
        )

    def _refuse_windows(self) -> None:
        for name in ("window", "stride"):
            if (value := getattr(self, name)) is not None:
                raise UsageError(f"{name} is {value}, and mode {self.mode} has no windows: leave it out")

    @property
    def span(self) -> tuple[int, int]:
        """(window, stride) of options that `checked` returned."""
        assert self.window is not None and self.stride is not None
        return self.window, self.stride


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """The options of one call of `Reranker.rerank` or `rerank_many`; only the latter uses `batch_size`.

    `positions` are those of the documents in the caller's list, for messages, where a part of them is ranked. Raises
    UsageError if `batch_size` is no whole number from 1.
    """

    top_k: int | None = None
    listwise: Listwise | None = None
    progress: Progress | None = None
    cancel: Event | None = None
    budget_s: float | None = None
    long: Long | None = None
    batch_size: int = 8
    positions: Sequence[int] | None = None

    def __post_init__(self) -> None:
        whole_number("batch_size", self.batch_size)
        if self.listwise is not None:
            instance("listwise", self.listwise, Listwise, "Listwise(mode=...)")
        if self.long is not None:
            instance("long", self.long, Long, 'Long("chunk")')


@dataclass(frozen=True, slots=True)
class Long:
    """Treatment of documents that are longer than a pointwise model's input.

    - `mode`: "truncate" cuts a document at the model's input length; "chunk" reads it in overlapping passages and gives
      it the score of the best passage; "cascade" reads it in passages in the first stage, and later pointwise stages
      read only the best passages.
    - `passage_tokens`: length of a passage in tokens, 16 or more. Neighbouring passages share a quarter of it. Default:
      the length that the model reads beside the query, in mode "cascade" at most 180.
    - `keep`: number of passages per document in `Hit.passages`, 1 or more; in mode "cascade" the next stage reads them.

    A call raises UsageError for a value outside these ranges, for a `passage_tokens` that the model cannot read, and
    for `passage_tokens` or `keep` in mode "truncate", which has no passages.
    """

    mode: LongMode = "truncate"
    passage_tokens: int | None = None
    keep: int = 1

    def __str__(self) -> str:
        return f"{self.mode} passage_tokens={self.passage_tokens} keep={self.keep}"

    def checked(self) -> Long:
        """These options. Raises UsageError."""
        if self.mode not in tuple(LONG_MODES):  # a tuple takes any value, a dict only those with a hash
            raise UsageError(f"no long mode {self.mode!r}: it is one of {', '.join(LONG_MODES)}")
        for name, least in (("passage_tokens", LEAST_PASSAGE_TOKENS), ("keep", 1)):
            if (value := getattr(self, name)) is not None:
                whole_number(name, value, least)
        if self.mode == "truncate" and (self.passage_tokens is not None or self.keep > 1):
            name = "keep" if self.passage_tokens is None else "passage_tokens"
            raise UsageError(
                f"{name} is {getattr(self, name)}, and long mode truncate reads no passages: use mode chunk or cascade"
            )
        return self


def check_instruction(instruction: object) -> str | None:
    """The instruction as a text without blanks around it; None if there is none. Raises UsageError for an empty one."""
    if instruction is None:
        return None
    if not isinstance(instruction, str) or not instruction.strip():
        raise UsageError(f"the instruction is {instruction!r}: it must be a text, or be left out")
    return valid_text(instruction.strip())


def check_window(window: int, stride: int) -> None:
    """Raises UsageError unless window >= 2 and 1 <= stride <= window, so that no document is skipped."""
    whole_number("window", window)
    whole_number("stride", stride)
    if window < 2:
        raise UsageError("window is 1: a listwise model compares documents, give it 2 or more")
    if stride > window:
        raise UsageError(
            f"stride is {stride}, more than the window of {window}: documents between windows would be skipped"
        )
