"""`read_folder`: what is read and what is left out, and that every place leads back to its text."""

import codecs
import inspect
import os
import socket
import sys
from pathlib import Path

import pytest
from posix_only import need_posix

import dearlite
from dearlite.folders import Passage, read_folder
from dearlite.folders import reading as reading_module


def write(folder, **files):
    """Writes `files`, name with __ for a slash and _DOT_ for a dot -> text or bytes, below `folder`."""
    for name, content in files.items():
        path = folder / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def names(files, folder):
    return [Path(path).relative_to(folder).as_posix() for path in files]


def left_out(documents, folder):
    return {reason: names(paths, folder) for reason, paths in documents.skipped.items()}


def test_a_passage_has_its_lines_characters_and_headings(tmp_path):
    text = "# Taxes\r\n\r\nIntro.\r\n\r\n## Costs\r\n\r\nThe office costs\r\n1,260 euros.\r\n"
    write(tmp_path, tax_DOT_md=text)
    documents = read_folder(tmp_path)
    path = str(tmp_path / "tax.md")
    assert [document.record for document in documents] == [
        Passage(path, 1, 3, None, 0, 15, "Taxes"),
        Passage(path, 5, 8, None, 17, 56, "Taxes > Costs"),
    ]
    assert [document.id for document in documents] == [f"{path}:1-3", f"{path}:5-8"]
    assert [document.title for document in documents] == ["Taxes", "Taxes > Costs"]
    with open(path, encoding="utf-8") as file:
        lines = file.read()
    assert documents[1].text == lines[17:56] == "## Costs\n\nThe office costs\n1,260 euros."
    assert lines.splitlines()[7] == "1,260 euros."


def test_every_line_and_span_leads_back_to_the_text(tmp_path):
    """Over a real text of 300 lines: lines and characters of all passages, which together hold every word."""
    text = (Path(dearlite.__file__).parent / "errors.py").read_text(encoding="utf-8")
    write(tmp_path, long_DOT_txt=text * 2, long_DOT_py=text)
    for name in ("long.txt", "long.py"):
        documents = read_folder(tmp_path / name, window=300)
        whole = (tmp_path / name).read_text(encoding="utf-8")
        lines = whole.split("\n")
        for document in documents:
            place = document.record
            assert document.text == whole[place.start : place.end]
            assert document.text.split("\n")[0] in lines[place.first_line - 1]
            assert document.text.split("\n")[-1] in lines[place.last_line - 1]
            assert len(document.text) <= 300
        assert " ".join(document.text for document in documents).split() == whole.split()
        assert len({document.id for document in documents}) == len(documents)


def test_the_result_is_ranked_and_its_hits_have_places(tmp_path, embedded_path):
    write(
        tmp_path,
        notes__tax_DOT_md="# Taxes\n\nThe home office costs 1,260 euros a year.\n",
        notes__cake_DOT_md="# Cake\n\nMix flour and sugar, then bake for an hour.\n",
        a_DOT_py="def add(a, b):\n    return a + b\n",
    )
    ranking = dearlite.rerank("How much may I deduct for the home office?", read_folder(tmp_path))
    best = ranking[0]
    assert best.document.path == str(tmp_path / "notes" / "tax.md")
    assert (best.document.first_line, best.document.last_line) == (1, 3)
    row = ranking.to_dicts()[0]
    assert row["path"] == best.document.path
    assert {name: row[name] for name in ("first_line", "last_line", "page", "start", "end", "heading")} == {
        "first_line": 1,
        "last_line": 3,
        "page": None,
        "start": 0,
        "end": 50,
        "heading": "Taxes",
    }
    assert best.document.uri == (tmp_path / "notes" / "tax.md").as_uri() + f"#{best.document.first_line}"


def test_each_kind_that_is_left_out_is_counted(tmp_path):
    write(
        tmp_path,
        a_DOT_txt="text",
        _DOT_hidden="text",
        _DOT_git__config="text",
        b_DOT_png=b"no picture",
        c_DOT_txt=b"a\0b",
        d_DOT_txt="x" * 2000,
        e_DOT_txt=" \n\t",
        f_DOT_zip=b"PK",
        g=b"\xff\xfe\x80\x81\xff",
        unknown_DOT_xyz="text all the same",
    )
    documents = read_folder(tmp_path, limit_mb=0.001)
    assert names(documents.files, tmp_path) == ["a.txt", "unknown.xyz"]
    assert left_out(documents, tmp_path) == {
        "hidden": [".git", ".hidden"],
        "binary": ["b.png", "c.txt", "f.zip"],
        "over 0.001 MB": ["d.txt"],
        "empty": ["e.txt"],
        "unreadable": ["g"],
    }
    assert documents.summary() == (
        "2 passages of 2 files; left out: 2 hidden, 3 binary, 1 over 0.001 MB, 1 empty, 1 unreadable"
    )


def test_rules_of_gitignore_are_followed_nearest_first(tmp_path):
    write(
        tmp_path,
        _DOT_gitignore="*.log\n/build/\n!keep.log\n# comment\n[a\n",
        a_DOT_log="x",
        keep_DOT_log="x",
        build__x_DOT_txt="x",
        sub__build__y_DOT_txt="x",
        sub___DOT_gitignore="keep.log\n!b.log\n",
        sub__keep_DOT_log="x",
        sub__b_DOT_log="x",
    )
    documents = read_folder(tmp_path)
    assert names(documents.files, tmp_path) == ["keep.log", "sub/b.log", "sub/build/y.txt"]
    assert left_out(documents, tmp_path)["ignored by .gitignore"] == ["a.log", "build", "sub/keep.log"]
    assert len(documents.problems) == 1 and ".gitignore:5 is no pattern" in documents.problems[0]
    # a file that is named itself is read, and the rules outside of the named folder are not
    assert names(read_folder(tmp_path / "a.log").files, tmp_path) == ["a.log"]
    assert names(read_folder(tmp_path / "build").files, tmp_path) == ["build/x.txt"]


def test_include_and_exclude_are_globs_of_names_or_paths(tmp_path):
    write(tmp_path, a_DOT_md="x", b_DOT_txt="x", drafts__c_DOT_md="x", old__d_DOT_md="x")

    def read(**options):
        return names(read_folder(tmp_path, **options).files, tmp_path)

    assert read(include="*.md") == ["a.md", "drafts/c.md", "old/d.md"]
    assert read(include=["*.md", "*.txt"], exclude="old") == ["a.md", "b.txt", "drafts/c.md"]
    assert read(exclude=["drafts/*", "b.*"]) == ["a.md", "old/d.md"]
    assert left_out(read_folder(tmp_path, exclude=["old", "*.txt"]), tmp_path) == {"excluded": ["b.txt", "old"]}
    with pytest.raises(dearlite.UsageError, match=r"^include is 3: give a glob"):
        read(include=3)


def test_links_lead_nowhere_and_loops_end(tmp_path):
    need_posix()
    write(tmp_path, in__a_DOT_txt="inside", out__secret_DOT_txt="outside")
    (tmp_path / "in/loop").symlink_to(tmp_path / "in")
    (tmp_path / "in/one").symlink_to("two")
    (tmp_path / "in/two").symlink_to("one")
    (tmp_path / "in/out").symlink_to(tmp_path / "out")
    (tmp_path / "in/file.txt").symlink_to(tmp_path / "out/secret.txt")
    documents = read_folder(tmp_path / "in")
    assert [document.text for document in documents] == ["inside"]
    assert left_out(documents, tmp_path / "in") == {"link": ["file.txt", "loop", "one", "out", "two"]}
    # a link that is named itself is followed
    assert read_folder(tmp_path / "in/file.txt")[0].text == "outside"
    assert [document.text for document in read_folder(tmp_path / "in/loop")] == ["inside"]
    with pytest.raises(dearlite.UsageError, match=r"one: Too many levels of symbolic links$"):
        read_folder(tmp_path / "in/one")


def test_folders_may_be_nested_without_end(tmp_path, monkeypatch):
    """The deepest have no name that a system call takes: that is one line, and what lies above it is read."""
    need_posix()
    monkeypatch.chdir(tmp_path)
    limit, folders = sys.getrecursionlimit(), ["d"] * 200 + ["e" * 100] * 40
    for depth, name in enumerate(folders):
        if depth in (0, 150):
            Path("a.txt").write_text(f"text at {depth}")
        os.mkdir(name)
        os.chdir(name)
    try:
        sys.setrecursionlimit(len(inspect.stack()) + 150)
        documents = read_folder(tmp_path)
        assert [document.text for document in documents] == ["text at 0", "text at 150"]
        assert len(documents.problems) == 1 and documents.problems[0].endswith(": File name too long")
    finally:
        sys.setrecursionlimit(limit)
        for name in reversed(folders):
            os.chdir("..")
            os.rmdir(name)
            Path("a.txt").unlink(missing_ok=True)


def test_a_folder_that_changes_after_the_listing_is_one_line(tmp_path, monkeypatch):
    need_posix()
    write(
        tmp_path, in__a_DOT_txt="inside", in__gone__b_DOT_txt="text", in__link__c_DOT_txt="text", out__d_DOT_txt="out"
    )

    scandir = os.scandir

    def change_and_list(path):
        if path.endswith(("gone", "link")):
            os.rename(path, tmp_path / os.path.basename(path))
        if path.endswith("link"):
            os.symlink(tmp_path / "out", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", change_and_list)
    documents = read_folder(tmp_path / "in")
    assert [document.text for document in documents] == ["inside"]
    assert documents.problems == (
        f"{tmp_path}/in/gone cannot be listed: No such file or directory",
        f"{tmp_path}/in/link cannot be listed: it has become a link",
    )
    assert documents.summary().endswith("left out: 2 unreadable")


def test_a_file_that_grows_is_read_whole(tmp_path, monkeypatch):
    """Its size is known before it is read, and may be out of date: /proc says 0 of all files."""
    need_posix()
    (tmp_path / "a.txt").write_text("one two")
    status = os.stat(tmp_path / "a.txt")
    monkeypatch.setattr(os, "fstat", lambda _: os.stat_result((*status[:6], 3, *status[7:])))
    assert read_folder(tmp_path / "a.txt")[0].text == "one two"


def test_pipes_and_sockets_are_not_opened(tmp_path, monkeypatch):
    need_posix()
    write(tmp_path, a_DOT_txt="text")
    os.mkfifo(tmp_path / "pipe.txt")
    monkeypatch.chdir(tmp_path)  # the name of a socket must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.txt")
        documents = read_folder(".")
    assert documents.files == ("./a.txt",)
    assert documents.skipped == {"device, pipe or socket": ("./pipe.txt", "./socket.txt")}
    with pytest.raises(dearlite.InvalidInput, match="1 device, pipe or socket"):
        read_folder("/dev/zero")


def replaced_while_reading(monkeypatch, path, change):
    """Calls `change` just before the file at `path` is opened: after the listing of its folder."""
    read = reading_module.read_bytes

    def change_and_read(name, limit, *, follow):
        if name == str(path):
            change()
        return read(name, limit, follow=follow)

    monkeypatch.setattr(reading_module, "read_bytes", change_and_read)


def vanish(path):
    path.unlink()


def turn_into_link(path):
    need_posix()
    path.unlink()
    path.symlink_to(path.parent.parent / "secret.txt")


def turn_into_pipe(path):
    need_posix()
    path.unlink()
    os.mkfifo(path)


def grow(path):
    path.write_bytes(b"x" * 5000)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (vanish, "is there no more: it was removed, moved or renamed since the folder was listed"),
        (turn_into_link, "cannot be read: Too many levels of symbolic links"),
        (turn_into_pipe, "is no file any more"),
        (grow, "has grown over the limit since the folder was listed"),
    ],
)
def test_a_file_that_changes_after_the_listing_is_one_line(tmp_path, monkeypatch, change, reason):
    need_posix()
    folder = write(tmp_path, secret_DOT_txt="secret", in__a_DOT_txt="text", in__b_DOT_txt="text") / "in"
    replaced_while_reading(monkeypatch, folder / "a.txt", lambda: change(folder / "a.txt"))
    documents = read_folder(folder, limit_mb=0.001)
    assert names(documents.files, folder) == ["b.txt"]
    assert documents.problems == (f"{folder / 'a.txt'} {reason}",)
    assert left_out(documents, folder) == {"unreadable": ["a.txt"]}


def test_a_folder_and_a_file_without_permission_are_one_line_each(tmp_path):
    need_posix()
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    write(tmp_path, a_DOT_txt="text", b_DOT_txt="text", c__d_DOT_txt="text")
    (tmp_path / "a.txt").chmod(0)
    (tmp_path / "c").chmod(0)
    try:
        documents = read_folder(tmp_path)
    finally:
        (tmp_path / "c").chmod(0o700)
    assert left_out(documents, tmp_path) == {"unreadable": ["a.txt", "c"]}
    assert [problem.rpartition("cannot be ")[2] for problem in documents.problems] == [
        "read: Permission denied",
        "listed: Permission denied",
    ]


def test_a_name_that_is_not_utf_8_is_opened_and_escaped(tmp_path):
    need_posix()
    name = os.fsencode(tmp_path) + b"/caf\xe9\n.txt"
    try:
        with open(name, "w") as file:
            file.write("text")
    except OSError:
        pytest.skip("the file system takes only names in UTF-8")
    (document,) = read_folder(tmp_path)
    assert os.fsencode(document.record.path) == name
    assert document.id == f"{tmp_path}/caf\\xe9\\n.txt:1"
    assert document.title == "caf\\xe9\\n.txt"
    assert document.record.uri.endswith("/caf%E9%0A.txt#1")
    document.id.encode()  # it can be written
    assert document.record.place_fields()["path"] == f"{tmp_path}/caf\\xe9\n.txt"


def test_paths_for_data_tell_a_newline_from_a_backslash(tmp_path):
    need_posix()
    write(tmp_path, a="x")
    for name in ("x\ny.txt", "x\\ny.txt", "\u202e\x1b[31m.txt"):
        (tmp_path / name).write_text("text")
    paths = {document.record.place_fields()["path"] for document in read_folder(tmp_path)}
    assert paths == {str(path) for path in tmp_path.iterdir()}


def test_named_paths_that_overlap_are_read_once_in_the_order_of_the_caller(tmp_path):
    write(tmp_path, b__x_DOT_txt="x", a_DOT_txt="a")
    documents = read_folder(tmp_path / "b", tmp_path, tmp_path / "a.txt")
    assert names(documents.files, tmp_path) == ["b/x.txt", "a.txt"]


def test_a_glob_is_expanded_where_no_shell_did(tmp_path, monkeypatch):
    write(tmp_path, a_DOT_md="a", b_DOT_md="b", c_DOT_txt="c")
    (tmp_path / "[1].md").write_text("brackets")
    monkeypatch.chdir(tmp_path)
    assert read_folder("?.md").files == ("a.md", "b.md")
    assert read_folder("[1].md").files == ("[1].md",)  # a file of that very name
    with pytest.raises(dearlite.UsageError, match=r"^cannot read \*\.pdf: no file has such a name$"):
        read_folder("*.pdf")
    with pytest.raises(dearlite.UsageError, match=r"^\./\*\*/\*\.md: name the folder \., which is read with those in"):
        read_folder("./**/*.md")


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("Straße".encode(), "Straße"),
        (codecs.BOM_UTF8 + "Straße".encode(), "Straße"),
        ("\ufeffStraße".encode("utf-16-le"), "Straße"),
        ("\ufeffStraße".encode("utf-16-be"), "Straße"),
        ("Eine Straße in Köln".encode("cp1252"), "Eine Straße in Köln"),
    ],
)
def test_encodings(tmp_path, data, text):
    (tmp_path / "a.txt").write_bytes(data)
    documents = read_folder(tmp_path)
    assert [document.text for document in documents] == [text]
    is_western = data.isascii() or b"K\xf6ln" in data
    assert documents.notes == (
        (f"{tmp_path / 'a.txt'} is not UTF-8 and is read as Windows-1252",) if is_western else ()
    )


def test_other_encodings_are_refused_by_name(tmp_path):
    write(
        tmp_path, a_DOT_txt="Привет, мир".encode("koi8-r"), b_DOT_txt="\ufeffab".encode("utf-16")[:-1], c_DOT_txt="ok"
    )
    documents = read_folder(tmp_path)
    assert documents.files == (str(tmp_path / "c.txt"),)
    assert documents.problems == (
        f"{tmp_path / 'a.txt'} is not UTF-8: save it as UTF-8 (iconv -f ENCODING -t UTF-8)",
        f"{tmp_path / 'b.txt'} is damaged UTF-16 (truncated data): save it again as UTF-8",
    )


def test_paths_that_cannot_be_used_are_refused(tmp_path):
    write(tmp_path, empty__a_DOT_png="x", empty___DOT_b="x")
    cases = {
        (): "read_folder takes at least one path: name a file or a folder",
        (tmp_path / "none",): f"cannot read {tmp_path / 'none'}: No such file or directory",
        ("a\0b",): "cannot read a\\x00b: it is no name of a file",
        ("",): "a path is empty: name a file or a folder (. is the current one)",
        (3,): "a path is a int: give a string or a Path (several: read_folder(*paths))",
    }
    for paths, message in cases.items():
        with pytest.raises(dearlite.UsageError) as caught:
            read_folder(*paths)
        assert str(caught.value) == message
    with pytest.raises(dearlite.InvalidInput) as caught:
        read_folder(tmp_path / "empty")
    assert (
        str(caught.value)
        == f"no file of {tmp_path / 'empty'} can be read: nothing to rank; left out: 1 hidden, 1 binary"
    )
    for limit in (0, -1, True, "3", float("nan")):
        with pytest.raises(dearlite.UsageError, match=r"^limit_mb is "):
            read_folder(tmp_path, limit_mb=limit)
