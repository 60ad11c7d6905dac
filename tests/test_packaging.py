"""The wheel holds every module, also of a folder that was added a minute ago; builds are the same bytes anywhere."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from hashlib import sha256
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytest.importorskip("setuptools", minversion="77")


def wheel_of(root, folder):
    """Names of the files in the wheel that `root` builds."""
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder), "."]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def modules_of(root):
    """Names that the modules of `root` have in a wheel."""
    inside = {
        f"dearlite/{file.relative_to(root / 'dearlite').as_posix()}" for file in (root / "dearlite").rglob("*.py")
    }
    return inside | {
        f"dearlite/export/{file.relative_to(root / 'export').as_posix()}" for file in (root / "export").rglob("*.py")
    }


def copy_of_the_checkout(root):
    """`root` with what a build reads, without the embedded model: packing its 35 MB takes seconds."""
    root.mkdir()
    unwanted = shutil.ignore_patterns("__pycache__", "*.dear", "export")
    for part in ("dearlite", "export"):
        shutil.copytree(ROOT / part, root / part, ignore=unwanted)
    for file in ("pyproject.toml", "setup.py", "MANIFEST.in", "models.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / file, root)
    (root / "dearlite/data/minilm-l12.dear").write_bytes(b"a stand-in")
    return root


def test_every_module_is_in_the_wheel(tmp_path):
    root = copy_of_the_checkout(tmp_path / "checkout")
    for new in ("dearlite/newroom", "export/newroom/deeper"):
        (root / new).mkdir(parents=True)
        (root / new / "__init__.py").touch()
        (root / new / "module.py").touch()
    (root / "export/newroom/__init__.py").touch()
    names = wheel_of(root, tmp_path)
    assert {name for name in names if name.endswith(".py")} == modules_of(root)
    data = {
        "dearlite/models.toml",
        "dearlite/py.typed",
        "dearlite/data/u8s8_probe.onnx",
        "dearlite/render/report.css",
        "dearlite/offline/evaluation/suites.toml",
        "dearlite/export/data/calibration.jsonl",
        "dearlite/export/data/noveleval/qrels.tsv",
    }
    assert data <= names


def built(root, mode):
    """The archives of `root`, whose files have the permissions `mode`: the wheel and the sdist."""
    for file in root.rglob("*"):
        file.chmod(mode | (0o111 & (mode >> 2)) if file.is_dir() else mode)
        os.utime(file, (mode * 1e6, mode * 1e6))
    code = "from setuptools import build_meta as b; b.build_sdist('out'); b.build_wheel('out')"
    environment = {name: value for name, value in os.environ.items() if name != "SOURCE_DATE_EPOCH"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,), (sdist,) = (root / "out").glob("*.whl"), (root / "out").glob("*.tar.gz")
    return wheel, sdist


@pytest.fixture(scope="module")
def builds(tmp_path_factory):
    """Two builds of the same files, in folders of other names, with other times and permissions."""
    folder = tmp_path_factory.mktemp("builds")
    return [built(copy_of_the_checkout(folder / name), mode) for name, mode in [("one", 0o644), ("other", 0o600)]]


def test_two_builds_in_two_folders_are_the_same_bytes(builds):
    (wheel, sdist), (other_wheel, other_sdist) = builds
    assert wheel.read_bytes() == other_wheel.read_bytes()
    assert sdist.read_bytes() == other_sdist.read_bytes()
    with tarfile.open(sdist) as archive:
        members = archive.getmembers()
    assert {(member.uid, member.uname, member.mode) for member in members} == {(0, "", 0o644)}


@pytest.fixture(scope="module")
def materials(builds):
    """The bill of materials in the wheel, and the SHA-256 of each file beside it."""
    with zipfile.ZipFile(builds[0][0]) as wheel:
        hashes = {name: sha256(wheel.read(name)).hexdigest() for name in wheel.namelist()}
        (name,) = [name for name in hashes if name.endswith(".dist-info/sboms/dearlite.cdx.json")]
        return json.loads(wheel.read(name)), hashes


def test_the_bill_of_materials_has_the_hash_of_every_file_of_others(materials):
    bill, hashes = materials
    files = [file for part in bill["components"] for file in part.get("components", [])]
    assert all(hashes[file["name"]] == file["hashes"][0]["content"] for file in files)
    noticed = {
        path.rstrip("/") for path in re.findall(r"(?:dearlite|export)/data/[\w./-]+", (ROOT / "NOTICE").read_text())
    }
    shipped = {path if path.startswith("dearlite") else f"dearlite/{path}" for path in noticed}
    assert {name for name in hashes if any(name.startswith(path) for path in shipped)} == {
        file["name"] for file in files
    }
    assert len(files) > 3


def test_the_bill_of_materials_has_every_package_that_is_asked_for(materials):
    bill, _ = materials
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    requirements = {*project["dependencies"], *chain.from_iterable(project["optional-dependencies"].values())}
    asked = [value for part in bill["components"] for value in part.get("properties", [])]
    assert {row["value"] for row in asked} == {text for text in requirements if not text.startswith("dearlite[")}
    numpy = next(part for part in bill["components"] if part["name"] == "numpy")
    assert (numpy["scope"], numpy["purl"]) == ("required", "pkg:pypi/numpy")
    assert next(part for part in bill["components"] if part["name"] == "torch")["scope"] == "optional"
    (this,) = bill["dependencies"]
    assert this["ref"] == bill["metadata"]["component"]["bom-ref"]
    assert set(this["dependsOn"]) == {part["bom-ref"] for part in bill["components"] if part["type"] == "library"}
