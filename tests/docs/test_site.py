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


def built_site(folder):
    """`folder` with the site in it; a warning of the build fails the test."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def foreign_loads(site):
    """Addresses on other hosts that a browser would load, by file."""
    for page in site.rglob("*.html"):
        loads = [script or link for script, link in LOADS.findall(page.read_text(encoding="utf-8"))]
        assert loads, f"{page.name} loads nothing at all: the pattern no longer fits"
        yield from ((page.name, target) for target in loads if "//" in target)
    for sheet in site.rglob("*.css"):
        text = sheet.read_text(encoding="utf-8")
        yield from ((sheet.name, target) for target in re.findall(r"url\(\s*[\"']?((?:https?:)?//[^)]*)", text))


def test_site_builds_and_loads_nothing_from_another_host(tmp_path):
    """One test, since each worker of pytest-xdist would build the site again."""
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings_handlers.python")
    site = built_site(tmp_path / "site")
    pages = {page.stem for page in (ROOT / "docs").glob("*.md")} | {"contributing", "changelog", "benchmarks"}
    assert pages <= {page.stem for page in site.glob("*.html")}
    assert list(foreign_loads(site)) == []
    reference = (site / "api.html").read_text(encoding="utf-8")
    for name in ("dearlite.rerank", "dearlite.Reranker.load", "dearlite.UsageError", "dearlite.export.export"):
        assert f'id="{name}"' in reference
    assert "budget_s" in reference


def test_a_foreign_load_is_seen(tmp_path):
    (tmp_path / "a.html").write_text('<script src="https://example.org/a.js"></script><link rel="x" href="b.css">')
    (tmp_path / "b.css").write_text("a { background: url('//example.org/b.png') }")
    assert [name for name, _ in foreign_loads(tmp_path)] == ["a.html", "b.css"]
