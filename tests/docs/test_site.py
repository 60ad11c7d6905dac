"""The documentation site builds without a warning, and a browser that opens it asks no other host for anything."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# What a browser loads by itself; <a href> is followed by a person.
LOADS = re.compile(
    r"""<(?:script|img|iframe|source|video|audio)\b[^>]*?\bsrc=["']([^"']+)|<link\b[^>]*?\bhref=["']([^"']+)"""
)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings_handlers.python")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_page_is_built(site):
    pages = {page.stem for page in (ROOT / "docs").glob("*.md")} | {"contributing", "changelog", "benchmarks"}
    assert pages <= {page.stem for page in site.glob("*.html")}


def test_no_page_loads_from_another_host(site):
    for page in site.rglob("*.html"):
        loaded = [a or b for a, b in LOADS.findall(page.read_text(encoding="utf-8"))]
        assert loaded
        assert not [target for target in loaded if "//" in target], page.name
    for sheet in site.rglob("*.css"):
        assert not re.findall(r"url\(\s*[\"']?(?:https?:)?//", sheet.read_text(encoding="utf-8")), sheet.name


def test_api_page_shows_signatures_and_docstrings(site):
    page = (site / "api.html").read_text(encoding="utf-8")
    for name in ("dearlite.rerank", "dearlite.Reranker.load", "dearlite.UsageError", "dearlite.export.export"):
        assert f'id="{name}"' in page
    assert "budget_s" in page
