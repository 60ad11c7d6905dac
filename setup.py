"""All is declared in pyproject.toml but one thing: models.toml, which stands at the top level, goes into the wheel."""

from pathlib import Path
from shutil import copyfile

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithModels(build_py):
    """Copies models.toml beside the modules; an editable install reads it where it stands."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            copyfile("models.toml", Path(self.build_lib) / "dearlite" / "models.toml")


setup(cmdclass={"build_py": BuildWithModels})
