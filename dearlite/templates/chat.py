"""The chat template of a model (Jinja), applied to turns whose texts can never become part of it.

The template sees a placeholder instead of each text, and the rendered prompt is split at the placeholders. This
separates the template's own words, which may hold special tokens, from texts, in which "<|eot_id|>" is ten characters.

Templates are written for transformers (utils/chat_template_utils.py, `apply_chat_template`), so the environment has its
additions to Jinja: break and continue, {% generation %}, tojson, raise_exception and strftime_now.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

from dearlite.errors import ModelFileError, first_line, need

_LONGEST_S = 10.0  # of rendering, which takes milliseconds: a template that loops on and on is refused
_LARGEST = 10**6  # characters of a prompt's words, characters or items of a repeated value, bits of a power
Turn = tuple[str, str]  # (role, text): "system", "user" or "assistant"

_PLACEHOLDER = re.compile("\ue000(\\d+)\ue001")  # private-use characters, which no template writes
# The day that `strftime_now` gives: the one that Llama 3's template falls back to. With today's date a model would give
# other scores tomorrow, and a journal would continue with other prompts.
_TODAY = datetime(2024, 7, 26)


@dataclass(frozen=True, slots=True)
class PromptPart:
    """A part of a prompt: the template's words, with special tokens if `special`, or a text, without any."""

    text: str
    special: bool


@dataclass(frozen=True, slots=True)
class Strips:
    """The special tokens that take up the blanks before and after them, as ids (Phi-3's turns)."""

    before: frozenset[int] = frozenset()
    after: frozenset[int] = frozenset()


NO_STRIPS = Strips()


class ChatTemplate:
    """A compiled template. It runs in Jinja's sandbox, because model files come from third parties."""

    def __init__(self, source: str, tokens: Mapping[str, object]) -> None:
        """`tokens` are the variables bos_token and eos_token, and others that a template reads.

        Raises ModelFileError if `source` does not compile.
        """
        self.source = source
        environment = _environment()
        try:
            self._template = environment.from_string(source)
        except Exception as err:  # jinja2's errors, and Python's from its compiler
            raise ModelFileError(
                f"the model's chat template cannot be read ({first_line(err)}): take --prompt plain or rankvicuna, "
                "which need none"
            ) from None
        self._tokens = dict(tokens)

    def parts(self, turns: Sequence[Turn]) -> list[PromptPart]:
        """The parts of the prompt, in order, up to the beginning of the assistant's answer."""
        texts = [text.strip() for _, text in turns]
        marked = [(role, f"\ue000{number}\ue001") for number, (role, _) in enumerate(turns)]
        try:
            rendered = self._render(marked)
        except Exception as first:
            try:
                if isinstance(first, TimeoutError):
                    raise  # another attempt would take as long
                # older templates have no system turn: its text then opens the user's
                rendered = self._render(_without_system(marked))
            except Exception:
                raise ModelFileError(
                    f"the model's chat template refuses this conversation ({first_line(first)}): take another --prompt"
                ) from None
        shown = {int(match[1]) for match in _PLACEHOLDER.finditer(rendered)}
        if shown and max(shown) >= len(turns):
            raise ModelFileError(
                "the model's chat template writes characters of a private use area: take another --prompt"
            )
        parts, end = [], 0
        for match in _PLACEHOLDER.finditer(rendered):
            parts += [PromptPart(rendered[end : match.start()], True), PromptPart(texts[int(match[1])], False)]
            end = match.end()
        if len(shown) < len(turns):
            raise ModelFileError(
                "the model's chat template leaves out parts of this conversation: take another --prompt"
            )
        return [part for part in (*parts, PromptPart(rendered[end:], True)) if part.text]

    def _render(self, turns: Sequence[Turn]) -> str:
        messages = [{"role": role, "content": text} for role, text in turns]
        pieces: list[str] = []
        left = _LARGEST
        with _time_limit(_LONGEST_S):
            for piece in self._template.generate(
                messages=messages, tools=None, documents=None, add_generation_prompt=True, **self._tokens
            ):
                pieces.append(piece)
                left -= len(piece)
                if left < 0:
                    raise ValueError(f"a prompt of more than {_LARGEST} characters without its texts")
        return "".join(pieces)


def encode_parts(
    parts: Sequence[PromptPart],
    encode: Callable[[str], list[int]],
    special: Mapping[str, int],
    bos: int | None,
    strips: Strips = NO_STRIPS,
) -> list[int]:
    """The ids of a prompt: special tokens by name in special parts, everything else by `encode`, joined across parts.

    `special` maps a token's text to its id. A text is encoded together with the plain words around it, because a
    tokenizer may merge across their border: the ids are those of the prompt that the model was trained with. `bos` is
    put first unless the prompt begins with it.
    """
    ids: list[int] = []
    plain, names = "", pattern_of(special)

    def close(token: int | None) -> None:
        """Adds the plain words up to `token`, and `token`."""
        text = plain.lstrip() if ids and ids[-1] in strips.after else plain
        text = text.rstrip() if token in strips.before else text
        ids.extend(encode(text) if text else [])
        ids.extend([] if token is None else [token])

    for part in parts:
        if not part.special or names is None:
            plain += part.text
            continue
        end = 0
        for match in names.finditer(part.text):
            plain += part.text[end : match.start()]
            close(special[match[0]])
            plain, end = "", match.end()
        plain += part.text[end:]
    close(None)
    return ids if bos is None or ids[:1] == [bos] else [bos, *ids]


def encode_after(encode: Callable[[str], list[int]], anchor: str, text: str) -> tuple[int, ...]:
    """The ids of `text` where it follows `anchor`. Raises ModelFileError if a token spans both."""
    before, both = encode(anchor), encode(anchor + text)
    if both[: len(before)] != before:
        raise ModelFileError(
            f"the model's tokenizer merges {anchor!r} and {text!r}, so the model cannot be used for ranking: "
            "take another model"
        )
    return tuple(both[len(before) :])


def pattern_of(texts: Iterable[str]) -> re.Pattern[str] | None:
    """A pattern that matches any of `texts`, the longest first; None if there are none."""
    ordered = sorted(texts, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, ordered))) if ordered else None


def _without_system(turns: Sequence[Turn]) -> list[Turn]:
    """The turns with the system turn's text at the beginning of the next one."""
    if len(turns) < 2 or turns[0][0] != "system":
        return list(turns)
    return [(turns[1][0], f"{turns[0][1]}\n\n{turns[1][1]}"), *turns[2:]]


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raises TimeoutError in the block's own Python functions once they have computed for `seconds`, in any thread.

    Time in which the machine is busy with other work, or asleep, does not count.
    """
    deadline, before = time.thread_time() + seconds, sys.gettrace()

    def watch(*_: object) -> Any:
        if time.thread_time() > deadline:
            raise TimeoutError(f"it runs for more than {seconds:g} s")
        return watch

    sys.settrace(watch)
    try:
        yield
    finally:
        sys.settrace(before)


def _bounded(environment: Any, context: Any, operator: str, left: Any, right: Any) -> Any:
    """The value of `left * right` or `left ** right`. Raises ValueError for one that would fill the memory at once."""
    if operator == "**":
        size = left.bit_length() * right if isinstance(left, int) and isinstance(right, int) else 0
    else:
        count, value = (left, right) if isinstance(left, int) else (right, left)
        size = len(value) * count if isinstance(count, int) and hasattr(value, "__len__") else 0
    if size > _LARGEST:
        raise ValueError(f"a value of {size} characters, items or bits")
    return environment.binop_table[operator](left, right)


@cache
def _environment() -> Any:
    """Jinja's sandbox with the additions of transformers."""
    sandbox, ext = (need(f"jinja2.{part}", extra="listwise") for part in ("sandbox", "ext"))
    generation = type("Generation", (ext.Extension,), {"tags": {"generation"}, "parse": _parse_generation})
    limits = {"intercepted_binops": frozenset(("*", "**")), "call_binop": _bounded}
    environment = type("Sandbox", (sandbox.ImmutableSandboxedEnvironment,), limits)(
        trim_blocks=True, lstrip_blocks=True, extensions=[generation, ext.loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals |= {"raise_exception": _raise, "strftime_now": _TODAY.strftime}
    return environment


def _parse_generation(_: Any, parser: Any) -> Any:
    """The words between {% generation %} and {% endgeneration %}, the tags that mark trained text, as they are."""
    line = next(parser.stream).lineno
    body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
    return need("jinja2.nodes", extra="listwise").Scope(body, lineno=line)  # names set within end with it


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """`value` as JSON. Unlike Jinja's own filter, it leaves HTML characters as they are."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise(message: str) -> Any:
    raise ValueError(message)
