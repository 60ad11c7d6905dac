"""The package's version, read inside the package and by setuptools."""

__version__ = "0.1.0"
