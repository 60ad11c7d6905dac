"""Extras are true: `need` names an extra that brings the package, and every import belongs to a declared dependency."""

import ast
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest
from import_graph import modules_of

import dearlite.export as front
from dearlite.cli.main import COMMANDS
from dearlite.llama.bindings import ENGINES
from dearlite.models.formats import DEAR, LISTWISE_GGUF, POINTWISE_GGUF

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
# import name -> distribution, where they differ by more than - and _
DISTRIBUTIONS = {
    **ENGINES,
    "haystack": "haystack-ai",
    "llama_index": "llama-index-core",
    "optimum": "optimum-onnx",
    "pytrec_eval": "pytrec-eval-terrier",
    "Stemmer": "pystemmer",
    "docx": "python-docx",
    "yaml": "pyyaml",
}
# declared, and imported by another package only
INDIRECT = {
    "onnxruntime-gpu": "imported as onnxruntime",
}
TYPE_CHECKERS_OWN = ("typing_extensions",)  # type checkers bring its types themselves
FOR_DEVELOPERS = ("dev", "docs", "test")


@cache
def tree(file):
    return ast.parse(file.read_text(encoding="utf-8"))


def distribution(module):
    top = module.partition(".")[0]
    return DISTRIBUTIONS.get(top, top.replace("_", "-"))


def brought_by(extra):
    """Distributions that `pip install dearlite[extra]` installs by name; those of dearlite alone for None."""
    names = set()
    for requirement in PROJECT["dependencies"] + ([] if extra is None else EXTRAS[extra]):
        name, _, inner = re.match(r"([\w.-]+)(\[([\w,-]+)\])?", requirement).groups()
        if name == "dearlite":
            names = names.union(*(brought_by(other) for other in inner.split(",")))
        else:
            names.add(name.lower().replace("_", "-"))
    return names


def third_party(node):
    """Top-level names of the packages that an import statement imports, without the standard library's and dearlite."""
    modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module]
    tops = {module.partition(".")[0] for module in modules}
    return tops - sys.stdlib_module_names - {"dearlite"}


def nodes(root):
    """(FILE:LINE, node) of every import statement and call below `root`, but those of TYPE_CHECKERS_OWN."""
    for file in modules_of(root).values():
        name = file.relative_to(root)
        for node in ast.walk(tree(file)):
            if isinstance(node, (ast.Import, ast.ImportFrom, ast.Call)) and node not in known_to_type_checkers(file):
                yield f"{name}:{node.lineno}", node


@cache
def known_to_type_checkers(file):
    """Imports of TYPE_CHECKERS_OWN in the blocks that only a type checker reads."""
    blocks = [
        node
        for node in ast.walk(tree(file))
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    ]
    return {
        node for block in blocks for node in block.body
        if isinstance(node, ast.ImportFrom) and node.module in TYPE_CHECKERS_OWN
    }  # fmt: skip


def needs(root):
    """(place, module, extra) of each call of `need`, except the two calls whose modules are in a table.

    These are COMMANDS of the command line and _MODULES of dearlite.export; their tests are below.
    """
    for place, node in nodes(root):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "need":
            extra = next(keyword.value for keyword in node.keywords if keyword.arg == "extra")
            if place.rpartition(":")[0] in ("dearlite/cli/main.py", "export/__init__.py"):
                continue
            name = node.args[0].values[0] if isinstance(node.args[0], ast.JoinedStr) else node.args[0]
            assert isinstance(name, ast.Constant), f"{place}: name the module where it is needed"
            yield place, name.value, extra.value


def imported_at_once(module, modules, seen):
    """Third-party packages that importing `module` imports: functions and TYPE_CHECKING blocks are not entered."""
    if module in seen or module not in modules:
        return set()
    seen.add(module)
    packages, queue = set(), [tree(modules[module])]
    while queue:
        node = queue.pop()
        if isinstance(node, (ast.FunctionDef, ast.Lambda)) or (
            isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        ):
            continue
        queue += ast.iter_child_nodes(node)
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            packages |= third_party(node)
            names = [alias.name for alias in node.names]
            inner = names if isinstance(node, ast.Import) else [node.module, *(f"{node.module}.{n}" for n in names)]
            for name in inner:
                packages |= imported_at_once(name, modules, seen)
    return packages | imported_at_once(module.rpartition(".")[0], modules, seen)


def undeclared(root):
    """Imports of packages that no extra brings."""
    declared = set().union(*(brought_by(extra) for extra in EXTRAS if extra not in FOR_DEVELOPERS))
    imports = ((place, node) for place, node in nodes(root) if isinstance(node, (ast.Import, ast.ImportFrom)))
    return [
        f"{place}: {package}"
        for place, node in imports
        for package in third_party(node)
        if distribution(package) not in declared
    ]


def wrong_remedies(root):
    """Calls of `need` whose extra does not bring the package."""
    modules, wrong = modules_of(root), []
    for place, module, extra in needs(root):
        packages = imported_at_once(module, modules, set()) if module.startswith("dearlite.") else {module}
        brought = brought_by(extra) if extra is None or extra in EXTRAS else set()
        wrong += [
            f"{place}: {package} is not in {extra}" for package in packages if distribution(package) not in brought
        ]
    return wrong


def test_every_import_belongs_to_a_declared_dependency():
    assert not undeclared(ROOT)


def test_need_names_an_extra_that_brings_the_package():
    assert len(list(needs(ROOT))) > 30
    assert not wrong_remedies(ROOT)


def test_commands_and_model_formats_name_extras_that_bring_their_packages():
    modules = modules_of(ROOT)
    for name, (module, _, extra) in COMMANDS.items():
        assert module in modules
        missing = {distribution(package) for package in imported_at_once(module, modules, set())} - brought_by(extra)
        assert not missing, f"dearlite {name}: {missing} not in {extra}"
    for runner in (DEAR, POINTWISE_GGUF, LISTWISE_GGUF):
        assert distribution(runner.packages[0]) in brought_by(runner.extra)


def test_names_of_the_workshop_need_only_the_extra_that_its_front_names():
    modules = modules_of(ROOT)
    for module in front._MODULES.values():
        extra = "train" if module.startswith("train.") else "export"
        packages = imported_at_once(f"dearlite.export.{module}", modules, set())
        assert {distribution(package) for package in packages} <= brought_by(extra), module


def test_extras_named_in_messages_exist():
    for file in modules_of(ROOT).values():
        text = file.read_text(encoding="utf-8")
        named = re.findall(r"dearlite\[([\w,-]+)\]", text) + re.findall(r"""pip_install\(["']([^"']+)["']\)""", text)
        assert {extra for names in named for extra in names.split(",")} <= set(EXTRAS), file


def test_no_extra_brings_a_package_that_nothing_imports():
    imports = (node for _, node in nodes(ROOT) if isinstance(node, (ast.Import, ast.ImportFrom)))
    used = {distribution(package) for node in imports for package in third_party(node)}
    used |= {distribution(module) for _, module, _ in needs(ROOT)} | set(INDIRECT)
    for extra in EXTRAS:
        if extra not in FOR_DEVELOPERS:
            assert brought_by(extra) <= used, extra


@pytest.mark.parametrize(
    ("code", "imports", "remedies"),
    [
        ("def show():\n    import seaborn", ["dearlite/plot.py:2: seaborn"], []),
        ('need("onnx", extra="cpu")', [], ["dearlite/plot.py:1: onnx is not in cpu"]),
        ('need("onnx.helper", extra="no_such")', [], ["dearlite/plot.py:1: onnx.helper is not in no_such"]),
        ('need("dearlite.graph", extra="train")', [], []),
        ('need("dearlite.graph", extra="pandas")', [], ["dearlite/plot.py:1: onnx is not in pandas"]),
    ],
)
def test_a_violation_is_reported(tmp_path, code, imports, remedies):
    (tmp_path / "export").mkdir()
    (tmp_path / "dearlite").mkdir()
    (tmp_path / "dearlite/graph.py").write_text("import onnx\ndef f():\n    import torch\n")
    (tmp_path / "dearlite/plot.py").write_text(code)
    assert (undeclared(tmp_path), wrong_remedies(tmp_path)) == (imports, remedies)


HELP = (
    ["export", "-h"], ["train", "-h"], ["train", "pointwise", "-h"], ["train", "listwise", "-h"],
    ["train", "mine", "-h"], ["rerank", "-h"], ["batch", "-h"], ["eval", "-h"], ["bench", "-h"], ["doctor", "-h"],
    ["serve", "-h"], ["models", "calibrate", "-h"],
)  # fmt: skip


def test_help_and_completion_need_no_extra():
    """In one process that has none of the optional packages, as after `pip install dearlite`."""
    base = brought_by(None)
    optional = {distribution(module) for extra in EXTRAS for module in brought_by(extra)} - base
    names = {name for name, package in DISTRIBUTIONS.items() if package in optional}
    names |= {package.replace("-", "_") for package in optional} | {"onnxruntime", "gguf", "transformers", "torch"}
    script = (
        "import os, sys\n"
        f"sys.modules.update(dict.fromkeys({sorted(names)!r}))\n"
        "from dearlite.cli.main import run\n"
        f"for words in {HELP!r}:\n"
        "    try:\n"
        "        run(list(words))\n"
        "    except SystemExit as end:\n"
        "        print('ended', end.code)\n"
        "os.environ.update(COMP_WORDS='dearlite export ', COMP_CWORD='2', _DEARLITE_COMPLETE='bash_complete')\n"
        "run([])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.count("ended 0") == len(HELP), done.stdout
    assert done.stdout.count("Usage: dearlite") == len(HELP)
