"""Installs the official CPython for Windows and dearlite's win_amd64 wheels into a wine prefix, on Linux.

The interpreter is python312.dll, as the win_amd64 wheel of panda3d carries it with its extension modules; the standard
library is that of a Python 3.12 of this machine. Wine 8 needs three small programs compiled with mingw: python.exe,
python3.dll (its exports are forwards to python312.dll) and bcryptprimitives.dll (it lacks that library).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

_LIBRARIES = ("libssl-3.dll", "libcrypto-3.dll", "libffi-8.dll", "sqlite3.dll", "zlib1.dll")
_COMPILER = "x86_64-w64-mingw32-gcc"
_PYTHON_C = """
#include <wchar.h>
int __declspec(dllimport) Py_Main(int, wchar_t **);
int wmain(int count, wchar_t **arguments) { return Py_Main(count, arguments); }
"""
_RANDOM_C = """
#include <windows.h>
BOOLEAN WINAPI SystemFunction036(PVOID, ULONG);
__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE data, SIZE_T size) { return SystemFunction036(data, (ULONG)size); }
"""
_EMPTY_C = "int __stdcall DllMain(void *module, unsigned reason, void *reserved) { return 1; }\n"


def wine_environment(folder: Path) -> dict[str, str]:
    """The environment of a program in the prefix of `folder`: dearlite is found in drive C, folder dearlite."""
    return os.environ | {
        "WINEPREFIX": str(folder / "prefix"),
        "WINEDEBUG": "-all",
        "PYTHONPATH": "C:\\dearlite",
        "LANG": "C.UTF-8",
    }


def drive(folder: Path) -> Path:
    """The folder that Windows programs see as drive C."""
    return folder / "prefix" / "drive_c"


def install(folder: Path, python312: str) -> None:
    """Writes the prefix with Python and the wheels, about 900 MB, unless it is there."""
    python = drive(folder) / "Python"
    if (python / "python3.dll").exists():
        return
    missing = [name for name in ("wine", _COMPILER, python312) if shutil.which(name) is None]
    if missing:
        sys.exit(
            f"{', '.join(missing)} not found; Debian: apt install wine wine64 gcc-mingw-w64-x86-64, and a Python 3.12"
        )
    wheels = folder / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(wheels)]
    command += ["--platform", "win_amd64", "--python-version", "3.12", "--only-binary", ":all:"]
    subprocess.run([*command, "panda3d", "-r", str(Path(__file__).with_name("windows.txt"))], check=True)
    for arguments in (["wineboot", "-i"], ["reg", "add", r"HKCU\Software\Wine", "/v", "Version", "/d", "win10", "/f"]):
        subprocess.run(["wine", *arguments], env=wine_environment(folder), check=True, capture_output=True)
    _copy_python(folder, python, python312)
    for wheel in wheels.glob("*.whl"):
        if not wheel.name.startswith("panda3d"):
            _unpack(wheel, python / "Lib" / "site-packages")
    _compile(folder / "helpers", python)  # last: python3.dll marks a complete installation


def install_dearlite(folder: Path, root: Path) -> None:
    """Copies the checkout's packages to drive C, laid out as in the wheel."""
    target = drive(folder) / "dearlite" / "dearlite"
    shutil.rmtree(target.parent, ignore_errors=True)
    shutil.copytree(root / "dearlite", target, ignore=shutil.ignore_patterns("__pycache__", "export"))
    shutil.copytree(root / "export", target / "export", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(root / "models.toml", target)


def _copy_python(folder: Path, python: Path, python312: str) -> None:
    question = "import sysconfig; print(sysconfig.get_path('stdlib'))"
    library = subprocess.run([python312, "-c", question], capture_output=True, text=True, check=True).stdout.strip()
    unwanted = shutil.ignore_patterns("site-packages", "lib-dynload", "test", "config-*", "__pycache__")
    shutil.copytree(library, python / "Lib", ignore=unwanted, dirs_exist_ok=True)
    (python / "DLLs").mkdir(parents=True, exist_ok=True)
    (wheel,) = (folder / "wheels").glob("panda3d-*.whl")
    _unpack(wheel, folder / "panda3d")
    files = folder / "panda3d" / "deploy_libs"
    for extension in files.glob("*.pyd"):
        if extension.name != "_wmi.pyd":  # calls a function that wine 8 lacks; the module platform goes on without it
            shutil.copy(extension, python / "DLLs")
    for name in _LIBRARIES:
        shutil.copy(files / name, python / "DLLs")
    for name in ("python312.dll", "VCRUNTIME140.dll", "VCRUNTIME140_1.dll", *_LIBRARIES):
        shutil.copy(files / name, python)


def _unpack(wheel: Path, target: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)


def _compile(work: Path, python: Path) -> None:
    work.mkdir(parents=True, exist_ok=True)
    for name, text in (("main.c", _PYTHON_C), ("random.c", _RANDOM_C), ("empty.c", _EMPTY_C)):
        (work / name).write_text(text, encoding="ascii")
    dll = str(python / "python312.dll")
    table = subprocess.run(["objdump", "-p", dll], capture_output=True, text=True, check=True).stdout
    _, _, table = table.partition("[Ordinal/Name Pointer] Table")
    names = re.findall(r"^\s*\[ *\d+\].*?(\w+)\s*$", table, re.MULTILINE)
    forwards = "".join(f"{name} = python312.{name}\n" for name in names)
    (work / "python3.def").write_text(f"LIBRARY python3.dll\nEXPORTS\n{forwards}", encoding="ascii")
    for arguments in (
        ["-municode", "main.c", "-o", str(python / "python.exe"), dll],
        ["-shared", "random.c", "-o", str(python / "bcryptprimitives.dll"), "-ladvapi32"],
        ["-shared", "empty.c", "python3.def", "-o", str(python / "python3.dll")],
    ):
        subprocess.run([_COMPILER, *arguments], cwd=work, check=True)
