"""Commands that are disturbed at work: their inputs, an undisturbed run, and the checks of what a disturbance left.

    with work("batch", folder) as command:
        command.open(episode)
        command.start(episode).send_signal(signal.SIGKILL)
        command.check(episode, set())  # nothing half-written, nothing lost
        command.finish(episode)     # the same command again: the bytes of an undisturbed run, and nothing else is left

Each episode is a folder of its own, whose `tmp` is the command's folder of temporary files.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from started import Started, Starter, recorded_modules

ROOT = Path(__file__).parents[2]
NOVELEVAL = ROOT / "export" / "data" / "noveleval"
OLD = b"the file of an earlier run\n"
MAKER = "maker/tiny-reranker-GGUF"
_STATES = re.compile(r"\.draft$|\.incomplete$|\.journal$|checkpoint-|\.lock$|cache\.db|settings\.json$")


class Fault(AssertionError):
    """What a disturbance should not have done."""


@dataclass
class Work:
    """A command with its inputs. `arguments`, `outputs` and `promised` are functions of the episode's folder."""

    name: str
    arguments: Callable[[Path], list[str]]
    outputs: Callable[[Path], list[Path]]
    promised: Callable[[Path], set[Any]] = lambda _: set()  # what no disturbance may take away
    prepare: Callable[[Path], None] = lambda _: None
    environment: Callable[[Path], dict[str, str]] = lambda _: {}
    expected: list[bytes] = field(default_factory=list)
    listing: set[str] = field(default_factory=set)
    seconds: float = 0.0  # of the undisturbed run

    @contextmanager
    def undisturbed(self, episode: Path) -> Iterator[None]:
        """Runs the command twice: its bytes, the names that it leaves, its time. Within the block it can be started."""
        self.open(episode)
        variables = self._variables(episode)
        modules = recorded_modules(self.arguments(episode), episode, variables, episode.with_suffix(".modules"))
        shutil.rmtree(episode)
        with Starter(modules) as self._starter:
            self.open(episode)
            start = time.perf_counter()
            self._run(episode)
            self.seconds = time.perf_counter() - start
            self.expected = [path.read_bytes() for path in self.outputs(episode)]
            self.listing = names_in(episode)
            assert all(self.expected), self.name
            shutil.rmtree(episode)
            yield

    def open(self, episode: Path) -> None:
        """Makes the folder of an episode."""
        (episode / "tmp").mkdir(parents=True)
        self.prepare(episode)

    def start(self, episode: Path, limits: Collection[tuple[int, int]] = ()) -> Started:
        """The running command."""
        return self._starter.start(self.arguments(episode), episode, self._variables(episode), limits)

    def phase(self, episode: Path) -> str:
        """How far the command has come, by its files: "no file yet", "files in progress" or "written"."""
        if all(map(_is_new, self.outputs(episode))):
            return "written"
        return "files in progress" if any(_STATES.search(name) for name in names_in(episode)) else "no file yet"

    def check(self, episode: Path, before: set[Any]) -> set[Any]:
        """What is promised now. Raises Fault for an output that is neither whole nor absent, and for what is lost."""
        for path, whole in zip(self.outputs(episode), self.expected, strict=True):
            if path.exists() and path.read_bytes() not in (whole, OLD):
                raise Fault(f"half-written: {path.name}, {path.stat().st_size} bytes")
        now = self.promised(episode)
        if not before <= now:
            raise Fault(f"lost: {sorted(map(str, before - now))[:3]}")
        return now

    def finish(self, episode: Path) -> None:
        """Runs the command undisturbed in the folder of a disturbed one. Raises Fault."""
        self._run(episode)
        for path, whole in zip(self.outputs(episode), self.expected, strict=True):
            if not path.exists() or path.read_bytes() != whole:
                raise Fault(f"other bytes than of an undisturbed run: {path.name}")
        if (names := names_in(episode)) != self.listing:
            raise Fault(f"left: {sorted(names - self.listing)}, absent: {sorted(self.listing - names)}")

    def _variables(self, episode: Path) -> dict[str, str]:
        return {"TMPDIR": str(episode / "tmp"), **self.environment(episode)}

    def _run(self, episode: Path) -> None:
        process = self.start(episode)
        if process.wait():
            raise Fault(f"the same command did not go on: exit {process.returncode}, {process.err().strip()[-500:]}")


def names_in(episode: Path) -> set[str]:
    """Paths of all files and folders of an episode, without the empty trial files of huggingface_hub."""
    root = len(str(episode)) + 1
    paths = {f"{folder}/{name}"[root:] for folder, folders, files in os.walk(episode) for name in folders + files}
    return {path for path in paths if not re.search(r"^hf/hub/(.*/)?tmp[^/]*(/dummy_file_(src|dst))?$", path)}


def _is_new(path: Path) -> bool:
    return path.exists() and path.read_bytes() != OLD


@contextmanager
def work(name: str, root: Path) -> Iterator[Work]:
    """The command `name`, a key of WORKS, with inputs in `root`; its undisturbed run has been made."""
    inputs = root / f"{name}-inputs"
    inputs.mkdir(parents=True)
    with WORKS[name](inputs) as made, made.undisturbed(root / f"{name}-undisturbed"):
        yield made


@contextmanager
def _rerank(inputs: Path) -> Iterator[Work]:
    model = _tiny(inputs)
    with open(inputs / "documents.jsonl", "w", encoding="utf-8") as stream:
        for number in range(400):
            stream.write(json.dumps({"id": number, "text": f"document {number} of rivers and valleys " * 8}) + "\n")
    yield Work(
        "rerank",
        lambda folder: [
            "rerank", "-q", "rivers", str(inputs / "documents.jsonl"), "-m", str(model),
            "-o", str(folder / "out.jsonl.gz"),
        ],
        lambda folder: [folder / "out.jsonl.gz"],
        prepare=lambda folder: (folder / "out.jsonl.gz").write_bytes(OLD) and None,
    )  # fmt: skip


@contextmanager
def _batch(inputs: Path) -> Iterator[Work]:
    model = _tiny(inputs)
    yield Work(
        "batch",
        lambda folder: [
            "batch", str(NOVELEVAL), "--run", "run_bm25.trec", "--depth", "20", "-m", str(model),
            "--cache", str(folder / "cache.db"), "-o", str(folder / "out.trec"),
        ],
        lambda folder: [folder / "out.trec"],
        lambda folder: journal_entries(folder / "out.trec.journal"),
        prepare=lambda folder: (folder / "out.trec").write_bytes(OLD) and None,
    )  # fmt: skip


@contextmanager
def _export(inputs: Path) -> Iterator[Work]:
    import tiny_decoders

    tiny_decoders.checkpoint(inputs, "llama, 4 heads of 4, 10000")
    tiny_decoders.tokenizer(inputs)
    yield Work(
        "export",
        lambda folder: ["export", str(inputs), "--no-card", "--force", "-o", str(folder / "scorer.dear")],
        lambda folder: [folder / "scorer.dear"],
        prepare=lambda folder: (folder / "scorer.dear").write_bytes(OLD) and None,
    )


@contextmanager
def _get(inputs: Path) -> Iterator[Work]:
    from fake_hub import FakeHub

    repository = inputs / MAKER
    repository.mkdir(parents=True)
    _write_gguf(repository / "tiny.gguf")
    with FakeHub(inputs) as hub:
        hub.pace_s = 0.03

        def prepare(folder: Path) -> None:
            (folder / "home").mkdir()
            (folder / "home" / "models.toml").write_text(_ENTRY, encoding="utf-8")

        yield Work(
            "models get",
            lambda _: ["models", "get", "tiny"],
            lambda folder: [folder / "home" / "models" / "tiny.gguf"],
            lambda folder: {path.name for path in (folder / "hf").rglob("blobs/*") if path.suffix != ".incomplete"},
            prepare,
            lambda folder: {
                "HF_HOME": str(folder / "hf"), "HF_ENDPOINT": hub.endpoint, "HF_HUB_DISABLE_XET": "1",
                "HF_HUB_DISABLE_PROGRESS_BARS": "1",
                "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "DEARLITE_HOME": str(folder / "home"),
            },
        )  # fmt: skip


@contextmanager
def _train(inputs: Path) -> Iterator[Work]:
    import tiny_decoders

    base = inputs / "base"
    base.mkdir()
    tiny_decoders.checkpoint(base, "llama, 4 heads of 4, 10000")
    tiny_decoders.tokenizer(base)
    tokenizer = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>", "bos_token": "<bos>"}
    (base / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    with open(inputs / "train.jsonl", "w", encoding="utf-8") as stream:
        for number in range(48):
            positive = {"docid": "p", "text": f"the bulb {number % 7 * 'a '}", "teacher_score": 3.0}
            negatives = [{"docid": f"n{n}", "text": f"tea {n * 'b '}", "teacher_score": -n} for n in range(4)]
            row = {"query_id": f"q{number}", "query": "who", "positives": [positive], "negatives": negatives}
            stream.write(json.dumps(row) + "\n")

    def prepare(folder: Path) -> None:
        lines = {
            "base": str(base), "data": [str(inputs / "train.jsonl")], "output": str(folder / "out"), "dtype": "fp32",
            "max_steps": 40, "passages": 4, "batch": 4, "log_steps": 1, "save_steps": 4, "threads": 1,
        }  # fmt: skip
        (folder / "train.toml").write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in lines.items()))

    yield Work(
        "train",
        lambda folder: ["train", "pointwise", str(folder / "train.toml")],
        lambda folder: [folder / "out" / "adapter_model.safetensors"],
        lambda folder: set(range(max((0, *_steps(folder / "out"))))),
        prepare,
    )


WORKS = {"rerank": _rerank, "batch": _batch, "export": _export, "models get": _get, "train": _train}


def journal_entries(path: Path) -> set[str]:
    """The complete lines of a journal, read without dearlite's own reader."""
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return {line.decode() for line in lines if int(line[:8], 16) == zlib.crc32(line[9:])}


def _steps(folder: Path) -> list[int]:
    """The steps of the checkpoints that were complete."""
    complete = []
    for path in folder.glob("checkpoint-*/trainer_state.json"):
        try:
            complete.append(json.loads(path.read_text())["global_step"])
        except ValueError:  # half-written
            continue
    return complete


def _tiny(inputs: Path) -> Path:
    from tiny_bundle import write_tiny_bundle

    path: Path = write_tiny_bundle(inputs / "tiny.dear")
    return path


def _write_gguf(path: Path) -> None:
    import gguf
    import numpy as np

    writer = gguf.GGUFWriter(path, "bert")
    writer.add_bool("bert.attention.causal", False)
    writer.add_tensor("blk.0.weight", np.random.default_rng(0).standard_normal((512, 1024)).astype(np.float32))
    writer.add_tensor("cls.output.weight", np.ones((1, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


_ENTRY = f"""
[tiny]
kind = "pointwise"
repository = "{MAKER}"
file = "tiny.gguf"
architecture = "bert"
prompt = "plain"
pooling = "first-token"
max_tokens = 64
licence = "MIT"
commercial = true
download_mb = 2
size_mb = 2
memory_mb = 3
"""
