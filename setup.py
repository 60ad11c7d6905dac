"""Packages, models.toml, and archives that are the same bytes anywhere; pyproject.toml declares the rest.

The list of packages is computed: `dearlite.export` lies beside `dearlite/`, in a folder of its own, and a list written
by hand would leave a new folder out of the wheel in silence. The link dearlite/export leads editors and type checkers
to that folder; installing does not need it, and a checkout on Windows may have a plain file in its place.

The wheel carries its bill of materials (CycloneDX 1.6) where PEP 770 puts it. Times of files, their owners, and the
user's umask are left out of both archives; `SOURCE_DATE_EPOCH` is the time of everything in them.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036  # pip would find out only after it has downloaded every dependency
    sys.exit("dearlite needs Python 3.11 or later, and this is Python {}.{}".format(*sys.version_info))

import gzip
import json
import os
import re
import tarfile
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from shutil import copyfile
from typing import Any

from setuptools import find_packages, setup  # below the refusal: a new environment of Python 3.12 has none
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

PROJECT = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
EPOCH = int(os.environ.setdefault("SOURCE_DATE_EPOCH", "1577836800"))  # 2020-01-01; .ci/release has the commit's time


class BuildWithModels(build_py):
    """Copies models.toml beside the modules; an editable install reads it where it stands."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            copyfile("models.toml", Path(self.build_lib) / "dearlite" / "models.toml")


class WheelWithMaterials(bdist_wheel):
    """Adds the bill of materials, and gives every file the mode of a checkout with the umask 022."""

    def write_wheelfile(self, wheelfile_base: str, *args: Any, **options: Any) -> None:
        super().write_wheelfile(wheelfile_base, *args, **options)
        materials = Path(wheelfile_base) / "sboms" / "dearlite.cdx.json"
        materials.parent.mkdir()
        text = json.dumps(bill_of_materials(Path(self.bdist_dir), self.distribution), indent=2)
        materials.write_text(text + "\n", encoding="utf-8", newline="\n")
        for path in Path(self.bdist_dir).rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)


class PlainSdist(sdist):
    """Writes the archive in the order of names, with one time, and no owner."""

    def make_archive(self, base_name: str, format: str, root_dir: Any = None, base_dir: Any = None, **_: Any) -> str:
        if format != "gztar":
            sys.exit(f"an sdist is a .tar.gz, and no {format}: leave out --formats")
        archive = f"{base_name}.tar.gz"
        members = [path for path in sorted(Path(base_dir).rglob("*")) if not path.is_dir()]
        with (
            open(archive, "wb") as file,
            gzip.GzipFile("", "wb", fileobj=file, mtime=EPOCH) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
        ):
            for path in members:
                tar.add(path, path.as_posix(), filter=without_owner)
        return archive


def without_owner(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """The member as anyone would have it."""
    member.mtime, member.mode = EPOCH, 0o644
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def bill_of_materials(root: Path, distribution: Any) -> dict[str, Any]:
    """CycloneDX 1.6: the package, the foreign data in it with their hashes, and the packages that it asks for."""
    name, version = distribution.get_name(), distribution.get_version()
    this = f"pkg:pypi/{name}@{version}"
    packages = list(required_packages())
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": datetime.fromtimestamp(EPOCH, UTC).isoformat(),
            "lifecycles": [{"phase": "build"}],
            "authors": PROJECT["project"]["authors"],
            "component": {
                "type": "library",
                "bom-ref": this,
                "name": name,
                "version": version,
                "licenses": [{"license": {"id": PROJECT["project"]["license"]}}],
                "purl": this,
            },
        },
        "components": [*carried_data(root), *packages],
        "dependencies": [{"ref": this, "dependsOn": [package["bom-ref"] for package in packages]}],
    }


def carried_data(root: Path) -> Iterator[dict[str, Any]]:
    """A component for each row of `tool.dearlite.carried`, with the files of the wheel that it is made of."""
    for row in PROJECT["tool"]["dearlite"]["carried"]:
        paths = sorted(path for pattern in row["files"] for path in root.glob(pattern) if path.is_file())
        files = [
            {
                "type": "file",
                "name": path.relative_to(root).as_posix(),
                "hashes": [{"alg": "SHA-256", "content": sha256(path.read_bytes()).hexdigest()}],
            }
            for path in paths
        ]
        if files:
            yield {
                "type": row["type"],
                "name": row["name"],
                "supplier": {"name": row["supplier"]},
                "licenses": [{"license": {"id": row["license"]}}],
                "components": files,
            }


def required_packages() -> Iterator[dict[str, Any]]:
    """A component for each package that the base or an extra asks for; what it asks for is a property."""
    project = PROJECT["project"]
    asked: dict[str, set[tuple[str, str]]] = {}
    for extra, requirements in {"": project["dependencies"], **project["optional-dependencies"]}.items():
        for requirement in requirements:
            written = re.split(r"[\s\[<>=!~;]", requirement, maxsplit=1)[0]
            package = re.sub(r"[-_.]+", "-", written).lower()
            if package != "dearlite":
                asked.setdefault(package, set()).add((extra, requirement))
    for package, reasons in sorted(asked.items()):
        yield {
            "type": "library",
            "bom-ref": f"pkg:pypi/{package}",
            "name": package,
            "scope": "required" if any(not extra for extra, _ in reasons) else "optional",
            "purl": f"pkg:pypi/{package}",
            "properties": [
                {"name": f"dearlite:{f'extra:{extra}' if extra else 'base'}", "value": requirement}
                for extra, requirement in sorted(reasons)
            ],
        }


packages = {
    *find_packages(include=["dearlite", "dearlite.*"]),
    "dearlite.export",
    *(f"dearlite.export.{package}" for package in find_packages("export")),
}
setup(
    packages=sorted(packages),
    package_dir={"dearlite.export": "export"},
    cmdclass={"build_py": BuildWithModels, "bdist_wheel": WheelWithMaterials, "sdist": PlainSdist},
)
