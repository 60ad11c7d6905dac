"""`read_folder`: files and folders as Documents, one per passage."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import overload

from dearlite.checks import whole_number
from dearlite.documents import Document
from dearlite.errors import InvalidInput, MissingExtra, UsageError, counted
from dearlite.folders.content import Content, Unreadable
from dearlite.folders.encodings import has_mark
from dearlite.folders.ignore import Choice, as_globs
from dearlite.folders.kinds import READERS, WITH_BYTES, ending_of, reader_of
from dearlite.folders.opening import read_bytes
from dearlite.folders.passage import Passage, printable_path
from dearlite.folders.splitting import WINDOW, passage_spans
from dearlite.folders.walk import Walk

LIMIT_MB = 10.0
_MISSING = "without a reader"


@dataclass(frozen=True, slots=True)
class FolderDocuments(Sequence[Document]):
    """The passages of files as Documents, in the order of the files and of their texts.

    - `documents`: their `record` is a `Passage`, with the place in the file.
    - `files`: the files that were read, as `open` takes them.
    - `skipped`: reason -> paths that were left out. A folder is one path, whatever is in it.
    - `problems`: a line for each file that could not be read, with the remedy.
    - `notes`: a line for each file that was read otherwise than as UTF-8, or in part.
    """

    documents: tuple[Document, ...]
    files: tuple[str, ...]
    skipped: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @overload
    def __getitem__(self, position: int) -> Document: ...
    @overload
    def __getitem__(self, position: slice) -> Sequence[Document]: ...
    def __getitem__(self, position: int | slice) -> Document | Sequence[Document]:
        return self.documents[position]

    def __len__(self) -> int:
        return len(self.documents)

    def __iter__(self) -> Iterator[Document]:
        return iter(self.documents)

    def summary(self) -> str:
        """The numbers of passages and files that were read, and of those left out, on one line.

        Example: "12 passages of 3 files; left out: 2 hidden, 1 ignored by .gitignore".
        """
        return f"{counted(len(self), 'passage')} of {counted(len(self.files), 'file')}{_left_out(self.skipped)}"

    def __repr__(self) -> str:
        return f"<FolderDocuments: {self.summary()}>"


def read_folder(
    *paths: str | os.PathLike[str],
    include: str | Iterable[str] = (),
    exclude: str | Iterable[str] = (),
    limit_mb: float = LIMIT_MB,
    window: int = WINDOW,
) -> FolderDocuments:
    """The passages of files, folders and globs as Documents that `rerank` takes.

    Read are text, Markdown, reStructuredText, source code, HTML, mails (.eml), PDF and DOCX; an ending that is none of
    them is read as text if the file is UTF-8. Left out, and counted in `skipped`, are hidden files, what a `.gitignore`
    in the folder names, binaries, links, devices, and files over `limit_mb` megabytes. A file or folder that is named
    itself is read also if it is hidden or ignored. Nothing outside of `paths` is read.

    `include` and `exclude` are globs for names ("*.md"), or with a slash for paths below the folder ("drafts/*").
    `window` is the most characters of a passage, by default about 180 tokens.

    Raises UsageError for a path that does not exist, InvalidInput if no file can be read, and MissingExtra if none can
    for want of a library of the extra `files`.
    """
    names = _checked_paths(paths)
    window = whole_number("window", window, 50)
    if isinstance(limit_mb, bool) or not isinstance(limit_mb, (int, float)) or not 0 < limit_mb <= 2000:
        raise UsageError(f"limit_mb is {limit_mb!r}: it must be a number of megabytes above 0, 2000 at most")
    walk = Walk(Choice(as_globs("include", include), as_globs("exclude", exclude)), round(limit_mb * 1e6))
    documents, files, notes = list[Document](), list[str](), list[str]()
    missing: MissingExtra | None = None
    for path, is_named in walk.files(names):
        try:
            content = read_content(path, walk.limit_bytes, follow=is_named)
        except Unreadable as err:
            walk.fail(path, str(err))
            continue
        except MissingExtra as err:
            if missing is None or _MISSING not in walk.skipped:
                walk.problems.append(f"{printable_path(path)} is left out, and others of its kind: {err}")
            missing = err
            walk.skip(path, _MISSING)
            continue
        if content is None:
            walk.skip(path, "binary")
            continue
        passages = list(_documents(path, content, window))
        if not passages:
            walk.skip(path, "empty")
            continue
        documents += passages
        files.append(path)
        if content.note:
            notes.append(f"{printable_path(path)} {content.note}")
    skipped = {reason: tuple(left) for reason, left in walk.skipped.items()}
    if not documents:
        if missing is not None:
            raise missing
        shown = ", ".join(map(printable_path, names[:3])) + ", …" * (len(names) > 3)
        reason = f" ({walk.problems[0]})" if walk.problems else ""
        raise InvalidInput(f"no file of {shown} can be read: nothing to rank{_left_out(skipped)}{reason}")
    return FolderDocuments(tuple(documents), tuple(files), skipped, tuple(walk.problems), tuple(notes))


def read_content(path: str, limit_bytes: int, *, follow: bool) -> Content | None:
    """The content of the file `path`; None for a binary one. Raises Unreadable, or MissingExtra for its library.

    A file of an unknown ending that is not UTF-8 counts as binary.
    """
    data = read_bytes(path, limit_bytes, follow=follow)
    ending = ending_of(path)
    if ending not in WITH_BYTES and b"\0" in data and not has_mark(data):
        return None
    if ending in READERS or has_mark(data):
        return reader_of(path)(data)
    content = None
    with suppress(Unreadable):
        content = reader_of(path)(data)
    return None if content is None or content.note else content


def _documents(path: str, content: Content, window: int) -> Iterator[Document]:
    """A Document per passage. The second passage of one place has the id "PLACE (2)"."""
    name = printable_path(os.path.basename(path))
    places = Counter[str]()
    for start, end, heading in passage_spans(content, window):
        record = Passage(
            path, content.line(start), content.line(end - 1), content.page(start), start, end, printable_path(heading)
        )
        place = record.place
        places[place] += 1
        number = f" ({places[place]})" if places[place] > 1 else ""
        yield Document(content.text[start:end], f"{place}{number}", heading or content.title or name, record)


def _checked_paths(paths: Sequence[object]) -> list[str]:
    """`paths` as texts, with `~` as the user's folder. Raises UsageError for none, and for what is no path."""
    if not paths:
        raise UsageError("read_folder takes at least one path: name a file or a folder")
    for path in paths:
        if not isinstance(path, (str, os.PathLike)):
            raise UsageError(
                f"a path is a {type(path).__name__}: give a string or a Path (several: read_folder(*paths))"
            )
        if not os.fspath(path):
            raise UsageError("a path is empty: name a file or a folder (. is the current one)")
    return [os.path.expanduser(os.fsdecode(path)) for path in paths]  # type: ignore[arg-type]


def _left_out(skipped: Mapping[str, Sequence[str]]) -> str:
    reasons = ", ".join(f"{len(paths)} {reason}" for reason, paths in skipped.items())
    return f"; left out: {reasons}" if reasons else ""
