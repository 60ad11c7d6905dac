"""Native libraries that do not load, as on another system: one line with the library, the reason and the remedy."""

import re
import sys
from pathlib import Path

import pytest
from tiny_gguf import write_tiny

import dearlite
from dearlite.cli import doctor
from dearlite.errors import LibraryNotLoaded, MissingExtra, UsageError, load_failure, need
from dearlite.installing import pip_install
from dearlite.llama import bindings as llama_library
from dearlite.llama.bindings import library
from dearlite.llama.cffi_library import prebuilt_library
from dearlite.pointwise.onnxruntime import multiplies_u8s8_exactly

# (what is raised, words of the remedy), as Linux, Windows and macOS give it
REASONS = [
    (ImportError("libgomp.so.1: cannot open shared object file: No such file or directory"), "apt install libgomp1"),
    (ImportError("/lib/libm.so.6: version `GLIBC_2.38' not found (required by /x/a.so)"), "older than the library"),
    (ImportError("DLL load failed while importing _ext: The specified module could not be found."), "VCRedist"),
    (OSError("[WinError 193] %1 is not a valid Win32 application"), "with a Python for this one"),
    (ImportError("dlopen(/x/a.so): (mach-o file, but is an incompatible architecture)"), "with a Python for this one"),
    (ImportError("/x/a.so: wrong ELF class: ELFCLASS32"), "with a Python for this one"),
    (ImportError("libcudart.so.12: cannot open shared object file: No such file or directory"), "package of this"),
    (RuntimeError("Failed to load shared library '/x/liba.so': /x/liba.so: file too short"), "pip install --force"),
    (FileNotFoundError("Shared library with base name 'a' not found"), "pip install --force"),
    (ImportError("\n\nIMPORTANT: PLEASE READ THIS\n\nOriginal error was: libgfortran.so.5: cannot open shared object "
                 "file\n"), "(libgfortran.so.5: cannot open"),
]  # fmt: skip
GOMP = REASONS[0][0]


@pytest.fixture
def broken(monkeypatch, tmp_path):
    """Makes the import of a package fail with an error."""
    packages = []

    def loaded():
        return [name for name in sys.modules if name.partition(".")[0] in packages]

    def install(package, err, inside=""):
        packages.append(package)
        for name in loaded():
            monkeypatch.delitem(sys.modules, name)
        folder = tmp_path / package
        folder.mkdir()
        text = f"raise {type(err).__name__}({str(err)!r})\n"
        (folder / "__init__.py").write_text("" if inside else text, encoding="utf-8")
        if inside:
            (folder / f"{inside}.py").write_text(text, encoding="utf-8")
        monkeypatch.syspath_prepend(tmp_path)

    yield install
    for name in loaded():  # of the stand-in; monkeypatch brings the real modules back
        del sys.modules[name]


@pytest.mark.parametrize(("err", "remedy"), REASONS, ids=lambda value: str(value).strip()[:20])
def test_each_reason_has_its_remedy(broken, err, remedy):
    broken("halfdone", err)
    with pytest.raises(LibraryNotLoaded) as caught:
        need("halfdone", extra="cpu")
    message = str(caught.value)
    assert message.startswith("halfdone does not load on this system (") and remedy in message
    assert "\n" not in message and isinstance(caught.value, ImportError) and caught.value.exit_code == 1


@pytest.mark.parametrize(
    "err", [ModuleNotFoundError("No module named 'diskcache'"), ImportError("cannot import name 'a' from 'b'")]
)
def test_package_that_lacks_another_is_one_line(broken, err):
    broken("halfdone", err)
    with pytest.raises(LibraryNotLoaded) as caught:
        need("halfdone", extra="cpu")
    assert str(caught.value) == f"halfdone cannot be imported ({err}): install it again, {pip_install('cpu')}"


@pytest.mark.parametrize("err", [RuntimeError("no"), OSError(2, "no")])
def test_other_errors_of_an_import_are_left_as_they_are(broken, err):
    broken("halfdone", err)
    with pytest.raises(type(err)) as caught:
        need("halfdone", extra="cpu")
    assert not isinstance(caught.value, LibraryNotLoaded)
    assert load_failure(LibraryNotLoaded(str(GOMP))) is None


@pytest.mark.parametrize("package", ["onnxruntime", "tokenizers"])
def test_rerank_and_python_name_the_library_and_the_remedy(broken, cli, tmp_path, package):
    multiplies_u8s8_exactly.cache_clear()
    broken(package, GOMP)
    path = tmp_path / "d.txt"
    path.write_text("Edison\n")
    words = f"{package} does not load on this system (libgomp.so.1: cannot open shared object file: No such file or "
    code, out, err = cli("rerank", "-q", "x", path)
    assert (code, out, err.count("\n")) == (1, "", 1) and err.startswith(f"dearlite: {words}")
    assert err.endswith("install the system's libgomp (apt install libgomp1, dnf install libgomp)\n")
    with pytest.raises(LibraryNotLoaded, match="libgomp1"):
        dearlite.rerank("x", ["Edison"])


@pytest.fixture
def unloaded(monkeypatch):
    """The llama.cpp library is loaded anew in the test."""
    library.cache_clear()
    yield monkeypatch
    library.cache_clear()


@pytest.mark.parametrize("options", [(), ("--prompt", "yes-no")], ids=["listwise", "pointwise"])
def test_llama_cpp_without_a_package_that_it_imports_is_one_line(broken, unloaded, cli, tmp_path, options):
    unloaded.setenv("DEARLITE_LLAMA", "llama-cpp-python")
    unloaded.setenv("DEARLITE_HOME", str(tmp_path))
    broken("llama_cpp", ModuleNotFoundError("No module named 'diskcache'", name="diskcache"))
    model, docs = write_tiny(tmp_path / "m.gguf"), tmp_path / "d.txt"
    docs.write_text("Edison\n")
    words = f"llama_cpp cannot be imported (No module named 'diskcache'): install it again, {pip_install('listwise')}"
    code, out, err = cli("rerank", "-q", "x", docs, "-m", model, *options)
    assert (code, out, err) == (1, "", f"dearlite: {words}\n")
    code, out, err = cli("models", "recommend", "--all")
    assert (code, err.count("Traceback")) == (0, 0) and "llama.cpp does not load" in " ".join(out.split())
    assert doctor._listwise_engine()["failed"].args[0] == words


def test_llama_cpp_that_does_not_load_is_not_called_a_bad_model(broken, cli, tmp_path, unloaded):
    unloaded.setattr(llama_library, "installed_engine", lambda: "llama_cpp")
    broken("llama_cpp", RuntimeError("Failed to load shared library '/x/libllama.so': wrong ELF class"), "llama_cpp")
    (tmp_path / "d.txt").write_text("Edison\nBell\n")
    code, _, err = cli("rerank", "-q", "x", tmp_path / "d.txt", "-m", write_tiny(tmp_path / "m.gguf"))
    assert (code, err.count("\n")) == (1, 1)
    assert err.startswith("dearlite: llama_cpp does not load on this system (Failed to load shared library")
    assert "it is for another kind of processor: pip install --force-reinstall --no-cache-dir --no-binary" in err
    assert list(doctor._listwise_engine()) == ["failed"]


@pytest.mark.parametrize(
    ("installed", "chosen", "engine"),
    [
        ("llama_cpp llama_cpp_py_sync", "", "llama_cpp"),
        ("llama_cpp llama_cpp_py_sync", "llama-cpp-py-sync", "llama_cpp_py_sync"),
        ("llama_cpp llama_cpp_py_sync", "llama-cpp-python", "llama_cpp"),
        ("llama_cpp_py_sync", "", "llama_cpp_py_sync"),
        ("llama_cpp", "llama-cpp-py-sync", MissingExtra),
        ("", "", MissingExtra),
        ("llama_cpp", "llama.cpp", UsageError),
    ],
)
def test_the_engine_can_be_chosen(monkeypatch, installed, chosen, engine):
    monkeypatch.setattr(llama_library, "find_spec", lambda name: object() if name in installed.split() else None)
    monkeypatch.setenv("DEARLITE_LLAMA", chosen)
    if isinstance(engine, str):
        assert llama_library.installed_engine() == engine
    else:
        with pytest.raises(engine, match="DEARLITE_LLAMA is" if engine is UsageError else "listwise-prebuilt"):
            llama_library.installed_engine()


def test_tests_take_either_engine():
    """They call `need_llama`, which does not ask for one of the packages."""
    files = [path for path in Path(__file__).parent.rglob("*.py") if path != Path(__file__)]
    asked = re.compile(r"importorskip\(.llama_cpp|^ *(import|from) llama_cpp", re.MULTILINE)
    assert len(files) > 80 and [path.name for path in files if asked.search(path.read_text(encoding="utf-8"))] == []


def test_prebuilt_library_that_needs_a_later_glibc_names_the_engine_that_is_compiled(broken, unloaded, tmp_path):
    package = tmp_path / "llama_cpp_py_sync"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "_cffi_bindings.py").write_text(
        'def get_lib():\n    raise RuntimeError("no library: version `GLIBC_2.38\' not found")\nget_ffi = get_lib\n'
    )
    unloaded.syspath_prepend(tmp_path)
    with pytest.raises(LibraryNotLoaded, match="this system is older than the library: update it, or COMPILE IT"):
        prebuilt_library(again="COMPILE IT")


def test_a_library_of_another_module_is_one_line(broken, cli, tmp_path):
    """One that is imported where it is used, without `need`: here by rich, for a table."""
    broken("pyarrow", GOMP)
    (tmp_path / "d.parquet").write_bytes(b"PAR1")
    code, _, err = cli("rerank", "-q", "x", tmp_path / "d.parquet")
    assert (code, err.count("\n")) == (1, 1) and "libgomp" in err and "apt install libgomp1" in err
