"""An evaluation as a figure in a file: a scatter of the values per query and their differences, for each other run.

The figure is SVG, drawn by the same code as the charts of the report, so that it needs no package; PNG is made from it
by resvg (extra `plot`).
"""

from __future__ import annotations

from html import escape
from importlib import resources

from dearlite.errors import LibraryNotLoaded, UsageError, need
from dearlite.files.targets import ending_of
from dearlite.files.writing import write_bytes, write_text
from dearlite.offline.evaluation.evaluation import Evaluation
from dearlite.render.charts import Bar, gain_chart, scatter_chart
from dearlite.render.snippet import plain

_WIDTH, _SIDE, _HEIGHT, _HEAD = 1120, 400, 400, 56  # of a row: the scatter, then the differences
_SCALE = 2  # pixels of the PNG per unit of the SVG
_MOST_RUNS = 20
ENDINGS = ("svg", "png")


def write_plot(evaluation: Evaluation, path: str) -> None:
    """Writes the figure to `path`, as PNG if its name ends in .png, otherwise as SVG; "-" is stdout.

    Raises UsageError if there is no other run, and the errors of `check_plot`.
    """
    svg = plot_svg(evaluation)
    if ending_of(path, ENDINGS, needed=True) == "png":
        write_bytes(path, _png(svg))
    else:
        write_text(path, svg)


def check_plot(path: str) -> None:
    """Raises an error, before any work, if a figure cannot be written to `path`.

    UsageError for another ending, MissingExtra for PNG without resvg, LibraryNotLoaded for PNG without fonts.
    """
    if ending_of(path, ENDINGS, remedy=", for --plot", needed=True) != "png":
        return
    text = '<svg xmlns="http://www.w3.org/2000/svg" width="20" height="20"><text y="16" font-size="16">{}</text></svg>'
    if _png(text.format("M")) == _png(text.format("")):
        raise LibraryNotLoaded(
            "a PNG takes its letters from the fonts of this system, which has none: install some (apt install "
            "fonts-dejavu-core), or write the plot as .svg"
        )


def plot_svg(evaluation: Evaluation) -> str:
    """The figure as an SVG file: a row for each run that the subject is compared with, in the main measure."""
    measure, subject = evaluation.main_measure, evaluation.subject
    others = [name for name in evaluation.per_query if name != subject]
    if not others:
        raise UsageError("a plot shows a run against others, and one run is measured: name another with --baseline")
    if len(others) > _MOST_RUNS:
        raise UsageError(f"a plot shows at most {_MOST_RUNS} other runs, and {len(others)} are measured: name fewer")
    parts = []
    for row, other in enumerate(others):
        theirs, ours = evaluation.per_query[other][measure], evaluation.per_query[subject][measure]
        labels = {query: plain(f"{query} {evaluation.queries.get(query, '')}").strip()[:160] for query in theirs}
        points = [(theirs[query], ours[query], labels[query]) for query in theirs]
        bars = [Bar(delta, labels[query]) for query, delta in evaluation.deltas(other, measure).items()]
        title = f"{measure} per query: {plain(subject)} against {plain(other)}"
        y = row * (_HEIGHT + _HEAD)
        parts.append(f'<text class="title" x="12" y="{y + 32}">{escape(title)}</text>')
        scatter = scatter_chart(points, title, across=plain(other), up=plain(subject))
        parts.append(_placed(scatter, 0, y + _HEAD, _SIDE, _HEIGHT))
        gains = gain_chart(bars, f"difference from {plain(other)}")
        parts.append(_placed(gains, _SIDE, y + _HEAD, _WIDTH - _SIDE, _HEIGHT))
    height = len(others) * (_HEIGHT + _HEAD)
    style = resources.files("dearlite.render").joinpath("plot.css").read_text(encoding="utf-8")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" viewBox="0 0 {_WIDTH} {height}">'
        f"<title>{escape(plain(evaluation.name))}</title><style>{style}</style>"
        f'<rect class="paper" width="{_WIDTH}" height="{height}"/>{"".join(parts)}</svg>\n'
    )


def _placed(svg: str, x: int, y: int, width: int, height: int) -> str:
    """A chart as a part of the figure."""
    return svg.replace("<svg ", f'<svg x="{x}" y="{y}" width="{width}" height="{height}" ', 1)


def _png(svg: str) -> bytes:
    return bytes(need("resvg_py", extra="plot").svg_to_bytes(svg_string=svg, zoom=_SCALE))
