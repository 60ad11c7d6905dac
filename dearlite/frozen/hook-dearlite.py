"""PyInstaller's hook for dearlite: its data, and the modules and packages that it imports by name.

Left out are rooms that an app does not run and that need packages of their own. An app that imports them names them to
PyInstaller (--hidden-import); the command line has a hook of its own.
"""

from importlib.util import find_spec
from pathlib import Path

from PyInstaller.utils.hooks import collect_data_files, collect_submodules, copy_metadata, get_package_paths

_LEFT_OUT = ("cli", "export", "frozen", "integrations", "mcp", "offline.cluster", "serve")
# packages of the engines and of a chat template; what is not installed is not in the app
_PACKAGES = (
    *("numpy", "tokenizers", "onnxruntime", "psutil", "jinja2.sandbox", "jinja2.ext"),
    *("llama_cpp.llama_cpp", "llama_cpp_py_sync._cffi_bindings"),
)


def _in_an_app(module: str) -> bool:
    return not any(f"{module}.".startswith(f"dearlite.{room}.") for room in _LEFT_OUT)


def _installed(module: str) -> bool:
    return find_spec(module.partition(".")[0]) is not None


# models.toml lies beside the modules in a wheel, and one level up in a checkout
_package = Path(get_package_paths("dearlite")[1])
_models = next(path for folder in (_package, _package.parent) if (path := folder / "models.toml").is_file())

hiddenimports = collect_submodules("dearlite", filter=_in_an_app) + [name for name in _PACKAGES if _installed(name)]
datas = (
    collect_data_files("dearlite", excludes=["export/**"]) + copy_metadata("dearlite") + [(str(_models), "dearlite")]
)
