"""What dearlite does under Windows: each function is one check, which returns its figures or raises CheckFailed."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from checks import EXAMPLE, here, hits_of, largest_difference, require

PYTHON = "C:\\Python\\python.exe"
TYPED = ("what does $OS cost", "what does %OS% cost", "~", "a?.txt", "*.jsonl", "~\\x [ab]")
CLOSED_PIPE = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-m", "dearlite", *sys.argv[1:]], stdin=subprocess.DEVNULL,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE)
child.stdout.close()
print(child.stderr.read().decode("utf-8"), end="", file=sys.stderr)
sys.exit(child.wait())
"""
HELD_FILE = """
import subprocess, sys
with open("held.jsonl", "w"):
    sys.exit(subprocess.run([sys.executable, "-m", "dearlite", *sys.argv[1:]], stdin=subprocess.DEVNULL).returncode)
"""


@dataclass(frozen=True)
class Finished:
    """A Windows process that has ended."""

    status: int
    output: bytes
    err: str

    @property
    def out(self) -> str:
        """Standard output for programs, which is UTF-8 on every system."""
        return self.output.decode("utf-8")


@dataclass(frozen=True)
class Windows:
    """Windows programs, started in `work`. All three streams are pipes: wine has no console here."""

    environment: dict[str, str]
    work: Path

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """A running process of a Windows program."""
        pipe = subprocess.PIPE
        return subprocess.Popen(
            ["wine", *arguments], cwd=self.work, env=self.environment, stdin=pipe, stdout=pipe, stderr=pipe
        )

    def call(self, *arguments: str) -> Finished:
        """The process of a Windows program after its end, without ONNX Runtime's line on graphics devices."""
        process = self.start(*arguments)
        out, err = process.communicate(b"", timeout=600)
        lines = [line for line in err.decode("cp1252").splitlines() if "DXGI" not in line]
        return Finished(process.returncode, out, "\n".join(lines))

    def dearlite(self, *arguments: str, status: int = 0) -> Finished:
        """`dearlite` with these arguments. Raises CheckFailed on a traceback or another exit status."""
        return checked(self.call(PYTHON, "-m", "dearlite", *arguments), status)

    def script(self, code: str, *arguments: str, status: int = 0) -> Finished:
        """A Python script with these arguments, checked in the same way."""
        return checked(self.call(PYTHON, "-c", code, *arguments), status)


def checked(done: Finished, status: int) -> Finished:
    """The same process. Raises CheckFailed on a traceback or another exit status."""
    last = done.err.strip().splitlines()[-1:] or ["nothing on stderr"]
    require("Traceback" not in done.err, f"a traceback that ends in {last[0]!r}")
    require(done.status == status, f"exit status {done.status}: {last[0]!r}")
    return done


def example_hits() -> list[tuple[str, float]]:
    """Ids and scores of the example on this machine."""
    return hits_of(here("rerank", *EXAMPLE, "--format", "jsonl"))


def same_as_here(hits: list[tuple[str, float]], expected: list[tuple[str, float]]) -> str:
    """Figures of a comparison with this machine's hits. Raises CheckFailed where they differ by more than rounding."""
    difference = largest_difference(hits, expected)
    require([key for key, _ in hits] == [key for key, _ in expected], "another order than on this machine")
    require(difference < 1e-4, f"scores differ by up to {difference:.6f}")
    return f"{len(hits)} hits in this machine's order, scores " + (
        f"within {difference:.1e}" if difference else "equal to its"
    )


def first_command(windows: Windows) -> str:
    """The README's first command through cmd, with its output in a file."""
    line = f"{PYTHON} -m dearlite rerank examples\\query.txt examples\\docs.jsonl > best.jsonl"
    checked(windows.call("cmd", "/c", line), 0)
    written = (windows.work / "best.jsonl").read_bytes()
    require(b"\r" not in written, "lines end in CR LF")
    return f"{same_as_here(hits_of(written.decode('utf-8')), example_hits())}; UTF-8, {written.count(10)} line feeds"


def read_again(windows: Windows) -> str:
    """The file of the first command is documents for another one."""
    done = windows.dearlite("rerank", "examples\\query.txt", "best.jsonl", "-k", "3", "--format", "jsonl")
    return same_as_here(hits_of(done.out), example_hits()[:3])


def table(windows: Windows) -> str:
    """The table through a pipe, in the code page, with stand-ins for the characters that it lacks."""
    arguments = ["examples\\query.txt", "examples\\docs.jsonl", "--format", "table", "-k", "3"]
    text = windows.dearlite("rerank", *arguments).output.decode("cp1252")
    here_ids = [key for key, _ in example_hits()]
    order = [word for word in re.findall(r"[\w-]+", text) if word in here_ids]
    require(order == here_ids[:3], f"{order} in place of {here_ids[:3]}: {text}")
    return f"{len(text.splitlines())} lines in cp1252, {', '.join(order)}"


def typed_queries(windows: Windows) -> str:
    """Text that cmd, a shell or click might expand."""
    for text in TYPED:
        done = windows.dearlite("rerank", "-q", text, "a1.txt", "--format", "json")
        query = json.loads(done.out)["query"]
        require(query == text, f"{text!r} became {query!r}")
    return ", ".join(repr(text) for text in TYPED) + " arrive as typed"


def closed_pipe(windows: Windows) -> str:
    """Commands whose reader is gone before they write."""
    endings = []
    for command in (
        ["rerank", "examples\\query.txt", "examples\\docs.jsonl", "--quiet"],
        ["batch", "few", "--no-journal", "--depth", "2", "--quiet"],
        ["models", "show", "minilm-l12"],
    ):
        done = windows.call(PYTHON, "-c", CLOSED_PIPE, *command)
        checked(done, done.status)
        require(len(done.err.splitlines()) <= 1, f"{command[0]} writes {done.err!r}")
        endings.append(f"{command[0]} ends with {done.status}" + (f" ({done.err.strip()})" if done.err.strip() else ""))
    return ", ".join(endings)


def unicode_paths(windows: Windows) -> str:
    """A model, a query, documents and an output under names beyond ASCII and the code page."""
    folder = windows.work / "modèle ☕"
    folder.mkdir()
    shutil.copy(windows.work / "own.dear", folder / "naïve.dear")
    shutil.copy(EXAMPLE[0], folder / "питання.txt")
    shutil.copy(EXAMPLE[1], folder / "文書.jsonl")
    inside = "modèle ☕\\"
    arguments = [
        inside + "питання.txt",
        inside + "文書.jsonl",
        "-m",
        inside + "naïve.dear",
        "-o",
        inside + "résultat.jsonl",
    ]
    windows.dearlite("rerank", *arguments)
    return same_as_here(hits_of((folder / "résultat.jsonl").read_text(encoding="utf-8")), example_hits())


def drive_letter(windows: Windows) -> str:
    """A stage with a drive letter and a depth."""
    stage = f"C:\\{windows.work.name}\\own.dear:10"
    arguments = ["rerank", "examples\\query.txt", "examples\\docs.jsonl", "--format", "jsonl"]
    hits = hits_of(windows.dearlite(*arguments, "-m", stage).out)
    expected = hits_of(here("rerank", *EXAMPLE, "-m", "minilm-l12:10", "--format", "jsonl"))
    return f"-m {stage}: {same_as_here(hits, expected)}"


def held_output(windows: Windows) -> str:
    """An output that another program holds open."""
    command = ["rerank", "-q", "edison", "a1.txt", "-o", "held.jsonl", "--quiet"]
    done = windows.script(HELD_FILE, *command, status=1)
    require(len(done.err.splitlines()) == 1, f"{len(done.err.splitlines())} lines: {done.err!r}")
    return done.err


def stopped_batch(windows: Windows) -> str:
    """A batch that is killed after some results, and the same command again; then once more."""
    process = windows.start(PYTHON, "-m", "dearlite", "batch", "few", "-o", "out.trec")
    journal = windows.work / "out.trec.journal"
    deadline = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < deadline:
        if journal.exists() and journal.read_bytes().count(b"\n") > 2:
            break
        time.sleep(0.05)
    require(process.poll() is None, "the batch had ended before it could be stopped")
    process.kill()
    process.communicate()
    require(not (windows.work / "out.trec").exists(), "a stopped batch left an output")
    again = windows.dearlite("batch", "few", "-o", "out.trec").err.splitlines()[-1]
    require("journal" in again, f"nothing was resumed: {again}")
    run = (windows.work / "out.trec").read_text(encoding="utf-8")
    expected = here("batch", windows.work / "few", "--no-journal", "--quiet")
    difference = same_as_here(run_scores(run), run_scores(expected))
    third = windows.dearlite("batch", "few", "-o", "out.trec").err.splitlines()[-1]
    require((windows.work / "out.trec").read_text(encoding="utf-8") == run, "the run from the journal is another one")
    resumed, complete = (line[line.rindex("(") + 1 : -1] for line in (again, third))
    return f"{difference}; killed, resumed with {resumed}, a third time with {complete}"


def run_scores(run: str) -> list[tuple[str, float]]:
    """Query with document, and score, of each line of a TREC run."""
    return [(f"{cells[0]} {cells[2]}", float(cells[4])) for cells in map(str.split, run.splitlines())]


def evaluation(windows: Windows) -> str:
    """`eval`, twice with one journal."""
    arguments = ["--csv", "-", "--quiet"]
    tables = [windows.dearlite("eval", "few", *arguments, "--journal", "eval.journal").out for _ in range(2)]
    tables.append(here("eval", windows.work / "few", *arguments, "--no-journal"))
    first, second, expected = (measures_of(table) for table in tables)
    require(first == second == expected, f"measures differ: {first}, {second}, {expected}")
    return (
        ", ".join(f"{name} {first[name]}" for name in ("nDCG@1", "nDCG@5", "nDCG@10")) + ", twice, as on this machine"
    )


def measures_of(table: str) -> dict[str, str]:
    """The reranked row of the CSV table of `eval`, without its times."""
    *_, row = csv.DictReader(table.splitlines())
    return {name: value for name, value in row.items() if "second" not in name}


def calibration(windows: Windows) -> str:
    """`models calibrate` onto the file that it reads, which Windows keeps while it is mapped."""
    file = windows.work / "own.dear"
    before = file.stat().st_size
    windows.dearlite("models", "calibrate", "own.dear", "few", "--split", "few", "-o", "own.dear")
    left = [path.name for path in windows.work.iterdir() if "own" in path.name]
    require(left == ["own.dear"], f"left behind: {left}")
    arguments = ["-m", "own.dear", "--format", "jsonl"]
    out = windows.dearlite("rerank", "examples\\query.txt", "examples\\docs.jsonl", *arguments).out
    relevance = json.loads(out.splitlines()[0])["relevance"]
    figures = same_as_here(hits_of(out), example_hits())
    return f"{before} bytes became {file.stat().st_size}; {figures}; relevance of the best {relevance:.3f}"


def doctor(windows: Windows) -> str:
    """`doctor` names the system, the threads and the engines."""
    out = windows.dearlite("doctor").out
    facts = dict(line.strip().split("  ", 1) for line in out.splitlines() if "  " in line.strip())
    return "; ".join(f"{name} {facts[name].strip()}" for name in ("system", "probe run", "threads", "package"))


def listwise(windows: Windows, gguf: Path) -> str:
    """A permutation and its scores by the prebuilt llama.cpp."""
    shutil.copy(gguf, windows.work / "list.gguf")
    arguments = ["-m", "list.gguf", "--passage-tokens", "30", "--format", "jsonl"]
    done = windows.dearlite("rerank", "examples\\query.txt", "examples\\docs.jsonl", *arguments)
    expected = json.dumps(sorted(key for key, _ in example_hits()))
    order = [json.loads(line)["id"] for line in done.out.splitlines()]
    require(json.dumps(sorted(order)) == expected, "no permutation of the documents")
    return f"{len(order)} documents, best {', '.join(order[:5])}; {done.err.splitlines()[0]}"
