"""The patterns of `.gitignore` files as regular expressions of bytes, by git's own rules (gitignore(5), wildmatch.c).

A star of git looks for the nearest place where the pattern goes on. Atomic groups keep that, so that no pattern takes
longer than the product of its length and that of the path.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

_STAR, _ANY, _DEEP = rb"[^/]*?", rb".*?", rb"(?:.*?/)??"  # within a name; anything; no folder or several
_GLOB = frozenset(b"*?[\\")
_CLASSES: dict[bytes, Callable[[bytes], bool]] = {
    b"alnum": bytes.isalnum,
    b"alpha": bytes.isalpha,
    b"blank": lambda char: char in b" \t",
    b"cntrl": lambda char: char < b" " or char == b"\x7f",
    b"digit": bytes.isdigit,
    b"graph": lambda char: b"!" <= char <= b"~",
    b"lower": bytes.islower,
    b"print": lambda char: b" " <= char <= b"~",
    b"punct": lambda char: b"!" <= char <= b"~" and not char.isalnum(),
    b"space": bytes.isspace,
    b"upper": bytes.isupper,
    b"xdigit": lambda char: char in b"0123456789abcdefABCDEF",
}


def compile_pattern(pattern: bytes, *, is_path: bool) -> re.Pattern[bytes]:
    """The expression that fits all of a name, or with `is_path` all of a path whose parts a slash separates.

    `**` is for paths alone. Raises ValueError for a pattern that git fits to nothing: a class of characters or an
    escape without its end.
    """
    groups = [[(b"", b"")]]  # each begins at `**`; of its pairs the second is what follows the first, a star
    for wild, literal in _parts(pattern, is_path):
        if wild in (_DEEP, _ANY):
            groups.append([(wild, b"")])
        elif wild:
            groups[-1].append((wild, b""))
        else:
            star, follows = groups[-1][-1]
            groups[-1][-1] = (star, follows + literal)
    *others, last = groups
    text = b"".join(b"(?>%s)" % _group(group, ends=False) for group in others) + _group(last, ends=True)
    return re.compile(text + rb"\Z", re.DOTALL)


def _group(pairs: list[tuple[bytes, bytes]], *, ends: bool) -> bytes:
    (wild, follows), *stars = pairs
    texts = [star + after for star, after in stars]
    # the last star of a pattern reaches as far as its end asks for
    atomic, free = (texts[:-1], texts[-1:]) if ends else (texts, [])
    return b"".join([wild, follows, *(b"(?>%s)" % text for text in atomic), *free])


def _parts(pattern: bytes, is_path: bool) -> Iterator[tuple[bytes, bytes]]:
    """(wildcard, b"") or (b"", expression of one character) of each part of `pattern`."""
    first_glob = next((position for position, char in enumerate(pattern) if char in _GLOB), len(pattern))
    position = 0
    while position < len(pattern):
        char = pattern[position : position + 1]
        if char == b"*":
            end = position + 1
            while pattern[end : end + 1] == b"*":
                end += 1
            after = pattern[end:]
            # git compares what is before the first wildcard apart, and takes `**` there for the start of a pattern
            starts = position in (0, first_glob) or pattern[position - 1 : position] == b"/"
            if is_path and end - position > 1 and starts and (not after or after.startswith((b"/", rb"\/"))):
                is_deep = after.startswith(b"/")
                yield (_DEEP if is_deep else _ANY), b""
                position = end + is_deep
            else:
                yield _STAR, b""
                position = end
        elif char == b"[":
            expression, position = _class(pattern, position)
            yield b"", expression
        elif char == b"?":
            yield b"", b"[^/]"
            position += 1
        else:
            position += char == b"\\"
            yield b"", re.escape(_char(pattern, position))
            position += 1


def _class(pattern: bytes, start: int) -> tuple[bytes, int]:
    """The expression of the class of characters that opens at `start`, and the position after its end."""
    position = start + 1
    if is_negated := pattern[position : position + 1] in (b"!", b"^"):
        position += 1
    chars, before, first = set[int](), 0, True
    while first or _char(pattern, position) != b"]":
        char, first = _char(pattern, position), False
        if char == b"-" and before and pattern[position + 1 : position + 2] not in (b"", b"]"):
            position += 1
            position += _char(pattern, position) == b"\\"
            chars.update(range(before, _char(pattern, position)[0] + 1))
            before = 0
        elif char == b"[" and (end := _end_of_name(pattern, position)):
            name = pattern[position + 2 : end - 1]
            if name not in _CLASSES:
                raise ValueError(f"[:{name.decode(errors='replace')}:] is no class of characters")
            chars.update(code for code in range(128) if _CLASSES[name](bytes([code])))
            position, before = end, 0
        else:
            position += char == b"\\"
            before = _char(pattern, position)[0]
            chars.add(before)
        position += 1
    chars = (set(range(256)) - chars if is_negated else chars) - {ord("/")}
    return (b"[%s]" % b"".join(b"\\x%02x" % code for code in sorted(chars)) if chars else b"(?!)"), position + 1


def _end_of_name(pattern: bytes, start: int) -> int:
    """The position of the bracket that ends `[:name:]`, which begins at `start`; 0 if there is no such name."""
    end = pattern.find(b"]", start + 2) if pattern[start + 1 : start + 2] == b":" else 0
    return end if end - start >= 3 and pattern[end - 1 : end] == b":" else 0


def _char(pattern: bytes, position: int) -> bytes:
    """The character at `position`. Raises ValueError at the end of the pattern."""
    if position >= len(pattern):
        raise ValueError("it ends within a class of characters, or after a backslash")
    return pattern[position : position + 1]
