"""Hooks of `mkdocs build`: pages that live outside docs/, links to source files, and both packages in one folder."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
# File in the checkout -> page of the site.
PAGES = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md", "benchmarks/README.md": "benchmarks.md"}
_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)#\s]+)(#[^)\s]*)?\)")
_state: dict[str, str] = {}


@event_priority(100)  # before mkdocstrings reads its paths
def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """The configuration with a folder in which `dearlite.export` lies below `dearlite`, as it is installed."""
    folder = _state["sources"] = tempfile.mkdtemp(prefix="dearlite-docs-")
    heavy = shutil.ignore_patterns("__pycache__", "data")
    linked = shutil.ignore_patterns("__pycache__", "data", "export")  # dearlite/export is a link to export/
    shutil.copytree(ROOT / "dearlite", Path(folder, "dearlite"), ignore=linked)
    shutil.copytree(ROOT / "export", Path(folder, "dearlite", "export"), ignore=heavy)
    handlers: dict[str, Any] = config.plugins["mkdocstrings"].config["handlers"]
    handlers["python"]["paths"] = [folder]
    return config


def on_post_build(config: MkDocsConfig) -> None:
    """Removes the folder of `on_config`."""
    shutil.rmtree(_state.pop("sources"), ignore_errors=True)


def on_build_error(error: Exception) -> None:
    """Removes the folder of `on_config`."""
    shutil.rmtree(_state.pop("sources", ""), ignore_errors=True)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The site's files, with the pages of PAGES."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The page with its links as the site needs them.

    Links in docs/ are relative to the checkout, so that they work there too. A link to a page outside docs/ becomes a
    link to its copy; a link to another file of the checkout becomes the file's path as code.
    """
    copies = {copy: source for source, copy in PAGES.items()}
    source = ROOT / copies.get(page.file.src_uri, f"docs/{page.file.src_uri}")

    def relinked(match: re.Match[str]) -> str:
        text, target, anchor = match[1], match[2], match[3] or ""
        if "://" in target or target.startswith("mailto:"):
            return match[0]
        path = (source.parent / target).resolve()
        if not path.is_relative_to(ROOT):
            return match[0]
        inside = path.relative_to(ROOT).as_posix()
        if inside in PAGES:
            return f"[{text}]({PAGES[inside]}{anchor})"
        if inside.startswith("docs/") and path.suffix in (".md", ".png", ".svg"):
            return f"[{text}]({inside.removeprefix('docs/')}{anchor})"
        return f"`{inside}`"

    parts = re.split(r"(^```.*?^```\s*$)", markdown, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if part.startswith("```") else _LINK.sub(relinked, part) for part in parts)
