"""Borders that must hold: what importing costs, what documents and files promise."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from dearlite.errors import LibraryNotLoaded, MissingExtra, need
from dearlite.installing import pip_install
from dearlite.models.registry import DEFAULT_MODEL, load_registry
from dearlite.models.registry_values import QUALITY

ROOT = Path(__file__).parents[1]
HEAVY = {
    "torch",
    "transformers",
    "onnxruntime",
    "llama_cpp",
    "tokenizers",
    "onnx",
    "pandas",
    "pyarrow",
    "rich",
    "numpy",
}


def modules_after(statement):
    code = f"import sys\n{statement}\nprint(' '.join(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    return {name.partition(".")[0] for name in out.split()}


def test_import_loads_no_model_library():
    assert not modules_after("import dearlite") & HEAVY


def test_help_loads_no_command():
    loaded = modules_after("import dearlite.cli.main as m\ntry: m.run(['--help'])\nexcept SystemExit: pass")
    assert not loaded & HEAVY


def test_reranking_loads_no_torch():
    heavy = modules_after("import dearlite\ndearlite.rerank('a', ['b'])") & {"torch", "transformers", "onnx", "rich"}
    assert not heavy


def test_runtime_never_imports_the_workshop():
    for file in (ROOT / "dearlite").rglob("*.py"):
        imports = re.findall(r"^\s*(?:from|import) dearlite\.export", file.read_text(encoding="utf-8"), re.MULTILINE)
        assert not imports, file  # the CLI's table may name a command of it


# sites where a folder that cannot be looked into is an error of its own
_RAISES = {"registry.py": "own.is_file()"}


def test_a_path_that_cannot_exist_is_no_file():
    """pathlib's methods raise OSError for a name that is too long and a folder without permission; os.path's do not."""
    for root in ("dearlite", "export"):
        for file in (ROOT / root).rglob("*.py"):
            if file.name in ("installing.py", "machine.py", "hook-dearlite.py"):  # of paths that no user names
                continue
            text = file.read_text(encoding="utf-8").replace(_RAISES.get(file.name, "\0"), "")
            assert not re.search(r"(?<!entry)\.(is_file|is_dir|exists)\(\)", text), file


def test_training_is_imported_from_the_workshops_front_without_torch():
    loaded = modules_after("from dearlite.export import mine, train_listwise, train_pointwise, PointwiseConfig")
    assert not loaded & {"torch", "transformers", "peft", "trl", "onnx"}


def test_workshops_front_is_cheap_to_import():
    front = modules_after("import dearlite.export")
    assert not front & HEAVY
    functions = modules_after("from dearlite.export import ExportOptions, calibrate, export, verify")
    assert not functions & {"torch", "transformers", "onnx", "gguf", "llama_cpp", "onnxruntime"}


def test_every_public_name_of_the_workshop_is_found():
    import dearlite.export as front

    assert all(getattr(front, name).__module__.startswith("dearlite.export.") for name in front.__all__)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = front.no_such_name


def test_missing_extra_names_the_command():
    with pytest.raises(MissingExtra, match=re.escape(f"is not installed: {pip_install('listwise')}")) as caught:
        need("no_such_module_at_all", extra="listwise")
    assert "\n" not in str(caught.value)


def test_missing_base_dependency_is_not_looked_for_in_an_extra():
    with pytest.raises(MissingExtra, match=re.escape(f"is not installed: {pip_install(None)}")):
        need("no_such_module_at_all", extra=None)


def test_broken_package_is_not_called_missing(tmp_path, monkeypatch):
    (tmp_path / "halfdone.py").write_text("import no_such_module_at_all\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(LibraryNotLoaded, match=r"halfdone cannot be imported .*no_such_module_at_all") as caught:
        need("halfdone", extra="cpu")
    assert not isinstance(caught.value, MissingExtra)


def run_without_onnx(code, folder):
    """A finished process that ran `code` as in an installation without the extra `export`: onnx cannot be imported."""
    (folder / "onnx.py").write_text("raise ModuleNotFoundError(\"No module named 'onnx'\", name='onnx')\n")
    code = f"import sys; sys.path.insert(0, {str(folder)!r})\n{code}"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)


@pytest.mark.parametrize("room", ["source", "numerics", "gguf"])
def test_room_imports_without_onnx(room, tmp_path):
    """GGUF export and the NumPy reference write no ONNX graph, so no module of theirs may import onnx."""
    files = sorted((ROOT / "export" / room).glob("*.py"))
    assert len(files) > 1
    modules = [f"dearlite.export.{room}.{file.stem}".removesuffix(".__init__") for file in files]
    done = run_without_onnx("\n".join(f"import {module}" for module in modules), tmp_path)
    assert done.returncode == 0, done.stderr


def test_room_that_writes_graphs_does_not_import_without_onnx(tmp_path):
    """The test above hides onnx well enough: a module that imports it fails."""
    done = run_without_onnx("import dearlite.export.onnx.graph", tmp_path)
    assert "No module named 'onnx'" in done.stderr


def test_command_whose_extra_is_missing_names_it(tmp_path, monkeypatch):
    done = run_without_onnx("import dearlite.cli.main as m; m.run(['export', '.', '-o', 'm.dear'])", tmp_path)
    monkeypatch.chdir(ROOT)
    assert done.returncode == 1
    assert done.stderr == f"dearlite: onnx is needed here and is not installed: {pip_install('export')}\n"


def rows_of(table_head, page):
    """The cells of the first table in `page` whose head begins with `table_head`."""
    lines = page[page.index(table_head) :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def megabytes(entry_mb):
    return f"{entry_mb} MB" if entry_mb < 1000 else f"{entry_mb / 1000:.1f} GB"


@pytest.mark.parametrize("page", ["README.md", "docs/models.md"])
def test_model_table_is_that_of_the_registry(page):
    """Kind, sizes, licence and quality of each row are those of models.toml; docs/models.md has every name."""
    known, seen, text = load_registry(), [], (ROOT / page).read_text("utf-8")
    measures = re.search(r"\| name \| model \| file \| memory \| licence \| (.*) \|", text)[1].lower().split(" | ")
    for name_cell, model, file, memory, licence, *quality in rows_of("| name | model |", text):
        for name in re.findall(r"`([^`]+)`", name_cell):
            seen.append(name)
            entry = known[name]
            assert (model.split()[0], licence) == (entry.kind, entry.licence), name
            assert (file, memory) == (megabytes(entry.size_mb), megabytes(entry.memory_mb)), name
            figures = [entry.quality.get(measure) for measure in measures]
            assert quality == ["" if figure is None else f"{100 * figure:.1f}" for figure in figures], name
    assert len(set(seen)) == len(seen)
    if page == "docs/models.md":
        assert sorted(seen) == sorted(known)
        assert measures == list(QUALITY)
    else:  # a selection: the default first, and the models that give dearlite its name
        assert seen[0] == DEFAULT_MODEL
        assert {name for name in known if name.startswith("dear-")} < set(seen) < set(known)
        assert "(docs/models.md)" in text


def test_readme_fits_on_three_screens_and_has_one_test_command():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(readme.splitlines()) <= 140
    assert readme.count("pip install -c constraints.txt") == 1  # .ci/run runs that line
