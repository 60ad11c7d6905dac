"""Draws measurements of other scripts as PNG. Needs matplotlib (pip install matplotlib).

python benchmarks/draw.py loss training.json [more.json …] -o curve.png
python benchmarks/draw.py depth curves.json -o depth.png
python benchmarks/draw.py soak soak.json [more.json …] -o soak.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import LogLocator, NullFormatter


def draw_loss(files: list[Path], output: Path) -> None:
    """Plots the logged loss of each `training.json` over its steps; the legend has the first and the last value."""
    figure, axes = plt.subplots(figsize=(7, 4), dpi=120)
    for path in files:
        report = json.loads(path.read_text(encoding="utf-8"))
        curve = [(point["step"], point["loss"]) for point in report["curve"]]
        ends = f"{curve[0][1]:.2f} to {curve[-1][1]:.2f}"
        axes.plot(*zip(*curve, strict=True), marker=".", label=f"{path.parent.name}: {ends}")
    axes.set(xlabel="optimiser steps", ylabel="loss, mean of the steps since the last point", yscale="log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(output)


def draw_depth(files: list[Path], output: Path) -> None:
    """Plots nDCG@10 against documents scored (depth_curve.py), one row per chain; a ring marks the chosen margin."""
    report = json.loads(files[0].read_text(encoding="utf-8"))
    chains = report["chains"]
    columns = max(map(len, chains.values()))
    figure, grid = plt.subplots(
        len(chains), columns, figsize=(3.2 * columns, 3.2 * len(chains)), dpi=100, squeeze=False
    )
    for panels, (chain, splits) in zip(grid, chains.items(), strict=True):
        for axes, (name, curves) in zip(panels, splits.items(), strict=True):
            for kind, marker in (("fixed", "o"), ("adaptive", "s")):
                points = curves[kind]
                axes.plot([p["scored"] for p in points], [p["ndcg10"] for p in points], marker=marker, ms=3, label=kind)
            chosen = next(p for p in curves["adaptive"] if p["margin"] == report["margins"][chain])
            axes.plot(chosen["scored"], chosen["ndcg10"], "o", ms=11, mfc="none", mec="black")
            axes.set(title=name, xlabel="documents scored per query")
            axes.grid(alpha=0.3)
        panels[0].set_ylabel(f"{chain}\nnDCG@10")
    grid[0][0].legend()
    figure.tight_layout()
    figure.savefig(output)


def draw_soak(files: list[Path], output: Path) -> None:
    """Plots the samples of soak.py, a column per part: resident memory from 0 on; below, descriptors and threads."""
    parts: dict[str, list[dict[str, float]]] = {}
    for path in files:
        report = json.loads(path.read_text(encoding="utf-8"))
        parts |= {name: part["points"] for name, part in report["parts"].items() if name in SOAKED}
    figure, grid = plt.subplots(
        2, len(parts), figsize=(4 * len(parts), 4.5), dpi=90, squeeze=False, sharex="col", height_ratios=(3, 1)
    )
    for column, (name, points) in enumerate(parts.items()):
        done = [point["done"] for point in points]
        memory, counts = grid[0][column], grid[1][column]
        memory.plot(done, [point["rss_mb"] for point in points])
        memory.set(title=SOAKED[name].partition(", ")[0], ylim=(0, 1.25 * max(point["rss_mb"] for point in points)))
        for kind in ("descriptors", "threads"):
            counts.plot(done, [point[kind] for point in points], lw=0.8, label=kind)
        counts.set(xlabel=SOAKED[name].partition(", ")[2], ylim=(0, None))
        for axes in (memory, counts):
            axes.grid(alpha=0.3)
    grid[0][0].set_ylabel("resident memory, MB")
    grid[1][0].legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(output)


SOAKED = {
    "calls": "Python API, calls",
    "runs": "command line in one process, runs",
    "minutes": "dearlite serve, minutes",
}
KINDS = {"loss": draw_loss, "depth": draw_depth, "soak": draw_soak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=list(KINDS))
    parser.add_argument(
        "files", nargs="+", type=Path, help="training.json files, one file of depth_curve.py, or files of soak.py"
    )
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    KINDS[options.what](options.files, options.output)


if __name__ == "__main__":
    main()
