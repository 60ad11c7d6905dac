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


@dataclass(frozen=True, slots=True)
class _Folder:
    """A folder to list: its path as it is opened, the part below the named one, its real path, the rules above it."""

    path: str
    below: str
    real: str
    rules: Rules | None


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
                    yield from ((file, False) for file in self._folder(path))
                elif self._is_to_read(path, os.path.basename(path), status, os.path.realpath(path)):
                    yield path, True

    def skip(self, path: str, reason: str) -> None:
        """Counts `path` among those left out."""
        self.skipped.setdefault(reason, []).append(path)

    def fail(self, path: str, reason: str) -> None:
        """Counts `path` as unreadable, with a line that says why."""
        self.skip(path, "unreadable")
        self.problems.append(f"{printable_path(path)} {reason}")

    def _folder(self, named: str) -> Iterator[str]:
        """The files to read below the folder `named`, by name. Without recursion: folders may be nested deep."""
        open_folders = [self._listing(_Folder(named, "", os.path.realpath(named), None))]
        while open_folders:
            entry = next(open_folders[-1], None)
            if entry is None:
                open_folders.pop()
            elif isinstance(entry, _Folder):
                open_folders.append(self._listing(entry))
            else:
                yield entry

    def _listing(self, folder: _Folder) -> Iterator[str | _Folder]:
        """The files to read and the folders to list in `folder`, by name; nothing if it was listed before."""
        if folder.real in self._seen:
            return
        self._seen.add(folder.real)
        try:
            with os.scandir(folder.path) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
            if folder.below and os.path.islink(folder.path):  # it was a folder when the one above was listed
                raise NotADirectoryError(0, "it has become a link")
        except OSError as err:
            self.fail(folder.path, f"cannot be listed: {err.strerror or err}")
            return
        rules = folder.rules
        if any(entry.name == ignore.NAME for entry in entries):
            rules = ignore.read_rules(folder.path, folder.below, rules, self.problems)
        for entry in entries:
            path = entry.path
            try:
                status = entry.stat(follow_symlinks=False)
            except OSError as err:
                self.fail(path, f"cannot be read: {err.strerror or err}")
                continue
            is_folder = stat.S_ISDIR(status.st_mode)
            relative = os.path.join(folder.below, entry.name)
            real = os.path.join(folder.real, entry.name)
            if reason := self._reason(entry.name, relative, status, rules):
                self.skip(path, reason)
            elif is_folder:
                yield _Folder(path, relative, real, rules)
            elif entry.name != ignore.NAME and self._is_to_read(path, relative, status, real):
                yield path

    def _reason(self, name: str, relative: str, status: os.stat_result, rules: Rules | None) -> str:
        """The reason to leave out an entry of a folder whatever its kind; "" if there is none."""
        is_folder = stat.S_ISDIR(status.st_mode)
        if name == ignore.NAME and not is_folder:  # its rules are followed: it is no document that is left out
            return ""
        if name.startswith(".") or getattr(status, "st_file_attributes", 0) & _HIDDEN:
            return "hidden"
        if rules is not None and rules.ignores(relative, is_folder=is_folder):
            return "ignored by .gitignore"
        if stat.S_ISLNK(status.st_mode) or getattr(status, "st_reparse_tag", 0) == _JUNCTION:
            return "link"
        return "excluded" if is_folder and self.choice.excludes(relative) else ""

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
