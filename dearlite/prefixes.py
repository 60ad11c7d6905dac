"""The first token ids of a text, from as much of the text as they need: the cost of a long text follows what is read.

A short text is encoded whole. Of a long one growing beginnings are encoded until one holds enough tokens. Tokenizers
work from left to right on words, so that a cut changes the tokens of the word that it cuts, and few beside it: the last
`_UNSETTLED_TOKENS` before a cut are not used, and the others are those of the whole text.
"""

from __future__ import annotations

from collections.abc import Callable

WHOLE_CHARACTERS = 100_000  # a text up to this length is encoded whole, and its tokens are counted exactly
_UNSETTLED_TOKENS = 256
_CHARACTERS_PER_TOKEN = 16  # of the first beginning; more than most languages and tokenizers need
_GROWTH = 4


def first_ids(
    text: str,
    enough: int,
    encode: Callable[[str], list[int]],
    condense: Callable[[str], str] | None = None,
) -> tuple[list[int], bool]:
    """The ids of `text`, and True if these are all. Of a text above WHOLE_CHARACTERS the first `enough` ids or more.

    `encode` makes the ids of a text without special tokens. `condense` shortens a text without a change of its ids; it
    lets long runs that give no tokens (spaces, say) pass at no cost.
    """
    if len(text) <= WHOLE_CHARACTERS:
        return encode(text), True
    beginning, end = "", 0
    target = _CHARACTERS_PER_TOKEN * (enough + _UNSETTLED_TOKENS)
    while end < len(text):
        step = max(target // 2, target - len(beginning))
        beginning += text[end : end + step]
        end += step
        if condense is not None:
            beginning = condense(beginning)
        if end < len(text) and len(beginning) < target:
            continue
        ids = encode(beginning)
        if end >= len(text):
            return ids, True
        if len(ids) >= enough + _UNSETTLED_TOKENS:
            return ids[:-_UNSETTLED_TOKENS], False
        target *= _GROWTH
    raise AssertionError("the last beginning is the whole text")
