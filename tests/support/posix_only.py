"""Skips what a test needs of POSIX on systems that lack it: links, pipes with names, limits, signals, devices."""

import os

import pytest


def need_posix():
    """Skips the calling test on Windows."""
    if os.name != "posix":
        pytest.skip("needs links, named pipes, limits, signals or devices of POSIX")
