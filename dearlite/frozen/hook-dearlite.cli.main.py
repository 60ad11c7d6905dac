"""PyInstaller's hook for the command line in an app, for example a sidecar: each command is imported by name."""

from importlib.util import find_spec

from PyInstaller.utils.hooks import collect_submodules

hiddenimports = collect_submodules("dearlite.cli")
if find_spec("starlette") is not None and find_spec("uvicorn") is not None:
    hiddenimports += [*collect_submodules("dearlite.serve"), "uvicorn", "starlette"]
