"""Rules of `.gitignore`, held against git itself over generated folders."""

import os
import random
import re
import shutil
import subprocess

import pytest

from dearlite.folders import read_folder
from dearlite.folders.ignore import read_rules
from dearlite.folders.walk import Walk

NAMES = [
    "a.txt",
    "b.txt",
    "keep.log",
    "#hash",
    "!bang",
    "sp ",
    "dir",
    "sub",
    "x.md",
    "[z].c",
    "foo",
    "foobar",
    "tail\\",
]
FOLDERS = ["dir", "sub", "foo", "x.md", "été"]
PATTERNS = r"""*.txt;!*.txt;a.txt;/a.txt;dir/;dir;/dir;!dir;!dir/;dir/*;!dir/a.txt;**/foo;foo/**;dir/**/x.md;sub/**
!sub/**/;*;!*/;\#hash;#hash;\!bang;!bang;sp\ ;sp ;sp;[ab].txt;[!a].txt;[^a].txt;[a-c]*;?.txt;foo*;*bar;/*;!/sub
/sub/foo;sub/foo;**;**/dir/;/**/x.md;\[z\].c;[[]z].c;;   ;été;?t?;**/;*/foo;*/;[[:alpha:]].txt;[[:alph:]].txt
[[:x].txt;*.log;tail\\;a.tx[t];[;[];[]a].txt;[!]a].txt;[a;[z-a].txt;[a-].txt;[-a].txt;[a\-c].txt;**foo;foo**
foo**/x.md;dir/s**;a**txt;/;//;!;dir//;./a.txt;../a.txt;[a/]b;f[o]o;\a.txt;dir\/;[\]a].txt;*.md ;/**/**/foo;*\
dir/[!a]*;*/**/a.txt;TAB;a.txtTAB;a.txt TAB ;keep.logRETURN"""
PATTERNS = re.split("[;\n]", PATTERNS.replace("TAB", "\t").replace("RETURN", "\r"))


def write_case(folder, seed):
    """A few folders and files below `folder`, and a `.gitignore` of random patterns in some of the folders."""
    choice = random.Random(seed)
    folders = [folder]
    folder.mkdir()
    for _ in range(choice.randint(1, 5)):
        folders.append(choice.choice(folders) / choice.choice(FOLDERS))
        folders[-1].mkdir(exist_ok=True)
    for parent in dict.fromkeys(folders):
        for name in choice.sample(NAMES, choice.randint(2, 7)):
            if not (parent / name).exists():
                (parent / name).write_bytes(b"text")
        if parent == folder or choice.random() < 0.4:
            lines = choice.choices(PATTERNS, k=choice.randint(1, 4))
            (parent / ".gitignore").write_bytes("\n".join(lines).encode())


@pytest.mark.skipif(os.name == "nt" or shutil.which("git") is None, reason="needs git, and names that Windows refuses")
def test_the_rules_of_gitignore_are_those_of_git(tmp_path):
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    cases = [tmp_path / f"case{seed:03}" for seed in range(100)]
    for seed, case in enumerate(cases):
        write_case(case, seed)
    command = ["git", "-C", str(tmp_path), "ls-files", "--others", "-z", "--exclude-per-directory=.gitignore"]
    listing = os.fsdecode(subprocess.run(command, check=True, capture_output=True).stdout).split("\0")[:-1]
    expected = {path for path in listing if not path.endswith("/.gitignore")}
    files = {os.path.relpath(path, tmp_path) for case in cases for path, _ in Walk().files([str(case)])}
    assert 200 < len(expected) < 2000
    assert files == expected


def test_a_file_of_rules_is_no_hidden_document_and_a_named_file_is_read(tmp_path):
    (tmp_path / ".gitignore").write_text("*.log\n")
    (tmp_path / "a.log").write_text("text")
    (tmp_path / "b.txt").write_text("text")
    assert read_folder(tmp_path).summary() == "1 passage of 1 file; left out: 1 ignored by .gitignore"
    assert read_folder(tmp_path / "a.log", tmp_path).files == (str(tmp_path / "a.log"), str(tmp_path / "b.txt"))
    assert read_folder(tmp_path / ".gitignore")[0].text == "*.log"


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"[a", ".gitignore:1 is no pattern (it ends within a class of characters, or after a backslash)"),
        (b"# x\n\na\\", ".gitignore:3 is no pattern (it ends within"),
        (b"[[:alph:]]", "([:alph:] is no class of characters): it is not followed"),
        (b"a" * 5000, ".gitignore:1 is no pattern (it is over 4,096 bytes)"),
        ("a".encode("utf-16"), ".gitignore is not UTF-8, and git does not read it either: save it as UTF-8; its rules"),
    ],
)
def test_a_pattern_that_fits_nothing_is_named(tmp_path, data, problem):
    (tmp_path / ".gitignore").write_bytes(data)
    (tmp_path / "a").write_text("text")
    documents = read_folder(tmp_path)
    assert len(documents) == 1
    assert len(documents.problems) == 1 and problem in documents.problems[0]


@pytest.mark.parametrize(
    "data", [b"*a" * 40 + b"b", b"**/*a" * 30 + b"/b", b"a/**/" * 500 + b"b", b"[[:" * 1300, b" " * 10**6 + b"a"]
)
def test_no_pattern_takes_long(tmp_path, data):
    """Each of them would not end for years if it were tried in every way."""
    (tmp_path / ".gitignore").write_bytes(data)
    rules = read_rules(str(tmp_path), "", None, [])
    for path in ("a" * 250, "/".join(["a" * 20] * 100), "/".join(["a"] * 1000)):
        assert not rules.ignores(path, is_folder=False)
