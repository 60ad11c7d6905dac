"""A command that is stopped in the middle of its work, wherever that is on this machine: it says when it is there."""

import os
import subprocess
import sys

_CODE = """
import os, sys
from importlib import import_module
from dearlite.cli.main import run
descriptor, module, owner, name = int(sys.argv[1]), *sys.argv[2:5]
kind = getattr(import_module(module), owner)
real = getattr(kind, name)
def noted(*args, **options):
    os.write(descriptor, b".")
    return real(*args, **options)
setattr(kind, name, noted)
run(sys.argv[5:])
"""


def start_until(method, arguments, **options):
    """The process of a dearlite command that has called `method`, (module, class, name); `options` are those of Popen.

    Its output is captured as text.
    """
    reading, writing = os.pipe()
    with open(reading, "rb") as called:
        process = subprocess.Popen(
            [sys.executable, "-c", _CODE, str(writing), *method, *map(str, arguments)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, pass_fds=[writing], **options,
        )  # fmt: skip
        os.close(writing)
        assert called.read(1), f"it ended before its work: {process.communicate()}"
    return process
