"""Skips a test module where no package of llama.cpp is installed."""

import pytest

from dearlite.errors import MissingExtra
from dearlite.llama.bindings import installed_engine


def need_llama() -> None:
    """Skips the calling test, or its whole module when called at import."""
    try:
        installed_engine()
    except MissingExtra as err:
        pytest.skip(str(err), allow_module_level=True)
