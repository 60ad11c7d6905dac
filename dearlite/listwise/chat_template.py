"""A model's own chat template (Jinja, in its GGUF) applied to turns whose texts can never become part of it.

The template sees a placeholder instead of each text. What comes back is cut at the placeholders, so that the template's
own words, which may hold special tokens, are told apart from texts, in which "<|eot_id|>" is ten characters.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dearlite.errors import ModelFileError, first_line, need
from dearlite.listwise.prompts import Turn

_MARK = re.compile("\ue000(\\d+)\ue001")  # private-use characters, which no template writes


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a prompt: `special` where special tokens in it are meant, False for text."""

    text: str
    special: bool


class ChatTemplate:
    """A compiled template. It runs in Jinja's sandbox: a model file is somebody else's."""

    def __init__(self, source: str, tokens: Mapping[str, str]) -> None:
        """`tokens` are what templates may write: bos_token, eos_token. Raises ModelFileError for a bad template."""
        sandbox = need("jinja2.sandbox", extra="listwise")
        environment = sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.filters["tojson"] = lambda value, **_: json.dumps(value, ensure_ascii=False)
        environment.globals["raise_exception"] = _raise
        try:
            self._template = environment.from_string(source)
        except Exception as err:  # jinja2's errors, and Python's from its compiler
            raise ModelFileError(
                f"the model's chat template cannot be read ({first_line(err)}): export it again"
            ) from None
        self._tokens = dict(tokens)

    def pieces(self, turns: Sequence[Turn]) -> list[Piece]:
        """The prompt up to where the assistant's answer begins, in order."""
        texts = [text.strip() for _, text in turns]
        marked = [(role, f"\ue000{number}\ue001") for number, (role, _) in enumerate(turns)]
        try:
            rendered = self._render(marked)
        except Exception as first:
            try:  # older templates know no system turn: what it says then opens the user's
                rendered = self._render(_without_system(marked))
            except Exception:
                raise ModelFileError(
                    f"the model's chat template refuses this conversation ({first_line(first)}): take another --prompt"
                ) from None
        pieces, end = [], 0
        for match in _MARK.finditer(rendered):
            pieces += [Piece(rendered[end : match.start()], True), Piece(texts[int(match[1])], False)]
            end = match.end()
        shown = {int(match[1]) for match in _MARK.finditer(rendered)}
        if len(shown) < len(turns):
            raise ModelFileError(
                "the model's chat template leaves out parts of this conversation: take another --prompt"
            )
        return [piece for piece in (*pieces, Piece(rendered[end:], True)) if piece.text]

    def _render(self, turns: Sequence[Turn]) -> str:
        messages = [{"role": role, "content": text} for role, text in turns]
        rendered: str = self._template.render(messages=messages, add_generation_prompt=True, **self._tokens)
        return rendered


def encode_pieces(
    pieces: Sequence[Piece], text: Callable[[str], list[int]], special: Mapping[str, int], bos: int | None
) -> list[int]:
    """The ids of a prompt: tokens of `special` by name in special pieces, all else by `text`, joined across pieces.

    A text is encoded together with the plain words around it, as a tokenizer sees them: the prompt that the model was
    trained with, token for token. `bos` opens it where it does not already.
    """
    ids: list[int] = []
    run, names = "", any_of(special)
    for piece in pieces:
        if not piece.special or names is None:
            run += piece.text
            continue
        end = 0
        for match in names.finditer(piece.text):
            run += piece.text[end : match.start()]
            ids += text(run) if run else []
            ids.append(special[match[0]])
            run, end = "", match.end()
        run += piece.text[end:]
    ids += text(run) if run else []
    return ids if bos is None or ids[:1] == [bos] else [bos, *ids]


def any_of(texts: Iterable[str]) -> re.Pattern[str] | None:
    """A pattern for any of `texts`, the longest first; None for none."""
    ordered = sorted(texts, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, ordered))) if ordered else None


def _without_system(turns: Sequence[Turn]) -> list[Turn]:
    if len(turns) < 2 or turns[0][0] != "system":
        return list(turns)
    return [(turns[1][0], f"{turns[0][1]}\n\n{turns[1][1]}"), *turns[2:]]


def _raise(message: str) -> Any:
    raise ValueError(message)
