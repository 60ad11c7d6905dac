"""Emptiness of texts by their characters: a text of invisible and control characters alone is as empty as no text."""

from __future__ import annotations

import unicodedata

_PIECE_CHARACTERS = 2**16  # characters looked at together: the set of them costs no memory worth a thought
# Letters and symbols for Unicode that show nothing: fillers of Hangul, an empty Braille cell, an empty note head, and
# the characters that stand for an object or for bytes that could not be read.
_BLANK = frozenset("\u115f\u1160\u3164\uffa0\u2800\U0001d159\ufffc\ufffd")


def readable(text: str) -> bool:
    """True if `text` has a character to read: a letter, digit, punctuation mark or symbol that shows something.

    Spaces, control and format characters (zero-width ones, soft hyphen, BOM), private use, surrogates, noncharacters,
    U+FFFD and combining marks without a letter are nothing to read. A character that this Python's Unicode does not
    know yet counts, since it may be a new letter or emoji.

    Example: readable("a\u200b") -> True; readable("\u200b\ufeff \u0301") -> False.
    """
    if any(map(_shows, text[:32])):
        return True
    pieces = (text[start : start + _PIECE_CHARACTERS] for start in range(32, len(text), _PIECE_CHARACTERS))
    return any(any(map(_shows, set(piece))) for piece in pieces)


def valid_text(text: str) -> str:
    """`text` as valid UTF-8: surrogate pairs are joined, a lone surrogate becomes U+FFFD.

    JSON may legally hold a lone surrogate, which no tokenizer accepts.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _shows(char: str) -> bool:
    category = unicodedata.category(char)
    if category == "Cn":  # unassigned, or one of the 66 noncharacters
        return not (0xFDD0 <= ord(char) <= 0xFDEF or ord(char) & 0xFFFE == 0xFFFE)
    return category[0] not in "CMZ" and char not in _BLANK
