"""PyInstaller's hooks for an app that embeds dearlite. PyInstaller finds them by the entry point `hook-dirs`.

Nothing here is imported by dearlite or by an app; `hook-*.py` run inside PyInstaller.
"""

from __future__ import annotations

from pathlib import Path


def hook_folders() -> list[str]:
    """The folder of the hooks, for PyInstaller (group `pyinstaller40`)."""
    return [str(Path(__file__).parent)]
