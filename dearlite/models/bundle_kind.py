"""The kind of a `.dear` file, read without NumPy and without a check of the file."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

MANIFEST = "manifest.json"


def kind_of_bundle(path: Path) -> str:
    """The kind that the manifest states; empty if it cannot be read, which is reported when the file is loaded."""
    try:
        with zipfile.ZipFile(path) as archive:
            kind = json.loads(archive.read(MANIFEST))["kind"]
    except (zipfile.BadZipFile, OSError, ValueError, KeyError, TypeError, NotImplementedError, RuntimeError, EOFError):
        return ""
    return kind if isinstance(kind, str) else ""
