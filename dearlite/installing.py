"""Commands that install packages beside dearlite, in the words of whatever installed dearlite itself.

A checkout names its folder, as no index may have it. pipx and uv keep tools in environments that `pip` does not reach.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

_ROOT = Path(__file__).parents[1]  # of a checkout; otherwise site-packages
_OF_UV = {"--force-reinstall": "--reinstall", "--no-cache-dir": "--no-cache"}


def pip_install(extra: str | None, *, options: str = "") -> str:
    """The command that installs dearlite with `extra`, in the quotes that every shell takes, cmd.exe included.

    `options` are those of pip. Example: pip_install("cpu") is `pip install "dearlite[cpu]"`, in a checkout
    `pip install -e ".[cpu]"`.
    """
    extras = "" if extra is None else f"[{extra}]"
    if (checkout := _checkout()) is not None:
        return pip(f'install {options} -e "{checkout}{extras}"')
    if _is_one_run_of_uv():
        return f'uvx --with "dearlite{extras}" ..., with the rest of the command as it was'
    return pip(f'install {options} "dearlite{extras}"' if extras else f"install {options} dearlite")


def pip(arguments: str) -> str:
    """The command of pip with `arguments` for the environment that runs this process."""
    words = [word for word in arguments.split(" ") if word]
    if (Path(sys.prefix) / "pipx_metadata.json").is_file():
        return " ".join(["pipx", "runpip", Path(sys.prefix).name, *words])
    if not _is_of_uv():
        return " ".join(["pip", *words])
    words = [_OF_UV.get(word, word) for word in words]
    return " ".join(["uv", "pip", words[0], f'--python "{sys.prefix}"', *words[1:]])


def _checkout() -> str | None:
    """The folder of the checkout that holds this module, `.` for the current one; None for an installed package."""
    if not (_ROOT / "pyproject.toml").is_file():
        return None
    try:
        return "." if os.path.samefile(_ROOT, ".") else str(_ROOT)
    except OSError:
        return str(_ROOT)


def _is_of_uv() -> bool:
    """True for an environment of uv, as a tool or by `uv venv`, which has no pip."""
    if (Path(sys.prefix) / "uv-receipt.toml").is_file():
        return True
    try:
        lines = (Path(sys.prefix) / "pyvenv.cfg").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    has_pip = any((Path(folder) / "pip").is_dir() for folder in sys.path if folder.startswith(sys.prefix))
    return not has_pip and any(line.partition("=")[0].strip() == "uv" for line in lines)


def _is_one_run_of_uv() -> bool:
    """True for an environment that `uvx` made in its cache for this run."""
    return _is_of_uv() and any((folder / "CACHEDIR.TAG").is_file() for folder in list(Path(sys.prefix).parents)[:4])
