"""Runs dearlite with the aarch64 wheels on emulated Arm CPUs, and compares its scores with this machine's and fp32's.

    python benchmarks/portability/arm.py [--folder build/arm] [--documents 3] [--cpus cortex-a53,cortex-a76,max]

The first run installs (arm_setup.py), later ones only check. DEARLITE_ARM, or --folder, names the folder of the
installation. It needs Debian, and the packages of `.[cpu,export]` on this side. An emulated CPU is about 100 times as
slow: a document takes some 15 seconds.

ONNX Runtime's sums on the emulated CPU must be the exact ones for the model file's own int8 weights and for adversarial
limited ones (products.py); those with 127 or -128 throughout are reported. Scores may differ between the Arm and the
x86 build by rounding steps of activations (docs/speed.md).
"""

from __future__ import annotations

import os
from pathlib import Path

from arm_setup import install
from checks import ROOT
from emulated import Emulated, arguments, run_checks

# CPU model of qemu -> its instructions for products of 8-bit integers
CPUS = {
    "cortex-a53": "none",
    "cortex-a72": "none",
    "cortex-a76": "dotprod",
    "neoverse-n1": "dotprod",
    "neoverse-n2": "dotprod, i8mm",
    "max": "dotprod, i8mm, SVE, SME",
}


def main() -> None:
    """Installs where needed, and runs the checks."""
    options = arguments(CPUS, Path(os.environ.get("DEARLITE_ARM", str(ROOT / "build" / "arm"))), __doc__)
    emulator = install(options.folder)
    machines = [Emulated(cpu, *emulator.command(cpu)) for cpu in options.cpus.split(",")]
    run_checks(machines, CPUS, options, emulator.version)


if __name__ == "__main__":
    main()
