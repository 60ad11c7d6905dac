"""Runs this machine's Python on emulated x86 CPUs without VNNI, and compares scores with this machine's and fp32's.

    python benchmarks/portability/x86.py [--folder build/arm] [--documents 3] [--cpus Haswell,Nehalem]

Needs an x86-64 Linux with qemu-x86_64, or Debian, where the first run installs it into the folder of arm.py
(arm_setup.py); and the packages of `.[cpu,export]`. The checks are those of arm.py. qemu has no VNNI and no AVX-512.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from arm_setup import install_qemu
from checks import ROOT
from emulated import Emulated, arguments, run_checks

# CPU model of qemu -> its instructions for products of 8-bit integers
CPUS = {
    "Haswell": "AVX2, sums of two products saturate",
    "EPYC": "AVX2 of AMD's Zen, likewise",
    "Nehalem": "SSE4.2",
}


def main() -> None:
    """Installs qemu where needed, and runs the checks."""
    options = arguments(CPUS, Path(os.environ.get("DEARLITE_ARM", str(ROOT / "build" / "arm"))), __doc__)
    options.folder.mkdir(parents=True, exist_ok=True)
    qemu = shutil.which("qemu-x86_64") or str(install_qemu(options.folder) / "qemu-x86_64")
    version = subprocess.run([qemu, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    machines = [Emulated(cpu, [qemu, "-cpu", cpu, sys.executable], environment) for cpu in options.cpus.split(",")]
    run_checks(machines, CPUS, options, version)


if __name__ == "__main__":
    main()
