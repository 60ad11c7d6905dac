"""Words of a text for BM25: its tokens, stop words and stems, by language."""

from __future__ import annotations

import re
from difflib import get_close_matches
from itertools import pairwise
from typing import Any

from dearlite.errors import UsageError, need

NO_LANGUAGE = "none"

# ISO 639-1 -> the name of its Snowball stemmer
_CODES = {
    "ar": "arabic", "ca": "catalan", "cs": "czech", "da": "danish", "de": "german", "el": "greek", "en": "english",
    "eo": "esperanto", "es": "spanish", "et": "estonian", "eu": "basque", "fa": "persian", "fi": "finnish",
    "fr": "french", "ga": "irish", "hi": "hindi", "hu": "hungarian", "hy": "armenian", "id": "indonesian",
    "it": "italian", "lt": "lithuanian", "ne": "nepali", "nl": "dutch", "no": "norwegian", "pl": "polish",
    "pt": "portuguese", "ro": "romanian", "ru": "russian", "sr": "serbian", "sv": "swedish", "ta": "tamil",
    "tr": "turkish", "yi": "yiddish",
}  # fmt: skip

# Languages of which bm25s has stop words
_WITH_STOP_WORDS = frozenset(
    [
        *("danish", "dutch", "english", "french", "german", "italian", "norwegian", "portuguese", "russian"),
        *("spanish", "swedish", "turkish"),
    ]
)

_WORD = re.compile(r"(?u)\b\w\w+\b")  # as bm25s and scikit-learn
# Scripts without blanks between words: Thai to Burmese, Khmer, kana, Han. Their runs become pairs of characters.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_HAS_UNSPACED = re.compile(f"[{_UNSPACED}\U00020000-\U0003ffff]")
_PARTS = re.compile(f"([{_UNSPACED}\U00020000-\U0003ffff]+)")


def words_of(text: str) -> list[str]:
    """The words of two characters or more. A run of a script without blanks gives its characters and pairs of them."""
    if not _HAS_UNSPACED.search(text):
        return _WORD.findall(text)
    words: list[str] = []
    for part in _PARTS.split(text):
        if _HAS_UNSPACED.match(part):
            words += part
            words += map("".join, pairwise(part))
        else:
            words += _WORD.findall(part)
    return words


def check_language(language: str) -> str:
    """The name of the language's stemmer, from its name or its two letters; "none" for no stemmer and no stop words.

    Raises UsageError for a language that the stemmer does not know, MissingExtra if it is not installed.
    """
    if not isinstance(language, str):
        raise UsageError(f"the language is {language!r}: give its name, english for example, or none")
    name = _CODES.get(language.lower(), language.lower())
    if name == NO_LANGUAGE:
        return name
    known = need("Stemmer", extra="first-stage").algorithms()
    if name not in known:
        near = get_close_matches(name, known, 2, 0.5)
        hint = f"nearest: {', '.join(near)}" if near else f"it is one of {', '.join(known)}"
        raise UsageError(f"no stemmer for the language {language!r} ({hint}): none takes words as they are")
    return name


def tokenizer_of(language: str) -> Any:
    """A new bm25s Tokenizer for a name of `check_language`. It keeps the vocabulary of the texts that it has seen."""
    tokenization = need("bm25s.tokenization", extra="first-stage")
    stemmer = None if language == NO_LANGUAGE else need("Stemmer", extra="first-stage").Stemmer(language)
    stop_words = language if language in _WITH_STOP_WORDS else None
    return tokenization.Tokenizer(splitter=words_of, stopwords=stop_words, stemmer=stemmer)
