"""Long runs of characters that give a BERT tokenizer no tokens, or one for all, shortened without a change of its ids.

BERT's normaliser drops control characters and turns every blank into a space, its pre-tokenizer drops spaces, and
WordPiece makes one unknown token of a word of more than `max_input_chars_per_word` characters.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

# Characters that clean_text drops; not all of them, only those of which files hold long runs.
_DROPPED = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff\ufffd]+")
# Blanks as Rust's char::is_whitespace has them, less those that are control characters and dropped before.
_BLANKS = re.compile("[ \t\n\r\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]{2,}")
# A letter or digit that stays part of its word: no underscore (punctuation), no ideograph (a word of its own).
_LETTER = r"[^\W_\u2e80-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"

_MARK = "[\u0300-\u036f]"  # combining accents: dropped with the accents, or characters of their word


def condenser(tokenizer: Mapping[str, Any]) -> Callable[[str], str] | None:
    """The function that shortens texts for the tokenizer of this tokenizer.json; None if its rules are not BERT's."""
    normalizer, splitter, model = (tokenizer.get(name) or {} for name in ("normalizer", "pre_tokenizer", "model"))
    if (
        normalizer.get("type") != "BertNormalizer"
        or not normalizer.get("clean_text")
        or splitter.get("type") != "BertPreTokenizer"
        or model.get("type", "WordPiece") != "WordPiece"
        or not all(token.get("special") for token in tokenizer.get("added_tokens") or ())  # others split a word
    ):
        return None
    most = model.get("max_input_chars_per_word", 100) + 1
    long_word = re.compile(f"((?:{_LETTER}{_MARK}*){{{most}}})(?:{_LETTER}|{_MARK})+")
    many_marks = re.compile(f"({_MARK}{{{most}}}){_MARK}+")

    def condense(text: str) -> str:
        return _BLANKS.sub(" ", long_word.sub(r"\1", many_marks.sub(r"\1", _DROPPED.sub("", text))))

    return condense
