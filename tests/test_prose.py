"""Docstrings begin with a noun or verb, and names say what they hold."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(file for package in ("dearlite", "export") for file in (ROOT / package).rglob("*.py"))
QUESTION = re.compile(r"(What|Whether|Where|How|Which|When|Who)\b")
PLACEHOLDERS = {"asked", "found", "given", "heard", "one", "said", "told", "wanted"}


def docstring_openings(source):
    """First lines of the docstrings of a module, its classes and its functions."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, documented) and (text := ast.get_docstring(node)):
            yield text.splitlines()[0]


def assigned_names(source):
    """Names of parameters and of variables that are assigned."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_prose(file):
    source = file.read_text(encoding="utf-8")
    assert [line for line in docstring_openings(source) if QUESTION.match(line)] == []
    assert set(assigned_names(source)) & PLACEHOLDERS == set()


def test_a_question_and_a_placeholder_are_seen():
    source = 'def f(given):\n    """What comes back."""\n    found = given\n    return found\n'
    assert [line for line in docstring_openings(source) if QUESTION.match(line)] == ["What comes back."]
    assert set(assigned_names(source)) & PLACEHOLDERS == {"given", "found"}
