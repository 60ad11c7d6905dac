"""Packages and models.toml; all else is declared in pyproject.toml.

The list of packages is computed: `dearlite.export` lies beside `dearlite/`, in a folder of its own, and a list written
by hand would leave a new folder out of the wheel in silence. The link dearlite/export leads editors and type checkers
to that folder; installing does not need it, and a checkout on Windows may have a plain file in its place.
"""

import sys
from pathlib import Path
from shutil import copyfile

if sys.version_info < (3, 11):  # noqa: UP036  # pip would find out only after it has downloaded every dependency
    sys.exit("dearlite needs Python 3.11 or later, and this is Python {}.{}".format(*sys.version_info))

from setuptools import find_packages, setup  # below the refusal: a new environment of Python 3.12 has none
from setuptools.command.build_py import build_py


class BuildWithModels(build_py):
    """Copies models.toml beside the modules; an editable install reads it where it stands."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            copyfile("models.toml", Path(self.build_lib) / "dearlite" / "models.toml")


packages = {
    *find_packages(include=["dearlite", "dearlite.*"]),
    "dearlite.export",
    *(f"dearlite.export.{package}" for package in find_packages("export")),
}
setup(
    packages=sorted(packages),
    package_dir={"dearlite.export": "export"},
    cmdclass={"build_py": BuildWithModels},
)
