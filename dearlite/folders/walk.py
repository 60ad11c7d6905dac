"""Regular files of the named paths, in a fixed order. Nothing outside of them is listed, and no file is opened.

Links within a folder are never followed: what one leads to is either in the folder, and read there, or outside.
"""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from dearlite.errors import UsageError
from dearlite.folders import ignore
from dearlite.folders.ignore import Choice, Rules
from dearlite.folders.kinds import is_binary_name
from dearlite.folders.passage import printable_path

_HIDDEN = getattr(stat, "FILE_ATTRIBUTE_HIDDEN", 0)
_JUNCTION = getattr(stat, "IO_REPARSE_TAG_MOUNT_POINT", -1)  # a link to a folder on Windows


@dataclass(slots=True)
class Walk:
    """A walk over paths, which keeps the reason for everything that it leaves out: `skipped`, reason -> paths.

    A folder that is left out is one path, whatever is in it. `problems` has a line for each path that failed.
    """

    choice: Choice = field(default_factory=Choice)
    limit_bytes: int = 10_000_000
    skipped: dict[str, list[str]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    _seen: set[str] = field(default_factory=set)  # real paths: of two named paths one may be in the other

    def files(self, paths: Sequence[str]) -> Iterator[tuple[str, bool]]:
        """(path, True if the user named it) of each file to read, each once.

        Raises UsageError for a path that does not exist.
        """
        for named in paths:
            for path in _expanded(named):
                try:
                    status = os.stat(path)
                except OSError as err:
                    raise UsageError(f"cannot read {printable_path(path)}: {err.strerror or err}") from None
                except ValueError:  # a NUL character
                    raise UsageError(f"cannot read {printable_path(path)}: it is no name of a file") from None
                if stat.S_ISDIR(status.st_mode):
                    yield from ((file, False) for file in self._folder(path, path, None))
                elif self._is_to_read(path, os.path.basename(path), status, os.path.realpath(path)):
                    yield path, True

    def skip(self, path: str, reason: str) -> None:
        """Counts `path` among those left out."""
        self.skipped.setdefault(reason, []).append(path)

    def fail(self, path: str, reason: str) -> None:
        """Counts `path` as unreadable, with a line that says why."""
        self.skip(path, "unreadable")
        self.problems.append(f"{printable_path(path)} {reason}")

    def _folder(self, folder: str, root: str, rules: Rules | None) -> Iterator[str]:
        """The files to read below `folder`, by name. `rules` are those of the folders above it, up to `root`."""
        try:
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as err:
            self.fail(folder, f"cannot be listed: {err.strerror or err}")
            return
        real = os.path.realpath(folder)
        if real in self._seen:
            return
        self._seen.add(real)
        below = "" if folder == root else os.path.relpath(folder, root)
        if any(entry.name == ignore.NAME for entry in entries):
            rules = ignore.read_rules(folder, rules, self.problems)
        for entry in entries:
            path = entry.path
            try:
                status = entry.stat(follow_symlinks=False)
            except OSError as err:
                self.fail(path, f"cannot be read: {err.strerror or err}")
                continue
            is_folder = stat.S_ISDIR(status.st_mode)
            relative = os.path.join(below, entry.name)
            if entry.name.startswith(".") or getattr(status, "st_file_attributes", 0) & _HIDDEN:
                self.skip(path, "hidden")
            elif rules is not None and rules.ignores(path, is_folder=is_folder):
                self.skip(path, "ignored by .gitignore")
            elif stat.S_ISLNK(status.st_mode) or getattr(status, "st_reparse_tag", 0) == _JUNCTION:
                self.skip(path, "link")
            elif is_folder:
                if self.choice.excludes(relative):
                    self.skip(path, "excluded")
                else:
                    yield from self._folder(path, root, rules)
            elif self._is_to_read(path, relative, status, os.path.join(real, entry.name)):
                yield path

    def _is_to_read(self, path: str, relative: str, status: os.stat_result, real: str) -> bool:
        """True for a file to read; counts another one. A file that came already is not counted again."""
        reason = ""
        if not self.choice.takes(relative):
            reason = "excluded"
        elif not stat.S_ISREG(status.st_mode):
            reason = "device, pipe or socket"
        elif is_binary_name(path):
            reason = "binary"
        elif status.st_size > self.limit_bytes:
            reason = f"over {self.limit_bytes / 1e6:g} MB"
        if reason:
            self.skip(path, reason)
            return False
        is_new = real not in self._seen
        self._seen.add(real)
        return is_new


def _expanded(path: str) -> list[str]:
    """`path`; the paths that a glob stands for, by name, where no file has that name. Raises UsageError for none.

    `**` is refused: its links could lead anywhere, and a folder is read whole.
    """
    if not glob.has_magic(path) or os.path.lexists(path):
        return [path]
    if "**" in path:
        head = path.partition("**")[0].rstrip("/" + os.sep) or "."
        raise UsageError(
            f"{printable_path(path)}: name the folder {printable_path(head)}, which is read with those in it"
        )
    paths = sorted(glob.glob(path))
    if not paths:
        raise UsageError(f"cannot read {printable_path(path)}: no file has such a name")
    return paths
