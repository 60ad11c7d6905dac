"""The rules of `.gitignore` files and of --include and --exclude."""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatch

from dearlite.errors import UsageError
from dearlite.folders.content import Unreadable
from dearlite.folders.encodings import has_mark
from dearlite.folders.opening import read_bytes
from dearlite.folders.passage import printable_path
from dearlite.folders.wildmatch import compile_pattern

NAME = ".gitignore"
_LARGEST = 2**20  # bytes
_LONGEST = 4_096  # bytes of a pattern, as many as a path may have


@dataclass(frozen=True, slots=True)
class Rule:
    """A line of a `.gitignore`.

    - `expression`: fits the path below the folder of the file with `is_path`, else the name alone.
    - `folders_only`: True for a line that ends with a slash.
    - `ignores`: False for a line that begins with `!`.
    """

    expression: re.Pattern[bytes]
    is_path: bool
    folders_only: bool
    ignores: bool


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of the `.gitignore` in a folder, and those of the folders above it up to the one that was named.

    `start` is the number of characters of a path up to what is below the folder; `lines` has the last rule first.
    """

    start: int
    lines: tuple[Rule, ...]
    above: Rules | None

    def ignores(self, relative: str, *, is_folder: bool) -> bool:
        """True if `relative`, a path below the named folder, is ignored.

        The rules nearest to it decide, of one file the last that fits, as in git. What is in a folder that is ignored
        is not looked at.
        """
        path = os.fsencode(relative.replace(os.sep, "/"))
        name = path.rpartition(b"/")[2]
        rules: Rules | None = self
        while rules is not None:
            below = os.fsencode(relative[rules.start :].replace(os.sep, "/"))
            for rule in rules.lines:
                if (is_folder or not rule.folders_only) and rule.expression.match(below if rule.is_path else name):
                    return rule.ignores
            rules = rules.above
        return False


def read_rules(folder: str, below: str, above: Rules | None, problems: list[str]) -> Rules | None:
    """The rules of the `.gitignore` in `folder`; `above` if it cannot be read, with a line in `problems`.

    `below` is the path of `folder` below the named one, "" for that itself. A pattern that fits nothing in git either
    is left out, with a line as well.
    """
    path = os.path.join(folder, NAME)
    try:
        data = read_bytes(path, _LARGEST, follow=False).removeprefix(codecs.BOM_UTF8)
        if has_mark(data):
            raise Unreadable("is not UTF-8, and git does not read it either: save it as UTF-8")
    except Unreadable as err:
        problems.append(f"{printable_path(path)} {err}; its rules are not followed")
        return above
    lines = list[Rule]()
    for number, line in enumerate(data.split(b"\n"), start=1):
        try:
            rule = _rule(line)
        except ValueError as err:
            problems.append(f"{printable_path(path)}:{number} is no pattern ({err}): it is not followed")
            continue
        if rule is not None:
            lines.append(rule)
    return Rules(len(below) + bool(below), tuple(reversed(lines)), above)


def _rule(line: bytes) -> Rule | None:
    """The rule of a line; None for a blank line and a comment. Raises ValueError for one that fits nothing."""
    if line.startswith(b"#"):
        return None
    line = _without_blanks(line.removesuffix(b"\r"))
    if len(line) > _LONGEST:
        raise ValueError(f"it is over {_LONGEST:,} bytes")
    pattern = line.removeprefix(b"!")
    folders_only = pattern.endswith(b"/")
    pattern = pattern.removesuffix(b"/")
    is_path = b"/" in pattern
    pattern = pattern.removeprefix(b"/")
    if not pattern:
        return None
    return Rule(compile_pattern(pattern, is_path=is_path), is_path, folders_only, not line.startswith(b"!"))


def _without_blanks(line: bytes) -> bytes:
    """The line without the blanks at its end, which belong to a name only after a backslash."""
    kept = line.rstrip(b" ")
    backslashes = len(kept) - len(kept.rstrip(b"\\"))
    return line[: len(kept) + backslashes % 2]


@dataclass(frozen=True, slots=True)
class Choice:
    """The caller's globs. One without a slash is for the name, another for the path below the named folder."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def takes(self, relative: str) -> bool:
        """True for a file to read: it fits one of `include`, if there are any, and none of `exclude`."""
        return (not self.include or _fits(relative, self.include)) and not self.excludes(relative)

    def excludes(self, relative: str) -> bool:
        """True for a file or folder that is left out by name."""
        return _fits(relative, self.exclude)


def _fits(relative: str, globs: Iterable[str]) -> bool:
    path = relative.replace(os.sep, "/")
    name = path.rpartition("/")[2]
    return any(fnmatch(path if "/" in glob else name, glob) for glob in globs)


def as_globs(name: str, value: object) -> tuple[str, ...]:
    """`value`, a glob or several, as a tuple. Raises UsageError for anything else."""
    if isinstance(value, str):
        return (value,)
    if isinstance(value, Iterable) and not isinstance(value, bytes):
        globs = tuple(value)
        if all(isinstance(glob, str) for glob in globs):
            return globs
    raise UsageError(f"{name} is {value!r}: give a glob, '*.md', or a list of globs")
