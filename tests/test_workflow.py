"""GitHub's workflow runs what .ci/run runs, on the systems and Pythons that README's table names."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

yaml = pytest.importorskip("yaml", reason="pyyaml is not installed (extra train)")
ROOT = Path(__file__).parents[1]
WORKFLOW = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
JOBS = WORKFLOW["jobs"]
FOLDER = ROOT / ".github" / "workflows"


def commands(job):
    return [step["run"] for step in JOBS[job]["steps"] if "run" in step]


def test_linux_runs_the_whole_of_ci():
    assert commands("linux") == ["bash .ci/run"]
    assert JOBS["linux"]["strategy"]["matrix"]["python"][0] == PROJECT["requires-python"].removeprefix(">=")


def test_other_systems_run_the_tests_and_the_wheel_of_ci():
    matrix = JOBS["systems"]["strategy"]["matrix"]
    systems = {name.partition("-")[0] for name in [*matrix["os"], *(row["os"] for row in matrix["include"])]}
    assert systems == {"windows", "macos", "ubuntu"}
    assert matrix["python"] == JOBS["linux"]["strategy"]["matrix"]["python"]
    assert [command.split(" ${")[0] for command in commands("systems")] == [
        "python -m pip install",
        "python -m pytest",
        "bash .ci/wheel",
    ]
    assert "PYTHON=python .ci/wheel" in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()


def test_extras_of_the_workflow_exist():
    fixed, conditional = re.fullmatch(
        r"([\w,-]+)\$\{\{ .* && ',([\w-]+)' .*\}\}", JOBS["systems"]["env"]["EXTRAS"]
    ).groups()
    assert {*fixed.split(","), conditional} <= set(PROJECT["optional-dependencies"])


@pytest.mark.skipif(sys.platform == "win32", reason="bash on Windows may be that of a Linux subsystem")
@pytest.mark.parametrize("script", ["audit", "release", "run", "wheel"])
def test_scripts_of_ci_are_bash(script):
    file = ROOT / ".ci" / script
    assert os.access(file, os.X_OK)
    subprocess.run(["bash", "-n", str(file)], check=True)


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.yml")), ids=lambda file: file.name)
def test_actions_are_pinned_by_their_commit_and_rights_are_few(file):
    text = file.read_text(encoding="utf-8")
    uses = re.findall(r"uses: (.*)", text)
    assert uses
    assert [use for use in uses if not re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", use)] == []
    workflow = yaml.safe_load(text)
    assert "write" not in str(workflow["permissions"])
    rights = {(name, right) for name, job in workflow["jobs"].items() for right in job.get("permissions", {}).items()}
    writes = {(name, right) for name, (right, value) in rights if value == "write"}
    assert writes == ({("publish", "id-token")} if file.name == "release.yml" else set())
    checkouts = [s for job in workflow["jobs"].values() for s in job["steps"] if "checkout@" in s.get("uses", "")]
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)


@pytest.mark.parametrize("name", ["audit", "build", "check"])
def test_what_a_release_runs_is_pinned_by_hash(name):
    text = (ROOT / ".ci" / f"{name}.txt").read_text(encoding="utf-8")
    pins = re.split(r"\n(?=[a-z])", text)[1:]
    assert pins
    assert all(re.match(r"[a-z0-9-]+==\S+ .*\\\n(\s+--hash=sha256:[0-9a-f]{64}( \\)?\n?)+$", pin) for pin in pins)
    script = "audit" if name == "audit" else "release"
    assert "--require-hashes" in (ROOT / ".ci" / script).read_text(encoding="utf-8")
