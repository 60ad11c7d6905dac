"""The rules of `.gitignore` files and of --include and --exclude."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import TYPE_CHECKING

from dearlite.errors import UsageError, need
from dearlite.folders.content import Unreadable
from dearlite.folders.encodings import decode
from dearlite.folders.opening import read_bytes
from dearlite.folders.passage import printable_path

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

NAME = ".gitignore"
_LARGEST = 2**20  # bytes


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of the `.gitignore` in `folder`, and those of the folders above it up to the one that was named."""

    folder: str
    spec: GitIgnoreSpec
    above: Rules | None

    def ignores(self, path: str, *, is_folder: bool) -> bool:
        """True if `path` is ignored. The rules nearest to it decide, of one file the last that fits, as in git."""
        relative = os.path.relpath(path, self.folder).replace(os.sep, "/") + "/" * is_folder
        answer = self.spec.check_file(relative).include
        if answer is not None:
            return answer
        return self.above is not None and self.above.ignores(path, is_folder=is_folder)


def read_rules(folder: str, above: Rules | None, problems: list[str]) -> Rules | None:
    """The rules of the `.gitignore` in `folder`; `above` if it cannot be read, with a line in `problems`.

    A pattern that git could not read either is left out, with a line as well. Raises MissingExtra without pathspec.
    """
    path = os.path.join(folder, NAME)
    try:
        lines = decode(read_bytes(path, _LARGEST, follow=False))[0].splitlines()
    except Unreadable as err:
        problems.append(f"{printable_path(path)} {err}; its rules are not followed")
        return above
    specs = need("pathspec", extra="files").GitIgnoreSpec
    good = []
    for number, line in enumerate(lines, start=1):
        try:
            specs.from_lines([line])
        except Exception as err:  # re.error, or ValueError: it differs by the release of pathspec
            problems.append(f"{printable_path(path)}:{number} is no pattern ({err}): it is not followed")
        else:
            good.append(line)
    return Rules(folder, specs.from_lines(good), above)


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
