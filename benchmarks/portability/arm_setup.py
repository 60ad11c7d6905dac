"""Installs qemu's user emulation, Debian's arm64 Python and dearlite's aarch64 wheels into a folder, on Debian.

The packages come from the Debian mirror of this machine's own apt sources, of the release RELEASE: older ones have no
qemu with Arm's matrix instructions. apt keeps all of its state in the folder, and nothing is installed on the machine.
"""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

RELEASE = "trixie"
PYTHON = "python3.13"
PACKAGES = [
    f"{PYTHON}-minimal",
    f"lib{PYTHON}-minimal",
    f"lib{PYTHON}-stdlib",
    "libc6",
    "libgcc-s1",
    "libstdc++6",
    "zlib1g",
    "libexpat1",
    "libbz2-1.0",
    "liblzma5",
    "libffi8",
    "libssl3t64",
    "libsqlite3-0",
    "libreadline8t64",
    "libncursesw6",
    "libtinfo6",
    "libuuid1",
    "libzstd1",
]
WHEELS = ["numpy", "onnxruntime", "tokenizers", "click", "rich", "platformdirs", "pygments", "markdown-it-py", "mdurl"]


@dataclass(frozen=True)
class Emulator:
    """An installation: qemu, the root folder of the arm64 system, and the folder of its Python packages."""

    qemu: Path
    root: Path
    site: Path

    @property
    def version(self) -> str:
        """The version of qemu."""
        out = subprocess.run([self.qemu, "--version"], capture_output=True, text=True, check=True).stdout
        return out.splitlines()[0]

    def command(self, cpu: str) -> tuple[list[str], dict[str, str]]:
        """Start of a command that runs Python on `cpu`, and its environment."""
        python = self.root / "usr" / "bin" / PYTHON
        environment = {
            "PYTHONHOME": str(self.root / "usr"),
            "PYTHONPATH": str(self.site),
            "PYTHONDONTWRITEBYTECODE": "1",
            "LANG": "C.UTF-8",
        }
        return [str(self.qemu), "-cpu", cpu, "-L", str(self.root), str(python)], os.environ | environment


def install(folder: Path) -> Emulator:
    """The installation in `folder`, which is made first where it is missing: about 350 MB."""
    emulator = Emulator(folder / "qemu" / "usr" / "bin" / "qemu-aarch64", folder / "root", folder / "site")
    if emulator.site.exists():
        return emulator
    install_qemu(folder)
    _unpack(_download(folder, "arm64", PACKAGES), emulator.root)
    if not (emulator.root / "lib").exists():
        (emulator.root / "lib").symlink_to("usr/lib")
    wheels = folder / "wheels"
    tags = [f"--platform=manylinux_2_{minor}_aarch64" for minor in (28, 27, 17)] + ["--platform=manylinux2014_aarch64"]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(wheels), *tags]
    subprocess.run(
        [*command, "--python-version", PYTHON.removeprefix("python"), "--only-binary=:all:", *WHEELS], check=True
    )
    unfinished = folder / "site.unfinished"
    for wheel in wheels.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(unfinished)
    unfinished.rename(emulator.site)  # last: it marks a complete installation
    return emulator


def install_qemu(folder: Path) -> Path:
    """The folder of qemu's user emulators in `folder`, which are downloaded first where they are missing."""
    programs = folder / "qemu" / "usr" / "bin"
    if not programs.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _unpack(_download(folder, "amd64", ["qemu-user"]), folder / "qemu")
    return programs


def _download(folder: Path, architecture: str, packages: list[str]) -> list[Path]:
    """Debian packages of RELEASE, downloaded by apt with its state in `folder`."""
    answer = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(SITE)"], capture_output=True, text=True, check=True
    )
    site = answer.stdout.split()[0]
    apt, target = folder / "apt" / architecture, folder / "debian" / architecture
    for path in (apt / "lists" / "partial", apt / "cache" / "archives" / "partial", target):
        path.mkdir(parents=True, exist_ok=True)
    (apt / "sources.list").write_text(f"deb {site} {RELEASE} main\n", encoding="ascii")
    (apt / "status").touch()
    settings = {
        "Dir::Etc::SourceList": apt / "sources.list",
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::State::Lists": apt / "lists",
        "Dir::State::Status": apt / "status",
        "Dir::Cache": apt / "cache",
        "APT::Architecture": architecture,
        "APT::Architectures": architecture,
        "APT::Sandbox::User": "",
    }
    options = [part for name, value in settings.items() for part in ("-o", f"{name}={value}")]
    subprocess.run(["apt-get", "-qq", *options, "update"], check=True)
    subprocess.run(["apt-get", "-qq", *options, "download", *packages], cwd=target, check=True)
    return sorted(target.glob("*.deb"))


def _unpack(packages: list[Path], target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for package in packages:
        subprocess.run(["dpkg-deb", "--extract", package, target], check=True)
