"""The pages of docs/ hold what they promise: help texts, snippets, links, keys of the formats, errors, rooms."""

import dataclasses
import re
import subprocess
import sys
import tomllib
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from test_layers import MAY_IMPORT

import dearlite
import dearlite.export
from dearlite import errors
from dearlite.models.entries import CascadeEntry, ModelEntry
from dearlite.models.manifest import Build, Manifest, Member, Tensor

ROOT = Path(__file__).parents[2]
PAGES = sorted((*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md"), *(ROOT / "benchmarks").glob("*.md")))
_SNIPPET = re.compile(r"```python\n((?:(?!```).)*?)```\n```(?:text)?\n(.*?)```", re.DOTALL)
SNIPPETS = [
    pytest.param(code, output, id=f"{page.stem}-{number}")
    for page in PAGES
    for number, (code, output) in enumerate(_SNIPPET.findall(page.read_text(encoding="utf-8")))
]


def text_of(page):
    return (ROOT / "docs" / page).read_text(encoding="utf-8")


def test_the_threat_model_names_tests_that_exist():
    names = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", text_of("security.md"))
    assert len(names) > 20
    absent = [(file, name) for file, name in names if f"def {name}" not in (ROOT / file).read_text(encoding="utf-8")]
    assert absent == []


def generator():
    """docs/generate_cli.py as a module; it needs the extras of every command."""
    for package in ("onnx", "gguf", "ir_measures"):
        pytest.importorskip(package)
    spec = spec_from_file_location("generate_cli", ROOT / "docs" / "generate_cli.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_cli_page_has_every_command_and_its_help():
    cli, page = generator(), text_of("cli.md")
    assert sorted(cli.documented(page)) == sorted(cli.commands())
    assert cli.rewritten(page) == page, "a help text has changed: run `make help-texts`"


def test_help_of_the_generator_is_that_of_a_terminal():
    command = [sys.executable, "-m", "dearlite.cli.main", "doctor", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert generator().help_text(("doctor",)) == done.stdout


@pytest.mark.parametrize(("code", "output"), SNIPPETS)
def test_snippet_prints_the_output_below_it(code, output):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == output


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_a_file(page):
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_named_in_a_page_exist(page):
    """Paths in code, `dearlite/files/trec.py`, from the checkout's root."""
    named = re.findall(
        r"`((?:dearlite|export|tests|benchmarks|docs|examples)/[\w./-]+)`", page.read_text(encoding="utf-8")
    )
    assert not [path for path in named if not (ROOT / path).exists()]


@pytest.mark.parametrize("record", [Manifest, Build, Member, Tensor, ModelEntry, CascadeEntry])
def test_formats_page_names_every_key(record):
    section = text_of("formats.md").split("## models.toml")[record in (ModelEntry, CascadeEntry)]
    keys = {field.name for field in dataclasses.fields(record)} - ({"name"} if "Entry" in record.__name__ else set())
    assert not [key for key in keys if f"`{key}`" not in section and f'"{key}"' not in section]


def test_formats_page_names_every_gguf_key():
    metadata = pytest.importorskip("dearlite.export.gguf.metadata")
    facts = metadata.ListwiseFacts(
        name="a", prompt="chat", max_tokens=100, licence="b", source={}, window=20, stride=10
    )
    written = [key for key, _ in metadata.listwise_values(facts)]
    section = text_of("formats.md").split("## `.gguf`: a listwise model")[1].split("\n## ")[0]
    if_any = [f"dearlite.{side}" for side in ("lstrip", "rstrip")]  # of the vocabulary, before the licence
    rows = [
        re.findall(r"`(dearlite\.\w+)`", row.partition(" | ")[0]) for row in section.split("\n") if row[:4] == "| `d"
    ]
    assert [row for row in rows if row != if_any] == [[key] for key in written]
    assert if_any in rows


def test_api_page_has_the_tree_of_errors():
    assert errors.__doc__.split("\n\n")[1].strip() in text_of("api.md")


@pytest.mark.parametrize("package", [dearlite, dearlite.export], ids=["dearlite", "dearlite.export"])
def test_api_page_has_every_public_name(package):
    described = re.findall(r"^::: ([\w.]+)$", text_of("api.md"), re.MULTILINE)
    public = [f"{package.__name__}.{name}" for name in package.__all__ if not name.startswith("__")]
    assert not set(public) - set(described)


def test_architecture_page_names_every_room():
    page = text_of("architecture.md")
    table = page[page.index("## Rooms") : page.index("## Where a change belongs")]
    assert set(re.findall(r"`([a-z._]+)`", table.split("|---|---|")[1].split("\n\n")[0])) >= set(MAY_IMPORT)


def test_install_page_has_every_extra():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    table = text_of("install.md").split("## Extras")[1].split("\n\n")[1]
    assert sorted(re.findall(r"^\| `([\w-]+)`", table, re.MULTILINE)) == sorted(extras)


def test_every_page_is_in_the_navigation():
    named = re.findall(r"^ +- [^:]+: ([\w-]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    assert {page.name for page in (ROOT / "docs").glob("*.md")} <= set(named)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_install_commands_are_those_of_a_checkout(page):
    """No index has dearlite yet."""
    assert not re.findall(r'pip install [^`\n]*"dearlite\[[^`\n]*', page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", ["README.md", "docs/install.md"])
def test_first_install_command_follows_the_clone_and_the_environment(page):
    before = (ROOT / page).read_text(encoding="utf-8").split('pip install "')[0]
    assert "clone" in before and "python3 -m venv .venv" in before


def test_help_lines_fit_80_columns():
    blocks = re.findall(r"```text\n\$ (.*?)```", text_of("cli.md"), re.DOTALL)
    assert len(blocks) > 10
    assert not [line for block in blocks for line in block.splitlines() if len(line) > 80]
